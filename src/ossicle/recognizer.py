"""The front door: audio in, labels out.

    recognizer = ossicle.load("run-folder")
    recognizer.predict("recording.wav").top          # the best label and its score
    recognizer.predict((samples, 44_100)).rows       # what was heard when
    recognizer.predict(["a.wav", "b.wav"])           # a list gives a list

Every path goes through the one windowing engine of `ossicle.predict`, one recording at a time, so that a recording's
scores are the same alone and among others.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.audio import as_clip, read_blocks, read_clip
from ossicle.bundle import MAX_WINDOW_SECONDS, Answers, Bundle
from ossicle.data import Item, Modality
from ossicle.devices import Precision, choose_device, choose_dtype
from ossicle.frontend import LogMel
from ossicle.frontend.batch import spectrograms
from ossicle.models.datar import HOP_FRAMES
from ossicle.predict import Row, WindowScores, rows_from_windows, score_blocks, select_labels, summarise
from ossicle.predict.rows import Task

Source = str | Path | tuple[np.ndarray, int]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was heard in one recording."""

    file: str  # as it was given; empty for samples
    labels: tuple[str, ...]
    scores: Float[np.ndarray, " label"]
    """Of the whole recording, between 0 and 1; how its windows count is said in `ossicle.predict.summarise`."""
    rows: tuple[Row, ...]
    """Window by window, the labels chosen by `top_k`, `min_score` or the thresholds."""
    chosen: tuple[str, ...]
    """The labels so chosen for the whole recording, best first."""
    seconds: float
    padded_seconds: float
    """Silence appended to a recording shorter than the model can take."""

    @property
    def top(self) -> tuple[str, float]:
        """The best label and its score."""
        best = int(np.argmax(self.scores))
        return self.labels[best], float(self.scores[best])


