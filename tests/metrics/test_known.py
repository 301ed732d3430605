"""Labels of which nobody knows whether a clip has them count in no metric, whatever the scores for them are."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ossicle.metrics import calibration_bins, compute_metrics, fit_temperature, fit_thresholds

LABELS = ("cello", "drums", "flute")


def case(*, clips: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, targets and what is known; of the unknown labels the targets are false."""
    generator = np.random.default_rng(seed)
    known = generator.random((clips, len(LABELS))) < 0.4
    known[np.arange(clips), generator.integers(0, len(LABELS), clips)] = True
    targets = (generator.random(known.shape) < 0.5) & known
    scores = np.round(generator.random(known.shape) + 0.4 * targets, 2) / 1.4
    return scores, targets, known


def test_every_metric_of_known_labels_equals_scikit_learn_with_their_weights() -> None:
    scores, targets, known = case()
    measured = compute_metrics(scores, targets, known=known, labels=LABELS, task="multi-label", resamples=0)
    columns = [(targets[:, i], scores[:, i], known[:, i]) for i in range(len(LABELS))]
    for metric, wanted in (
        ("mean_average_precision", [sk.average_precision_score(t, s, sample_weight=k) for t, s, k in columns]),
        ("auroc", [sk.roc_auc_score(t, s, sample_weight=k) for t, s, k in columns]),
        ("balanced_accuracy", [sk.balanced_accuracy_score(t, s >= 0.5, sample_weight=k) for t, s, k in columns]),
        ("macro_f1", [sk.f1_score(t, s >= 0.5, sample_weight=k) for t, s, k in columns]),
    ):
        assert measured.headline[metric].value == pytest.approx(np.mean(wanted), abs=1e-12), metric
    assert measured.brier.value == pytest.approx(sk.brier_score_loss(targets[known], scores[known]))
    right = ((scores >= 0.5) == targets) | ~known
    assert measured.accuracy.value == pytest.approx(right.all(1).mean())
    assert measured.baseline.mean_average_precision == pytest.approx(np.mean([t[k].mean() for t, _, k in columns]))
    assert [row.support for row in measured.classes] == targets.sum(0).tolist()
    assert [row.given for row in measured.classes] == ((scores >= 0.5) & known).sum(0).tolist()


def test_scores_for_unknown_labels_change_nothing() -> None:
    scores, targets, known = case()
    others = np.where(known, scores, 1 - scores)
    one, other = (
        compute_metrics(some, targets, known=known, labels=LABELS, task="multi-label", resamples=50).to_json()
        for some in (scores, others)
    )
    assert one == other
    everything = compute_metrics(scores, targets, labels=LABELS, task="multi-label", resamples=50).to_json()
    assert everything["headline"] != one["headline"]  # the control: without it they count as absent
    assert fit_thresholds(scores, targets, known).tolist() == fit_thresholds(others, targets, known).tolist()
    logits = np.log(scores.clip(1e-3, 0.999) / (1 - scores.clip(1e-3, 0.999)))
    temperatures = [
        fit_temperature(some, targets, task="multi-label", known=known) for some in (logits, np.where(known, logits, 9))
    ]
    assert temperatures[0] == temperatures[1] != fit_temperature(logits, targets, task="multi-label")
    bins = calibration_bins(scores, targets, task="multi-label", known=known)
    assert bins.count.sum() == known.sum()
    measured = compute_metrics(scores, targets, known=known, labels=LABELS, task="multi-label", resamples=0)
    assert measured.calibration_error.value == pytest.approx(bins.error)


def test_all_labels_known_is_as_nothing_said() -> None:
    scores, targets, known = case()
    whole = np.ones_like(known)
    one, other = (
        compute_metrics(scores, targets, known=some, labels=LABELS, task="multi-label", resamples=20).to_json()
        for some in (None, whole)
    )
    for name, estimate in one["headline"].items():
        assert other["headline"][name] == pytest.approx(estimate), name
    assert one["classes"] == other["classes"] and one["calibration"] == other["calibration"]


def test_a_class_of_which_nothing_is_known_has_no_metrics() -> None:
    scores, targets, known = case()
    known[:, 1] = targets[:, 1] = False
    measured = compute_metrics(scores, targets, known=known, labels=LABELS, task="multi-label", resamples=5)
    assert measured.classes[1].average_precision is None and measured.classes[1].auroc is None
    assert measured.classes_scored == 2 and measured.mean_average_precision.value is not None
    assert fit_thresholds(scores, targets, known)[1] == 0.5
