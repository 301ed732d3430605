"""Augmentations of clips, which keep or mix their labels. Each draws once per clip from the generator passed.

Source: the training recipes of PaSST (Koutini et al., Interspeech 2022, section 3), mixup (Zhang et al., ICLR 2018),
SpecAugment (Park et al., Interspeech 2019).

A generator of a piece of a batch (see `draws`) gives its clips what they would draw in the whole batch; partners for
mixing are drawn within the piece.

Deviations from the PaSST code: the gain is any real number of decibels, not a whole one; partners for mixing come from
the same batch; a mask hides at most half of an axis, so that something is left of a short clip.

Numbers are drawn on the CPU and the work is done on the device of the clips, all of them at once.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ossicle.draws import for_clips, onto, own_generator


def gain(
    wave: Float[Tensor, "clip time"], *, generator: torch.Generator, decibels: float = 7.0
) -> Float[Tensor, "clip time"]:
    """Makes each clip louder or softer by up to `decibels`, uniformly drawn."""
    drawn = for_clips(lambda clips: torch.rand(clips, 1, generator=generator), len(wave), generator)
    drawn = (2.0 * drawn - 1.0) * decibels
    return wave * onto((10.0 ** (drawn / 20.0)).to(wave.dtype), wave.device)


def roll(
    wave: Float[Tensor, "clip time"],
    *,
    generator: torch.Generator,
    max_samples: int = 50,
    lengths: Int64[Tensor, "clip"] | None = None,
) -> Float[Tensor, "clip time"]:
    """Rolls each clip in time by up to `max_samples` either way, uniformly drawn.

    Args:
        lengths: on the CPU: samples of each clip, whose end is there; by default all of them.
    """

    def draw(clips: int) -> Tensor:
        return torch.randint(-max_samples, max_samples + 1, (clips,), generator=generator)

    shifts = for_clips(draw, len(wave), generator)
    lengths = torch.full_like(shifts, wave.shape[1]) if lengths is None else lengths
    if wave.device.type == "cpu":  # a tenth of the time
        moves = zip(wave, lengths.tolist(), shifts.tolist(), strict=True)
        rolled = [torch.cat([clip[:end].roll(shift), clip[end:]]) for clip, end, shift in moves]
        return torch.stack(rolled) if rolled else wave
    shift, end = onto(torch.stack([shifts, lengths])[..., None], wave.device)
    place = torch.arange(wave.shape[1], device=wave.device)
    return wave.gather(1, torch.where(place < end, (place - shift) % end, place))


def mix_waves(
    wave: Float[Tensor, "clip time"],
    targets: Float[Tensor, "clip label"],
    *,
    generator: torch.Generator,
    probability: float = 0.5,
    alpha: float = 2.0,
) -> tuple[Float[Tensor, "clip time"], Float[Tensor, "clip label"]]:
    """Mixes each clip, with a `probability`, with a random one of the batch; labels in the same proportion.

    The weights are l and 1 - l with l = max(b, 1 - b), b from Beta(alpha, alpha). Both clips lose their means, so that
    the mix has none; clips that are not mixed stay as they are. On average one clip of a batch draws itself.
    """
    partner, part = _partners(len(wave), alpha, generator)
    chosen = for_clips(lambda clips: torch.rand(clips, 1, generator=generator), len(wave), generator) < probability
    chosen, partner, part = (onto(drawn, wave.device) for drawn in (chosen, partner, part.to(wave.dtype)))
    centered = wave - wave.mean(dim=-1, keepdim=True)
    mixed = part * centered + (1.0 - part) * centered[partner]
    part = part.to(targets)
    labels = part * targets + (1.0 - part) * targets[partner]
    return torch.where(chosen, mixed, wave), torch.where(chosen, labels, targets)


def mix_spectrograms(
    spec: Float[Tensor, "clip mel frame"],
    targets: Float[Tensor, "clip label"],
    *,
    generator: torch.Generator,
    alpha: float = 0.3,
) -> tuple[Float[Tensor, "clip mel frame"], Float[Tensor, "clip label"]]:
    """Mixes the features of each clip with those of a random one of the batch; labels in the same proportion.

    The weights are l and 1 - l with l = max(b, 1 - b), b from Beta(alpha, alpha). It belongs after the front end, so
    after its masks and normalization.
    """
    partner, part = _partners(len(spec), alpha, generator)
    partner, part = (onto(drawn, spec.device) for drawn in (partner, part))
    weight, part = part[..., None].to(spec), part.to(targets)
    mixed = weight * spec + (1.0 - weight) * spec[partner]
    return mixed, part * targets + (1.0 - part) * targets[partner]


def mask(
    spec: Float[Tensor, "clip mel frame"],
    *,
    generator: torch.Generator,
    freq_mask: int,
    time_mask: int,
    value: float = 0.0,
    frames: Int64[Tensor, "clip"] | None = None,
) -> Float[Tensor, "clip mel frame"]:
    """Replaces one band of mel bins and one run of frames of each clip by `value`.

    Widths are whole and uniform from 0 to the option less one, and at most half of the axis; places are uniform. An
    option of 0 hides nothing.

    Args:
        frames: on the CPU: of each clip, among which the run lies; by default all.
    """
    mels, times = (torch.full((len(spec),), size) for size in spec.shape[1:])
    band = _runs(spec, 1, sizes=mels, widest=freq_mask, generator=generator)
    run = _runs(spec, 2, sizes=times if frames is None else frames, widest=time_mask, generator=generator)
    return spec.masked_fill(band[:, :, None] | run[:, None, :], value)


def beta(size: int, alpha: float, *, generator: torch.Generator) -> Float[Tensor, "clip"]:
    """Draws `size` numbers from Beta(alpha, alpha)."""
    # torch has no public Beta that takes a generator; one number of ours starts NumPy's.
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, size)).float()


def _partners(clips: int, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    generator = own_generator(generator)
    partner = torch.randperm(clips, generator=generator)
    drawn = beta(clips, alpha, generator=generator)
    return partner, torch.maximum(drawn, 1.0 - drawn)[:, None]  # (clip,), (clip, 1)


def _runs(spec: Tensor, axis: int, *, sizes: Int64[Tensor, "clip"], widest: int, generator: torch.Generator) -> Tensor:
    """Marks one run along an axis, among the first `sizes` entries of each clip."""

    def draw(clips: int) -> Tensor:
        return torch.rand(clips, generator=generator)

    widths = (for_clips(draw, len(spec), generator) * (sizes // 2 + 1).clamp(max=widest)).long()
    starts = (for_clips(draw, len(spec), generator) * (sizes - widths + 1)).long()
    first, last = onto(torch.stack([starts, starts + widths])[..., None], spec.device)
    place = torch.arange(spec.shape[axis], device=spec.device)
    return (place >= first) & (place < last)  # (clip, entry)