class Recognizer:
    """A network with its front end, labels and thresholds, ready to listen. Made by `ossicle.load`."""

    bundle: Answers
    modality: Modality = "sound"

    def __init__(self, bundle: Bundle, *, device: str = "auto", precision: Precision = "float32") -> None:
        self.bundle = bundle
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.model: nn.Module = bundle.model.to(self.device).eval()
        self.frontend: LogMel = bundle.frontend.to(self.device).eval()

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of every score."""
        return self.bundle.labels

    @property
    def task(self) -> Task:
        """`single-label` or `multi-label`."""
        return self.bundle.task

    @property
    def rate(self) -> int:
        """Samples per second that the network hears; other recordings are resampled."""
        return self.frontend.rate

    @property
    def min_samples(self) -> int:
        """Shortest recording that the network takes; a shorter one is followed by silence."""
        return self.frontend.min_samples

    @property
    def thresholds(self) -> Float[np.ndarray, " label"] | None:
        """A score per label from which on it counts as heard."""
        return self.bundle.thresholds

    def __repr__(self) -> str:
        return (
            f"Recognizer({self.bundle.model_name}, {len(self.labels)} labels, {self.task}, {self.rate} Hz, "
            f"window {self.bundle.window_seconds:g} s, {self.device})"
        )

    @overload
    def predict(
        self,
        source: Source,
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        source: list[Source],
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        source: Source | list[Source],
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Hears one recording, or each of a list.

        Args:
            source: a file; `(array, rate)`, the array (time,) or (time, channel), the rate hertz; or a list of these
            window: seconds; by default the bundle's
            hop: seconds from one window to the next; by default the bundle's hop, or the window if that was given
            top_k: report this many labels
            min_score: report labels from this score on

        Raises: AudioError for a recording that cannot be used; in a list, at the first such.
        """
        if isinstance(source, list):
            return [self.predict(one, window=window, hop=hop, top_k=top_k, min_score=min_score) for one in source]
        file = "" if isinstance(source, tuple) else str(source)
        windows, parts = self.score_parts(source, window=window, hop=hop)
        scores = self.activate(summarise(windows.scores, task=self.task))
        rows = rows_from_windows(
            file,
            starts=parts.starts,
            ends=parts.ends,
            scores=self.activate(parts.scores),
            labels=self.labels,
            task=self.task,
            thresholds=self.thresholds,
            top_k=top_k,
            min_score=min_score,
        )
        chosen = select_labels(scores, task=self.task, thresholds=self.thresholds, top_k=top_k, min_score=min_score)
        return Prediction(
            file=file,
            labels=self.labels,
            scores=scores,
            rows=tuple(rows),
            chosen=tuple(self.labels[index] for index in chosen),
            seconds=float(windows.ends[-1]),
            padded_seconds=windows.padded_samples / self.rate,
        )

    def predict_item(
        self,
        item: Item,
        *,
        window: float | None = None,
        hop: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Prediction:
        """Hears the file of an item; see `predict`."""
        return self.predict(item.file, window=window, hop=hop, top_k=top_k, min_score=min_score)

    def item_logits(self, item: Item) -> Float[np.ndarray, " label"]:
        """Gives the logits of one item of a data set, before temperature and softmax or sigmoid."""
        clip = read_clip(item.file, self.rate, start=item.start, end=item.end)
        return summarise(self.score_windows((clip.samples, self.rate)).scores, task=self.task)

    def score_windows(self, source: Source, *, window: float | None = None, hop: float | None = None) -> WindowScores:
        """Gives the logits of every window of a recording; a file is read in blocks, so its length costs no memory."""
        return self._run(source, self.scores, window=window, hop=hop)

    def score_parts(
        self, source: Source, *, window: float | None = None, hop: float | None = None
    ) -> tuple[WindowScores, WindowScores]:
        """Gives the logits of every window, and those of the finest stretches of time that the network tells apart.

        These are the windows themselves, but for a network with `hop_features`: then each of its hops, and where
        windows overlap, those of the earlier one.
        """
        step = self.hop_feature_seconds
        if step is None:
            windows = self.score_windows(source, window=window, hop=hop)
            return windows, windows
        hops = self._run(source, self._hop_scores, window=window, hop=hop)
        scores = hops.scores.reshape(len(hops.scores), -1, len(self.labels))
        starts = hops.starts[:, None] + step * np.arange(scores.shape[1])
        earlier = np.concatenate([[0.0], hops.ends[:-1]])
        kept = (starts < hops.ends[:, None] - 1e-9) & (starts >= earlier[:, None] - step / 2)
        parts = WindowScores(
            starts=starts[kept],
            ends=np.minimum(starts + step, hops.ends[:, None])[kept],
            scores=scores[kept],
            padded_samples=hops.padded_samples,
        )
        return dataclasses.replace(hops, scores=scores.mean(1)), parts

    @property
    def hop_feature_seconds(self) -> float | None:
        """Time resolution of a network with `hop_features`; None for others."""
        if not getattr(self.model.config, "hop_features", False):
            return None
        return HOP_FRAMES * self.frontend.config.hop_samples / self.rate

    @torch.inference_mode()
    def _hop_scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window hop_label"]:
        spec = self.spectrogram(windows)
        with self._precision():
            hops = self.model.forward_features(spec).hop_features  # type: ignore[operator]
            logits = self.model.head(hops)  # type: ignore[operator]
        return logits.float().flatten(1).cpu().numpy()

    @torch.inference_mode()
    def scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window label"]:
        """Gives the logits of windows of one length at `rate`."""
        return self._features(windows)[0]

    @overload
    def embed(self, source: Source, *, timestamps: Literal[False] = False) -> Float[np.ndarray, " dim"]: ...

    @overload
    def embed(
        self, source: Source, *, timestamps: Literal[True]
    ) -> tuple[Float[np.ndarray, "window dim"], Float[np.ndarray, " window"]]: ...

    def embed(
        self,
        source: Source,
        *,
        timestamps: bool = False,
        window: float | None = None,
        hop: float | None = None,
    ) -> Float[np.ndarray, " dim"] | tuple[Float[np.ndarray, "window dim"], Float[np.ndarray, " window"]]:
        """Gives what the network hears before it decides: the features in front of its head, never scores.

        Shape:
            - (dim,): the mean over the recording's windows
            - with `timestamps`: (window, dim), and the middle of each window in seconds (window,)
        """
        windows = self._run(source, lambda samples: self._features(samples)[1], window=window, hop=hop)
        if timestamps:
            return windows.scores, (windows.starts + windows.ends) / 2
        return windows.scores.mean(axis=0)

    def activate(self, logits: Float[np.ndarray, "*clip label"]) -> Float[np.ndarray, "*clip label"]:
        """Turns logits into scores between 0 and 1: temperature, then softmax or sigmoid by task."""
        return probabilities(logits, task=self.task, temperature=self.bundle.temperature)

    @torch.inference_mode()
    def spectrogram(self, windows: Float32[np.ndarray, "window time"]) -> Float32[Tensor, "window mel frame"]:
        """Gives what the network sees of windows of one length at `rate`."""
        waves = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        frames = self.frontend.frames(self.window_samples()[0]) if self.bundle.pad else None
        return spectrograms(self.frontend, list(waves), frames=frames)

    @torch.inference_mode()
    def _features(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spec = self.spectrogram(windows)
        with self._precision():
            out = self.model.forward_features(spec)  # type: ignore[operator]
        return out.logits.float().cpu().numpy(), out.features.float().cpu().numpy()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def window_samples(self, *, window: float | None = None, hop: float | None = None) -> tuple[int, int]:
        """Gives window and hop in samples, from seconds or from the bundle.

        Raises: ValueError for a window shorter than the network can take, and for a hop that leaves sound unheard.
        """
        if hop is None:
            hop = self.bundle.hop_seconds if window is None else window
        least = self.min_samples
        if window is None:
            window = max(self.bundle.window_seconds, least / self.rate)
        if not least / self.rate <= window + 0.5 / self.rate <= MAX_WINDOW_SECONDS + 1 / self.rate:
            raise ValueError(
                f"a window of {window:g} s is outside what this model takes, "
                f"{least / self.rate:.3f} to {MAX_WINDOW_SECONDS} s"
            )
        if not 0 < hop <= window:
            raise ValueError(f"a hop of {hop:g} s must be more than 0 and at most the window of {window:g} s")
        return round(window * self.rate), max(1, round(hop * self.rate))

    def _run(
        self,
        source: Source,
        score: Callable[[np.ndarray], np.ndarray],
        *,
        window: float | None,
        hop: float | None,
    ) -> WindowScores:
        window_samples, hop_samples = self.window_samples(window=window, hop=hop)
        blocks: Iterable[np.ndarray]
        if isinstance(source, tuple):
            samples, rate = source
            blocks = [as_clip(samples, rate, rate=self.rate).samples]
        else:
            blocks = read_blocks(Path(source), self.rate)
        return score_blocks(
            blocks,
            score,
            rate=self.rate,
            window=window_samples,
            hop=hop_samples,
            min_samples=self.min_samples,
        )


def probabilities(
    logits: Float[np.ndarray, "*clip label"], *, task: Task, temperature: float = 1.0
) -> Float[np.ndarray, "*clip label"]:
    """Softmax or sigmoid of `logits / temperature`, in double precision."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if task == "multi-label":
        return 0.5 * (1.0 + np.tanh(0.5 * scaled))  # the sigmoid, without an overflow at either end
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
