"""The whole evaluation against scikit-learn, its intervals against a plain bootstrap, and its JSON."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ossicle.metrics import Estimate, compute_metrics, mean_over_folds
from ossicle.metrics.arrays import check_scores

LABELS = ("cat", "dog", "owl", "rain")


def case(task, *, clips=40, labels=4, seed=0, absent=()):
    """Coarse scores (many ties) that carry some signal, and targets in which the `absent` classes never occur."""
    generator = np.random.default_rng(seed)
    present = [label for label in range(labels) if label not in absent]
    if task == "single-label":
        targets = np.eye(labels, dtype=bool)[generator.choice(present, clips)]
    else:
        targets = generator.random((clips, labels)) < 0.4
        targets[:, list(absent)] = False
    scores = np.round(generator.random((clips, labels)) + 0.5 * targets, 1)
    scores = scores / scores.sum(axis=1, keepdims=True).clip(1) if task == "single-label" else scores / 1.5
    return scores, targets


def expected(scores, targets, task):
    """The headline figures from scikit-learn alone, averaged over the classes where each is defined."""
    occurs = targets.any(axis=0)
    mixed = occurs & ~targets.all(axis=0)
    figures = {
        "mean_average_precision": _mean(sk.average_precision_score(t, s) for t, s in _columns(targets, scores, occurs)),
        "auroc": _mean(sk.roc_auc_score(t, s) for t, s in _columns(targets, scores, mixed)),
    }
    if task == "single-label":
        true, given_label = targets.argmax(axis=1), scores.argmax(axis=1)
        figures["accuracy"] = sk.accuracy_score(true, given_label)
        figures["balanced_accuracy"] = sk.recall_score(
            true, given_label, labels=np.flatnonzero(occurs), average="macro"
        )
        figures["macro_f1"] = sk.f1_score(true, given_label, average="macro")
        if targets.shape[1] > 1:
            figures["brier"] = sk.brier_score_loss(true, scores, labels=range(targets.shape[1]), scale_by_half=False)
    else:
        decided = scores >= 0.5
        figures["accuracy"] = sk.accuracy_score(targets, decided)
        figures["balanced_accuracy"] = _mean(
            sk.balanced_accuracy_score(t, d) for t, d in _columns(targets, decided, mixed)
        )
        figures["macro_f1"] = sk.f1_score(targets, decided, average="macro", zero_division=np.nan)
        figures["brier"] = _mean(
            sk.brier_score_loss(t, s, pos_label=1) for t, s in _columns(targets, scores, occurs | True)
        )
    return figures


def _columns(targets, scores, chosen):
    return [(targets[:, label], scores[:, label]) for label in np.flatnonzero(chosen)]


def _mean(values):
    values = list(values)
    return float(np.mean(values)) if values else None


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
@pytest.mark.parametrize("absent", [(), (1,), (0, 3), (0, 1, 2)])
def test_every_figure_equals_scikit_learn(task, absent):
    scores, targets = case(task, absent=absent)
    if task == "single-label" and len(absent) == 3:
        targets = np.eye(4, dtype=bool)[np.full(40, 3)]  # one class alone
    evaluation = compute_metrics(scores, targets, labels=LABELS, task=task, resamples=0)
    for name, value in expected(scores, targets, task).items():
        got = evaluation.headline[name].value
        assert got is None if value is None else got == pytest.approx(value, abs=1e-12), name
    assert evaluation.classes_scored == targets.any(axis=0).sum()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["single-label", "multi-label"]), st.integers(1, 6), st.integers(1, 3), st.integers(0, 10_000))
def test_the_smallest_sets_of_clips_are_measured_without_nan(task, clips, labels, seed):
    scores, targets = case(task, clips=clips, labels=labels, seed=seed)
    evaluation = compute_metrics(scores, targets, labels=LABELS[:labels], task=task, resamples=20)
    json.dumps(evaluation.to_json(), allow_nan=False)
    for estimate in evaluation.headline.values():
        assert estimate.low is None or estimate.low <= estimate.high
    if clips == 1:
        assert evaluation.accuracy.low is None


def test_the_class_table_equals_scikit_learn():
    scores, targets = case("multi-label")
    thresholds = np.array([0.3, 0.5, 0.9, 2.0])
    rows = compute_metrics(
        scores, targets, labels=LABELS, task="multi-label", thresholds=thresholds, resamples=0
    ).classes
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        targets, scores >= thresholds, zero_division=np.nan
    )
    for i, row in enumerate(rows):
        assert (row.label, row.support, row.threshold) == (LABELS[i], support[i], thresholds[i])
        assert row.recall == pytest.approx(recall[i])
        assert row.average_precision == pytest.approx(sk.average_precision_score(targets[:, i], scores[:, i]))
        assert row.auroc == pytest.approx(sk.roc_auc_score(targets[:, i], scores[:, i]))
        assert row.given == (scores[:, i] >= thresholds[i]).sum()
    assert rows[0].precision == pytest.approx(precision[0]) and rows[0].f1 == pytest.approx(f1[0])
    assert rows[3].precision is None and rows[3].f1 == 0.0  # never given: no precision, and every positive missed


def test_the_intervals_are_those_of_a_plain_bootstrap():
    """Resampling by copying clips, one by one, measured by scikit-learn: the same distribution."""
    scores, targets = case("multi-label", clips=60, labels=2)
    evaluation = compute_metrics(scores, targets, labels=LABELS[:2], task="multi-label", resamples=2000)
    generator = np.random.default_rng(7)
    draws = []
    for _ in range(2000):
        chosen = generator.integers(0, 60, 60)
        draws.append(expected_map(scores[chosen], targets[chosen]))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert evaluation.mean_average_precision.low == pytest.approx(low, abs=0.01)
    assert evaluation.mean_average_precision.high == pytest.approx(high, abs=0.01)


def expected_map(scores, targets):
    """mAP by the definition, for scores without looking at scikit-learn's per-call overhead."""
    each = []
    for label in range(targets.shape[1]):
        positive, score = targets[:, label], scores[:, label]
        each.append(np.mean([positive[score >= s].mean() for s in score[positive]]))
    return np.mean(each)


