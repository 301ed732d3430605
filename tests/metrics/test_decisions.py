"""Decisions, the confusion matrix and the fitted thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import f1_score, precision_recall_curve, recall_score

from ossicle.metrics import balanced_accuracy, confusion_matrix, decide, fit_thresholds


@st.composite
def scored(draw):
    shape = draw(st.tuples(st.integers(1, 10), st.integers(1, 3)))
    scores = draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    return scores, draw(arrays(np.bool_, shape))


def test_the_first_of_equal_scores_wins():
    assert decide(np.array([[0.2, 0.4, 0.4]]), task="single-label").tolist() == [[False, True, False]]


def test_a_score_on_its_threshold_is_accepted():
    scores = np.array([[0.5, 0.3, 0.3]])
    assert decide(scores, task="multi-label").tolist() == [[True, False, False]]
    assert decide(scores, task="multi-label", thresholds=np.array([0.6, 0.3, 0.31])).tolist() == [[False, True, False]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_the_confusion_matrix_equals_scikit_learn(pairs):
    true, given_label = np.array(pairs).T
    ours = confusion_matrix(np.eye(4, dtype=bool)[given_label], np.eye(4, dtype=bool)[true])
    np.testing.assert_array_equal(ours, sklearn_confusion_matrix(true, given_label, labels=range(4)))


@settings(max_examples=50, deadline=None)
@given(scored())
def test_no_threshold_gives_a_higher_f1(case):
    scores, targets = case
    thresholds = fit_thresholds(scores, targets)
    for label in range(targets.shape[1]):
        if not targets[:, label].any():
            assert thresholds[label] == 0.5
            continue
        precision, recall, _ = precision_recall_curve(targets[:, label], scores[:, label])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
        fitted = f1_score(targets[:, label], scores[:, label] >= thresholds[label])
        assert fitted == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_of_equally_good_thresholds_the_highest_is_taken(case):
    scores, targets = case
    threshold = fit_thresholds(scores, targets)[0]
    if not targets[:, 0].any():
        return
    fitted = f1(scores[:, 0] >= threshold, targets[:, 0])
    for higher in scores[:, 0][scores[:, 0] > threshold]:
        fewer = scores[:, 0] > higher
        assert f1(fewer, targets[:, 0]) < fitted


def f1(decided, targets):
    return 2 * (decided & targets).sum() / (decided.sum() + targets.sum())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_balanced_accuracy_averages_the_recall_of_the_classes_that_occur(pairs):
    true, given_label = np.array(pairs).T
    ours = balanced_accuracy(np.eye(4)[given_label], np.eye(4, dtype=bool)[true])
    assert ours == pytest.approx(recall_score(true, given_label, labels=np.unique(true), average="macro"))


def test_a_threshold_lies_halfway_between_accepted_and_refused():
    scores, targets = np.array([[0.9], [0.7], [0.3], [0.1]]), np.array([[True], [True], [False], [False]])
    assert fit_thresholds(scores, targets) == pytest.approx([0.5])


def test_between_neighboring_floats_the_threshold_still_parts_them():
    low = 0.1
    high = np.nextafter(low, 1)
    threshold = fit_thresholds(np.array([[high], [low]]), np.array([[True], [False]]))[0]
    assert low < threshold <= high


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 scores are NaN or infinite"):
        fit_thresholds(np.array([[np.nan], [0.5]]), np.array([[True], [False]]))
