"""Rows: which label, from when to when, in which file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ossicle.types import Float, Int64, Task

FLOOR = 0.5  # threshold of a label that has none of its own


@dataclass(frozen=True, kw_only=True)
class Row:
    """One label from `start` to `end` of one file; seconds. Of a text or an image both are 0: it has no times."""

    file: str
    start: float
    end: float
    label: str
    score: float

    @property
    def timed(self) -> bool:
        return self.end > self.start


def select_labels(
    scores: Float[np.ndarray, " label"],
    *,
    task: Task,
    thresholds: Float[np.ndarray, " label"] | None = None,
    top_k: int | None = None,
    min_score: float | None = None,
) -> Int64[np.ndarray, " chosen"]:
    """Gives the indices of the labels to report, best first (equal scores: in the order of the labels).

    By default a single-label task reports its best label and a multi-label task every label that reaches its
    own threshold (`FLOOR` if it has none). `min_score` takes the place of these thresholds and `top_k` limits the
    count; `top_k` alone reports the best k whatever they score.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    order = np.argsort(-scores, kind="stable")
    if min_score is not None:
        order = order[scores[order] >= min_score]
    elif top_k is None and task == "multi-label":
        floor = np.full(len(scores), FLOOR) if thresholds is None else thresholds
        order = order[scores[order] >= floor[order]]
    if top_k is None and task == "single-label" and min_score is None:
        top_k = 1
    return order[:top_k]


def rows_from_windows(
    file: str,
    *,
    starts: Float[np.ndarray, " window"],
    ends: Float[np.ndarray, " window"],
    scores: Float[np.ndarray, "window label"],
    labels: Sequence[str],
    task: Task,
    thresholds: Float[np.ndarray, " label"] | None = None,
    top_k: int | None = None,
    min_score: float | None = None,
) -> list[Row]:
    """Makes the rows of one file: for each window, in time, the labels that `select_labels` chooses."""
    rows = []
    for start, end, of_window in zip(starts, ends, scores, strict=True):
        chosen = select_labels(of_window, task=task, thresholds=thresholds, top_k=top_k, min_score=min_score)
        rows += [
            Row(file=file, start=float(start), end=float(end), label=labels[index], score=float(of_window[index]))
            for index in chosen
        ]
    return rows
