"""Events: neighboring windows in which a label is active become one event, with onset and offset."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ossicle.inference.windows import WindowScores, check_number
from ossicle.types import Float

# Starts are divided by the rate: two windows that touch may be a rounding error apart.
TOUCH = 1e-9


@dataclass(frozen=True, kw_only=True)
class Event:
    """One label (by index), active from `start` to `end` seconds; the score is the highest of its windows."""

    start: float
    end: float
    label: int
    score: float


@dataclass(frozen=True, kw_only=True)
class EventRules:
    """How scores become events.

    Raises: ValueError for values that make no sense.
    """

    release: float = 1.0
    """An event begins at its label's threshold and lasts while the score is this fraction of it (hysteresis)."""
    median: int = 1
    """Scores are smoothed by the median of so many neighboring windows first; odd."""
    min_seconds: float = 0.0
    """Shorter events are dropped, after joining."""
    merge_gap: float = 0.0
    """Seconds between two events of a label that still count as one; windows that touch always join."""

    def __post_init__(self) -> None:
        for name in ("release", "median", "min_seconds", "merge_gap"):
            check_number(name, getattr(self, name))
        if not 0 < self.release <= 1:
            raise ValueError(f"release is a fraction of the threshold, above 0 and at most 1, not {self.release:g}")
        if self.median < 1 or self.median % 2 == 0:
            raise ValueError(f"median is an odd number of windows, not {self.median}")
        if not (0 <= self.min_seconds < np.inf and 0 <= self.merge_gap < np.inf):
            raise ValueError(
                "the minimum duration and the gap are 0 s or more, and finite, "
                f"not {self.min_seconds:g} and {self.merge_gap:g}"
            )


def stream_events(
    parts: Iterable[WindowScores], *, thresholds: Float[np.ndarray, " label"], rules: EventRules
) -> Iterator[Event]:
    """Yields each event as soon as nothing can prolong it, in the order of their ends.

    Keeps one event per label and the windows of the median, however long the recording.

    Args:
        parts: scores, not logits, in the order of time
        thresholds: the score from which on each label is active
    """
    running: dict[int, Event] = {}

    def over(time: float) -> Iterator[Event]:
        for label, event in sorted(running.items(), key=lambda one: one[1].end):
            if time - event.end > rules.merge_gap + TOUCH:
                del running[label]
                if event.end - event.start >= rules.min_seconds - TOUCH:
                    yield event

    for start, end, scores in smoothed(parts, rules.median):
        yield from over(start)
        for label in np.flatnonzero(scores >= rules.release * thresholds).tolist():
            event, score = running.get(label), float(scores[label])
            if score < thresholds[label] and (event is None or start - event.end > TOUCH):
                continue  # enough to continue an event, not to begin one
            if event is None:
                running[label] = Event(start=start, end=end, label=label, score=score)
            else:
                running[label] = replace(event, end=max(event.end, end), score=max(event.score, score))
    yield from over(np.inf)


def smoothed(parts: Iterable[WindowScores], width: int) -> Iterator[tuple[float, float, Float[np.ndarray, " label"]]]:
    """Start, end and scores of each window, the scores the median of `width` windows around it, fewer at the ends."""
    half = width // 2
    near: deque[tuple[float, float, np.ndarray]] = deque(maxlen=width)
    count = 0

    def middle(behind: int) -> tuple[float, float, np.ndarray]:
        start, end, scores = near[-1 - behind]
        return start, end, scores if len(near) == 1 else np.median(np.stack([one[2] for one in near]), axis=0)

    for part in parts:
        for window in zip(part.starts.tolist(), part.ends.tolist(), part.scores, strict=True):
            near.append(window)
            count += 1
            if count > half:
                yield middle(half)
    for behind in range(min(half, count) - 1, -1, -1):
        while len(near) > behind + half + 1:
            near.popleft()
        yield middle(behind)
