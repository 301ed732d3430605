"""What is reported of scores: which labels, window by window, as segments of overlapping windows, or as events."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from ossicle.inference.events import EventRules, stream_events
from ossicle.inference.rows import FLOOR, Row, rows_from_windows
from ossicle.inference.windows import Overlap, WindowScores, check_number, combine_overlaps
from ossicle.types import Float, Task


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """The choices behind rows; `top_k` and `min_score` as in `select_labels`.

    Raises: ValueError for choices that contradict each other or lie outside their range.
    """

    top_k: int | None = None
    min_score: float | None = None
    labels: tuple[str, ...] | None = None
    """Report only these."""
    overlap: Overlap | None = None
    """Where windows overlap, report the segments between their edges, with the mean or the highest of the windows."""
    events: EventRules | None = None
    """Report events in place of windows; overlapping windows count by their mean, unless `overlap` says otherwise."""

    def __post_init__(self) -> None:
        if self.events is not None and self.top_k is not None:
            raise ValueError("events are all that reach their thresholds: top_k counts the labels of a window")
        if isinstance(self.labels, str):
            raise TypeError(f"labels are a tuple of labels, not the text {self.labels!r}")
        if self.top_k is not None and not (check_number("top_k", self.top_k) >= 1 and isinstance(self.top_k, Integral)):
            raise ValueError(f"top_k is a whole number of 1 or more, not {self.top_k!r}")
        if self.min_score is not None and not 0 <= check_number("min_score", self.min_score) <= 1:
            raise ValueError(f"min_score is 0 to 1, not {self.min_score:g}")


def stream_rows(
    parts: Iterable[WindowScores],
    *,
    file: str,
    labels: Sequence[str],
    task: Task,
    thresholds: Float[np.ndarray, " label"] | None,
    reporting: Reporting,
) -> Iterator[list[Row]]:
    """Yields the rows of a recording while its windows arrive, in time; events in the order of their ends.

    Args:
        parts: scores, not logits, in the order of time

    Raises: ValueError for a label to report that is not among `labels`.
    """
    chosen = label_indices(labels, reporting.labels)
    if chosen is not None:
        labels = [labels[index] for index in chosen]
        thresholds = None if thresholds is None else thresholds[chosen]
        parts = (_of_labels(part, chosen) for part in parts)
    if reporting.events is None:
        for part in parts if reporting.overlap is None else combine_overlaps(parts, reporting.overlap):
            yield rows_from_windows(
                file,
                starts=part.starts,
                ends=part.ends,
                scores=part.scores,
                labels=labels,
                task=task,
                thresholds=thresholds,
                top_k=reporting.top_k,
                min_score=reporting.min_score,
            )
        return
    floors = np.full(len(labels), FLOOR if reporting.min_score is None else reporting.min_score)
    if reporting.min_score is None and thresholds is not None:
        floors = np.asarray(thresholds, dtype=np.float64)
    segments = combine_overlaps(parts, reporting.overlap or "mean")
    for event in stream_events(segments, thresholds=floors, rules=reporting.events):
        yield [Row(file=file, start=event.start, end=event.end, label=labels[event.label], score=event.score)]


def label_indices(labels: Sequence[str], wanted: Sequence[str] | None) -> list[int] | None:
    """Where the wanted labels stand, in the order of the model's; None for all.

    Raises: ValueError for one that is not there.
    """
    if wanted is None:
        return None
    if unknown := [label for label in wanted if label not in labels]:
        near = difflib.get_close_matches(unknown[0], labels, 1)
        hint = f"the nearest is {near[0]!r}" if near else f"it has {', '.join(labels[:8])}{', ...' * (len(labels) > 8)}"
        raise ValueError(f"the model has no label {unknown[0]!r}; {hint}")
    return [index for index, label in enumerate(labels) if label in set(wanted)]


def _of_labels(part: WindowScores, chosen: list[int]) -> WindowScores:
    return WindowScores(
        starts=part.starts, ends=part.ends, scores=part.scores[:, chosen], padded_samples=part.padded_samples
    )
