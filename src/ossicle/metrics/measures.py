"""Every metric of a model on a test part, measured at once. To add one, append it to `METRICS`.

A metric is a function of the clips' weights: weights of one give its value, bootstrap counts give its distribution, so
that a value and its interval cannot drift apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ossicle.metrics.arrays import check_labels, check_scores, mean_of_defined, ratio
from ossicle.metrics.calibration import BINS, CalibrationBins, bin_of, calibration_bins, stated
from ossicle.metrics.decisions import confusion_matrix, decide
from ossicle.metrics.intervals import Estimate, bootstrap_weights, defined, mean_interval, percentile_estimate
from ossicle.metrics.ranking import d_prime, rank_classes
from ossicle.types import Task


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class's metrics; None where one is not defined (no precision without a decision for the class)."""

    label: str
    support: int
    given: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    auroc: float | None
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What knowing nothing about the sound gives on the same clips.

    `accuracy` is that of always answering `label`, the most frequent one of these clips; both are None in a multi-label
    task. `mean_average_precision` is that of scores drawn at random: the mean fraction of positives.
    """

    label: str | None
    accuracy: float | None
    mean_average_precision: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """The metrics of one model on one set of clips, with 95 % bootstrap intervals; `METRICS` says what each is.

    Those of `headline` are attributes too: `metrics.accuracy.value`.
    """

    task: Task
    labels: tuple[str, ...]
    clips: int
    groups: int | None
    protocol: str
    resamples: int
    seed: int
    headline: Mapping[str, Estimate]  # by name, in the order of `METRICS`
    classes_scored: int
    baseline: Baseline
    classes: tuple[ClassMetrics, ...]
    confusion: Int[np.ndarray, "label label"] | None
    calibration: CalibrationBins
    noun: str = "clip"  # what one of them is called

    def __getattr__(self, name: str) -> Estimate:
        headline = self.__dict__.get("headline", {})
        if name not in headline:
            raise AttributeError(f"there is no metric {name!r}; available: {', '.join(headline)}")
        return headline[name]

    @property
    def beats_baseline(self) -> bool:
        """Whether the whole accuracy interval (multi-label: mAP interval) lies above the baseline."""
        own, bar = (
            (self.accuracy, self.baseline.accuracy)
            if self.task == "single-label"
            else (self.mean_average_precision, self.baseline.mean_average_precision)
        )
        low = own.value if own.low is None else own.low
        return low is not None and bar is not None and low > bar

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `metrics.json`: every metric by name, None where one is not defined, never NaN."""
        calibration = self.calibration
        return {
            "task": self.task,
            "protocol": self.protocol,
            "clips": self.clips,
            "groups": self.groups,
            "bootstrap": {"level": 0.95, "resamples": self.resamples, "seed": self.seed, "unit": self.unit},
            "headline": {name: estimate.to_json() for name, estimate in self.headline.items()},
            "classes_scored": self.classes_scored,
            "baseline": asdict(self.baseline),
            "labels": list(self.labels),
            "classes": [asdict(row) for row in self.classes],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "calibration": {
                "edges": calibration.edges.tolist(),
                "count": calibration.count.tolist(),
                "confidence": [defined(value) for value in calibration.confidence.tolist()],
                "frequency": [defined(value) for value in calibration.frequency.tolist()],
            },
        }

    @property
    def unit(self) -> str:
        """What the bootstrap draws."""
        return self.noun if self.groups is None else "group"


