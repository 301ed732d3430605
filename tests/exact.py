"""The log-mel in double precision, written anew with numpy, and how far from it float32 may be.

A transform in float32 errs in every frequency by a few roundings of the loudest one, or of the samples before what they
have in common was taken away; so a quiet frequency beside a loud one is the less exact the quieter it is. The weight of
a filter errs by roundings of the mel values that it is made of. Which way a library rounds differs from processor to
processor; how far does not.
"""

from typing import Any

import numpy as np

EPS = float(np.finfo(np.float32).eps)
ROUNDINGS = 4.0  # that a sum may be off; up to 2.5 are met in ours, Kaldi's and the reference's on four processors
FLOORS = {"passt": 1e-5, "kaldi": EPS}


def log_mel(
    wave: Any,
    config: Any,
    *,
    window: str = "symmetric Hann",
    scale: float = 700.0,
    preemphasis: float = 0.97,
    power: float = 2.0,
) -> tuple[np.ndarray, np.ndarray]:
    """The log-mel (mel, frame) of a wave in natural log units, and by how much float32 may differ from it.

    Args:
        window, scale, preemphasis, power: what an implementation may have wrong.
    """
    raw, frames = cut(np.asarray(wave, dtype=np.float64), config, preemphasis=preemphasis)
    width = config.window_samples
    taper = {
        "symmetric Hann": np.hanning(width),
        "periodic Hann": np.hanning(width + 1)[:-1],
        "Hamming": np.hamming(width),
    }[window]
    spectrum = np.abs(np.fft.rfft(frames * taper, config.fft_samples)).T  # (freq, frame)
    bank, slack = filters(config, scale=scale)
    mel, floor = bank @ spectrum**power, FLOORS[config.kind]
    exact = np.log(mel + floor if config.kind == "passt" else np.maximum(mel, floor))
    noise = ROUNDINGS * EPS * (spectrum.max(0) + np.abs(raw).max(1) * np.linalg.norm(taper))
    error = bank @ (2 * spectrum * noise + noise**2) + slack @ spectrum**2
    # A sum over a filter and its logarithm have roundings of their own.
    return exact, -np.log1p(-np.minimum(error / (mel + floor), 0.9)) + 2 * ROUNDINGS * EPS * (1 + np.abs(exact))


def cut(wave: np.ndarray, config: Any, *, preemphasis: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames as they are, and pre-emphasized."""
    width, hop = config.window_samples, config.hop_samples
    if config.kind == "kaldi":
        raw = np.lib.stride_tricks.sliding_window_view(wave, width)[::hop]
        frames = raw - raw.mean(1, keepdims=True)
        return raw, frames - preemphasis * np.pad(frames[:, :-1], ((0, 0), (1, 0)))
    ahead = config.fft_samples // 2 - (config.fft_samples - width) // 2
    frames = [
        np.lib.stride_tricks.sliding_window_view(np.pad(one, (ahead, width - ahead), mode="reflect"), width)[::hop]
        for one in (wave[1:], wave[1:] - preemphasis * wave[:-1])
    ]
    return frames[0], frames[1]


def filters(config: Any, *, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Kaldi's triangles, and what float32 may add to or take from each weight."""
    low, high = (1127.0 * np.log1p(edge / scale) for edge in (config.min_hertz, config.max_hertz))
    step = (high - low) / (config.mels + 1)
    left = low + step * np.arange(config.mels)[:, None]
    mel = 1127.0 * np.log1p(config.rate / config.fft_samples * np.arange(config.fft_samples // 2 + 1) / scale)
    weights = np.minimum(mel - left, left + 2 * step - mel) / step
    weights[:, -1] = -np.inf  # half the rate counts for nothing
    slack = np.broadcast_to(ROUNDINGS * EPS * mel / step, weights.shape)
    return np.maximum(weights, 0), np.where(weights > -slack, slack, 0)
