"""`Recognizer`: a trained model that predicts labels of audio.

    recognizer = ossicle.load("run-folder")
    recognizer.predict("recording.wav").top          # the best label and its score
    recognizer.predict((samples, 44_100)).rows       # which label when
    recognizer.predict(["a.wav", "b.wav"])           # a list gives a list

Windows, scores and rows are those of `Predictor`; this module computes the scores with torch.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.bundle import Bundle, Card, info_config, push_to_hub, read_card, relicensed, write_bundle
from ossicle.data import Item
from ossicle.data.cache import decode
from ossicle.devices import Precision, choose_device, choose_dtype
from ossicle.frontend import LogMel
from ossicle.inference import Prediction, Predictor, summarize
from ossicle.kernels import resolve_kernels, using_kernels
from ossicle.models.base import Network
from ossicle.models.tokens import TokenReduction
from ossicle.weights.tensors import load_into


class Recognizer(Predictor):
    """A network with its front end, labels and thresholds, ready to predict. Made by `ossicle.load`."""

    modality: str = "sound"
    folder: Path | None = None
    """The bundle that it was loaded from, if it lies in one."""
    reduction: TokenReduction | None = None

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        kernels: str = "auto",
        reduction: TokenReduction | None = None,
    ) -> None:
        if reduction is not None:
            if not bundle.model.reduces_tokens:
                raise ValueError(
                    f"{bundle.model_name} does not support fewer tokens; `ossicle models show` tells which "
                    "networks have"
                )
            reduction.merges(1, depth=len(bundle.model.stack()))  # refuses a fraction that the blocks cannot reach
        self.bundle = bundle
        self.reduction = reduction
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.kernels = resolve_kernels(kernels)
        self.model: Network = bundle.model.to(self.device).eval()
        self.frontend: LogMel = bundle.frontend.to(self.device).eval()

    @property
    def rate(self) -> int:
        """Sampling rate of the model in hertz; other recordings are resampled."""
        return self.frontend.rate

    @property
    def hertz(self) -> tuple[float, float]:
        """Lowest and highest frequency of the front end."""
        return self.frontend.config.min_hertz, self.frontend.config.max_hertz

    @property
    def min_samples(self) -> int:
        """Shortest input in samples; a shorter recording is padded with silence."""
        return self.frontend.min_samples

    @property
    def hop_feature_seconds(self) -> float | None:
        """Time resolution of a network with `hop_features`; None for others."""
        hop = self.model.hop_frames
        return None if hop is None else hop * self.frontend.config.hop_samples / self.rate

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its bundle."""
        bundle = self.bundle
        return info_config(
            task=bundle.task,
            labels=bundle.labels,
            window_seconds=bundle.window_seconds,
            hop_seconds=bundle.hop_seconds,
            pad=bundle.pad,
            thresholds=bundle.thresholds,
            temperature=bundle.temperature,
            weights_license=bundle.weights_license,
            model={"name": bundle.model_name, "options": self.model.options()},
            frontend=self.frontend.config.to_dict(),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights of its bundle, by name."""
        return self.model.state_dict()

    def take(self, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
        """Takes other weights of these names and shapes.

        Raises: WeightsRefused for tensors that do not fit; then nothing has changed.
        """
        load_into(self.model, tensors, source=source)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, card: Card | None = None, weights_license: str | None = None
    ) -> Path:
        """Saves it as a bundle, whose folder is replaced atomically, and returns the folder.

        Args:
            card: by default the one that it was loaded with
            weights_license: by default the one that it was loaded with

        Raises: RunRefused for a folder that has anything else.
        """
        path, config = Path(folder), self.config
        text: Card | str | None = card
        if card is None and self.folder is not None and (loaded := read_card(self.folder)):
            text = relicensed(loaded, weights_license) if weights_license else loaded
        config["weights_license"] = weights_license or config["weights_license"]
        self._write(path, config, card=text)
        return path

    def _write(self, folder: Path, config: dict[str, Any], *, card: Card | str | None) -> None:
        write_bundle(folder, config, self.tensors, card=card)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        card: Card | None = None,
        weights_license: str | None = None,
    ) -> str:
        """Uploads it to the Hugging Face Hub as `repository` ("user/name") and returns the address.

        Args:
            private: whether a new repository is visible to its owner alone
            card: by default the one that it was loaded with
            weights_license: of the weights, needed if its bundle has none; "unknown" is an answer

        Raises:
            SettingRefused: no license
            BundleRefused: the Hub refuses the upload
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "bundle", card=card, weights_license=weights_license)
            return push_to_hub(folder, repository, private=private)

    def moved(self, device: torch.device) -> None:
        """Computes on this device from now on, to which its `parts` have been moved."""
        self.device = device

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """What computes the logits, on `device`."""
        return self.model, self.frontend

    def __repr__(self) -> str:
        return (
            f"Recognizer({self.bundle.model_name}, {len(self.labels)} labels, {self.task}, {self.rate} Hz, "
            f"window {self.bundle.window_seconds:g} s, {self.device})"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Precision, kernels and token reduction: everything besides the bundle that the scores depend on."""
        fewer = None if self.reduction is None else dataclasses.asdict(self.reduction)
        return {"precision": str(self.dtype).removeprefix("torch."), "kernels": str(self.kernels), "reduction": fewer}

    def predict_item(self, item: Item, **options: Any) -> Prediction:
        """Predicts the file of an item; for the options see `predict`."""
        return self.predict(item.file, **options)

    def item_logits(self, item: Item) -> Float[np.ndarray, " label"]:
        """Gives the logits of one item of a data set, before temperature and softmax or sigmoid."""
        return summarize(self.score_windows((decode(item, self.rate), self.rate)).scores, task=self.task)

    def scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window label"]:
        """Gives the logits of windows of one length at `rate`."""
        return self.outputs(windows)[0]

    def features(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window dim"]:
        """Gives the features before the head of windows of one length at `rate`."""
        return self.outputs(windows)[1]

    @torch.inference_mode()
    def hop_scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window hop label"]:
        """Gives the logits of every hop of windows of one length at `rate`."""
        spec = self.spectrogram(windows)
        with self._arithmetic():
            hops = self.model.forward_features(spec).hop_features
            logits = self.model.head(hops)
        return logits.float().cpu().numpy()

    @torch.inference_mode()
    def spectrogram(self, windows: Float32[np.ndarray, "window time"]) -> Float32[Tensor, "window mel frame"]:
        """Gives the log-mel features of windows of one length at `rate`."""
        waves = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        frames = self.frontend.frames(self.window_samples()[0]) if self.bundle.pad else None
        return self.frontend(waves, frames=frames)

    @torch.inference_mode()
    def outputs(
        self, windows: Float32[np.ndarray, "window time"]
    ) -> tuple[Float32[np.ndarray, "window label"], Float32[np.ndarray, "window dim"]]:
        """Gives the logits and the features before the head of windows of one length at `rate`, in one pass."""
        spec = self.spectrogram(windows)
        fewer = {} if self.reduction is None else {"reduction": self.reduction}
        with self._arithmetic():
            out = self.model.forward_features(spec, **fewer)
        return out.logits.float().cpu().numpy(), out.features.float().cpu().numpy()

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        half = torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with using_kernels(self.kernels), half:
            yield
