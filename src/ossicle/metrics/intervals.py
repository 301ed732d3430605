"""How far a metric can be trusted: bootstrap over clips or groups, Student's t over folds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


def defined(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def percentile_estimate(value: float, resampled: Float[np.ndarray, " resample"]) -> Estimate:
    """The value with the middle 95 % of its resampled distribution; resamples where it is not defined are left out.

    Source: Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    resampled = resampled[~np.isnan(resampled)]
    if math.isnan(value) or not len(resampled):
        return Estimate(value=defined(value))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value=float(value), low=float(low), high=float(high))


def bootstrap_weights(
    units: Int[np.ndarray, " clip"], *, resamples: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "clip resample"]]:
    """How often each clip occurs in each resample, a block of resamples at a time so that memory stays flat.

    Args:
        units: the unit that each clip belongs to, counted from 0: itself, or its group. Whole units are drawn with
            replacement, as many as there are: clips of one recording or one speaker err together, and drawn one by one
            they would make the interval too narrow.
    """
    count = int(units.max()) + 1
    block = max(1, 2**17 // len(units))  # a block of counts that stays in the processor's cache
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, count, (count, size)) * size + np.arange(size)
        yield np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(np.int32)[units]


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean over folds (or seeds) with Student's t interval of 95 %; no interval for a single value.

    Folds share training clips, so the interval is somewhat too narrow: read it as the least that is uncertain.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if not len(values) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a mean needs at least one value, all finite; these are {list(values)}")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(value=mean)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    reach = t_quantile(0.975, degrees=len(values) - 1) * math.sqrt(variance / len(values))
    return Estimate(value=mean, low=mean - reach, high=mean + reach)


def t_quantile(probability: float, *, degrees: int) -> float:
    """The value that Student's t stays below with this probability.

    For whole degrees of freedom the distribution is a finite sum in the angle atan(t / sqrt(degrees)), which is
    bisected.

    Source: Abramowitz and Stegun 1964, Handbook of mathematical functions, 26.7.3 and 26.7.4.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"probability is {probability} and degrees {degrees}; 0 < probability < 1 and degrees >= 1")
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(60):  # halves the range down to a double's precision
        angle = (low + high) / 2
        if (1 + _central_probability(angle, degrees)) / 2 < probability:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central_probability(angle: float, degrees: int) -> float:
    """Probability that |t| stays below sqrt(degrees) * tan(angle); negative for a negative angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
