"""What every recognizer is, whatever computes its scores: windows over a recording, their scores, rows.

torch and onnxruntime each fill in how windows are scored; everything around that is here, once. Recordings are
predicted one at a time and batches hold windows of one recording only, so its scores are the same alone and among
others.
"""

import abc
import dataclasses
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numpy as np

from ossicle.audio import AudioInfo, as_clip, read_blocks
from ossicle.audio.resample import resample
from ossicle.inference.formats import Provenance
from ossicle.inference.reporting import Reporting, label_indices, stream_rows
from ossicle.inference.rows import Row, select_labels
from ossicle.inference.windows import (
    Summary,
    WindowScores,
    check_number,
    join_scores,
    split_hops,
    stream_scores,
    summarize,
    window_starts,
)
from ossicle.types import Float, Float32, Task

AudioInput = str | os.PathLike[str] | tuple[Any, int]  # a file, or (array, rate)
Inputs = TypeVar("Inputs", bound=AudioInput)
Blocks = Iterable[Float32[np.ndarray, " _"]]

MAX_WINDOW_SECONDS = 60.0  # the memory of one pass grows with the window
BATCH = 16  # windows scored at once


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What every kind of model has: how logits become scores, and over what time."""

    model_name: str
    task: Task
    labels: tuple[str, ...]
    thresholds: Float[np.ndarray, " label"] | None = None
    temperature: float = 1.0
    window_seconds: float
    hop_seconds: float
    pad: bool = False
    weights_license: str | None = None
    library_version: str
    version: str  # of these weights and this configuration: 12 hexadecimal digits made from their bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The labels of one recording, text or image."""

    file: str  # as it was given; empty for samples
    labels: tuple[str, ...]
    scores: Float[np.ndarray, " label"]
    """Of the whole recording, between 0 and 1; see `ossicle.inference.summarize`."""
    rows: tuple[Row, ...]
    """Window by window, or events, sorted by time."""
    chosen: tuple[str, ...]
    """The labels chosen by `labels`, `top_k`, `min_score` or the thresholds for the whole recording, best first."""
    seconds: float
    padded_seconds: float
    """Silence appended to a recording shorter than the minimum length of the model."""

    def __repr__(self) -> str:
        (label, score), number = self.top, len(self.rows)
        length = f", {self.seconds:g} s" if self.seconds else ""
        return f"Prediction({self.file!r}{length}, top=({label!r}, {score:.4f}), {number} row{'s' * (number != 1)})"

    @property
    def top(self) -> tuple[str, float]:
        """The best label and its score."""
        best = int(np.argmax(self.scores))
        return self.labels[best], float(self.scores[best])


