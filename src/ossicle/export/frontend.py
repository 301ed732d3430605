"""The front end in matrix products, for runtimes whose Fourier transform is slow.

A transform of n = a b points is two smaller ones. With sample b i + j and bin k + a m,

    X[k + a m] = sum_j W_b^(j m) W_n^(j k) sum_i W_a^(i k) x[b i + j],    W_n = exp(-2 pi sqrt(-1) / n)

The inner sum is one product with a real matrix; the outer one, with the factor in front of it, one product for each k.
The samples are real, so k from 0 to a / 2 holds every bin or its mirror image, and the power is that of either: the
filterbank is laid out accordingly. Of 1024 points that is a fifth of the work of a product with the whole basis, and
less rounding.

Source: Cooley and Tukey, Mathematics of Computation 19 (1965). The numbers are those of `ossicle.frontend.LogMel` in
evaluation, to rounding.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.frontend import LogMel
from ossicle.frontend.mel import KALDI_FLOOR, PASST_OFFSET, PREEMPHASIS, normalize


class MatrixLogMel(nn.Module):
    """Turns samples into normalized log-mel features, as `LogMel` does.

    Args:
        frames: shorter features are padded with silence to this length; None does not pad.

    Shape:
        - Input: (clip, time), with `frontend.min_samples` or more.
        - Output: (clip, mel, frame).
    """

    def __init__(self, frontend: LogMel, *, frames: int | None = None) -> None:
        super().__init__()
        self.config = frontend.config
        self.padded_frames = frames
        self.silence = frontend.silence()
        points = self.config.fft_samples
        inner = max(d for d in range(1, math.isqrt(points) + 1) if points % d == 0)
        window = frontend.window.double()
        if self.config.kind == "kaldi":
            window = window[1:]  # pre-emphasis takes the first sample of a frame
        rows = -(-len(window) // inner)
        self.shape = (rows, inner)
        first, second = two_steps(points, inner=inner, rows=rows)
        self.register_buffer("window", F.pad(window, (0, rows * inner - len(window))).float())
        self.register_buffer("first", first.float())
        self.register_buffer("second", second.float())
        self.register_buffer("bank", fold_bank(frontend.bank, inner=inner))

    window: Tensor
    first: Tensor
    second: Tensor
    bank: Tensor

    def forward(self, wave: Float[Tensor, "clip time"]) -> Float[Tensor, "clip mel frame"]:
        mel = (
            self.power(self.passt_frames(wave) if self.config.kind == "passt" else self.kaldi_frames(wave)) @ self.bank
        )
        mel = mel + PASST_OFFSET if self.config.kind == "passt" else mel.clamp(min=KALDI_FLOOR)
        spec = normalize(mel.log(), self.config).mT
        if self.padded_frames is None:
            return spec
        return F.pad(spec, (0, torch.sym_max(self.padded_frames - spec.shape[-1], 0)), value=self.silence)

    def passt_frames(self, wave: Float[Tensor, "clip time"]) -> Float[Tensor, "clip frame sample"]:
        wave = wave[:, 1:] - PREEMPHASIS * wave[:, :-1]
        points, width = self.config.fft_samples, self.config.window_samples
        ahead = points // 2 - (points - width) // 2  # the window covers the middle of the transform
        return self.cut(F.pad(wave, (ahead, width - ahead), mode="reflect"), width=width)

    def kaldi_frames(self, wave: Float[Tensor, "clip time"]) -> Float[Tensor, "clip frame sample"]:
        width = self.config.window_samples
        frames = self.cut(wave - wave.mean(dim=-1, keepdim=True), width=width, extra=1)
        frames = frames - frames[..., :width].mean(dim=-1, keepdim=True)
        return frames[..., 1:] - PREEMPHASIS * frames[..., :-1]

    def cut(
        self, wave: Float[Tensor, "clip time"], *, width: int, extra: int = 0
    ) -> Float[Tensor, "clip frame sample"]:
        """Overlapping frames, joined of blocks of a hop each: no runtime is slow at that.

        Each is as long as the tables need, and `extra` more; how many there are is due to `width` alone.
        """
        hop, length = self.config.hop_samples, self.shape[0] * self.shape[1] + extra
        frames, parts = 1 + (wave.shape[1] - width) // hop, -(-length // hop)
        blocks = frames + parts - 1
        wave = F.pad(wave, (0, blocks * hop - wave.shape[1])).unflatten(1, (blocks, hop))
        return torch.cat([wave[:, part : part + frames] for part in range(parts)], -1)[..., :length]

    def power(self, frames: Float[Tensor, "clip frame sample"]) -> Float[Tensor, "clip frame bin"]:
        """Power of each bin in the order of the folded filterbank."""
        inner = self.shape[1]
        x = (frames * self.window).unflatten(2, self.shape)
        y = (self.first @ x).unflatten(2, (-1, 2)).flatten(3)  # (clip, frame, k, 2 inner)
        z = y.transpose(1, 2) @ self.second  # (clip, k, frame, 2 inner)
        return (z[..., :inner].square() + z[..., inner:].square()).transpose(1, 2).flatten(2)


def two_steps(
    points: int, *, inner: int, rows: int
) -> tuple[Float[Tensor, "part rows"], Float[Tensor, "k inner2 inner2"]]:
    """The matrices of both steps, in double precision: real and imaginary parts as entries of their own.

    Args:
        inner: b, the length of the second transforms.
        rows: how many i there are before the samples are zero.
    """
    outer = points // inner
    k = torch.arange(outer // 2 + 1, dtype=torch.float64)
    i = torch.arange(rows, dtype=torch.float64)
    j = torch.arange(inner, dtype=torch.float64)
    angle = 2 * math.pi / outer * (k[:, None] * i % outer)
    first = torch.stack([angle.cos(), -angle.sin()], 1).flatten(0, 1)
    angle = 2 * math.pi / points * (j[:, None] * (k[:, None, None] + outer * j) % points)  # (k, j, m)
    cos, sin = angle.cos(), angle.sin()
    second = torch.cat([torch.cat([cos, -sin], 2), torch.cat([sin, cos], 2)], 1)
    return first, second


def fold_bank(bank: Float[Tensor, "mel freq"], *, inner: int) -> Float[Tensor, "bin mel"]:
    """The filterbank for bins in the order (k, m); of the two places of a bin and its mirror image one counts."""
    points = 2 * (bank.shape[1] - 1)
    outer = points // inner
    folded = bank.new_zeros(outer // 2 + 1, inner, bank.shape[0])
    for bin_ in range(bank.shape[1]):
        here = bin_ if bin_ % outer <= outer // 2 else points - bin_
        folded[here % outer, here // outer] = bank[:, bin_]
    return folded.flatten(0, 1)
