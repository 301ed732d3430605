"""Calibration error from its definition, and the temperature against a general-purpose minimizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax
from sklearn.calibration import calibration_curve

from ossicle.metrics import calibration_bins, fit_temperature
from ossicle.metrics.calibration import TEMPERATURES


def error_by_definition(confidence, right, bins=15):
    """The sum over bins of share times distance, with loops."""
    total = 0.0
    for k in range(bins):
        inside = [i for i, c in enumerate(confidence) if k / bins < c <= (k + 1) / bins or (k == 0 and c == 0)]
        if inside:
            total += abs(sum(confidence[i] for i in inside) - sum(right[i] for i in inside))
    return total / len(confidence)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 10_000))
def test_the_single_label_error_looks_at_the_given_label_only(clips, labels, seed):
    generator = np.random.default_rng(seed)
    scores = generator.dirichlet(np.ones(labels), clips)
    targets = np.eye(labels, dtype=bool)[generator.integers(0, labels, clips)]
    given_label = scores.argmax(axis=1)
    expected = error_by_definition(scores.max(axis=1), targets[np.arange(clips), given_label])
    assert calibration_bins(scores, targets, task="single-label").error == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 10_000))
def test_the_multi_label_error_looks_at_every_probability(clips, labels, seed):
    generator = np.random.default_rng(seed)
    scores, targets = generator.random((clips, labels)), generator.random((clips, labels)) < 0.5
    expected = error_by_definition(scores.ravel(), targets.ravel())
    assert calibration_bins(scores, targets, task="multi-label").error == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, 40, elements=st.integers(0, 20).map(lambda n: n / 20)), arrays(np.bool_, 40))
def test_the_bins_equal_scikit_learn_also_on_their_edges(scores, targets):
    ours = calibration_bins(scores[:, None], targets[:, None], task="multi-label", bins=5)
    frequency, confidence = calibration_curve(targets, scores, n_bins=5)
    filled = ours.count > 0
    np.testing.assert_allclose(ours.frequency[filled], frequency)
    np.testing.assert_allclose(ours.confidence[filled], confidence)
    assert np.isnan(ours.frequency[~filled]).all() and ours.count.sum() == 40


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="probabilities lie between 0 and 1"):
        calibration_bins(np.array([[-2.0, 3.0]]), np.array([[True, False]]), task="single-label")


def loss(sharpness, logits, targets, task):
    if task == "single-label":
        return -log_softmax(sharpness * logits, axis=1)[targets].sum()
    return -np.where(targets, log_expit(sharpness * logits), log_expit(-sharpness * logits)).sum()


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_minimizes_the_negative_log_likelihood(task, truth):
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(400, 5)) * 2
    noise = generator.gumbel(size=logits.shape) if task == "single-label" else generator.logistic(size=logits.shape)
    drawn = logits / truth + noise
    targets = np.eye(5, dtype=bool)[drawn.argmax(axis=1)] if task == "single-label" else drawn > 0
    best = minimize_scalar(
        loss, bounds=(0.1, 4), args=(logits, targets, task), method="bounded", options={"xatol": 1e-9}
    )
    fitted = fit_temperature(logits, targets, task=task)
    assert fitted == pytest.approx(1 / best.x, rel=1e-4)
    assert fitted == pytest.approx(truth, rel=0.2)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_the_temperature_stays_bounded_when_the_likelihood_does_not(task):
    logits = np.array([[3.0, -3.0], [-3.0, 3.0]])
    right = logits > 0
    assert fit_temperature(logits, right, task=task) == TEMPERATURES[0]
    assert fit_temperature(logits, ~right, task=task) == TEMPERATURES[1]


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_huge_logits_do_not_overflow(task):
    logits = np.array([[1e5, -1e5], [1e5, -1e5], [1e5, -1e5]], np.float32)
    targets = np.array([[True, False], [True, False], [False, True]])
    assert TEMPERATURES[0] <= fit_temperature(logits, targets, task=task) <= TEMPERATURES[1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 1000))
def test_any_logits_give_a_temperature_in_range(clips, labels, seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(clips, labels)).astype(np.float32)
    targets = np.eye(labels, dtype=bool)[generator.integers(0, labels, clips)]
    for task in ("single-label", "multi-label"):
        assert TEMPERATURES[0] <= fit_temperature(logits, targets, task=task) <= TEMPERATURES[1]
