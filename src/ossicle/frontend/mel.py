"""Samples to log-mel features: PaSST's spectrogram and Kaldi's filterbank as one module with a functional twin.

PaSST (Koutini et al., Interspeech 2022, section 3; reference `models/preprocess.py`): pre-emphasis of the whole clip,
power of a centered short-time Fourier transform, Kaldi's mel filters, log(mel + 1e-5).

Kaldi (`feature-fbank.cc`, as AST and MBT call it: symmetric Hann window, no dither, no energy, power): the clip loses
its mean, is cut into frames without padding, each frame loses its mean and is pre-emphasized; log(max(mel, 2^-23)).
Samples are in [-1, 1], as AST feeds them, not 16-bit integers: the floor depends on it. Cells some 90 dB below the
loudest of their frame contain float32 rounding, in Kaldi as here.

Deviations from the PaSST reference:
- Masks are drawn for each clip; its environments shared one mask in a batch (later versions of its library do not).
- A mask hides at most half of an axis, see `augment`.
- Evaluation draws nothing; the reference draws the jitter also there and discards it.
- Everything runs in float32 under any autocast; the reference does so for the mel product alone.

On a CPU a clip's features are bit-identical alone and in any batch: each clip is transformed by itself, which is also
the fastest there. On other devices a batch is one transform, in which a clip's features are equal to its own up to
rounding.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ossicle.draws import onto
from ossicle.frontend import augment
from ossicle.frontend.filterbank import mel_filterbank
from ossicle.frontend.recipes import FrontendConfig, frontend_config

PREEMPHASIS = 0.97
PASST_OFFSET = 1e-5  # added to the mel power, so that the logarithm of silence is finite
KALDI_FLOOR = float(torch.finfo(torch.float32).eps)  # the smallest mel power


def log_mel(wave: Float[Tensor, "clip time"], config: FrontendConfig) -> Float[Tensor, "clip mel frame"]:
    """Functional version of `LogMel` in evaluation, refer to its documentation."""
    return normalize(raw_log_mel(wave, config, window=_window(config), bank=_bank(config)), config)


def normalize(values: Float[Tensor, "*shape"], config: FrontendConfig) -> Float[Tensor, "*shape"]:
    """Moves log-mel values to about zero mean and a deviation of one half."""
    return (values - config.mean) / (2.0 * config.deviation)


def raw_log_mel(
    wave: Float[Tensor, "clip time"],
    config: FrontendConfig,
    *,
    window: Float[Tensor, "window"],
    bank: Float[Tensor, "mel freq"],
    lengths: Int64[Tensor, "clip"] | None = None,
) -> Float[Tensor, "clip mel frame"]:
    """Computes the log-mel in natural log units, before masks and normalization.

    Args:
        lengths: as in `LogMel.forward`; what stands behind the frames of a clip means nothing.

    Raises: ValueError for clips shorter than `config.min_samples`.
    """
    samples = wave.shape[-1] if lengths is None else int(lengths.min())
    if samples < config.min_samples:
        raise ValueError(
            f"clips of {samples} samples are too short for the front end, which needs {config.min_samples} "
            f"({config.min_samples / config.rate:.3f} s at {config.rate} Hz)"
        )
    log_mel_of = _kaldi_log_mel if config.kind == "kaldi" else _passt_log_mel
    device = wave.device
    with _no_autocast(device):
        wave = wave.float()
        window, bank = window.to(device), onto(bank, device)
        # A graph for any number of clips has no loop over them.
        if device.type != "cpu" or torch.compiler.is_compiling():
            return log_mel_of(wave, config, window, bank, None if lengths is None else onto(lengths, device)[:, None])
        # One clip at a time: the libraries below choose kernels by the size of the whole batch, and a clip's bits must
        # not depend on its neighbors. It is also up to four times as fast, since the spectra of one clip stay in the
        # cache.
        if lengths is None:
            return torch.cat([log_mel_of(clip, config, window, bank, None) for clip in wave.split(1)])
        spec = wave.new_zeros(len(wave), config.mels, config.frames(wave.shape[1]))
        for row, clip, length in zip(spec, wave, lengths.tolist(), strict=True):
            row[:, : config.frames(length)] = log_mel_of(clip[None, :length], config, window, bank, None)[0]
        return spec


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _passt_log_mel(
    wave: Tensor, config: FrontendConfig, window: Tensor, bank: Tensor, lengths: Tensor | None
) -> Tensor:
    wave = wave[:, 1:] - PREEMPHASIS * wave[:, :-1]
    if lengths is not None:
        wave = _reflected(wave, lengths - 1, config.fft_samples // 2)
    spectrum = torch.stft(
        wave,
        config.fft_samples,
        hop_length=config.hop_samples,
        win_length=config.window_samples,
        window=window,
        center=lengths is None,
        pad_mode="reflect",
        return_complex=True,
    )  # (clip, freq, frame)
    power = spectrum.real.square() + spectrum.imag.square()
    return (torch.matmul(bank, power) + PASST_OFFSET).log()


def _reflected(wave: Float[Tensor, "clip time"], lengths: Int64[Tensor, "clip 1"], beyond: int) -> Tensor:
    """Each clip between `beyond` samples of its reflections at its own ends; behind the second anything."""
    place = torch.arange(-beyond, wave.shape[1] + beyond, device=wave.device).abs()
    return wave.gather(1, torch.minimum(place, 2 * (lengths - 1) - place).clamp(min=0))


def _kaldi_log_mel(
    wave: Tensor, config: FrontendConfig, window: Tensor, bank: Tensor, lengths: Tensor | None
) -> Tensor:
    if lengths is None:
        wave = wave - wave.mean(dim=-1, keepdim=True)
    else:  # silence adds nothing to the sum
        wave = wave - wave.sum(dim=-1, keepdim=True) / lengths
    frames = wave.unfold(-1, config.window_samples, config.hop_samples)  # (clip, frame, window)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    # The first sample of a frame has no left neighbor, but the window hides it anyway; leaving it out shifts the frame
    # by one sample, which does not change the power.
    frames = (frames[..., 1:] - PREEMPHASIS * frames[..., :-1]) * window[1:]
    spectrum = torch.fft.rfft(frames, n=config.fft_samples)
    power = (spectrum.real.square() + spectrum.imag.square()).transpose(-1, -2)  # (clip, freq, frame)
    return torch.matmul(bank, power).clamp(min=KALDI_FLOOR).log()


def _window(config: FrontendConfig) -> Tensor:
    return torch.hann_window(config.window_samples, periodic=False, dtype=torch.float32)


def _bank(config: FrontendConfig) -> Tensor:
    return mel_filterbank(
        mels=config.mels,
        fft_samples=config.fft_samples,
        rate=config.rate,
        min_hertz=config.min_hertz,
        max_hertz=config.max_hertz,
    )


NO_GENERATOR = "the front end needs a generator in training; call eval() for deterministic features"


class LogMel(nn.Module):
    """Turns samples into normalized log-mel features.

    In training the edges of the filterbank move (one draw for the whole batch) and SpecAugment masks replace a band of
    mel bins and a run of frames (one draw per clip) by 0 in log-mel units, before the normalization. In evaluation
    nothing is drawn. There are no weights.

    A clip's features are those that it has alone, whatever else is in the batch: on a CPU bit by bit, elsewhere up to
    rounding.

    Shape:
        - Input: (clip, time) at `rate`, in about [-1, 1].
        - Output: (clip, mel, frame) with `frames(time)` frames; where a clip has fewer, silence.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", _window(config), persistent=False)
        self.register_buffer("bank", _bank(config), persistent=False)

    @property
    def rate(self) -> int:
        """Samples per second that the input must have."""
        return self.config.rate

    @property
    def min_samples(self) -> int:
        """The shortest supported clip, in samples."""
        return self.config.min_samples

    def frames(self, samples: int) -> int:
        """Counts the frames of a clip of `samples`."""
        return self.config.frames(samples)

    def samples(self, frames: int) -> int:
        """Gives the shortest clip, in samples, that has at least `frames` frames."""
        return self.config.samples(frames)

    def draw_bank(self, generator: torch.Generator | None) -> Float[Tensor, "mel freq"]:
        """The filterbank of a batch: in training with drawn edges.

        Raises: ValueError in training without a generator.
        """
        if not self.training:
            return self.bank
        if generator is None:
            raise ValueError(NO_GENERATOR)
        jittered = jitter_edges(self.config, generator=generator)
        return self.bank if jittered == self.config else _bank(jittered)

    def silence(self) -> float:
        """The value of a feature of digital silence."""
        floor = torch.tensor(KALDI_FLOOR if self.config.kind == "kaldi" else PASST_OFFSET).log()
        return float(normalize(floor, self.config))

    def forward(
        self,
        wave: Float[Tensor, "clip time"],
        *,
        lengths: Int64[Tensor, "clip"] | None = None,
        frames: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "clip mel frame"]:
        """Computes the features.

        Args:
            lengths: on the CPU: samples of each clip, which silence follows; by default all of them.
            frames: length of the result, which silence fills; longer features stay as they are.
            generator: of the CPU; needed in training, unused in evaluation.

        Raises: ValueError for clips shorter than `min_samples`, and in training without a generator.
        """
        own = None
        if lengths is not None and int(lengths.min()) == wave.shape[1]:
            lengths = None
        if lengths is not None:
            own = torch.tensor([self.frames(length) for length in lengths.tolist()])
        bank = self.draw_bank(generator)
        spec = raw_log_mel(wave, self.config, window=self.window, bank=bank, lengths=lengths)
        if self.training:
            if generator is None:
                raise ValueError(NO_GENERATOR)
            masks = {"freq_mask": self.config.freq_mask, "time_mask": self.config.time_mask}
            spec = augment.mask(spec, **masks, frames=own, generator=generator)
        spec = normalize(spec, self.config)
        if own is not None:
            place = torch.arange(spec.shape[2], device=spec.device)
            spec = spec.masked_fill((place >= onto(own, spec.device)[:, None])[:, None], self.silence())
        missing = 0 if frames is None else frames - spec.shape[2]
        return F.pad(spec, (0, missing), value=self.silence()) if missing > 0 else spec

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LogMel":
        # A cast to half precision must not reach the tables: only their device may follow.
        super()._apply(fn, recurse)
        self.window = _window(self.config).to(self.window.device)
        self.bank = _bank(self.config).to(self.bank.device)
        return self

    def extra_repr(self) -> str:
        c = self.config
        return f"kind={c.kind}, rate={c.rate}, mels={c.mels}, hop_samples={c.hop_samples}"


