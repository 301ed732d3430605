"""The sequence's truth is what is in its samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.demo.sequence import assemble

RATE = 1000


@given(st.lists(st.integers(1, 300), max_size=8), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_every_hit_starts_where_the_truth_says(lengths: list[int], seed: int) -> None:
    hits = [(np.ones(length, np.float32), f"kind {i}") for i, length in enumerate(lengths)]
    made = assemble(hits, rate=RATE, gaps=(0.1, 0.2), seed=seed)
    assert [row.label for row in made.truth] == [label for _, label in hits]
    starts = [round(row.start * RATE) for row in made.truth]
    assert all(100 <= after - before <= 200 for before, after in zip(starts, starts[1:], strict=False))
    for start, length in zip(starts, lengths, strict=True):
        assert (made.samples[start : start + length] > 0).all()
    sounding = {i for start, length in zip(starts, lengths, strict=True) for i in range(start, start + length)}
    assert set(np.flatnonzero(made.samples)) == sounding
    if lengths:
        assert made.samples.max() == pytest.approx(0.9)


def test_a_hit_rings_on_under_the_next_one() -> None:
    made = assemble([(np.ones(500, np.float32), "a"), (np.ones(500, np.float32), "b")], rate=RATE, gaps=(0.1, 0.1))
    first, second = (round(row.start * RATE) for row in made.truth)
    both, alone = made.samples[second + 10], made.samples[first + 10]
    assert both == pytest.approx(2 * alone)


def test_the_same_seed_makes_the_same_sequence() -> None:
    hits = [(np.ones(10, np.float32), "a")] * 5
    np.testing.assert_array_equal(assemble(hits, rate=RATE, seed=3).samples, assemble(hits, rate=RATE, seed=3).samples)
    assert assemble(hits, rate=RATE, seed=3).truth != assemble(hits, rate=RATE, seed=4).truth
