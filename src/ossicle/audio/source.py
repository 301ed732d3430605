"""Output of every decoder: an open recording as a stream of float32 blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ossicle.audio.notes import Notes
from ossicle.errors import AudioUnreadable
from ossicle.types import Float32, Shaped

# Increased whenever some file gives other samples than before; part of the key of cached samples.
DECODER = 3

Block = Float32[np.ndarray, "time channel"]

# Whole-number samples: (offset of silence, full scale). Wider ones have no agreed full scale.
FULL_SCALES = {"uint8": (128, 2.0**7), "int8": (0, 2.0**7), "int16": (0, 2.0**15), "int32": (0, 2.0**31)}


@dataclass(frozen=True, kw_only=True)
class Source:
    """An open recording: its properties and its samples.

    `blocks(first)` yields the samples of all channels from frame `first` on; call it once.
    """

    name: str  # for messages
    rate: int
    channels: int
    blocks: Callable[[int], Iterator[Block]]
    notes: Notes
    frames: int = 0  # according to the header; 0 if unknown
    about: int = 0  # frames by the decoder's estimate; 0 if it has none


@dataclass(kw_only=True)
class AudioInfo:
    """Rate of a recording and number of frames read so far, updated while it is read; both start at 0."""

    rate: int = 0
    frames: int = 0

    @property
    def seconds(self) -> float:
        """Of what was decoded so far, by the recording's own clock."""
        return self.frames / self.rate if self.rate else 0.0

    def counting(self, source: Source) -> Source:
        """The recording, with its frames counted here as they are decoded."""
        self.rate = source.rate

        def blocks(first: int) -> Iterator[Block]:
            for block in source.blocks(first):
                self.frames += len(block)
                yield block

        return replace(source, blocks=blocks)


@dataclass(frozen=True)
class Failure:
    """Error message of a decoder that cannot read a file."""

    reason: str


def to_float32(values: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Casts floating point, and scales whole numbers, to float32 with full scale at 1.

    Raises:
        ValueError: the type has no agreed full scale.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite and is refused as such
            return values.astype(np.float32)
    if values.dtype.name in FULL_SCALES:
        silence, full_scale = FULL_SCALES[values.dtype.name]
        return (values.astype(np.float32) - np.float32(silence)) / np.float32(full_scale)
    raise ValueError(f"samples are {values.dtype}; allowed are floating point, {', '.join(FULL_SCALES)}")


def stopped(name: str, reason: str) -> AudioUnreadable:
    return AudioUnreadable(f"{name}: decoding failed ({reason})")


def changed(name: str, before: tuple[int, int], after: tuple[int, int]) -> AudioUnreadable:
    """The error for a recording whose rate or channels change."""
    return AudioUnreadable(
        f"{name}: the recording changes from {before[0]} Hz and {before[1]} channels to {after[0]} Hz and "
        f"{after[1]}; expected one rate and number of channels"
    )
