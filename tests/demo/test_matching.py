"""Matching of onsets: one to one, within the tolerance, and no matching has more pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from ossicle.demo.matching import OnsetMatches, match_onsets
from ossicle.inference import Row

# Multiples of 10 ms in one and a half seconds: crowded enough for rivals, and distances on the tolerance itself.
onsets = st.lists(st.integers(0, 150).map(lambda n: n / 100), max_size=12)


def match(found: list[float], true: list[float], *, names: tuple[str, str] = ("", "")) -> OnsetMatches:
    """The events at these times matched within 50 ms; `names` holds a letter for each, as its label."""
    rows = [
        [
            Row(file="", start=start, end=start + 1, label=label, score=1.0)
            for start, label in zip(starts, letters or "x" * len(starts), strict=True)
        ]
        for starts, letters in zip((found, true), names, strict=True)
    ]
    return match_onsets(rows[0], rows[1], tolerance=0.05)


@settings(max_examples=50, deadline=None)
@given(onsets, onsets)
def test_no_matching_has_more_pairs(found, true):
    figures = match(found, true)
    near = np.abs(np.subtract.outer(np.array(found), np.array(true))) <= 0.05 + 1e-9
    assert len(figures.pairs) == near[linear_sum_assignment(near, maximize=True)].sum()
    assert all(abs(one.start - other.start) <= 0.05 + 1e-9 for one, other in figures.pairs)
    for side in zip(*figures.pairs, strict=True):
        assert len(set(map(id, side))) == len(figures.pairs)


def test_the_nearest_first_would_lose_a_pair():
    assert match([1.00, 1.04], [1.03, 1.08]).f1 == 1.0


def test_a_distance_of_exactly_the_tolerance_counts():
    assert match([1.05], [1.0]).f1 == 1.0
    assert match([1.0501], [1.0]).f1 == 0.0


def test_a_doubled_hit_counts_once():
    figures = match([1.0, 1.01], [1.0])
    assert (figures.found, figures.true, len(figures.pairs), figures.f1) == (2, 1, 1, pytest.approx(2 / 3))


def test_a_name_counts_only_in_a_pair():
    assert match([1.0, 2.0, 3.0], [1.0, 2.0, 9.0], names=("abc", "axc")).named == 1


def test_nothing_found_and_nothing_there_are_told_apart():
    assert match([], [1.0]).f1 == match([1.0], []).f1 == 0.0
    assert math.isnan(match([], []).f1)
