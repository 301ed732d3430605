"""Triangular filters on the Kaldi mel scale."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def hertz_to_mel(hertz: float) -> float:
    """Gives the mel value 1127 ln(1 + f / 700)."""
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def mel_filterbank(
    *, mels: int, fft_samples: int, rate: int, min_hertz: float, max_hertz: float
) -> Float[Tensor, "mel freq"]:
    """Builds `mels` triangles with unit peaks, their slopes linear in mel, over `fft_samples // 2 + 1` frequencies.

    The weight of the highest frequency (half the rate) is 0, as in Kaldi.

    A filter narrower than the distance of two frequencies may be all zero, such as number 3 of `kaldi_fbank`, also in
    the reference.

    Source: Kaldi `mel-computations.cc`. The range's ends and the step are Python doubles, all else is float32:
    published PaSST weights were trained on these roundings (others differ by 1e-5 in weight).
    """
    low, high = hertz_to_mel(min_hertz), hertz_to_mel(max_hertz)
    step = (high - low) / (mels + 1)
    index = torch.arange(mels, dtype=torch.float32)[:, None]
    left, center, right = low + index * step, low + (index + 1.0) * step, low + (index + 2.0) * step
    hertz = (rate / fft_samples) * torch.arange(fft_samples // 2, dtype=torch.float32)
    mel = 1127.0 * (1.0 + hertz / 700.0).log()
    weights = torch.minimum((mel - left) / (center - left), (right - mel) / (right - center)).clamp(min=0.0)
    return torch.nn.functional.pad(weights, (0, 1))
