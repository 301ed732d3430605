"""A recording with known events, assembled from single hits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ossicle.inference import Row

PEAK = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembled:
    """Samples, and a row with start, end and label of every hit in them."""

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
    """Assembles hits at random distances; hits overlap if they are longer than the distance.

    Args:
        hits: (samples, label), in order
        gaps: minimum and maximum seconds from one hit to the next
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