def compute_metrics(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    labels: Sequence[str],
    task: Task,
    thresholds: Float[np.ndarray, " label"] | None = None,
    decided: Bool[np.ndarray, "clip label"] | None = None,
    known: Bool[np.ndarray, "clip label"] | None = None,
    groups: Sequence[str] | None = None,
    protocol: str = "",
    resamples: int = 1000,
    seed: int = 0,
    noun: str = "clip",
) -> Metrics:
    """Measures scores against the truth.

    The intervals are percentiles of a bootstrap over clips, or over whole groups. A metric that is perfect on every
    clip gets an interval of no width, and fewer than about ten groups make intervals too narrow: they say what these
    clips say, no more.

    Args:
        scores: probabilities, 0 to 1.
        thresholds: from `fit_thresholds` on the validation part; they decide in a multi-label task and are only shown
            in a single-label one.
        decided: the labels given, where several models with thresholds of their own gave them.
        known: of which labels it is known whether a clip has them, in a multi-label task; the others do not count.
        groups: one name for each clip (recording, speaker); whole groups are then drawn.
        protocol: the sentence that says which clips were tested and how they were chosen; travels with the metrics.
        resamples: 0 leaves the intervals out.
        noun: what reports call a clip, such as text or image.

    Raises:
        ValueError: shapes that do not fit, scores that are no probabilities, a single-label clip without exactly one
            label.
    """
    check_scores(scores, targets, task)
    check_labels(labels, scores.shape[1])
    scores = scores.astype(np.float64)
    units = np.arange(len(scores))
    if groups is not None:
        if len(groups) != len(scores):
            raise ValueError(f"{len(groups)} groups are named for {len(scores)} clips; one for each clip")
        units = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1)
    decided = decide(scores, task=task, thresholds=thresholds) if decided is None else decided
    counted = np.ones_like(targets) if known is None else known
    targets, decided = targets & counted, decided if known is None else decided & counted
    measures = Measures(scores, targets, decided, task, known)
    once = np.ones((len(scores), 1), np.int32)
    values = {name: float(weighted[0]) for name, weighted in measures.all(once).items()}
    resampled = dict.fromkeys(values, np.empty(0))
    if resamples and units.max() > 0:  # one unit, drawn again and again, says nothing about others
        generator = np.random.default_rng(seed)
        blocks = [measures.all(w) for w in bootstrap_weights(units, resamples=resamples, generator=generator)]
        resampled = {name: np.concatenate([block[name] for block in blocks]) for name in values}
    each = {name: [defined(value) for value in column[:, 0]] for name, column in measures.each_class(once).items()}
    return Metrics(
        task=task,
        labels=tuple(labels),
        clips=len(scores),
        groups=None if groups is None else int(units.max()) + 1,
        protocol=protocol,
        resamples=resamples,
        seed=seed,
        noun=noun,
        headline={name: percentile_estimate(value, resampled[name]) for name, value in values.items()},
        classes_scored=int(targets.any(axis=0).sum()),
        baseline=_baseline(targets, counted, labels=labels, task=task),
        classes=tuple(
            ClassMetrics(
                label=label,
                support=int(targets[:, i].sum()),
                given=int(decided[:, i].sum()),
                threshold=None if thresholds is None else float(thresholds[i]),
                **{name: column[i] for name, column in each.items()},
            )
            for i, label in enumerate(labels)
        ),
        confusion=confusion_matrix(decided, targets) if task == "single-label" else None,
        calibration=calibration_bins(scores, targets, task=task, known=known),
    )


def mean_over_folds(folds: Sequence[Metrics]) -> dict[str, Estimate]:
    """Mean and Student's t interval of every metric over folds; one that a fold does not have is None."""
    summary = {}
    for name in folds[0].headline:
        values = [metrics.headline[name].value for metrics in folds]
        known = [value for value in values if value is not None]
        summary[name] = mean_interval(known) if len(known) == len(values) else Estimate(value=None)
    return summary


class Measures:
    """Fixed scores as functions of the clips' weights; what no weight changes is done once."""

    def __init__(
        self,
        scores: Float[np.ndarray, "clip label"],
        targets: Bool[np.ndarray, "clip label"],
        decided: Bool[np.ndarray, "clip label"],
        task: Task,
        known: Bool[np.ndarray, "clip label"] | None = None,
    ) -> None:
        self.task, self.known = task, None if known is None else known.astype(float)
        self.rankings = rank_classes(scores, targets, known)
        self.hit, self.given, self.truth = (part.astype(float) for part in (decided & targets, decided, targets))
        self.exact = (decided == targets).all(axis=1).astype(float)
        squared = (scores - targets) ** 2 if known is None else known * (scores - targets) ** 2
        self.brier = squared.sum(axis=1)
        confidence, right = stated(scores, targets, task=task)
        gap = right - confidence if known is None else known * (right - confidence)
        # Expected calibration error = sum over bins of |sum of (truth - confidence)|, so each clip enters by its gap in
        # each bin.
        stated_per_clip = np.full(len(scores), confidence.shape[1]) if known is None else known.sum(axis=1)
        self.stated_per_clip = stated_per_clip.astype(float)
        clip_bin = np.arange(len(scores))[:, None] * BINS + bin_of(confidence, bins=BINS)
        gaps = np.bincount(clip_bin.ravel(), gap.ravel(), len(scores) * BINS)
        self.gaps = gaps.reshape(len(scores), BINS)

    def all(self, weights: Shaped[np.ndarray, "clip resample"]) -> dict[str, Float[np.ndarray, " resample"]]:
        """Every metric by name."""
        weighted = Weighted(self, weights)
        return {metric.name: metric.measure(weighted) for metric in METRICS}

    def each_class(
        self, weights: Shaped[np.ndarray, "clip resample"]
    ) -> dict[str, Float[np.ndarray, "label resample"]]:
        hit, given, support = (self.count(part, weights) for part in (self.hit, self.given, self.truth))
        ranked = [ranking.measure(weights) for ranking in self.rankings]
        return {
            "precision": ratio(hit, given),
            "recall": ratio(hit, support),
            "f1": ratio(2 * hit, given + support),
            "average_precision": np.stack([average_precision for average_precision, _ in ranked]),
            "auroc": np.stack([auroc for _, auroc in ranked]),
        }

    @staticmethod
    def count(
        part: Float[np.ndarray, "clip label"], weights: Shaped[np.ndarray, "clip resample"]
    ) -> Float[np.ndarray, "label resample"]:
        return part.T @ weights.astype(float)


