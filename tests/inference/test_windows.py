from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.inference import (
    WindowScores,
    aggregate,
    combine_overlaps,
    cut_windows,
    join_scores,
    stream_scores,
    summarize,
    window_starts,
)

windows_and_hops = st.integers(1, 12).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))
long_windows_and_hops = st.tuples(st.integers(150, 210), st.integers(40, 150))


def blocks_of(samples: np.ndarray, cuts: list[int]) -> Iterator[np.ndarray]:
    """The samples in pieces, cut after the given counts."""
    for cut in cuts:
        yield samples[:cut]
        samples = samples[cut:]
    yield samples


@given(st.integers(0, 60), windows_and_hops)
def test_windows_count_by_the_formula_and_cover_every_sample(length: int, sizes: tuple[int, int]) -> None:
    window, hop = sizes
    starts = window_starts(length, window=window, hop=hop)
    # 1 window, and one more for every hop begun beyond it.
    assert len(starts) == (0 if length == 0 else 1 + -(-max(0, length - window) // hop))
    assert all(np.diff(starts) >= 1) and all(np.diff(starts) <= hop)
    heard = np.zeros(length, dtype=bool)
    for start in starts:
        assert length <= window or start + window <= length  # nothing is heard that is not there
        heard[start : start + window] = True
    assert heard.all()


@given(st.integers(100, 400), st.integers(1, 40))
def test_what_a_codec_adds_opens_no_window(window: int, beyond: int) -> None:
    starts = window_starts(2 * window + beyond, window=window, hop=window).tolist()
    # Below a hundredth of a window nothing, from there on a window that is flush with the end.
    assert starts == [0, window] + [window + beyond] * (beyond >= window / 100)


@given(st.integers(0, 420), windows_and_hops | long_windows_and_hops, st.lists(st.integers(0, 300), max_size=6))
def test_blocks_of_any_length_give_the_windows_of_the_whole(
    length: int, sizes: tuple[int, int], cuts: list[int]
) -> None:
    window, hop = sizes
    samples = np.arange(length, dtype=np.float32)
    found = list(cut_windows(blocks_of(samples, cuts), window=window, hop=hop))
    starts = window_starts(length, window=window, hop=hop)
    assert [start for start, _ in found] == starts.tolist()
    for start, cut in found:
        np.testing.assert_array_equal(cut, samples[start : start + window])


def test_memory_does_not_grow_with_the_recording() -> None:
    largest = 0

    def endless() -> Iterator[np.ndarray]:
        for _ in range(2_000):
            yield np.zeros(100, dtype=np.float32)

    for _, samples in cut_windows(endless(), window=250, hop=100):
        whole = samples if samples.base is None else samples.base
        largest = max(largest, whole.size)
    assert largest <= 250 + 100 + 100


def test_a_hop_beyond_the_window_is_refused_since_samples_would_be_left_out() -> None:
    with pytest.raises(ValueError, match="left out"):
        window_starts(10, window=4, hop=5)


@given(st.integers(1, 60), windows_and_hops, st.integers(1, 5))
def test_batches_change_no_score(length: int, sizes: tuple[int, int], batch: int) -> None:
    window, hop = sizes
    samples = np.random.default_rng(length).normal(size=length).astype(np.float32)

    def score(windows: np.ndarray) -> np.ndarray:
        assert len(windows) <= batch
        return np.stack([windows.min(axis=1), windows.max(axis=1)], axis=1)

    scored = join_scores(stream_scores([samples], score, rate=2, window=window, hop=hop, batch=batch))
    starts = window_starts(length, window=window, hop=hop)
    np.testing.assert_array_equal(scored.starts, starts / 2)
    np.testing.assert_array_equal(scored.ends, np.minimum(starts + window, length) / 2)
    np.testing.assert_array_equal(scored.scores[:, 1], [samples[start : start + window].max() for start in starts])


def test_a_short_recording_keeps_its_length_down_to_the_least_that_the_model_takes() -> None:
    shapes = []

    def score(windows: np.ndarray) -> np.ndarray:
        shapes.append(windows.shape)
        return np.zeros((len(windows), 1))

    options = {"rate": 1, "window": 10, "hop": 10, "min_samples": 5}
    long_enough = join_scores(stream_scores([np.ones(7, np.float32)], score, **options))
    too_short = join_scores(stream_scores([np.ones(3, np.float32)], score, **options))
    assert shapes == [(1, 7), (1, 5)]
    assert (long_enough.padded_samples, too_short.padded_samples) == (0, 2)
    assert too_short.ends.tolist() == [3.0]  # the silence is not part of the recording


def test_a_recording_without_samples_has_no_scores() -> None:
    with pytest.raises(ValueError, match="without a single sample"):
        join_scores(stream_scores([], lambda windows: np.zeros((len(windows), 1)), rate=1, window=1, hop=1))


def test_one_short_sound_counts_in_a_multi_label_recording_and_is_averaged_in_a_single_label_one() -> None:
    logits = np.array([[0.0, -4.0], [0.0, 4.0], [0.0, -4.0], [0.0, -4.0]])
    assert summarize(logits, task="multi-label").tolist() == [0.0, 4.0]
    assert summarize(logits, task="single-label").tolist() == [0.0, -2.0]


def test_an_unknown_way_to_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match="'mean' or 'max'"):
        aggregate(np.zeros((1, 1)), "median")


@given(st.integers(1, 40), windows_and_hops, st.sampled_from(["mean", "max"]), st.integers(1, 5))
def test_stretches_of_overlapping_windows_score_as_all_windows_over_them(
    length: int, sizes: tuple[int, int], how: str, batch: int
) -> None:
    window, hop = sizes
    starts = window_starts(length, window=window, hop=hop).astype(float)
    ends = np.minimum(starts + window, length)
    scores = np.random.default_rng(length).random((len(starts), 2))
    parts = [
        WindowScores(
            starts=starts[at : at + batch], ends=ends[at : at + batch], scores=scores[at : at + batch], padded_samples=0
        )
        for at in range(0, len(starts), batch)
    ]
    found = join_scores(combine_overlaps(parts, how))  # type: ignore[arg-type]
    assert found.starts[0] == 0 and found.ends[-1] == length
    np.testing.assert_array_equal(found.starts[1:], found.ends[:-1])  # without a gap, without an overlap
    assert set(found.starts) | set(found.ends) == set(starts) | set(ends)
    for start, end, score in zip(found.starts, found.ends, found.scores, strict=True):
        middle = (start + end) / 2
        over = scores[(starts < middle) & (ends > middle)]
        np.testing.assert_allclose(score, aggregate(over, how))  # type: ignore[arg-type]


def test_windows_that_do_not_overlap_stay_as_they_are() -> None:
    windows = WindowScores(
        starts=np.arange(3.0), ends=np.arange(3.0) + 1, scores=np.arange(3.0)[:, None], padded_samples=2
    )
    (same,) = list(combine_overlaps([windows], "mean"))[:1]
    assert same.starts.tolist() == [0, 1] and same.padded_samples == 2
    joined = join_scores(combine_overlaps([windows], "mean"))
    np.testing.assert_array_equal(joined.scores, windows.scores)
