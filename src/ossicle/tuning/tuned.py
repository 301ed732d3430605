"""A head on a frozen encoder: saving, loading and prediction.

The bundle contains the head and, if there is one, the tuner inside the encoder. Of the encoder it has only the name,
settings and a fingerprint, so it is small, and another encoder is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.bundle import CONFIG, WEIGHTS, Card, info_config, open_bundle, write_bundle
from ossicle.data import Item, Modality, modality_of
from ossicle.devices import Precision, choose_device, choose_dtype
from ossicle.encoders import Encoder, Hidden, load_encoder
from ossicle.encoders.cache import Pool
from ossicle.encoders.hidden import HIDDEN_STATES
from ossicle.encoders.ours import BundleEncoder
from ossicle.errors import BundleRefused, SettingRefused, WeightsRefused
from ossicle.inference import ModelInfo, Prediction, Reporting, WindowScores
from ossicle.kernels import resolve_kernels
from ossicle.recognizer import Recognizer
from ossicle.tuning.heads import HEADS, Head, create_head
from ossicle.tuning.tuners import Tuner, create_tuner
from ossicle.weights.tensors import load_into


class TunedHead(nn.Module):
    """Hidden states to logits: pooling over time, standardization, the head.

    Args:
        pool: mean over time, or statistics: the mean followed by the deviation; "time" for heads that take time.
        layers: numbers of the encoder's layers in its input, from 1, ascending.
        dim: of the encoder.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, name: str, *, layers: Sequence[int], dim: int, pool: Pool, num_classes: int, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.layers, self.encoder_dim = tuple(layers), dim
        self.pool: Pool = "time" if name in HEADS and HEADS[name].takes_time else pool
        width = 2 * dim if self.pool == "statistics" else dim
        self.name, self.options = name, dict(options)
        self._sizes = {"layers": len(self.layers), "dim": width, "num_classes": num_classes}
        self.head: Head = self.anew()
        self.register_buffer("mean", torch.zeros(len(self.layers), width))
        self.register_buffer("deviation", torch.ones(len(self.layers), width))

    def anew(self) -> Head:
        """A new head of the same kind with initial weights, which are not random in a density."""
        return create_head(self.name, **self._sizes, options=self.options)

    def forward(self, hidden: Hidden) -> Float[Tensor, "clip label"]:
        """Logits from all hidden states of an encoder, from its first layer on."""
        return self.score(self.pooled(hidden))

    def pooled(self, hidden: Hidden) -> Hidden:
        """The input layers of the head, pooled over time."""
        return pool_time(self.chosen(hidden), self.pool)

    def chosen(self, hidden: Hidden) -> Hidden:
        """The input layers of the head."""
        if self.layers == tuple(range(1, hidden.features.shape[1] + 1)):
            return hidden
        return Hidden(features=hidden.features[:, [number - 1 for number in self.layers]], mask=hidden.mask)

    def score(self, hidden: Hidden) -> Float[Tensor, "clip label"]:
        """Logits from the output of `pooled`."""
        x = self.standardized(hidden)
        return self.head(x, hidden.mask.to(x.device)) if self.head.takes_time else self.head(x[:, :, 0])

    def standardized(self, hidden: Hidden) -> Float[Tensor, "clip layer time dim"]:
        """The standardized input features of the head."""
        return (hidden.features.to(self.mean.device) - self.mean[:, None]) / self.deviation[:, None]


