"""How well scores order the clips: average precision, area under the ROC curve, d'.

Clips of equal score are one step of the ranking, as in scikit-learn: their order in the file changes nothing.
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Shaped

from ossicle.metrics.arrays import mean_of_defined, ratio

# d' of a perfect ranking would be infinite; an AUROC closer to 0 or 1 than this counts as this close.
AUROC_MARGIN = 1e-6


class Ranking:
    """One class's clips in descending order of score, sorted once, to be measured under many weightings.

    Only the steps (runs of equal score) that hold a positive count for either figure, so the weights between them are
    summed, not walked through one by one.

    Args:
        known: the clips of which it is known whether they are positive; no others count. None is all.
    """

    def __init__(
        self,
        scores: Float[np.ndarray, " clip"],
        positive: Bool[np.ndarray, " clip"],
        known: Bool[np.ndarray, " clip"] | None = None,
    ) -> None:
        self.order = np.argsort(-scores, kind="stable")
        if known is not None:
            self.order = self.order[known[self.order]]
        scores, positive = scores[self.order], positive[self.order]
        self.positives = self.order[positive]
        starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
        ends = np.append(starts[1:], len(scores))
        positives_before = np.append(0, np.cumsum(positive))
        kept = positives_before[ends] > positives_before[starts]
        starts, ends = starts[kept], ends[kept]
        self.step_starts_among_positives = positives_before[starts]
        cuts = np.unique(np.concatenate([[0], starts, ends, [len(scores)]]))
        self.segments = cuts[:-1]
        self.starts, self.ends = np.searchsorted(cuts, starts), np.searchsorted(cuts, ends)

    def measure(
        self, weights: Shaped[np.ndarray, "clip resample"]
    ) -> tuple[Float[np.ndarray, " resample"], Float[np.ndarray, " resample"]]:
        """Average precision and AUROC when clip i occurs `weights[i]` times; NaN where one of them is not defined."""
        resamples = weights.shape[1]
        if not len(self.positives):
            return np.full(resamples, np.nan), np.full(resamples, np.nan)
        seen = np.zeros((len(self.segments) + 1, resamples))  # clips down to each cut
        np.cumsum(np.add.reduceat(weights[self.order], self.segments, axis=0), axis=0, out=seen[1:])
        hits = np.add.reduceat(
            weights[self.positives], self.step_starts_among_positives, axis=0
        )  # positives in each step
        hits_seen = np.cumsum(hits, axis=0)
        positives = hits_seen[-1]
        negatives = seen[-1] - positives
        at_step = seen[self.ends]
        # A step that this resample left out holds no hits; its precision may be 0/0 and must not spoil the sum.
        precision = hits_seen / np.maximum(at_step, 1)
        average_precision = ratio((hits * precision).sum(axis=0), positives)
        tied = at_step - seen[self.starts] - hits
        beaten = negatives - (at_step - hits_seen)
        auroc = ratio((hits * (beaten + tied / 2)).sum(axis=0), positives * negatives)
        return average_precision, auroc


def average_precision(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    known: Bool[np.ndarray, "clip label"] | None = None,
) -> Float[np.ndarray, " label"]:
    """Average precision of each class: precision averaged over steps of recall; NaN for a class without positives.

    Args:
        known: of which labels it is known whether a clip has them; the others do not count. None is all.
    """
    once = np.ones((len(scores), 1), np.int32)
    rankings = rank_classes(scores, targets, known)
    return np.array([ranking.measure(once)[0].item() for ranking in rankings])


def rank_classes(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    known: Bool[np.ndarray, "clip label"] | None = None,
) -> list[Ranking]:
    """The ranking of each class."""
    columns = [None] * scores.shape[1] if known is None else known.T
    return [Ranking(scores[:, label], targets[:, label], own) for label, own in enumerate(columns)]


def mean_average_precision(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    known: Bool[np.ndarray, "clip label"] | None = None,
) -> tuple[float, int]:
    """mAP over the classes that have positives, and how many those are; NaN and 0 when no class has any.

    An absent class has no average precision. Counting it as zero, as several libraries do, makes a score fall with
    every label that the test part happens to lack.
    """
    each = average_precision(scores, targets, known)
    return float(mean_of_defined(each)), int(np.isfinite(each).sum())


def d_prime(auroc: float) -> float:
    """Separation of two normal distributions of equal deviation that would give this AUROC: sqrt(2) * Phi^-1(AUROC).

    An AUROC of 0 or 1 is taken as 1e-6 away from it, so d' stays within -6.72 and 6.72. NaN stays NaN.

    Source: Hershey et al. 2017, CNN architectures for large-scale audio classification, section 3.3.
    """
    if math.isnan(auroc):
        return math.nan
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(auroc, AUROC_MARGIN), 1 - AUROC_MARGIN))