def jitter_edges(config: FrontendConfig, *, generator: torch.Generator) -> FrontendConfig:
    """Draws the filterbank's edges around those of `config`, as the PaSST reference does in training.

    The lower edge rises by 0 to `min_hertz_jitter - 1` Hz; the upper one falls by 0 to `max_hertz_jitter - 1` Hz from
    half that range above `max_hertz`. The result has no jitter.
    """

    def draw(span: int) -> int:
        return int(torch.randint(span, (), generator=generator)) if span > 1 else 0

    return dataclasses.replace(
        config,
        min_hertz=config.min_hertz + draw(config.min_hertz_jitter),
        max_hertz=config.max_hertz + config.max_hertz_jitter // 2 - draw(config.max_hertz_jitter),
        min_hertz_jitter=1,
        max_hertz_jitter=1,
    )


def create_frontend(recipe: str | FrontendConfig | Mapping[str, Any], **overrides: Any) -> LogMel:
    """Builds a front end from a recipe's name, a configuration, or what `FrontendConfig.to_dict` wrote.

    Raises: ModelUnknown, BundleRefused, ValueError as `frontend_config` does.
    """
    return LogMel(frontend_config(recipe, **overrides))


def measure_statistics(waves: Iterable[Tensor | np.ndarray], config: FrontendConfig) -> tuple[float, float]:
    """Measures mean and deviation of the log-mel over all cells of all `waves`, in one pass and flat memory.

    Args:
        waves: one clip each, (time,), at `config.rate`; lengths may differ. Give it the training part only.

    Raises: ValueError without clips, for clips that are too short, or if all values are equal (silence).
    """
    window, bank = _window(config), _bank(config)
    count, mean, squares = 0, 0.0, 0.0
    for wave in waves:
        clip = torch.as_tensor(wave, dtype=torch.float32)[None]
        cells = raw_log_mel(clip, config, window=window, bank=bank).double()
        # Sums of squares around each part's own mean, merged: around zero they would cancel (Chan et al. 1983).
        part = cells.mean().item()
        delta = part - mean
        total = count + cells.numel()
        squares += (cells - part).square().sum().item() + delta * delta * count * cells.numel() / total
        mean += delta * cells.numel() / total
        count = total
    if count == 0:
        raise ValueError("the statistics of the front end need at least one clip")
    deviation = math.sqrt(squares / count)
    if deviation == 0.0:
        raise ValueError("all log-mel values are equal (silence); their deviation is zero")
    return mean, deviation