class Weighted:
    """What the metrics are made of, under weights of the clips; a row or an entry for each resample."""

    def __init__(self, measures: Measures, weights: Shaped[np.ndarray, "clip resample"]) -> None:
        self.measures, self.weights = measures, weights
        self.times = weights.T.astype(float)  # (resample, clip)
        self.clips = self.times.sum(axis=1)
        self.stated = self.times @ measures.stated_per_clip
        self.each = measures.each_class(weights)  # (label, resample) of each class's metrics

    def recall(self) -> Float[np.ndarray, "label resample"]:
        """Recall of each class; in a multi-label task its mean with specificity."""
        recall = self.each["recall"]
        if self.measures.task == "single-label":
            return recall
        m = self.measures
        support, given, hit = (m.count(part, self.weights) for part in (m.truth, m.given, m.hit))
        clips = self.clips if m.known is None else m.count(m.known, self.weights)
        return (recall + ratio(clips - support - given + hit, clips - support)) / 2

    def calibration_error(self) -> Float[np.ndarray, " resample"]:
        """Expected calibration error in bins of equal width."""
        return ratio(np.abs(self.times @ self.measures.gaps).sum(axis=1), self.stated)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: how it is computed and how it is shown."""

    name: str
    title: str
    meaning: str
    measure: Callable[[Weighted], Float[np.ndarray, " resample"]]
    multi_label: str = ""  # its meaning in a multi-label task, where that differs
    fraction: bool = True  # of something, 0 to 1: reports draw a bar

    def meaning_in(self, task: Task) -> str:
        """What it is in a task."""
        return self.multi_label if self.multi_label and task == "multi-label" else self.meaning


METRICS = (
    Metric(
        name="accuracy",
        title="Accuracy",
        meaning="fraction of clips whose highest score is the right label",
        multi_label="fraction of clips with every label right",
        measure=lambda w: w.times @ w.measures.exact / w.clips,
    ),
    Metric(
        name="balanced_accuracy",
        title="Balanced accuracy (UAR)",
        meaning="mean over the classes of the fraction of their clips recognized",
        multi_label="mean over the classes of the mean of recall and specificity",
        measure=lambda w: mean_of_defined(w.recall()),
    ),
    Metric(
        name="macro_f1",
        title="Macro F1",
        meaning="mean over the classes that occur or are given of F1",
        measure=lambda w: mean_of_defined(w.each["f1"]),
    ),
    Metric(
        name="mean_average_precision",
        title="mAP",
        meaning="mean average precision over the classes that occur",
        measure=lambda w: mean_of_defined(w.each["average_precision"]),
    ),
    Metric(
        name="auroc",
        title="AUROC",
        meaning="how often a clip of a class outscores one of the others",
        measure=lambda w: mean_of_defined(w.each["auroc"]),
    ),
    Metric(
        name="d_prime",
        title="d'",
        meaning="the same as a distance of two normal distributions",
        measure=lambda w: np.array([d_prime(value) for value in mean_of_defined(w.each["auroc"]).tolist()]),
        fraction=False,
    ),
    Metric(
        name="calibration_error",
        title="Calibration error (ECE)",
        meaning="mean distance of stated confidence and observed frequency, in 15 bins; 0 is best",
        measure=Weighted.calibration_error,
    ),
    Metric(
        name="brier",
        title="Brier score",
        meaning="squared error of the probabilities, summed over the labels of a clip (0 to 2); 0 is best",
        multi_label="mean squared error of the probabilities; 0 is best",
        measure=lambda w: ratio(w.times @ w.measures.brier, w.clips if w.measures.task == "single-label" else w.stated),
        fraction=False,
    ),
)


def _baseline(
    targets: Bool[np.ndarray, "clip label"],
    counted: Bool[np.ndarray, "clip label"],
    *,
    labels: Sequence[str],
    task: Task,
) -> Baseline:
    positive = targets.sum(axis=0) / np.maximum(counted.sum(axis=0), 1)
    present = positive[positive > 0]
    chance = float(present.mean()) if len(present) else None
    if task == "multi-label":
        return Baseline(label=None, accuracy=None, mean_average_precision=chance)
    majority = int(np.argmax(positive))
    return Baseline(label=labels[majority], accuracy=float(positive[majority]), mean_average_precision=chance)
