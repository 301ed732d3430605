"""Everything that is said about a model on a test part, measured at once.

One function measures under a weighting of the clips: weights of one give the figures, bootstrap counts give their
distribution, so that a figure and its interval cannot drift apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ossicle.metrics.arrays import check_labels, check_scores, mean_of_defined, ratio
from ossicle.metrics.calibration import BINS, CalibrationBins, bin_of, calibration_bins, stated
from ossicle.metrics.decisions import confusion_matrix, decide
from ossicle.metrics.intervals import Estimate, bootstrap_weights, defined, mean_interval, percentile_estimate
from ossicle.metrics.ranking import Ranking, d_prime
from ossicle.types import Task


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class's figures; None where one is not defined (no precision without a decision for the class)."""

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
    task. `mean_average_precision` is that of scores drawn at random: the mean share of positives.
    """

    label: str | None
    accuracy: float | None
    mean_average_precision: float | None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of merit of one model on one set of clips, with 95 % bootstrap intervals.

    accuracy             clips whose decision is right; multi-label: every label of the clip
    balanced_accuracy    mean recall of the classes that occur (unweighted average recall); multi-label: mean over the
                         classes of the mean of recall and specificity
    macro_f1             mean F1 of the classes that occur or are given, at the thresholds (multi-label) or the highest
                         score
    mean_average_precision  over the `classes_scored` classes that have positives
    auroc                mean over the classes that have positives and negatives
    d_prime              sqrt(2) * Phi^-1 of that mean
    calibration_error    expected calibration error in 15 bins
    brier                mean squared distance of probabilities and truth: summed over the labels of a clip (single-
                         label, 0 to 2) or averaged over them (multi-label, 0 to 1)
    """

    task: Task
    labels: tuple[str, ...]
    clips: int
    groups: int | None
    protocol: str
    resamples: int
    seed: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    mean_average_precision: Estimate
    auroc: Estimate
    d_prime: Estimate
    calibration_error: Estimate
    brier: Estimate
    classes_scored: int
    baseline: Baseline
    classes: tuple[ClassMetrics, ...]
    confusion: Int[np.ndarray, "label label"] | None
    calibration: CalibrationBins

    @property
    def headline(self) -> dict[str, Estimate]:
        """The figures with intervals, by name, in the order in which they are shown."""
        return {name: getattr(self, name) for name in HEADLINE}

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
        """A plain dictionary for `metrics.json`: every figure by name, None where one is not defined, never NaN."""
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
        return "clip" if self.groups is None else "group"


HEADLINE = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "mean_average_precision",
    "auroc",
    "d_prime",
    "calibration_error",
    "brier",
)


