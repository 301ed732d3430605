"""From scores to decisions, and how many of them are right."""

import numpy as np
from jaxtyping import Bool, Float, Int

from ossicle.metrics.arrays import check_scores, check_task, mean_of_defined, ratio
from ossicle.types import Task


def decide(
    scores: Float[np.ndarray, "clip label"], *, task: Task, thresholds: Float[np.ndarray, " label"] | None = None
) -> Bool[np.ndarray, "clip label"]:
    """The labels each clip is given.

    Single-label: the one with the highest score, the first of equals; thresholds play no part.
    Multi-label: every label whose score reaches its threshold (0.5 without any).
    """
    check_task(task)
    if task == "single-label":
        return np.arange(scores.shape[1]) == np.argmax(scores, axis=1)[:, None]
    return scores >= (0.5 if thresholds is None else thresholds)


def confusion_matrix(
    decided: Bool[np.ndarray, "clip label"], targets: Bool[np.ndarray, "clip label"]
) -> Int[np.ndarray, "label label"]:
    """Counts of clips by true label (row) and given label (column), for single-label decisions."""
    size = targets.shape[1]
    cells = np.argmax(targets, axis=1) * size + np.argmax(decided, axis=1)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def balanced_accuracy(scores: Float[np.ndarray, "clip label"], targets: Bool[np.ndarray, "clip label"]) -> float:
    """Unweighted average recall of single-label scores: mean recall of the classes that occur."""
    hit = decide(scores, task="single-label") & targets
    return float(mean_of_defined(ratio(hit.sum(axis=0), targets.sum(axis=0))))


def fit_thresholds(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    known: Bool[np.ndarray, "clip label"] | None = None,
) -> Float[np.ndarray, " label"]:
    """The threshold of each class that gives the highest F1; fit it on the validation part, never on the test part.

    A threshold lies halfway between the lowest score that it accepts and the highest that it does not, or on the lowest
    score when it accepts everything. Of several that give the same F1 the highest is taken: fewer false alarms. A class
    without positives has nothing to fit and gets 0.5.

    Args:
        known: of which labels it is known whether a clip has them; the others do not count. None is all.
    """
    check_scores(scores, targets, "multi-label")
    clips = [slice(None)] * scores.shape[1] if known is None else known.T
    return np.array([_best_threshold(scores[own, label], targets[own, label]) for label, own in enumerate(clips)])


def _best_threshold(scores: Float[np.ndarray, " clip"], positive: Bool[np.ndarray, " clip"]) -> float:
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    lasts = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last clip of each run of equal scores
    hits = np.cumsum(positive[order])[lasts]
    f1 = 2 * hits / (lasts + 1 + positive.sum())
    last = int(lasts[np.argmax(f1)])  # the first of equals: the highest threshold
    if last + 1 == len(ranked):
        return float(ranked[last])
    halfway = float(ranked[last + 1] + (ranked[last] - ranked[last + 1]) / 2)
    # Between neighboring floats there is no room: the sum may round down onto the score that must stay out.
    return halfway if halfway > ranked[last + 1] else float(ranked[last])
