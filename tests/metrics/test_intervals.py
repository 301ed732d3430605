"""Intervals: Student's t against SciPy, the bootstrap against arithmetic and against its coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ossicle.metrics import Estimate, mean_interval, t_quantile
from ossicle.metrics.intervals import bootstrap_weights, percentile_estimate


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100])
@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.9, 0.975, 0.9999])
def test_the_t_quantile_equals_scipy(probability, degrees):
    assert t_quantile(probability, degrees=degrees) == pytest.approx(
        stats.t.ppf(probability, degrees), rel=1e-9, abs=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10))
def test_the_interval_over_folds_equals_scipy(values):
    ours = mean_interval(values)
    assert ours.value == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_one_fold_has_no_interval_and_none_has_no_mean():
    assert mean_interval([0.25]) == Estimate(value=0.25)
    for values in ([], [0.5, math.nan]):
        with pytest.raises(ValueError, match="at least one value, all finite"):
            mean_interval(values)


@pytest.mark.parametrize(("clips", "resamples"), [(1, 3), (7, 1), (7, 5), (50_000, 5)])
def test_every_resample_draws_as_many_clips_as_there_are(clips, resamples):
    blocks = list(bootstrap_weights(np.arange(clips), resamples=resamples, generator=np.random.default_rng(0)))
    weights = np.concatenate(blocks, axis=1)
    assert weights.shape == (clips, resamples)
    assert (weights.sum(axis=0) == clips).all()


def test_groups_are_drawn_whole():
    units = np.array([0, 1, 0, 2, 2, 2])
    weights = next(bootstrap_weights(units, resamples=200, generator=np.random.default_rng(0)))
    for group in range(3):
        assert (weights[units == group] == weights[units == group][0]).all()
    assert (weights[[0, 1, 3]].sum(axis=0) == 3).all()
    assert {0, 1, 2, 3} == set(weights[0].tolist())


def test_the_bootstrap_of_a_share_has_the_binomial_width():
    right = np.arange(100) < 70
    weights = np.concatenate(
        list(bootstrap_weights(np.arange(100), resamples=4000, generator=np.random.default_rng(0))), axis=1
    )
    estimate = percentile_estimate(0.7, right @ weights / 100)
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.7) / 100
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.011)


def test_resamples_without_a_value_are_left_out():
    assert percentile_estimate(1.0, np.array([math.nan, 2.0, math.nan])) == Estimate(value=1.0, low=2.0, high=2.0)
    assert percentile_estimate(1.0, np.array([math.nan])) == Estimate(value=1.0)
    assert percentile_estimate(math.nan, np.array([1.0])) == Estimate(value=None)
