"""A recognizer as a model of HEAR 2021: vectors of whole sounds, and of short windows every 50 ms.

A scene of at most one window of the model is one pass over the sound as it is; of a longer one it is the mean over
windows that overlap. A timestamp is the middle of a window of 160 ms; a second level has a longer window around
the same time, and the log-mel of six frames there can be added. All windows are cut from the sound after it was
mirrored at both ends by half a window.

Source: Turian et al., "HEAR: Holistic Evaluation of Audio Representations" (arXiv 2203.03022), and its common
API; windows, hops and the order of the numbers as in hear21passt 0.0.26 (github.com/kkoutini/passt_hear21).

**Deviations**
- The windows of a sound are computed in batches; the reference computes one at a time. The numbers are the same.
- A sound shorter than half a window is mirrored again and again, and a scene too short for the network is padded with
  silence; the reference fails.
- The embedding sizes are those of the chosen mode; in the reference they are always those of "all".
- Any recognizer of sound can be the model; its own window, rate and front end take the place of the published ones.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from ossicle.devices import Precision
from ossicle.embedding import embedding_identity, layer_features
from ossicle.ensemble import Ensemble
from ossicle.errors import SettingRefused
from ossicle.frontend.mel import log_mel
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedRecognizer

Mode = Literal["all", "embed_only", "logits"]
MODES: tuple[str, ...] = get_args(Mode)
WINDOW_MS, HOP_MS = 160, 50  # of timestamps
MEL_FRAMES = 6
BATCH_SECONDS = 40.0  # of windows in a pass


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a module of the published package computes."""

    weights: str
    """Published weights that it loads by default."""
    second_ms: int | None = None
    """Window of a second level of timestamps, milliseconds."""
    mel: bool = False
    """Whether the log-mel around a time follows."""
    scene_hops: int = 4
    """Windows of a long scene begin each time this part of a window has passed."""


_AUDIOSET = "passt_base_s10.audioset_ap476"
_HOP100, _HOP160 = "passt_base_s10_hop100.audioset_ap473", "passt_base_s10_hop160.audioset_ap473"

VARIANTS = {
    "base": Variant(weights=_AUDIOSET),
    "base2level": Variant(weights=_AUDIOSET, second_ms=800),
    "base2levelmel": Variant(weights=_AUDIOSET, second_ms=640, mel=True),
    "base20sec": Variant(weights="passt_base_s10_20s.audioset_ap474"),
    "base30sec": Variant(weights="passt_base_s10_30s.audioset_ap473", scene_hops=3),
    "hop100base": Variant(weights=_HOP100),
    "hop100base2lvl": Variant(weights=_HOP100, second_ms=800),
    "hop100base2lvlmel": Variant(weights=_HOP100, second_ms=800, mel=True),
    "hop160base": Variant(weights=_HOP160),
    "hop160base2lvl": Variant(weights=_HOP160, second_ms=800),
    "hop160base2lvlmel": Variant(weights=_HOP160, second_ms=800, mel=True),
    "openmic2008": Variant(weights="passt_base_s10.openmic_ap85"),
}
"""By the names of the published modules."""


def find_variant(name: str) -> Variant:
    """The variant of that name.

    Raises: SettingRefused for an unknown one.
    """
    if name not in VARIANTS:
        raise SettingRefused(f"variant {name!r} is not available; available: {', '.join(VARIANTS)}.")
    return VARIANTS[name]


