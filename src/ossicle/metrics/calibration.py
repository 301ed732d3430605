"""Whether a score of 0.8 is right eight times in ten, and the one number that mends most of it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ossicle.metrics.arrays import check_scores, ratio
from ossicle.types import Task

BINS = 15
# The range of the fitted temperature. On a validation part without an error the likelihood asks for an endless
# sharpening, on one without any signal for an endless flattening; neither is worth following that far.
TEMPERATURES = (0.25, 10.0)


@dataclass(frozen=True, kw_only=True)
class CalibrationBins:
    """Stated confidence beside the observed frequency, in bins of equal width over 0 to 1; NaN in an empty bin.

    The first bin holds both its ends, every other (low, high]. In a single-label task the confidence is that of the
    given label, one for each clip; in a multi-label task every probability of every label counts.
    """

    edges: Float[np.ndarray, " edge"]
    count: Int[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    frequency: Float[np.ndarray, " bin"]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of confidence and frequency, weighted by the counts.

        Source: Guo et al. 2017, On calibration of modern neural networks, section 2.
        """
        distance = np.where(self.count > 0, np.abs(self.confidence - self.frequency), 0.0)
        return float((self.count * distance).sum() / self.count.sum())


def calibration_bins(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    task: Task,
    known: Bool[np.ndarray, "clip label"] | None = None,
    bins: int = BINS,
) -> CalibrationBins:
    """Sorts the stated probabilities into bins and counts how often each bin is right.

    Args:
        known: of which labels it is known whether a clip has them; the others do not count. None is all.

    Raises:
        ValueError: a score outside 0 to 1.
    """
    check_scores(scores, targets, task)
    confidence, right = stated(scores, targets, task=task)
    if known is not None:
        confidence, right = confidence[known], right[known]
    where = bin_of(confidence, bins=bins).ravel()
    count = np.bincount(where, minlength=bins)
    return CalibrationBins(
        edges=np.linspace(0, 1, bins + 1),
        count=count,
        confidence=ratio(np.bincount(where, confidence.ravel().astype(float), bins), count),
        frequency=ratio(np.bincount(where, right.ravel().astype(float), bins), count),
    )


def stated(
    scores: Float[np.ndarray, "clip label"], targets: Bool[np.ndarray, "clip label"], *, task: Task
) -> tuple[Float[np.ndarray, "clip given"], Bool[np.ndarray, "clip given"]]:
    """The probabilities that count for calibration (a clip's highest, or all) and whether each came true."""
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f"scores reach from {scores.min():g} to {scores.max():g}; probabilities lie between 0 and 1")
    if task == "multi-label":
        return scores, targets
    given = np.argmax(scores, axis=1)[:, None]
    return np.take_along_axis(scores, given, axis=1), np.take_along_axis(targets, given, axis=1)


def bin_of(confidence: Float[np.ndarray, "*clip"], *, bins: int) -> Int[np.ndarray, "*clip"]:
    """The bin each confidence falls into."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def fit_temperature(
    logits: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    task: Task,
    known: Bool[np.ndarray, "clip label"] | None = None,
) -> float:
    """The temperature T that makes softmax(logits / T), or sigmoid(logits / T), likeliest on the validation part.

    The negative log-likelihood is convex in 1/T, so its slope is bisected; the answer stays within 0.25 and 10, also
    where the likelihood would go on for ever (no error at all, or no signal at all).

    Args:
        known: of which labels it is known whether a clip has them; the others do not count. None is all.

    Source: Guo et al. 2017, On calibration of modern neural networks, section 4.2.
    """
    check_scores(logits, targets, task)
    logits = logits.astype(np.float64) if known is None else np.where(known, logits, 0.0)  # 0 at any temperature
    flattest, sharpest = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if _slope(sharpest, logits, targets, task) <= 0:
        return TEMPERATURES[0]
    if _slope(flattest, logits, targets, task) >= 0:
        return TEMPERATURES[1]
    while sharpest / flattest > 1 + 1e-9:
        middle = float(np.sqrt(flattest * sharpest))
        if _slope(middle, logits, targets, task) < 0:
            flattest = middle
        else:
            sharpest = middle
    return float(1 / np.sqrt(flattest * sharpest))


def _slope(
    sharpness: float, logits: Float[np.ndarray, "clip label"], targets: Bool[np.ndarray, "clip label"], task: Task
) -> float:
    """Derivative of the summed negative log-likelihood by 1/T: expected minus observed logits."""
    scaled = sharpness * logits
    if task == "single-label":
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probability = weights / weights.sum(axis=1, keepdims=True)
    else:
        decay = np.exp(-np.abs(scaled))  # never overflows
        probability = np.where(scaled >= 0, 1.0, decay) / (1 + decay)
    return float(((probability - targets) * logits).sum())