def test_whole_groups_widen_the_interval():
    """Four copies of each clip carry no new evidence; drawn as groups, the interval says so."""
    scores, targets = case("single-label", clips=50)
    groups = [f"recording {i}" for i in range(50)] * 4
    scores, targets = np.tile(scores, (4, 1)), np.tile(targets, (4, 1))
    alone = compute_metrics(scores, targets, labels=LABELS, task="single-label").accuracy
    grouped = compute_metrics(scores, targets, labels=LABELS, task="single-label", groups=groups)
    assert grouped.groups == 50 and grouped.unit == "group"
    assert (grouped.accuracy.high - grouped.accuracy.low) == pytest.approx(2 * (alone.high - alone.low), rel=0.2)
    assert grouped.accuracy.value == alone.value


def test_one_group_alone_has_no_interval():
    scores, targets = case("single-label")
    evaluation = compute_metrics(scores, targets, labels=LABELS, task="single-label", groups=["a"] * 40)
    assert evaluation.accuracy.value is not None and evaluation.accuracy.low is None


def test_the_seed_decides_the_intervals_and_nothing_else():
    scores, targets = case("single-label")
    first, again, other = (
        compute_metrics(scores, targets, labels=LABELS, task="single-label", seed=seed) for seed in (0, 0, 1)
    )
    assert first.to_json() == again.to_json()
    assert first.accuracy != other.accuracy and first.accuracy.value == other.accuracy.value


def test_the_baseline_is_the_majority_of_these_clips():
    targets = np.eye(4, dtype=bool)[[0, 0, 0, 1]]
    own = compute_metrics(targets * 0.7 + 0.1, targets, labels=LABELS, task="single-label").baseline
    assert (own.label, own.accuracy) == ("cat", 0.75)
    assert own.mean_average_precision == 0.5  # (3/4 + 1/4) / 2 classes that occur


def test_a_coin_does_not_beat_the_baseline():
    scores, targets = case("single-label", clips=200)
    scores = np.random.default_rng(1).dirichlet(np.ones(4), 200)
    assert not compute_metrics(scores, targets, labels=LABELS, task="single-label").beats_baseline


def test_the_mean_over_folds_has_an_interval_over_folds():
    folds = [
        compute_metrics(*case("single-label", seed=seed), labels=LABELS, task="single-label", resamples=0)
        for seed in range(5)
    ]
    summary = mean_over_folds(folds)
    assert summary["accuracy"].value == pytest.approx(np.mean([fold.accuracy.value for fold in folds]))
    assert summary["accuracy"].low < summary["accuracy"].value < summary["accuracy"].high
    one_class = compute_metrics(np.array([[1.0]]), np.array([[True]]), labels=["cat"], task="single-label")
    assert mean_over_folds([one_class])["auroc"] == Estimate(value=None)


def test_a_resample_costs_a_small_part_of_an_evaluation():
    generator = np.random.default_rng(0)
    targets = np.eye(50, dtype=bool)[generator.integers(0, 50, 2000)]
    scores = generator.dirichlet(np.ones(50), 2000)

    def processor_seconds(resamples: int) -> float:
        started = time.process_time()
        compute_metrics(scores, targets, labels=[str(i) for i in range(50)], task="single-label", resamples=resamples)
        return time.process_time() - started

    few = min(processor_seconds(2) for _ in range(2))
    assert processor_seconds(1000) < 500 * few


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scores": np.full((2, 2), np.nan)}, "4 of 4 scores are NaN"),
        ({"scores": np.full((2, 2), 1.5)}, "probabilities lie between 0 and 1"),
        ({"scores": np.zeros((0, 2)), "targets": np.zeros((0, 2), bool)}, "at least one clip"),
        ({"targets": np.array([[True, True], [True, False]])}, "clip 0 has 2 labels"),
        ({"labels": ["cat"]}, "1 labels are named for 2 columns"),
        ({"groups": ["a"]}, "1 groups are named for 2 clips"),
    ],
)
def test_a_slip_is_named(change, sentence):
    arguments = {"scores": np.full((2, 2), 0.5), "targets": np.eye(2, dtype=bool), "labels": ["cat", "dog"]} | change
    scores, targets = arguments.pop("scores"), arguments.pop("targets")
    with pytest.raises(ValueError, match=sentence):
        compute_metrics(scores, targets, task="single-label", **arguments)


def test_unequal_shapes_are_named():
    with pytest.raises(ValueError, match=r"shape \(3, 2\) and targets \(2, 2\)"):
        check_scores(np.full((3, 2), 0.5), np.eye(2, dtype=bool), "single-label")