class HearModel(nn.Module):
    """A recognizer as HEAR calls it; made by `load_model`. `to` moves it as any module.

    Args:
        layer: number of a layer, from 1, whose states are averaged over a window, in place of `mode`.

    Raises:
        SettingRefused: a variant or mode that does not exist, or one that the recognizer does not have.
    """

    def __init__(
        self, recognizer: Recognizer, *, variant: str = "base", mode: str = "all", layer: int | None = None
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise SettingRefused(f"mode {mode!r} is not available; available: {', '.join(MODES)}.")
        if not recognizer.timed:
            raise SettingRefused(f"HEAR needs a model of sound; this model predicts on {recognizer.plural}.")
        self.recognizer, self.variant, self.mode, self.layer = recognizer, find_variant(variant), mode, layer
        if self.variant.mel and isinstance(recognizer, Ensemble | TunedRecognizer):
            raise SettingRefused(
                f"variant {variant!r} adds the log-mel of a network, which a head on an encoder or an ensemble has not."
            )
        self.parts = nn.ModuleList(recognizer.parts)
        self.sample_rate = recognizer.rate
        self.scene_window = recognizer.window_samples()[0]
        self.scene_hop = max(1, self.scene_window // self.variant.scene_hops)
        self.timestamp_hop = HOP_MS * self.sample_rate // 1000
        levels = (WINDOW_MS,) if self.variant.second_ms is None else (WINDOW_MS, self.variant.second_ms)
        least = recognizer.min_samples
        self.timestamp_windows = tuple(_even(max(level * self.sample_rate // 1000, least)) for level in levels)
        self._of_windows = self._whole if layer is None else layer_features(recognizer, layer)
        size = self.embed(np.zeros((1, self.timestamp_windows[0]), dtype=np.float32)).shape[1]
        self.scene_embedding_size = size
        mel = MEL_FRAMES * recognizer.frontend.config.mels if self.variant.mel else 0
        self.timestamp_embedding_size = size * len(levels) + mel

    @property
    def identity(self) -> str:
        """16 hexadecimal digits of everything that the embeddings depend on; see `embedding_identity`."""
        return embedding_identity(
            self.recognizer,
            layer=self.layer,
            mode=None if self.layer else self.mode,
            variant=dataclasses.asdict(self.variant) | {"weights": None},
            scene=(self.scene_window, self.scene_hop),
            timestamps=(*self.timestamp_windows, self.timestamp_hop),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HearModel":
        super()._apply(fn, recurse)
        self.recognizer.moved(next(self.parameters()).device)
        return self

    def forward(self, audio: Float32[Tensor, "sound sample"]) -> Float32[Tensor, "sound dim"]:
        """The scene embeddings."""
        return self.get_scene_embeddings(audio)

    def get_scene_embeddings(self, audio: Any) -> Float32[Tensor, "sound dim"]:
        """One vector for each sound; see the function of this name."""
        sounds = _checked(audio)
        if (samples := sounds.shape[1]) <= self.scene_window:
            short = max(0, self.recognizer.min_samples - samples)
            padded = np.pad(sounds, ((0, 0), (0, short)))
            rows = [self.embed(sound[None])[0] for sound in padded]
        else:
            rows = [
                self.of_times(sound, window=self.scene_window, hop=self.scene_hop, compute=self.embed).mean(0)
                for sound in sounds
            ]
        return torch.from_numpy(np.stack(rows))

    def get_timestamp_embeddings(
        self, audio: Any
    ) -> tuple[Float32[Tensor, "sound time dim"], Float32[Tensor, "sound time"]]:
        """A vector every 50 ms for each sound; see the function of this name."""
        sounds = _checked(audio)
        embeddings = torch.from_numpy(np.stack([self._timed(sound) for sound in sounds]))
        times = torch.arange(embeddings.shape[1]) * self.timestamp_hop * 1000.0 / self.sample_rate
        return embeddings, times.expand(len(sounds), -1)

    def _timed(self, sound: Float32[np.ndarray, " sample"]) -> Float32[np.ndarray, "time dim"]:
        """The levels of a sound and its log-mel, side by side."""
        hop = self.timestamp_hop
        parts = [self.of_times(sound, window=window, hop=hop, compute=self.embed) for window in self.timestamp_windows]
        if self.variant.mel:
            parts.append(self.of_times(sound, window=self.mel_window, hop=hop, compute=self.mels))
        return np.concatenate(parts, axis=1)

    @property
    def mel_window(self) -> int:
        """Samples of the log-mel around a time."""
        config = self.recognizer.frontend.config
        return _even(max(MEL_FRAMES * config.hop_samples, config.samples(MEL_FRAMES)))

    def mels(self, windows: Float32[np.ndarray, "window sample"]) -> Float32[np.ndarray, "window dim"]:
        """The normalized log-mel of windows, mel bin by mel bin."""
        config = dataclasses.replace(self.recognizer.frontend.config, min_frames=1)
        return log_mel(torch.from_numpy(windows), config)[..., :MEL_FRAMES].flatten(1).numpy()

    def embed(self, windows: Float32[np.ndarray, "window sample"]) -> Float32[np.ndarray, "window dim"]:
        """The vectors of windows of one length, without a window around them."""
        return self._of_windows(windows)

    def _whole(self, windows: np.ndarray) -> np.ndarray:
        logits, features = self.recognizer.outputs(windows)
        return {"all": np.concatenate([logits, features], 1), "embed_only": features, "logits": logits}[self.mode]

    def of_times(
        self,
        sound: Float32[np.ndarray, " sample"],
        *,
        window: int,
        hop: int,
        compute: Callable[[np.ndarray], np.ndarray],
    ) -> Float32[np.ndarray, "time dim"]:
        """What `compute` makes of the windows whose middles are 0, hop, 2 hop, ... samples.

        Batches hold windows of one sound only, so that its embeddings are the same alone and among others.
        """
        mirrored = np.pad(sound, window // 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(mirrored, window)[::hop]
        size = max(1, round(BATCH_SECONDS * self.sample_rate / window))
        return np.concatenate(
            [compute(np.array(windows[first : first + size])) for first in range(0, len(windows), size)]
        )


def load_model(
    model_file_path: str | os.PathLike[str] | Recognizer = "",
    *,
    variant: str = "base",
    mode: Mode = "all",
    layer: int | None = None,
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "float32",
) -> HearModel:
    """Loads a model of HEAR.

    Args:
        model_file_path: run folder, bundle, name of published weights or Hub id, as for `ossicle.load`, or what that
            gave; by default the published weights of the variant
        variant: name of a module of the published package, see `VARIANTS`
        mode: "all" for logits, then features; "embed_only" for features; "logits", before softmax or sigmoid
        layer: number of a layer, from 1, averaged over a window, in place of `mode`
        revision, device, precision: as for `ossicle.load`

    Raises:
        SettingRefused: a variant, mode or layer that is not available
        OssicleError: the model cannot be loaded; see `ossicle.load`
    """
    recognizer = model_file_path or find_variant(variant).weights
    if not isinstance(recognizer, Recognizer):
        recognizer = load(recognizer, revision=revision, device=device, precision=precision)
    return HearModel(recognizer, variant=variant, mode=mode, layer=layer)


def get_scene_embeddings(audio: Any, model: HearModel) -> Float32[Tensor, "sound dim"]:
    """Gives one vector for each sound, of `model.scene_embedding_size`.

    Args:
        audio: mono (sound, sample) at `model.sample_rate`, in [-1, 1]; a tensor or an array

    Raises: ValueError for audio of another shape, or not finite.
    """
    return model.get_scene_embeddings(audio)


def get_timestamp_embeddings(
    audio: Any, model: HearModel
) -> tuple[Float32[Tensor, "sound time dim"], Float32[Tensor, "sound time"]]:
    """Gives a vector every 50 ms for each sound, of `model.timestamp_embedding_size`, and the times in milliseconds.

    Args:
        audio: as for `get_scene_embeddings`; n samples have n // hop + 1 times, the first is 0

    Raises: ValueError for audio of another shape, or not finite.
    """
    return model.get_timestamp_embeddings(audio)


def _checked(audio: Any) -> Float32[np.ndarray, "sound sample"]:
    """The sounds as an array."""
    sounds = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
    if sounds.ndim != 2 or 0 in sounds.shape or not np.issubdtype(sounds.dtype, np.floating):
        raise ValueError(
            f"audio has shape {tuple(sounds.shape)} and type {sounds.dtype}; expected floats (sound, sample) "
            "in [-1, 1], at least one sample"
        )
    if not np.isfinite(sounds).all():
        raise ValueError("audio has NaN or infinity; expected finite samples in [-1, 1]")
    return sounds.astype(np.float32, copy=False)


def _even(samples: int) -> int:
    # With an odd window its two levels could differ by one time.
    return samples + samples % 2
