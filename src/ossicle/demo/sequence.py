"""A recording whose truth is known, because it is put together from single hits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ossicle.inference import Row

PEAK = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembled:
    """Samples, and a row for every hit in them: when it starts, how long it sounds, what it is."""

    samples: Float32[np.ndarray, " time"]
    rate: int
    truth: tuple[Row, ...]


def assemble(
    hits: Sequence[tuple[Float32[np.ndarray, " _"], str]],
    *,
    rate: int,
    gaps: tuple[float, float] = (0.2, 0.6),
    quiet: float = 0.3,
    seed: int = 0,
    file: str = "",
) -> Assembled:
    """Puts hits one after another at random distances; a hit rings on under those that follow.

    Args:
        hits: (samples, label), in the order in which they are to sound
        gaps: least and greatest distance from one hit to the next, seconds
        quiet: seconds before the first hit, and after the end of the last
        seed: of the distances
        file: name in the rows
    """
    drawn = np.random.default_rng(seed).uniform(*gaps, size=len(hits))
    starts = np.round((quiet + np.cumsum(drawn) - drawn[:1].sum()) * rate).astype(int)
    ends = [start + len(samples) for start, (samples, _) in zip(starts, hits, strict=True)]
    mixed = np.zeros(max(ends, default=0) + round(quiet * rate), dtype=np.float32)
    truth = []
    for start, end, (samples, label) in zip(starts, ends, hits, strict=True):
        mixed[start:end] += samples
        truth.append(Row(file=file, start=float(start / rate), end=float(end / rate), label=label, score=1.0))
    return Assembled(
        samples=mixed * np.float32(PEAK / max(float(np.abs(mixed).max(initial=0.0)), 1e-9)),
        rate=rate,
        truth=tuple(truth),
    )
