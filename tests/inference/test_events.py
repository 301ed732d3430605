import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.inference import Event, EventRules, WindowScores, stream_events

PLAIN = EventRules()


def events_of(
    scores: np.ndarray,
    *,
    starts: np.ndarray,
    ends: np.ndarray,
    thresholds: np.ndarray | float,
    rules: EventRules = PLAIN,
) -> list[Event]:
    """The events of a whole recording, sorted by time."""
    windows = WindowScores(starts=starts, ends=ends, scores=scores, padded_samples=0)
    floors = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), scores.shape[1:])
    found = stream_events([windows], thresholds=floors, rules=rules)
    return sorted(found, key=lambda event: (event.start, event.end, event.label))


def test_adjacent_windows_become_one_event_with_the_highest_score() -> None:
    scores = np.array([[0.9], [0.6], [0.1], [0.7]])
    starts = np.arange(4) / 3  # a third of a second has no exact binary fraction: touching must not need equality
    events = events_of(scores, starts=starts, ends=starts + 1 / 3, thresholds=0.5)
    assert [(round(event.start, 6), round(event.end, 6), event.score) for event in events] == [
        (0, 0.666667, 0.9),
        (1, 1.333333, 0.7),
    ]


def test_a_gap_is_bridged_up_to_its_limit_and_short_events_are_dropped_after_joining() -> None:
    scores = np.array([[0.9], [0.1], [0.8], [0.1], [0.1], [0.9]])
    starts = np.arange(6.0)
    rules = EventRules(merge_gap=1.0, min_seconds=2.0)
    joined = events_of(scores, starts=starts, ends=starts + 1, thresholds=0.5, rules=rules)
    assert [(event.start, event.end) for event in joined] == [(0, 3)]


def test_overlapping_windows_give_one_event_from_the_first_start_to_the_last_end() -> None:
    starts = np.array([0.0, 0.5, 1.0])
    events = events_of(np.full((3, 1), 0.9), starts=starts, ends=starts + 2, thresholds=0.5)
    assert [(event.start, event.end) for event in events] == [(0.0, 3.0)]


def test_each_label_has_its_own_threshold() -> None:
    scores = np.array([[0.4, 0.4]])
    events = events_of(scores, starts=np.zeros(1), ends=np.ones(1), thresholds=np.array([0.3, 0.5]))
    assert [event.label for event in events] == [0]


@given(st.lists(st.sampled_from([0.0, 0.4, 0.5, 1.0]), max_size=20))
def test_events_hold_exactly_the_windows_that_reach_the_threshold(values: list[float]) -> None:
    scores = np.array(values).reshape(-1, 1)
    starts = np.arange(len(values), dtype=float)
    events = events_of(scores, starts=starts, ends=starts + 1, thresholds=0.5)
    heard = np.zeros(len(values), dtype=bool)
    for event in events:
        heard[int(event.start) : int(event.end)] = True
    np.testing.assert_array_equal(heard, scores[:, 0] >= 0.5)
    assert all(earlier.end < later.start for earlier, later in zip(events, events[1:], strict=False))


def test_an_event_lasts_down_to_its_release_and_does_not_begin_there() -> None:
    scores = np.array([[0.3], [0.8], [0.3], [0.2], [0.3], [0.9]])
    starts = np.arange(6.0)
    found = events_of(scores, starts=starts, ends=starts + 1, thresholds=0.6, rules=EventRules(release=0.5))
    assert [(event.start, event.end, event.score) for event in found] == [(1, 3, 0.8), (5, 6, 0.9)]


def test_a_median_removes_what_is_shorter_than_half_of_it() -> None:
    scores = np.array([[0.0], [1.0], [0.0], [1.0], [1.0], [1.0], [0.0]])
    starts = np.arange(7.0)
    found = events_of(scores, starts=starts, ends=starts + 1, thresholds=0.6, rules=EventRules(median=3))
    # The ends have two windows to take the median of, which is their mean.
    assert [(event.start, event.end) for event in found] == [(2, 6)]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.9]), min_size=2, max_size=2), max_size=20),
    st.sampled_from([EventRules(), EventRules(median=5), EventRules(release=0.5, merge_gap=1.0, min_seconds=2.0)]),
    st.integers(1, 4),
)
def test_events_do_not_depend_on_how_the_windows_arrive(
    values: list[list[float]], rules: EventRules, some: int
) -> None:
    scores, starts = np.array(values).reshape(-1, 2), np.arange(len(values), dtype=float)
    whole = events_of(scores, starts=starts, ends=starts + 1, thresholds=0.5, rules=rules)
    parts = [
        WindowScores(
            starts=starts[at : at + some],
            ends=starts[at : at + some] + 1,
            scores=scores[at : at + some],
            padded_samples=0,
        )
        for at in range(0, len(values), some)
    ]
    streamed = list(stream_events(parts, thresholds=np.full(2, 0.5), rules=rules))
    assert sorted(streamed, key=lambda event: (event.start, event.end, event.label)) == whole
    assert [event.end for event in streamed] == sorted(event.end for event in streamed)


@given(st.integers(1, 9), st.integers(0, 4))
def test_the_median_is_of_the_windows_around_each(count: int, half: int) -> None:
    from ossicle.inference.events import smoothed

    scores, starts = np.random.default_rng(count).random((count, 1)), np.arange(count, dtype=float)
    part = WindowScores(starts=starts, ends=starts + 1, scores=scores, padded_samples=0)
    found = list(smoothed([part], 2 * half + 1))
    assert [start for start, _, _ in found] == starts.tolist()
    for at, (_, _, score) in enumerate(found):
        np.testing.assert_allclose(score, np.median(scores[max(0, at - half) : at + half + 1], axis=0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"release": 0.0}, "release"),
        ({"release": 1.5}, "release"),
        ({"median": 2}, "odd"),
        ({"min_seconds": -1.0}, "0 s or more"),
        ({"merge_gap": float("nan")}, "0 s or more"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EventRules(**wrong)  # type: ignore[arg-type]
