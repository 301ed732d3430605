"""Average precision and AUROC against scikit-learn, and what no ranking may depend on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from ossicle.metrics import average_precision, d_prime, mean_average_precision
from ossicle.metrics.ranking import Ranking


@st.composite
def rankings(draw):
    """Scores from a few levels, so that most of them tie, down to one clip of one class."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    scores = draw(arrays(np.float32, shape, elements=st.integers(0, 4).map(lambda level: level / 4)))
    return scores, draw(arrays(np.bool_, shape))


def auroc(scores, targets):
    """Of each label, every clip once."""
    once = np.ones((len(scores), 1), np.int32)
    return [Ranking(scores[:, i], targets[:, i]).measure(once)[1].item() for i in range(scores.shape[1])]


@settings(max_examples=50, deadline=None)
@given(rankings())
def test_average_precision_equals_scikit_learn(case):
    scores, targets = case
    ours = average_precision(scores, targets)
    for label in range(targets.shape[1]):
        if targets[:, label].any():
            assert ours[label] == pytest.approx(average_precision_score(targets[:, label], scores[:, label]), abs=1e-12)
        else:
            assert math.isnan(ours[label])


@settings(max_examples=50, deadline=None)
@given(rankings())
def test_auroc_equals_scikit_learn(case):
    scores, targets = case
    ours = auroc(scores, targets)
    for label in range(targets.shape[1]):
        if 0 < targets[:, label].sum() < len(targets):
            assert ours[label] == pytest.approx(roc_auc_score(targets[:, label], scores[:, label]), abs=1e-12)
        else:
            assert math.isnan(ours[label])


@settings(max_examples=50, deadline=None)
@given(rankings(), st.randoms(use_true_random=False))
def test_the_order_of_the_clips_changes_nothing(case, random):
    scores, targets = case
    order = list(range(len(scores)))
    random.shuffle(order)
    np.testing.assert_array_equal(average_precision(scores[order], targets[order]), average_precision(scores, targets))
    np.testing.assert_array_equal(auroc(scores[order], targets[order]), auroc(scores, targets))


@settings(max_examples=50, deadline=None)
@given(rankings(), st.data())
def test_a_weight_of_n_equals_n_copies_of_the_clip(case, data):
    scores, targets = case
    weights = data.draw(arrays(np.int32, (len(scores), 3), elements=st.integers(0, 3)))
    measured = Ranking(scores[:, 0], targets[:, 0]).measure(weights)
    for resample in range(3):
        if not weights[:, resample].any():
            assert math.isnan(measured[0][resample]) and math.isnan(measured[1][resample])
            continue
        copied_scores = np.repeat(scores[:, :1], weights[:, resample], axis=0)
        copied_targets = np.repeat(targets[:, :1], weights[:, resample], axis=0)
        copied = average_precision(copied_scores, copied_targets)[0], auroc(copied_scores, copied_targets)[0]
        np.testing.assert_allclose([measured[0][resample], measured[1][resample]], copied, atol=1e-12)


def test_map_leaves_out_the_classes_without_positives_and_says_how_many_remain():
    scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.7]])
    targets = np.array([[True, False, False], [False, True, False]])
    assert mean_average_precision(scores, targets) == (1.0, 2)
    value, classes = mean_average_precision(scores, np.zeros_like(targets))
    assert math.isnan(value) and classes == 0


@pytest.mark.parametrize("area", [0.1, 0.5, 0.731, 0.999])
def test_d_prime_is_the_separation_of_two_normal_distributions(area):
    assert d_prime(area) == pytest.approx(math.sqrt(2) * norm.ppf(area))
    assert norm.cdf(d_prime(area) / math.sqrt(2)) == pytest.approx(area)


def test_d_prime_of_a_perfect_ranking_is_finite():
    assert d_prime(1.0) == pytest.approx(6.72, abs=0.01)
    assert d_prime(0.0) == pytest.approx(-d_prime(1.0))
    assert math.isnan(d_prime(math.nan))
