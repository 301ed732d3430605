"""The one windowing engine: cuts samples of any length into windows and scores them in batches, in bounded memory.

Windows start at 0, hop, 2 hop, ... as long as they fit; if samples are left over, one more window ends with the
recording. So no silence is added, and all windows of a recording have one length. Samples left over that are less than
a hundredth of a window get no window: a codec makes a 5 s clip some milliseconds longer, and it would be scored twice
for them. A recording shorter than a window is one window of its own length, padded only up to the minimum length of the
model.

Batches hold windows of one recording only: a recording's scores cannot depend on what else is being predicted.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np

from ossicle.types import Float, Float32, Int64, Task

Overlap = Literal["mean", "max"]
Score = Callable[[Float32[np.ndarray, "window time"]], Float[np.ndarray, "window *label"]]
Segment = tuple[float, float, np.ndarray]  # start, end, (label,)

NOTHING = "a recording without a single sample has no windows to score"


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """The scores of one recording's windows, and where these lie in seconds."""

    starts: Float[np.ndarray, " window"]
    ends: Float[np.ndarray, " window"]
    scores: Float[np.ndarray, "window *label"]
    padded_samples: int  # silence appended to a recording shorter than the minimum length of the model


def window_starts(length: int, *, window: int, hop: int) -> Int64[np.ndarray, " window"]:
    """Gives the first sample of each window over `length` samples; all three are counted in samples.

    >>> window_starts(25, window=10, hop=10)
    array([ 0, 10, 15])
    >>> window_starts(1005, window=1000, hop=1000)
    array([0])
    """
    _check(window, hop)
    if length <= 0:
        return np.zeros(0, dtype=np.int64)
    if length <= window:
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, length - window + 1, hop, dtype=np.int64)
    if _opens_a_window(length - int(starts[-1]) - window, window):
        starts = np.append(starts, length - window)
    return starts


def cut_windows(
    blocks: Iterable[Float32[np.ndarray, " _"]], *, window: int, hop: int
) -> Iterator[tuple[int, Float32[np.ndarray, " time"]]]:
    """Yields (first sample, samples) of each window of a recording that arrives in blocks of any length.

    The starts are those of `window_starts`. Keeps one block and one window, however long the recording.
    """
    _check(window, hop)
    held = np.zeros(0, dtype=np.float32)
    held_from = 0  # position of held[0] in the recording
    next_start = 0
    for block in blocks:
        held = np.concatenate([held, block])
        end = held_from + len(held)
        while next_start + window <= end:
            offset = next_start - held_from
            yield next_start, held[offset : offset + window]
            next_start += hop
        # The last `window` samples stay: the recording may end here, and then they are the flush window.
        needless = max(0, min(next_start, end - window) - held_from)
        held = held[needless:]
        held_from += needless
    end = held_from + len(held)
    if next_start == 0:
        if end:
            yield 0, held
    elif _opens_a_window(end - (next_start - hop + window), window):
        yield end - window, held[len(held) - window :]


def stream_scores(
    blocks: Iterable[Float32[np.ndarray, " _"]],
    score: Score,
    *,
    rate: int,
    window: int,
    hop: int,
    min_samples: int = 1,
    batch: int = 16,
) -> Iterator[WindowScores]:
    """Scores a recording that arrives in blocks, and yields a batch of windows as soon as it is scored.

    Args:
        rate: hertz, of the samples in the blocks
        window: samples
        hop: samples, at most `window`
        min_samples: the minimum length that `score` takes; a shorter recording is padded with silence up to it
        batch: windows handed to `score` at once
    """

    def scored(waiting: list[tuple[int, np.ndarray]]) -> WindowScores:
        starts = np.array([start for start, _ in waiting], dtype=np.float64)
        length = len(waiting[0][1])  # all windows of a recording have one
        padded = max(0, min_samples - length)  # only a whole recording can be so short
        samples = np.stack([np.pad(samples, (0, padded)) if padded else samples for _, samples in waiting])
        return WindowScores(
            starts=starts / rate, ends=(starts + length) / rate, scores=score(samples), padded_samples=padded
        )

    waiting: list[tuple[int, np.ndarray]] = []
    for found in cut_windows(blocks, window=window, hop=hop):
        waiting.append(found)
        if len(waiting) == batch:
            yield scored(waiting)
            waiting = []
    if waiting:
        yield scored(waiting)


def join_scores(parts: Iterable[WindowScores]) -> WindowScores:
    """The windows of all parts together.

    Raises: ValueError if there is none.
    """
    found = list(parts)
    if not found:
        raise ValueError(NOTHING)
    return WindowScores(
        starts=np.concatenate([part.starts for part in found]),
        ends=np.concatenate([part.ends for part in found]),
        scores=np.concatenate([part.scores for part in found]),
        padded_samples=found[0].padded_samples,
    )