def pool_time(hidden: Hidden, pool: Pool) -> Hidden:
    """One frame of the mean over time without padding, or of mean and deviation; or all frames, for "time"."""
    if pool == "time":
        return hidden
    mask = hidden.mask[:, None, :, None]
    mean = hidden.mean()
    parts = [mean]
    if pool == "statistics":
        apart = torch.where(mask, hidden.features - mean[:, :, None], 0)
        # The square root has no gradient at zero, the variance of a single frame.
        parts.append((apart.square().sum(2) / mask.sum(2) + 1e-12).sqrt())
    return Hidden(features=torch.cat(parts, -1)[:, :, None], mask=hidden.mask.any(1, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class Tuned(ModelInfo):
    """A loaded head with its encoder and tuner, in evaluation mode."""

    encoder: Encoder
    model: TunedHead
    tuner: Tuner | None
    config: Mapping[str, Any]
    """As it was read."""


def save_tuned(
    folder: Path,
    *,
    encoder: Encoder,
    model: TunedHead,
    tuner: Tuner | None = None,
    tuner_options: Mapping[str, Any] | None = None,
    card: Card | None = None,
    **info: Any,
) -> None:
    """Writes the bundle of a head; see `info_config` for `info`."""
    config = info_config(
        **info,
        encoder={
            "name": place_of(encoder),
            "crop": bool(encoder.settings.get("crop", False)),
            "modality": encoder.modality,
            "settings": encoder_settings(encoder),
            "fingerprint": encoder.fingerprint,
        },
        head={"name": model.name, "options": model.options},
        tuner={"name": tuner.name if tuner else "", "options": dict(tuner_options or {})},
        features={"pool": model.pool, "layers": list(model.layers), "dim": model.encoder_dim},
    )
    write_bundle(folder, config, tuned_tensors(model, tuner), card=card)


def place_of(encoder: Encoder) -> str:
    """Where an encoder was loaded from: an absolute path, or the name of one that lies elsewhere."""
    return str(Path(encoder.name).resolve()) if Path(encoder.name).exists() else encoder.name


def tuned_tensors(model: TunedHead, tuner: Tuner | None) -> dict[str, Tensor]:
    """The tensors of the bundle of a head, by name."""
    parts: dict[str, Any] = {"head": model} if tuner is None else {"head": model, "tuner": tuner}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def encoder_settings(encoder: Encoder) -> dict[str, Any]:
    """Everything besides the weights that the features depend on, as JSON values."""
    settings: dict[str, Any] = json.loads(json.dumps({"hidden_states": HIDDEN_STATES, **encoder.settings}))
    return settings


def load_tuned(folder: Path, *, encoder: str | Path | None = None, local_files_only: bool = False) -> Tuned:
    """Reads the bundle of a head, and its encoder.

    Args:
        encoder: path of the encoder, if it has moved.

    Raises:
        BundleRefused: a damaged configuration, or the encoder is missing or another one
        WeightsRefused: tensors that do not fit
    """
    config, tensors, info = open_bundle(folder)
    path, wanted = folder / CONFIG, config["encoder"]
    try:
        found = load_encoder(
            encoder or wanted["name"],
            crop=wanted["crop"],
            precision=wanted["settings"].get("precision", "float32"),
            local_files_only=local_files_only,
        )
    except BundleRefused as error:
        raise BundleRefused(
            f"{path}: the encoder of this head was not found; set its path with --encoder: {error}"
        ) from error
    except SettingRefused as error:
        raise BundleRefused(f"{path}: {error}") from error
    if found.fingerprint != wanted["fingerprint"]:
        stored, here = wanted["settings"], encoder_settings(found)
        others = [name for name in {**stored, **here} if stored.get(name) != here.get(name)]
        raise BundleRefused(
            f"{path}: the head expects an encoder with the fingerprint {wanted['fingerprint']}; "
            f"{found.name} has {found.fingerprint}: other {', '.join(others) or 'weights'}."
        )
    layers, pool = config["features"]["layers"], config["features"]["pool"]
    if pool not in get_args(Pool):
        raise BundleRefused(f"{path}: features.pool is {pool!r}; it must be one of {', '.join(get_args(Pool))}.")
    if not (layers and all(isinstance(n, int) and 1 <= n <= found.num_layers for n in layers)):
        raise BundleRefused(f"{path}: features.layers is {layers}; expected 1 to {found.num_layers}.")
    try:
        with torch.random.fork_rng(devices=[]):  # the random weights are overwritten
            model = TunedHead(
                config["head"]["name"],
                layers=layers,
                dim=found.dim,
                pool=pool,
                num_classes=len(info["labels"]),
                options=config["head"]["options"],
            )
        name, options = config["tuner"]["name"], dict(config["tuner"]["options"])
        seed = options.pop("seed", 0)
        tuner = create_tuner(name, found, layers=max(layers), seed=seed, options=options) if name else None
    except (SettingRefused, ValueError, TypeError) as error:
        raise BundleRefused(f"{path}: {error}") from error
    fill(model, tuner, tensors, source=folder / WEIGHTS)
    model_name = f"{config['head']['name']} on {Path(found.name).name}"
    return Tuned(encoder=found.eval(), model=model.eval(), tuner=tuner, config=config, model_name=model_name, **info)


def fill(model: TunedHead, tuner: Tuner | None, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copies what `tuned_tensors` gave into a head and its tuner.

    Raises: WeightsRefused for tensors that do not fit.
    """
    parts: dict[str, dict[str, Tensor]] = {"head": {}, "tuner": {}}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise WeightsRefused(f"{source}: unexpected: {key}; tensors of `head.` and `tuner.` are allowed.")
        parts[part][rest] = tensor
    load_into(model, parts["head"], source=source)
    if tuner is not None:
        tuner.load_state_dict(parts["tuner"])
    elif parts["tuner"]:
        raise WeightsRefused(f"{source}: there are tensors of a tuner, but {CONFIG} has no tuner.")


class TunedRecognizer(Recognizer):
    """A head on a frozen encoder, ready to predict. Made by `ossicle.load`.

    Audio is predicted window by window, as in `Recognizer`. A text (str) or an image (a path, or uint8 (row, column,
    3)) is predicted as a whole, in one row without times.
    """

    bundle: Tuned

    def __init__(
        self, tuned: Tuned, *, device: str = "auto", precision: Precision = "float32", kernels: str = "auto"
    ) -> None:
        self.bundle = tuned
        self.reduction = None
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.kernels = resolve_kernels(kernels)
        self.encoder = tuned.encoder.to(self.device)
        self.modality = self.encoder.modality
        self.plural, self.timed, self.in_rows = self._inputs.plural, self._inputs.timed, self._inputs.in_rows
        tuned.model.to(self.device)

    @property
    def _inputs(self) -> Modality:
        return modality_of(self.encoder.modality)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its bundle, with the place of the encoder that it was loaded with."""
        config = self.bundle.config
        return {**config, "encoder": {**config["encoder"], "name": place_of(self.encoder)}}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights of its bundle, by name: those of the head and the tuner."""
        return tuned_tensors(self.bundle.model, self.bundle.tuner)

    def take(self, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
        """Takes other weights of the head and the tuner."""
        fill(self.bundle.model, self.bundle.tuner, tensors, source=source)

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Encoder and head."""
        return self.encoder, self.bundle.model

    @property
    def rate(self) -> int:
        """Sampling rate of the encoder in hertz."""
        if self.encoder.rate is None:
            raise ValueError(f"{self.encoder.name} is an encoder of {self._inputs.plural}, which have no rate")
        return self.encoder.rate

    @property
    def hertz(self) -> tuple[float, float]:
        """Lowest and highest frequency of the encoder's input; texts and images have none."""
        if isinstance(self.encoder, BundleEncoder):
            config = self.encoder.frontend.config
            return config.min_hertz, config.max_hertz
        return 0.0, (self.encoder.rate or 0) / 2

    @property
    def min_samples(self) -> int:
        """One: the encoder pads short inputs itself."""
        return 1

    @property
    def hop_feature_seconds(self) -> float | None:
        """None: a head has one output for each window."""
        return None

    def spectrogram(self, windows: Float32[np.ndarray, "window time"]) -> Float32[Tensor, "window mel frame"]:
        """Raises: ValueError, since the input of an encoder need not be a spectrogram."""
        raise ValueError(
            f"{self.bundle.model_name} has no spectrogram; encoder.prepare returns the input of its encoder"
        )

    def __repr__(self) -> str:
        return f"TunedRecognizer({self.bundle.model_name}, {len(self.labels)} labels, {self.task}, {self.device})"

    def item_logits(self, item: Item) -> Float[np.ndarray, " label"]:
        """Gives the logits of one item as a whole, as the head was tuned, before temperature and softmax or sigmoid."""
        return self.compute([self._inputs.read(item, rate=self.encoder.rate)])[0][0]

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Predicts one input, or each of a list; for audio see `Recognizer.predict`."""
        if self._inputs.timed:
            return super().predict(inputs, **options)
        if isinstance(inputs, list):
            return [self.predict(one, **options) for one in inputs]
        content, file = self._inputs.open(inputs)
        return self.predict_whole(content, file=file, **options)

    def embed(self, inputs: Any, **options: Any) -> Any:
        """Returns the mean of the head's input layers, for inputs as in `predict`; see `Recognizer.embed`."""
        if self._inputs.timed:
            return super().embed(inputs, **options)
        if options:
            raise ValueError(
                f"{self._inputs.plural} are embedded as a whole; {' and '.join(options)} are options for audio"
            )
        if isinstance(inputs, list):
            return [self.embed(one) for one in inputs]
        return self.compute([self._inputs.open(inputs)[0]])[1][0]

    def predict_item(self, item: Item, **options: Any) -> Prediction:
        """Predicts an item: an audio file window by window, a text or an image as a whole."""
        if self._inputs.timed:
            return super().predict_item(item, **options)
        return self.predict_whole(self._inputs.read(item), file=item.place, **options)

    def predict_whole(
        self,
        content: Any,
        *,
        file: str,
        top_k: int | None = None,
        min_score: float | None = None,
        reporting: Reporting | None = None,
        **times: Any,
    ) -> Prediction:
        """Predicts one text, or the pixels of one image, in rows without times.

        Raises: ValueError for a window or a hop, which are for audio only.
        """
        if any(value is not None for value in times.values()):
            raise ValueError(
                f"{self._inputs.plural} are predicted as a whole; {' and '.join(times)} are options for audio"
            )
        reporting = reporting or Reporting(top_k=top_k, min_score=min_score)
        scores = self.activate(self.compute([content])[0][0])
        whole = WindowScores(starts=np.zeros(1), ends=np.zeros(1), scores=scores[None], padded_samples=0)
        rows = [row for some in self._rows_of([whole], file, reporting) for row in some]
        return Prediction(
            file=file,
            labels=self.labels,
            scores=scores,
            rows=tuple(rows),
            chosen=tuple(row.label for row in rows),
            seconds=0.0,
            padded_seconds=0.0,
        )

    @torch.inference_mode()
    def compute(
        self, inputs: Sequence[Any]
    ) -> tuple[Float32[np.ndarray, "clip label"], Float32[np.ndarray, "clip dim"]]:
        """Logits of inputs as for `Encoder.prepare`, and the mean of the head's input layers."""
        model = self.bundle.model
        batch = self.encoder.prepare(inputs)  # front ends are float32
        with self._arithmetic():
            hidden = model.pooled(self.encoder.encode(batch, layers=max(model.layers)))
            logits = model.score(hidden)
        return logits.float().cpu().numpy(), hidden.mean().mean(1).float().cpu().numpy()

    def outputs(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gives the logits, and the mean of the head's input layers, of windows of one length at `rate`."""
        return self.compute(list(np.ascontiguousarray(windows)))
