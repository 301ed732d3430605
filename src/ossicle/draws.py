"""Random numbers of a batch that several processes share: each draws for the whole batch and takes its own clips'.

So what a clip draws does not depend on the number of processes. Code that draws a number for each clip calls
`for_clips`; what is drawn once for a batch (edges of the filterbank, patchout) needs nothing; what depends on the other
clips (partners for mixing) draws from `own_generator`.

Generators are of the CPU, so that a run draws the same numbers on every device, and `onto` moves them there.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WAITING_DEVICES = ("cpu", "mps")  # to which tensors are copied at once


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The consecutive clips of a batch that a process has, at least one."""

    first: int  # the first of them, among those of the batch
    clips: int
    total: int  # clips of the batch
    longest: int  # samples of its longest clip


class PieceGenerator(torch.Generator):
    """A CPU generator of the numbers of a whole batch, for a process that has a piece of it."""

    piece: Piece


def generator_of(seed: int, piece: Piece | None) -> torch.Generator:
    """A generator for a batch, or for a piece of one."""
    if piece is None:
        return torch.Generator().manual_seed(seed)
    generator = PieceGenerator()
    generator.piece = piece
    generator.manual_seed(seed)
    return generator


def for_clips(draw: Callable[[int], Tensor], clips: int, generator: torch.Generator | None) -> Tensor:
    """`draw(clips)`, one row a clip; of a piece, its rows of what is drawn for the batch."""
    if not isinstance(generator, PieceGenerator):
        return draw(clips)
    piece = generator.piece
    return draw(piece.total)[piece.first : piece.first + piece.clips]


def own_generator(generator: torch.Generator) -> torch.Generator:
    """Itself; for a piece one of its own, so that however much it draws, the other pieces' numbers stay the same."""
    if not isinstance(generator, PieceGenerator):
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator().manual_seed(seed + generator.piece.first)


@contextlib.contextmanager
def drawing_again(generator: torch.Generator, state: Tensor) -> Iterator[None]:
    """Inside, the generator draws what it drew from this state on; afterwards it goes on where it was."""
    now = generator.get_state()
    generator.set_state(state)
    try:
        yield
    finally:
        generator.set_state(now)


def onto(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; one of the CPU without waiting for the work that the device still has."""
    if torch.compiler.is_compiling() or numbers.device.type != "cpu" or device.type in WAITING_DEVICES:
        return numbers.to(device)
    # A copy from other than pinned memory would wait.
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)
