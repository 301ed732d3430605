"""Events: adjacent windows in which a label is heard become one stretch; peaks of a score become onsets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64


@dataclass(frozen=True, kw_only=True)
class Event:
    """One label (by index) heard from `start` to `end` seconds; the score is the highest of its windows."""

    start: float
    end: float
    label: int
    score: float


def events_from_scores(
    scores: Float[np.ndarray, "window label"],
    *,
    starts: Float[np.ndarray, " window"],
    ends: Float[np.ndarray, " window"],
    thresholds: Float[np.ndarray, " label"] | float,
    min_seconds: float = 0.0,
    merge_gap: float = 0.0,
) -> list[Event]:
    """Joins the windows in which a label reaches its threshold into events, sorted by time.

    Args:
        starts: seconds, ascending
        ends: seconds
        min_seconds: shorter events are dropped, after the joining
        merge_gap: seconds of silence between two hits that still count as one event; windows that touch always join
    """
    floors = np.broadcast_to(np.asarray(thresholds), scores.shape[1:])
    # Starts are divided by the rate: two windows that touch may be a rounding error apart.
    gap = merge_gap + 1e-9
    events = []
    for label, floor in enumerate(floors):
        run: Event | None = None
        for window in np.flatnonzero(scores[:, label] >= floor):
            hit = Event(
                start=float(starts[window]), end=float(ends[window]), label=label, score=float(scores[window, label])
            )
            if run is not None and hit.start - run.end <= gap:
                hit = Event(start=run.start, end=max(run.end, hit.end), label=label, score=max(run.score, hit.score))
            elif run is not None:
                events.append(run)
            run = hit
        if run is not None:
            events.append(run)
    return sorted(
        (event for event in events if event.end - event.start >= min_seconds - 1e-9),
        key=lambda event: (event.start, event.end, event.label),
    )


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
