"""Random numbers of a batch that several processes share: each draws for the whole batch and takes its own clips'.

So what a clip draws does not depend on the number of processes. Code that draws a number for each clip calls
`for_clips`; what is drawn once for a batch (edges of the filterbank, patchout) needs nothing; what depends on the other
clips (partners for mixing) draws from `own_generator`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The consecutive clips of a batch that a process has, at least one."""

    first: int  # the first of them, among those of the batch
    clips: int
    lengths: tuple[int, ...]  # samples of every clip of the batch, in its order

    def of_length(self, length: int) -> tuple[int, slice]:
        """How many clips of the batch have that length, and which of these are in the piece."""
        equal = [one == length for one in self.lengths]
        before = sum(equal[: self.first])
        return sum(equal), slice(before, before + sum(equal[self.first : self.first + self.clips]))


class PieceGenerator(torch.Generator):
    """A CPU generator of the numbers of a whole batch, for a process that has a piece of it."""

    piece: Piece
    total: int
    mine: slice

    def all_clips(self) -> None:
        """From here on the draws are for the batch."""
        self.total = len(self.piece.lengths)
        self.mine = slice(self.piece.first, self.piece.first + self.piece.clips)

    def pad(self) -> int:
        """From here on all clips of the batch are as long as the longest, which this gives, in samples."""
        longest = max(self.piece.lengths)
        self.piece = replace(self.piece, lengths=(longest,) * len(self.piece.lengths))
        return longest

    def clips_of(self, length: int) -> None:
        """From here on the draws are for the clips of that length."""
        self.total, self.mine = self.piece.of_length(length)


def generator_of(seed: int, piece: Piece | None) -> torch.Generator:
    """A generator for a batch, or for a piece of one."""
    if piece is None:
        return torch.Generator().manual_seed(seed)
    generator = PieceGenerator()
    generator.piece = piece
    generator.all_clips()
    generator.manual_seed(seed)
    return generator


def for_clips(draw: Callable[[int], Tensor], clips: int, generator: torch.Generator | None) -> Tensor:
    """`draw(clips)`, one row a clip; of a piece, its rows of what is drawn for the batch."""
    if not isinstance(generator, PieceGenerator):
        return draw(clips)
    return draw(generator.total)[generator.mine]


def own_generator(generator: torch.Generator) -> torch.Generator:
    """Itself; for a piece one of its own, so that however much it draws, the other pieces' numbers stay the same."""
    if not isinstance(generator, PieceGenerator):
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator().manual_seed(seed + generator.piece.first)
