"""Matching of onsets: optimal, one to one, labels where they can agree."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ossicle.metrics import onset_f1

# Multiples of 10 ms in one and a half seconds: crowded enough for rivals, and distances on the tolerance itself.
onsets = st.lists(st.integers(0, 150).map(lambda n: n / 100), max_size=12)


def most_pairs_and_agreements(found, true, found_labels, true_labels, tolerance=0.05):
    """The same optimum from SciPy's assignment, over all onsets at once."""
    if not found or not true:
        return 0, 0
    near = np.abs(np.subtract.outer(found, true)) <= tolerance + 1e-9
    agree = np.array([[a == b for b in true_labels] for a in found_labels])
    gain = near * (1000.0 + agree)
    rows, columns = linear_sum_assignment(-gain)
    return int(near[rows, columns].sum()), int((near & agree)[rows, columns].sum())


@settings(max_examples=50, deadline=None)
@given(onsets, onsets, st.data())
def test_the_matching_is_the_best_there_is(found, true, data):
    names = st.sampled_from(["kick", "snare", "hat"])
    found_labels = data.draw(st.lists(names, min_size=len(found), max_size=len(found)))
    true_labels = data.draw(st.lists(names, min_size=len(true), max_size=len(true)))
    figures = onset_f1(found, true, estimated_labels=found_labels, reference_labels=true_labels)
    pairs, agreements = most_pairs_and_agreements(found, true, found_labels, true_labels)
    assert len(figures.pairs) == pairs
    assert len({i for i, _ in figures.pairs}) == len({j for _, j in figures.pairs}) == pairs
    assert all(abs(found[i] - true[j]) <= 0.05 + 1e-9 for i, j in figures.pairs)
    if pairs:
        assert figures.label_accuracy == pytest.approx(agreements / pairs)
    if found or true:
        assert figures.f1 == pytest.approx(2 * pairs / (len(found) + len(true)))


def test_a_greedy_choice_would_lose_a_pair():
    assert onset_f1([1.00, 1.04], [1.03, 1.08]).f1 == 1.0


def test_crossing_hits_keep_their_labels():
    figures = onset_f1([1.00, 1.01], [1.00, 1.01], estimated_labels=["hat", "kick"], reference_labels=["kick", "hat"])
    assert figures.label_accuracy == 1.0 and figures.f1 == 1.0


def test_a_distance_of_exactly_the_tolerance_counts():
    assert onset_f1([1.05], [1.0]).f1 == 1.0
    assert onset_f1([1.0501], [1.0]).f1 == 0.0


def test_a_doubled_hit_counts_once():
    figures = onset_f1([1.0, 1.01], [1.0])
    assert (figures.precision, figures.recall, figures.pairs) == (0.5, 1.0, ((0, 0),))
    assert math.isnan(figures.label_accuracy)


def test_nothing_found_and_nothing_there_are_told_apart():
    missed, imagined, silent = onset_f1([], [1.0]), onset_f1([1.0], []), onset_f1([], [])
    assert missed.f1 == imagined.f1 == 0.0
    assert math.isnan(missed.precision) and missed.recall == 0.0
    assert imagined.precision == 0.0 and math.isnan(imagined.recall)
    assert math.isnan(silent.f1)


def test_many_onsets_are_matched_quickly():
    times = np.arange(5000) * 0.2
    assert onset_f1(times.tolist(), (times + 0.04).tolist()).f1 == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"estimated": [math.nan], "reference": [1.0]}, "finite seconds"),
        ({"estimated": [1.0], "reference": [1.0], "tolerance": -1.0}, "at least 0"),
        ({"estimated": [1.0], "reference": [1.0], "estimated_labels": ["a"]}, "both or neither"),
        (
            {"estimated": [1.0], "reference": [1.0], "estimated_labels": ["a", "b"], "reference_labels": ["a"]},
            "2 labels name 1 found",
        ),
    ],
)
def test_a_slip_is_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        onset_f1(**arguments)
