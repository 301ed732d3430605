"""Batches of features for clips of any lengths, where no clip's features depend on the others."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ossicle.draws import PieceGenerator
from ossicle.frontend.mel import KALDI_FLOOR, PASST_OFFSET, LogMel, normalize


def by_length(
    waves: Sequence[Float[Tensor, "_"]], generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Float[Tensor, "clip time"]]]:
    """Yields (positions, clips) for every length among `waves`, the longest first.

    The features of a padded clip differ from its own near the end, so only equal lengths share a transform. With the
    generator of a piece there are also the lengths that only other pieces have, without clips: draws are for all.
    """
    lengths = torch.tensor([len(wave) for wave in waves])
    every = torch.tensor(generator.piece.lengths) if isinstance(generator, PieceGenerator) else lengths
    for length in every.unique().flip(0).tolist():
        positions = torch.nonzero(lengths == length)[:, 0]
        if isinstance(generator, PieceGenerator):
            generator.clips_of(length)
        yield positions, torch.stack([waves[p] for p in positions]) if len(positions) else waves[0].new_zeros(0, length)


def spectrograms(
    frontend: LogMel,
    waves: Sequence[Float[Tensor, "_"]],
    *,
    frames: int | None = None,
    generator: torch.Generator | None = None,
    change: Callable[[Tensor, Tensor], Tensor] = lambda positions, clips: clips,
) -> Float[Tensor, "clip mel frame"]:
    """Computes the features of each clip alone and appends silence, in feature space, up to a common length.

    Args:
        frames: length of the result; by default that of the longest clip. Longer features stay as they are.
        generator: as in `LogMel.forward`.
        change: applied to (positions, clips) of each length before the transform: the place of waveform augmentation.
    """
    longest = max(frontend.frames(max(len(wave) for wave in waves)), frames or 0)
    first = waves[0]
    spec = torch.full((len(waves), frontend.config.mels, longest), silence(frontend), device=first.device)
    changed = [(positions, change(positions, clips)) for positions, clips in by_length(waves, generator)]
    bank = frontend.draw_bank(generator)
    for positions, clips in changed:
        if isinstance(generator, PieceGenerator):
            generator.clips_of(clips.shape[1])
        features = frontend(clips, generator=generator, bank=bank)
        spec[positions.to(spec.device), :, : features.shape[-1]] = features
    if isinstance(generator, PieceGenerator):
        generator.all_clips()
    return spec


def silence(frontend: LogMel) -> float:
    """The value of a feature of digital silence."""
    floor = torch.tensor(KALDI_FLOOR if frontend.config.kind == "kaldi" else PASST_OFFSET).log()
    return float(normalize(floor, frontend.config))
