"""Events: stretches in which a label is heard become one, with onset and offset; peaks of a score become onsets."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ossicle.predict.windows import WindowScores
from ossicle.shapes import Float, Int64

# Starts are divided by the rate: two windows that touch may be a rounding error apart.
TOUCH = 1e-9


@dataclass(frozen=True, kw_only=True)
class Event:
    """One label (by index) heard from `start` to `end` seconds; the score is the highest of its windows."""

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
    """An event begins at its label's threshold and lasts while the score is this share of it (hysteresis)."""
    median: int = 1
    """Scores are smoothed by the median of so many neighbouring windows first; odd."""
    min_seconds: float = 0.0
    """Shorter events are dropped, after the joining."""
    merge_gap: float = 0.0
    """Seconds between two events of a label that still count as one; windows that touch always join."""

    def __post_init__(self) -> None:
        if not 0 < self.release <= 1:
            raise ValueError(f"the release is a share of the threshold, above 0 and at most 1, not {self.release:g}")
        if self.median < 1 or self.median % 2 == 0:
            raise ValueError(f"the median is of an odd number of windows, not {self.median}")
        if not (0 <= self.min_seconds < np.inf and 0 <= self.merge_gap < np.inf):
            raise ValueError(
                "the least duration and the gap are 0 s or more, and finite, "
                f"not {self.min_seconds:g} and {self.merge_gap:g}"
            )


def stream_events(
    parts: Iterable[WindowScores], *, thresholds: Float[np.ndarray, " label"], rules: EventRules
) -> Iterator[Event]:
    """Yields each event as soon as nothing can prolong it, in the order of their ends.

    Holds one event a label and the windows of the median, however long the recording.

    Args:
        parts: scores, not logits, in the order of time
        thresholds: from which score on each label is heard
    """
    running: dict[int, Event] = {}

    def over(time: float) -> Iterator[Event]:
        for label, event in list(running.items()):
            if time - event.end > rules.merge_gap + TOUCH:
                del running[label]
                if event.end - event.start >= rules.min_seconds - TOUCH:
                    yield event

    for start, end, scores in smoothed(parts, rules.median):
        yield from over(start)
        for label in np.flatnonzero(scores >= rules.release * thresholds).tolist():
            event, score = running.get(label), float(scores[label])
            if score < thresholds[label] and (event is None or start - event.end > TOUCH):
                continue  # enough to last, not to begin
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


def events_from_scores(
    scores: Float[np.ndarray, "window label"],
    *,
    starts: Float[np.ndarray, " window"],
    ends: Float[np.ndarray, " window"],
    thresholds: Float[np.ndarray, " label"] | float,
    rules: EventRules = EventRules(),
) -> list[Event]:
    """The events of a whole recording, sorted by time; see `stream_events`.

    Args:
        starts: seconds, ascending
        ends: seconds
    """
    windows = WindowScores(starts=starts, ends=ends, scores=scores, padded_samples=0)
    floors = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), scores.shape[1:])
    found = stream_events([windows], thresholds=floors, rules=rules)
    return sorted(found, key=lambda event: (event.start, event.end, event.label))


def onset_peaks(
    activity: Float[np.ndarray, " frame"],
    times: Float[np.ndarray, " frame"],
    *,
    threshold: float,
    min_gap: float,
) -> Int64[np.ndarray, " peak"]:
    """Gives the frames at which `activity` peaks: local maxima that reach the threshold, in time.

    Of two peaks less than `min_gap` seconds apart the higher one stays. A plateau peaks at its first frame.

    Args:
        times: seconds, ascending
    """
    if len(activity) == 0:
        return np.zeros(0, dtype=np.int64)
    before = np.concatenate([[-np.inf], activity[:-1]])
    # What follows a plateau decides whether it is a peak: look past equal values.
    falls = np.zeros(len(activity), dtype=bool)
    falls[-1] = True
    for frame in range(len(activity) - 2, -1, -1):
        following = activity[frame + 1]
        falls[frame] = following < activity[frame] or (following == activity[frame] and falls[frame + 1])
    candidates = np.flatnonzero((activity > before) & falls & (activity >= threshold))
    chosen: list[int] = []
    for frame in candidates[np.argsort(-activity[candidates], kind="stable")]:
        if all(abs(times[frame] - times[other]) >= min_gap for other in chosen):
            chosen.append(int(frame))
    return np.sort(np.asarray(chosen, dtype=np.int64))
