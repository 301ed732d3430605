"""Two quotients that may be undefined, without numpy's warnings, and the checks of every metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

TASKS = ("single-label", "multi-label")


def ratio(numerator: Any, denominator: Any) -> Any:
    """The quotient, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def mean_of_defined(values: Float[np.ndarray, "label *axes"]) -> Any:
    """Mean over the labels of the values that are not NaN; NaN where there are none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def check_task(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it is one of {', '.join(TASKS)}")


def check_scores(scores: Float[np.ndarray, "..."], targets: Bool[np.ndarray, "..."], task: str) -> None:
    """Refuses scores and targets that no metric can be computed from.

    Raises:
        ValueError: unequal shapes, no clip, no label, a score that is not finite, or a single-label clip without
            exactly one label.
    """
    check_task(task)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise ValueError(f"scores have shape {scores.shape} and targets {targets.shape}; both are (clip, label)")
    if not scores.size:
        raise ValueError(f"scores have shape {scores.shape}; at least one clip and one label are needed")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are NaN or infinite; all must be finite"
        )
    if task == "single-label":
        counts = targets.sum(axis=1)
        if (counts != 1).any():
            clip = int(np.flatnonzero(counts != 1)[0])
            raise ValueError(
                f"clip {clip} has {int(counts[clip])} labels; a single-label task has exactly one for each clip"
            )


def check_labels(labels: Sequence[str], count: int) -> None:
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels are named for {count} columns of scores; one name for each column")