class Predictor(abc.ABC):
    """A model with its frontend, labels and thresholds."""

    bundle: ModelInfo
    modality: str = "sound"
    plural: str = "recordings"
    """What it predicts on."""
    timed: bool = True
    """Whether what it predicts on has times."""
    in_rows: bool = False
    """Whether it predicts on rows of a table, not on files."""

    @property
    @abc.abstractmethod
    def rate(self) -> int:
        """Sample rate of the model, hertz; recordings of other rates are resampled."""

    @property
    @abc.abstractmethod
    def min_samples(self) -> int:
        """Minimum length of a recording; a shorter one is padded with silence."""

    @property
    def max_window_seconds(self) -> float:
        """Maximum length of a window."""
        return MAX_WINDOW_SECONDS

    @property
    def hop_feature_seconds(self) -> float | None:
        """Time resolution of a model with scores finer than its windows; None for others."""
        return None

    @abc.abstractmethod
    def scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window label"]:
        """Gives the logits of windows of one length at `rate`."""

    @abc.abstractmethod
    def features(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window dim"]:
        """Gives the features before the head of windows of one length at `rate`."""

    def outputs(
        self, windows: Float32[np.ndarray, "window time"]
    ) -> tuple[Float32[np.ndarray, "window label"], Float32[np.ndarray, "window dim"]]:
        """Gives the logits and the features before the head of windows of one length at `rate`."""
        return self.scores(windows), self.features(windows)

    def clip_outputs(
        self, clips: Float32[np.ndarray, "clip time"], *, rate: int
    ) -> tuple[Float[np.ndarray, "clip label"], Float[np.ndarray, "clip dim"]]:
        """Gives the logits and the features before the head of whole clips of one length.

        They are resampled and cut into the model's windows, whose logits are reduced as those of a recording are, and
        whose features are averaged.
        """
        if rate != self.rate:
            clips = np.stack([resample(clip, rate, self.rate) for clip in clips])
        if (lacking := self.min_samples - clips.shape[1]) > 0:
            clips = np.pad(clips, ((0, 0), (0, lacking)))
        window, hop = self.window_samples()
        starts = window_starts(clips.shape[1], window=window, hop=hop)
        logits, features = zip(
            *(self.outputs(np.ascontiguousarray(clips[:, start : start + window])) for start in starts), strict=True
        )
        reduced = np.stack([summarize(rows, task=self.task) for rows in np.stack(logits, axis=1)])
        return reduced, np.stack(features).mean(axis=0)

    def hop_scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window hop label"]:
        """Gives the logits of every `hop_feature_seconds` of windows, for a model that has them."""
        raise NotImplementedError

    # --- what it says of itself ---

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of every score."""
        return self.bundle.labels

    @property
    def task(self) -> Task:
        """`single-label` or `multi-label`."""
        return self.bundle.task

    @property
    def thresholds(self) -> Float[np.ndarray, " label"] | None:
        """The score from which on each label counts as present."""
        return self.bundle.thresholds

    @property
    def provenance(self) -> Provenance:
        """What rows say about this model."""
        return Provenance(model=self.bundle.model_name, model_version=self.bundle.version, hertz=self.hertz)

    @property
    def hertz(self) -> tuple[float, float]:
        """Lowest and highest frequency of the model's input."""
        return 0.0, self.rate / 2

    @property
    def settings(self) -> dict[str, Any]:
        """What its scores depend on besides the bundle, as JSON."""
        return {}

    # --- recordings ---

    @overload
    def predict(
        self,
        inputs: AudioInput,
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        reporting: Reporting | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        inputs: list[Inputs],
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        reporting: Reporting | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        inputs: Any,
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        reporting: Reporting | None = None,
    ) -> Prediction | list[Prediction]:
        """Predicts one recording, or each of a list.

        Args:
            inputs: a file; `(array, rate)`, the array (time,) or (time, channel), the rate hertz; or a list of these
            window: seconds; by default the model's
            hop: seconds from one window to the next; by default the model's hop, or the window if that is given
            top_k: report this many labels
            min_score: report labels from this score on
            reporting: in place of these two, all choices about rows: events, segments, labels

        Raises:
            AudioError: a recording that cannot be used; in a list, the first one
            ValueError, TypeError: an argument outside its range or of another type
        """
        if reporting is None:
            reporting = Reporting(top_k=top_k, min_score=min_score)
        elif top_k is not None or min_score is not None:
            raise ValueError("top_k and min_score are part of reporting: give them there")
        if isinstance(inputs, list):
            return [self.predict(one, window=window, hop=hop, reporting=reporting) for one in inputs]
        check_input(inputs)
        file = "" if isinstance(inputs, tuple) else os.fspath(inputs)
        whole, info = Summary(task=self.task), AudioInfo()

        def summed() -> Iterator[WindowScores]:
            for part in self._score(self._blocks(inputs, info), window=window, hop=hop):
                whole.add(_of_windows(part))
                yield part

        rows = tuple(in_time(within(self._rows(summed(), file, reporting), info), reporting))
        scores = self.activate(whole.logits)
        indices = label_indices(self.labels, reporting.labels)
        wanted = np.array(range(len(self.labels)) if indices is None else indices, dtype=np.int64)
        chosen = wanted[
            select_labels(
                scores[wanted],
                task=self.task,
                thresholds=None if self.thresholds is None else self.thresholds[wanted],
                top_k=reporting.top_k,
                min_score=reporting.min_score,
            )
        ]
        return Prediction(
            file=file,
            labels=self.labels,
            scores=scores,
            rows=rows,
            chosen=tuple(self.labels[index] for index in chosen),
            seconds=whole.seconds,
            padded_seconds=whole.padded_samples / self.rate,
        )

    def stream(
        self,
        blocks: Blocks,
        *,
        file: str,
        reporting: Reporting,
        window: float | None = None,
        hop: float | None = None,
        batch: int = BATCH,
        info: AudioInfo | None = None,
    ) -> Generator[list[Row]]:
        """Yields the rows of a recording while it arrives, in memory that does not grow with it.

        Args:
            blocks: mono samples at `rate`
            file: what the rows call it
            batch: windows that wait for each other; 1 gives rows soonest
            info: of the recording, filled while its blocks are read; no row ends after it
        """
        rows = self._rows(self._score(blocks, window=window, hop=hop, batch=batch), file, reporting)
        yield from rows if info is None else within(rows, info)

    def score_windows(
        self, recording: AudioInput, *, window: float | None = None, hop: float | None = None
    ) -> WindowScores:
        """Gives the logits of every window of a recording; a file is read in blocks, so its length costs no memory."""
        return join_scores(_of_windows(part) for part in self._score(self._blocks(recording), window=window, hop=hop))

    @overload
    def embed(
        self,
        inputs: AudioInput,
        *,
        timestamps: Literal[False] = False,
        window: float | None = None,
        hop: float | None = None,
    ) -> Float[np.ndarray, " dim"]: ...

    @overload
    def embed(
        self, inputs: AudioInput, *, timestamps: Literal[True], window: float | None = None, hop: float | None = None
    ) -> tuple[Float[np.ndarray, "window dim"], Float[np.ndarray, " window"]]: ...

    @overload
    def embed(
        self, inputs: list[Inputs], *, timestamps: bool = False, window: float | None = None, hop: float | None = None
    ) -> list[Any]: ...

    def embed(
        self, inputs: Any, *, timestamps: bool = False, window: float | None = None, hop: float | None = None
    ) -> Any:
        """Gives the features before the head of one recording, or of each of a list.

        Args:
            inputs: as in `predict`
            timestamps: a vector for each window; otherwise their mean
            window, hop: seconds, as in `predict`

        Shape:
            - (dim,): the mean over the recording's windows
            - with `timestamps`: (window, dim), and the middle of each window in seconds (window,)
        """
        if isinstance(inputs, list):
            return [self.embed(one, timestamps=timestamps, window=window, hop=hop) for one in inputs]
        windows = join_scores(self.stream_windows(self._blocks(inputs), self.features, window=window, hop=hop))
        if timestamps:
            return windows.scores, (windows.starts + windows.ends) / 2
        return windows.scores.mean(axis=0)

    def activate(self, logits: Float[np.ndarray, "*clip label"]) -> Float[np.ndarray, "*clip label"]:
        """Turns logits into scores between 0 and 1: temperature, then softmax or sigmoid by task."""
        return probabilities(logits, task=self.task, temperature=self.bundle.temperature)

    def window_samples(self, *, window: float | None = None, hop: float | None = None) -> tuple[int, int]:
        """Gives window and hop in samples, from seconds or from the model.

        Raises: ValueError for a window outside the range of the model, and for a hop that leaves samples out.
        """
        for name, value in {"window": window, "hop": hop}.items():
            if value is not None:
                check_number(name, value)
        if hop is None:
            hop = self.bundle.hop_seconds if window is None else window
        least, most = self.min_samples / self.rate, self.max_window_seconds
        if window is None:
            window = max(self.bundle.window_seconds, least)
        if not least <= window + 0.5 / self.rate <= most + 1 / self.rate:
            raise ValueError(f"a window of {window:g} s is outside the range of this model, {least:.3f} to {most:g} s")
        if not 0 < hop <= window:
            raise ValueError(f"a hop of {hop:g} s must be more than 0 and at most the window of {window:g} s")
        return round(window * self.rate), max(1, round(hop * self.rate))

    # --- inside ---

    def _rows(self, parts: Iterable[WindowScores], file: str, reporting: Reporting) -> Iterator[list[Row]]:
        """Rows of what `_score` gives."""
        if self.hop_feature_seconds is not None:
            step = round(self.hop_feature_seconds * self.rate)
            combined = reporting.overlap is not None or reporting.events is not None
            parts = split_hops(parts, rate=self.rate, step=step, overlapping=combined)
        return self._rows_of(
            (dataclasses.replace(part, scores=self.activate(part.scores)) for part in parts), file, reporting
        )

    def _rows_of(self, parts: Iterable[WindowScores], file: str, reporting: Reporting) -> Iterator[list[Row]]:
        """Rows of scores that are activated already."""
        return stream_rows(
            parts,
            file=file,
            labels=self.labels,
            task=self.task,
            thresholds=self.thresholds,
            reporting=reporting,
        )

    def _blocks(self, recording: Any, info: AudioInfo | None = None) -> Blocks:
        check_input(recording)
        if isinstance(recording, tuple):
            samples, rate = recording[0], int(recording[1])
            if hasattr(samples, "detach"):  # a tensor, whose memory may be elsewhere
                samples = samples.detach().cpu()
            clip = as_clip(samples, rate, rate=self.rate)
            if info is not None:
                info.rate, info.frames = rate, len(samples)
            return [clip.samples]
        return read_blocks(Path(recording), self.rate, info=info)

    def stream_windows(
        self,
        blocks: Blocks,
        score: Callable[[np.ndarray], np.ndarray],
        *,
        window: float | None = None,
        hop: float | None = None,
        batch: int = BATCH,
    ) -> Iterator[WindowScores]:
        """Yields what `score` makes of a recording's windows, batch by batch."""
        window_samples, hop_samples = self.window_samples(window=window, hop=hop)
        return stream_scores(
            blocks,
            score,
            rate=self.rate,
            window=window_samples,
            hop=hop_samples,
            min_samples=self.min_samples,
            batch=batch,
        )

    def _score(
        self, blocks: Blocks, *, window: float | None, hop: float | None, batch: int = BATCH
    ) -> Iterator[WindowScores]:
        """Yields the logits of windows: (window, label), or of a model with `hop_feature_seconds` those of its hops."""
        score = self.scores if self.hop_feature_seconds is None else self.hop_scores
        return self.stream_windows(blocks, score, window=window, hop=hop, batch=batch)


EXPECTED = "expected an audio file, (array, rate) with the rate in hertz, or a list of these"


def check_input(recording: Any) -> None:
    """Refuses what is no recording, with what to pass instead.

    Raises: TypeError, or ValueError for a rate
    """
    if isinstance(recording, str | os.PathLike):
        return
    shape = getattr(recording, "shape", None)
    if shape is not None:
        raise TypeError(f"{EXPECTED}; got an array of the shape {tuple(shape)} without its rate: pass (array, rate)")
    if not isinstance(recording, tuple):
        raise TypeError(f"{EXPECTED}; got {type(recording).__name__}")
    if len(recording) != 2 or not hasattr(recording[0], "__len__") or not isinstance(recording[1], Real):
        kinds = ", ".join(type(part).__name__ for part in recording)
        raise TypeError(f"{EXPECTED}; got a tuple of ({kinds})")
    if not float(recording[1]).is_integer():
        raise ValueError(f"the rate is a whole number of hertz, not {recording[1]}")


def _of_windows(part: WindowScores) -> WindowScores:
    """The windows; of a model with finer scores, the mean of their hops."""
    return part if part.scores.ndim == 2 else dataclasses.replace(part, scores=part.scores.mean(1))


def within(rows: Iterable[list[Row]], info: AudioInfo) -> Iterator[list[Row]]:
    """The rows, none of which ends after the recording: resampled, it may be longer by a fraction of a sample."""
    for some in rows:
        last = info.seconds or np.inf
        yield [row if row.end <= last else dataclasses.replace(row, end=last) for row in some]


def in_time(rows: Iterable[list[Row]], reporting: Reporting) -> Iterator[Row]:
    """The rows of a stream one by one, in the order of time."""
    each = (row for some in rows for row in some)
    if reporting.events is None:
        return each
    # An event comes when it is over, and a later one may have begun before it.
    return iter(sorted(each, key=lambda row: (row.start, row.end)))


def probabilities(
    logits: Float[np.ndarray, "*clip label"], *, task: Task, temperature: float = 1.0
) -> Float[np.ndarray, "*clip label"]:
    """Softmax or sigmoid of `logits / temperature`, in double precision."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if task == "multi-label":
        return 0.5 * (1.0 + np.tanh(0.5 * scaled))  # the sigmoid, without an overflow at either end
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