def split_hops(
    parts: Iterable[WindowScores], *, rate: int, step: int, overlapping: bool = False
) -> Iterator[WindowScores]:
    """Turns windows that are scored every `step` samples into a window for each of these hops, in time.

    They tile the recording: the last hop of a window ends with it, and where windows overlap, the hops of the earlier
    one stay and those of the later one, whose grid may be another, go on from there. Edges are counted in samples, so
    hops that touch have the same bits there.

    Args:
        parts: scores (window, hop, label), in the order of time; hops behind a window's end are left out
        rate: hertz
        overlapping: keep the hops of all windows, for `combine_overlaps`
    """
    covered = 0  # samples
    waiting: list[Segment] = []
    padded = 0
    for part in parts:
        padded = part.padded_samples
        done: list[Segment] = []
        for start, end, scores in zip(part.starts.tolist(), part.ends.tolist(), part.scores, strict=True):
            first, last = round(start * rate), round(end * rate)
            edges = [*range(first, last, step)[: len(scores)], last]
            skip = 0
            if not overlapping:
                # The first hop that begins at most half of one before that; what is left may be shorter.
                skip = min(-((first - covered + step // 2) // step), len(edges) - 2)
                edges = [covered, *edges[skip + 1 :]]
                covered = last
            seconds = [edge / rate for edge in edges]
            waiting += zip(seconds, seconds[1:], scores[skip:], strict=False)
            waiting.sort(key=_start)
            ready = bisect_right(waiting, start if overlapping else end, key=_start)
            done += waiting[:ready]
            del waiting[:ready]
        yield from _packed(done, padded)
    yield from _packed(waiting, padded)


def combine_overlaps(parts: Iterable[WindowScores], how: Overlap) -> Iterator[WindowScores]:
    """Turns windows that overlap into segments that do not, each scored by all windows over it, by `mean` or `max`.

    A segment runs from one start or end of a window to the next. It is yielded as soon as no later window can reach it;
    only the windows that overlap are kept.

    Args:
        parts: windows in the order of their starts
    """
    held: list[Segment] = []  # windows that may go on
    at = 0.0
    padded = 0

    def until(time: float) -> Iterator[Segment]:
        ends = {min(end, time) for _, end, _ in held}
        edges = sorted(edge for edge in {at, *ends} if edge >= at)
        for start, end in zip(edges, edges[1:], strict=False):
            over = [scores for first, last, scores in held if first <= start and last >= end]
            yield start, end, aggregate(np.stack(over), how)

    for part in parts:
        padded = part.padded_samples
        done: list[Segment] = []
        for start, end, scores in zip(part.starts.tolist(), part.ends.tolist(), part.scores, strict=True):
            done += until(start)
            held = [window for window in held if window[1] > start]
            held.append((start, end, scores))
            at = start
        yield from _packed(done, padded)
    yield from _packed(list(until(np.inf)), padded)


def summarize(logits: Float[np.ndarray, "window label"], *, task: Task) -> Float[np.ndarray, " label"]:
    """Reduces the logits of a recording's windows to the recording's own, by one rule everywhere.

    A single-label task averages; a multi-label task takes each label's highest, so that a short sound counts in a long
    recording. On logits and not on scores, so that a temperature fitted on recordings means the same for windows.
    """
    return aggregate(logits, "mean" if task == "single-label" else "max")


class Summary:
    """`summarize` of windows that come part by part: nothing here grows with their number."""

    def __init__(self, *, task: Task) -> None:
        self.seconds = 0.0  # to the end of the last window
        self.padded_samples = 0
        self._averages = task == "single-label"
        self._windows = 0
        self._reduced: np.ndarray | None = None  # sum or highest

    def add(self, part: WindowScores) -> None:
        """Takes the logits (window, label) of the next windows."""
        rows = part.scores if self._reduced is None else np.concatenate([self._reduced[None], part.scores])
        # A sum in double precision: over a day, single precision loses what a window adds.
        self._reduced = rows.sum(axis=0, dtype=np.float64) if self._averages else rows.max(axis=0)
        self._windows += len(part.scores)
        self.seconds, self.padded_samples = float(part.ends[-1]), part.padded_samples

    @property
    def logits(self) -> Float[np.ndarray, " label"]:
        """Of the recording so far.

        Raises: ValueError before the first window.
        """
        if self._reduced is None:
            raise ValueError(NOTHING)
        return self._reduced / self._windows if self._averages else self._reduced


def aggregate(scores: Float[np.ndarray, "window label"], how: str) -> Float[np.ndarray, " label"]:
    """Reduces the scores of a recording's windows to one score per label, by their `mean` or their `max`."""
    if how not in ("mean", "max"):
        raise ValueError(f"windows are aggregated by 'mean' or 'max', not {how!r}")
    return scores.mean(axis=0) if how == "mean" else scores.max(axis=0)


def check_number(name: str, value: Any) -> float:
    """The value of an argument.

    Raises: TypeError for anything but a number.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{name} is a number, not {value!r}")


def _packed(segments: list[Segment], padded_samples: int) -> Iterator[WindowScores]:
    if segments:
        starts, ends, scores = zip(*segments, strict=True)
        yield WindowScores(
            starts=np.array(starts), ends=np.array(ends), scores=np.stack(scores), padded_samples=padded_samples
        )


def _start(segment: Segment) -> float:
    return segment[0]


def _opens_a_window(left_over: int, window: int) -> bool:
    return window <= 100 * left_over


def _check(window: int, hop: int) -> None:
    if window < 1:
        raise ValueError(f"a window holds at least one sample, not {window}")
    if not 1 <= hop <= window:
        raise ValueError(
            f"the hop must lie between 1 sample and the window of {window} samples, or samples are left out; got {hop}"
        )
