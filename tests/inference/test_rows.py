import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.inference import rows_from_windows, select_labels

scores_of_labels = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(np.array)


def test_a_single_label_task_reports_its_best_label_whatever_the_score() -> None:
    assert select_labels(np.array([0.2, 0.5, 0.3]), task="single-label").tolist() == [1]


def test_a_multi_label_task_reports_what_reaches_its_own_threshold() -> None:
    scores = np.array([0.2, 0.9, 0.3])
    assert select_labels(scores, task="multi-label", thresholds=np.array([0.2, 0.95, 0.1])).tolist() == [2, 0]
    assert select_labels(scores, task="multi-label").tolist() == [1]  # 0.5 where there is none


def test_a_least_score_takes_the_place_of_the_thresholds() -> None:
    scores, thresholds = np.array([0.2, 0.9, 0.3]), np.array([0.1, 0.1, 0.1])
    assert select_labels(scores, task="multi-label", thresholds=thresholds, min_score=0.3).tolist() == [1, 2]
    assert select_labels(scores, task="single-label", min_score=0.25).tolist() == [1, 2]
    assert select_labels(scores, task="single-label", min_score=0.95).tolist() == []


@given(scores_of_labels, st.integers(1, 10), st.sampled_from(["single-label", "multi-label"]))
def test_top_k_are_the_k_best_in_order(scores: np.ndarray, top_k: int, task: str) -> None:
    chosen = select_labels(scores, task=task, top_k=top_k)
    assert len(chosen) == min(top_k, len(scores))
    assert scores[chosen].tolist() == sorted(scores, reverse=True)[:top_k]


def test_equal_scores_come_in_the_order_of_the_labels() -> None:
    assert select_labels(np.array([0.5, 0.5, 0.5]), task="single-label", top_k=2).tolist() == [0, 1]


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        select_labels(np.array([0.5]), task="single-label", top_k=0)


def test_rows_are_in_time_and_best_first_within_a_window() -> None:
    rows = rows_from_windows(
        "a.wav",
        starts=np.array([0.0, 1.0]),
        ends=np.array([1.0, 2.0]),
        scores=np.array([[0.6, 0.8], [0.1, 0.7]]),
        labels=("cat", "dog"),
        task="multi-label",
        min_score=0.5,
    )
    assert [(row.start, row.label, row.score) for row in rows] == [(0, "dog", 0.8), (0, "cat", 0.6), (1, "dog", 0.7)]
    assert {row.file for row in rows} == {"a.wav"}