def compute_metrics(
    scores: Float[np.ndarray, "clip label"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    labels: Sequence[str],
    task: Task,
    thresholds: Float[np.ndarray, " label"] | None = None,
    decided: Bool[np.ndarray, "clip label"] | None = None,
    groups: Sequence[str] | None = None,
    protocol: str = "",
    resamples: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Measures scores against the truth.

    The intervals are percentiles of a bootstrap over clips, or over whole groups. A figure that is perfect on every
    clip gets an interval of no width, and fewer than about ten groups make intervals too narrow: they say what these
    clips say, no more.

    Args:
        scores: probabilities, 0 to 1.
        thresholds: from `fit_thresholds` on the validation part; they decide in a multi-label task and are only shown
            in a single-label one.
        decided: the labels given, where several models with thresholds of their own gave them.
        groups: one name for each clip (recording, speaker); whole groups are then drawn.
        protocol: the sentence that says which clips were tested and how they were chosen; travels with the figures.
        resamples: 0 leaves the intervals out.

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
    measures = _Measures(scores, targets, decided, task)
    once = np.ones((len(scores), 1), np.int32)
    figures = {name: float(values[0]) for name, values in measures.headline(once).items()}
    resampled = dict.fromkeys(figures, np.empty(0))
    if resamples and units.max() > 0:  # one unit, drawn again and again, says nothing about others
        generator = np.random.default_rng(seed)
        blocks = [measures.headline(w) for w in bootstrap_weights(units, resamples=resamples, generator=generator)]
        resampled = {name: np.concatenate([block[name] for block in blocks]) for name in figures}
    each = {name: [defined(value) for value in values[:, 0]] for name, values in measures.each_class(once).items()}
    return Metrics(
        task=task,
        labels=tuple(labels),
        clips=len(scores),
        groups=None if groups is None else int(units.max()) + 1,
        protocol=protocol,
        resamples=resamples,
        seed=seed,
        **{name: percentile_estimate(value, resampled[name]) for name, value in figures.items()},
        classes_scored=int(targets.any(axis=0).sum()),
        baseline=_baseline(targets, labels=labels, task=task),
        classes=tuple(
            ClassMetrics(
                label=label,
                support=int(targets[:, i].sum()),
                given=int(decided[:, i].sum()),
                threshold=None if thresholds is None else float(thresholds[i]),
                **{name: values[i] for name, values in each.items()},
            )
            for i, label in enumerate(labels)
        ),
        confusion=confusion_matrix(decided, targets) if task == "single-label" else None,
        calibration=calibration_bins(scores, targets, task=task),
    )


def mean_over_folds(folds: Sequence[Metrics]) -> dict[str, Estimate]:
    """Mean and Student's t interval of every headline figure over folds; a figure that a fold does not have is None."""
    summary = {}
    for name in HEADLINE:
        values = [getattr(metrics, name).value for metrics in folds]
        known = [value for value in values if value is not None]
        summary[name] = mean_interval(known) if len(known) == len(values) else Estimate(value=None)
    return summary


class _Measures:
    """The figures of fixed scores as functions of the clips' weights; what no weight changes is done once."""

    def __init__(
        self,
        scores: Float[np.ndarray, "clip label"],
        targets: Bool[np.ndarray, "clip label"],
        decided: Bool[np.ndarray, "clip label"],
        task: Task,
    ) -> None:
        self.task = task
        self.rankings = [Ranking(scores[:, label], targets[:, label]) for label in range(scores.shape[1])]
        self.hit, self.given, self.truth = (part.astype(float) for part in (decided & targets, decided, targets))
        self.exact = (decided == targets).all(axis=1).astype(float)
        squared = (scores - targets) ** 2
        self.brier = squared.sum(axis=1) if task == "single-label" else squared.mean(axis=1)
        confidence, right = stated(scores, targets, task=task)
        # Expected calibration error = sum over bins of |sum of (truth - confidence)|, so each clip enters by its gap in
        # each bin.
        self.stated_per_clip = confidence.shape[1]
        clip_bin = np.arange(len(scores))[:, None] * BINS + bin_of(confidence, bins=BINS)
        gaps = np.bincount(clip_bin.ravel(), (right - confidence).ravel(), len(scores) * BINS)
        self.gaps = gaps.reshape(len(scores), BINS)

    def headline(self, weights: Shaped[np.ndarray, "clip resample"]) -> dict[str, Float[np.ndarray, " resample"]]:
        each = self.each_class(weights)
        times = weights.T.astype(float)
        clips = times.sum(axis=1)
        recall = each["recall"]
        if self.task == "multi-label":
            support, given, hit = (self._count(part, weights) for part in (self.truth, self.given, self.hit))
            recall = (recall + ratio(clips - support - given + hit, clips - support)) / 2
        auroc = mean_of_defined(each["auroc"])
        return {
            "accuracy": times @ self.exact / clips,
            "balanced_accuracy": mean_of_defined(recall),
            "macro_f1": mean_of_defined(each["f1"]),
            "mean_average_precision": mean_of_defined(each["average_precision"]),
            "auroc": auroc,
            "d_prime": np.array([d_prime(value) for value in auroc.tolist()]),
            "calibration_error": np.abs(times @ self.gaps).sum(axis=1) / (clips * self.stated_per_clip),
            "brier": times @ self.brier / clips,
        }

    def each_class(
        self, weights: Shaped[np.ndarray, "clip resample"]
    ) -> dict[str, Float[np.ndarray, "label resample"]]:
        hit, given, support = (self._count(part, weights) for part in (self.hit, self.given, self.truth))
        ranked = [ranking.measure(weights) for ranking in self.rankings]
        return {
            "precision": ratio(hit, given),
            "recall": ratio(hit, support),
            "f1": ratio(2 * hit, given + support),
            "average_precision": np.stack([average_precision for average_precision, _ in ranked]),
            "auroc": np.stack([auroc for _, auroc in ranked]),
        }

    @staticmethod
    def _count(
        part: Float[np.ndarray, "clip label"], weights: Shaped[np.ndarray, "clip resample"]
    ) -> Float[np.ndarray, "label resample"]:
        return part.T @ weights.astype(float)


def _baseline(targets: Bool[np.ndarray, "clip label"], *, labels: Sequence[str], task: Task) -> Baseline:
    share = targets.mean(axis=0)
    present = share[share > 0]
    chance = float(present.mean()) if len(present) else None
    if task == "multi-label":
        return Baseline(label=None, accuracy=None, mean_average_precision=chance)
    majority = int(np.argmax(share))
    return Baseline(label=labels[majority], accuracy=float(share[majority]), mean_average_precision=chance)
