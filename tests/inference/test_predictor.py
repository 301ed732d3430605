"""Rows and scores of any predictor, with ones that need no network."""

import dataclasses
import itertools
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.inference import EventRules, ModelInfo, Predictor, Reporting, Row, summarize

INFO = ModelInfo(
    model_name="stub",
    task="multi-label",
    labels=("sound",),
    window_seconds=10.0,
    hop_seconds=10.0,
    library_version="0",
    version="0" * 12,
)


class Stub(Predictor):
    """Says of each window how loud it is."""

    rate, min_samples = 1000, 1  # type: ignore[assignment]
    bundle = INFO

    def scores(self, windows: np.ndarray) -> np.ndarray:
        return windows.mean(1, keepdims=True)

    def features(self, windows: np.ndarray) -> np.ndarray:
        return self.scores(windows)


class FrameWise(Stub):
    """Says of each hop the value of its first sample, and that is its score.

    Args:
        step: samples
        missing: hops less than there are begun; below 0, hops behind the end
    """

    def __init__(self, *, rate: int, step: int, missing: int = 0) -> None:
        self.rate, self.step, self.missing = rate, step, missing  # type: ignore[misc]

    @property
    def hop_feature_seconds(self) -> float:
        return self.step / self.rate

    def hop_scores(self, windows: np.ndarray) -> np.ndarray:
        count = max(1, -(-windows.shape[1] // self.step) - self.missing)
        heard = windows[:, :: self.step][:, :count]
        return np.pad(heard, ((0, 0), (0, count - heard.shape[1])), mode="edge")[:, :, None]

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def rows(self, samples: np.ndarray, *, window: int, hop: int, **choices: Any) -> tuple[Row, ...]:
        """Of a recording, window and hop in samples."""
        reporting = Reporting(min_score=0.0, **choices)
        seconds = {"window": window / self.rate, "hop": hop / self.rate}
        return self.predict((samples, self.rate), reporting=reporting, **seconds).rows


@given(
    st.integers(1, 1500),
    st.integers(1, 400).flatmap(lambda window: st.tuples(st.just(window), st.integers(-(-window // 40), window))),
    st.sampled_from([1000, 32_000]),
    st.integers(1, 50),
    st.sampled_from([-2, 0, 1]),
    st.sampled_from([{}, {"overlap": "mean"}, {"overlap": "max"}]),
)
def test_rows_of_a_frame_wise_model_tile_the_recording_to_its_last_hundredth_of_a_window(
    length: int, sizes: tuple[int, int], rate: int, step: int, missing: int, choices: dict[str, Any]
) -> None:
    window, hop = sizes
    predictor = FrameWise(rate=rate, step=step, missing=missing)
    samples = np.arange(length, dtype=np.float32) / np.float32(2**15)  # exact, and small enough to be no blunder
    rows = predictor.rows(samples, window=window, hop=hop, **choices)
    assert rows[0].start == 0.0 and 0 <= length - rows[-1].end * rate <= window / 100
    for row, following in itertools.pairwise(rows):
        assert row.end == following.start  # the same bits
    edges = [round(row.start * rate) for row in rows] + [round(rows[-1].end * rate)]
    assert (np.diff(edges) > 0).all()
    assert all(row.start == edge / rate for row, edge in zip(rows, edges, strict=False))
    for start, end, row in zip(edges, edges[1:], rows, strict=False):
        if not choices:
            first_covered = row.score * 2**15
            assert first_covered < end and start - first_covered < (1 + max(0, missing)) * step
    (event,) = predictor.rows(samples, window=window, hop=hop, events=EventRules(), **choices)
    assert (event.start, event.end) == (0.0, rows[-1].end)  # a sound that lasts is one


def test_a_flush_window_leaves_nothing_out_before_it_and_no_edge_is_a_rounding_error_off() -> None:
    predictor = FrameWise(rate=32_000, step=5120)
    rows = predictor.rows(np.zeros(round(24.13 * 32_000), np.float32), window=320_000, hop=320_000)
    assert [(round(row.start, 3), round(row.end, 3)) for row in rows if 19.5 < row.start < 20.5] == [
        (19.6, 19.76),
        (19.76, 19.92),
        (19.92, 20.0),
        (20.0, 20.21),
        (20.21, 20.37),
        (20.37, 20.53),
    ]
    assert min(row.end - row.start for row in rows) > 0.07


@pytest.mark.parametrize(("how", "expected"), [(None, 0.0), ("mean", 0.5), ("max", 1.0)])
def test_overlapping_windows_of_a_frame_wise_model_are_combined_as_asked(how: Any, expected: float) -> None:
    class Louder(FrameWise):
        """The second window is heard, the first is not."""

        def hop_scores(self, windows: np.ndarray) -> np.ndarray:
            return np.stack([np.full((25, 1), number, np.float32) for number in range(len(windows))])

    rows = Louder(rate=1000, step=16).rows(np.zeros(600, np.float32), window=400, hop=200, overlap=how)
    assert {row.score for row in rows if row.end <= 0.2} == {0.0}
    assert {row.score for row in rows if 0.2 <= row.start and row.end <= 0.4} == {expected}
    assert {row.score for row in rows if row.start >= 0.4} == {1.0}


class Counted(Stub):
    """Knows the most of its answers that were there at once."""

    def __init__(self) -> None:
        self.answers: list[weakref.ref[np.ndarray]] = []
        self.most = 0

    def scores(self, windows: np.ndarray) -> np.ndarray:
        found = super().scores(windows)
        self.answers.append(weakref.ref(found))
        self.most = max(self.most, sum(answer() is not None for answer in self.answers))
        return found


def test_no_answers_pile_up_however_long_the_recording() -> None:
    recording = (np.zeros(100_000, np.float32), 1000)
    predictor = Counted()
    predictor.predict(recording, window=0.1)
    assert len(predictor.answers) > 60 and predictor.most <= 3


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
@given(st.integers(1, 4000))
def test_a_recording_scores_as_its_windows_together(task: Any, length: int) -> None:
    predictor = Stub()
    predictor.bundle = dataclasses.replace(INFO, task=task)
    recording = (np.random.default_rng(length).normal(size=length).astype(np.float32), 1000)
    windows = predictor.score_windows(recording, window=0.05, hop=0.025)
    prediction = predictor.predict(recording, window=0.05, hop=0.025)
    np.testing.assert_allclose(
        prediction.scores, predictor.activate(summarize(windows.scores, task=task)), rtol=1e-5, atol=0
    )
    assert (prediction.seconds, prediction.padded_seconds) == (windows.ends[-1], 0.0)


RATE = 1000
SOUND = np.ones(500, np.float32)


@pytest.mark.parametrize("method", ["predict", "embed"])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (SOUND, r"got an array of the shape \(500,\) without its rate: pass \(array, rate\)"),
        ([SOUND], "without its rate"),
        ((RATE, SOUND), r"got a tuple of \(int, ndarray\)"),
        (("a.wav", "b.wav"), r"got a tuple of \(str, str\)"),
        ((SOUND, RATE, 1), "got a tuple"),
        (None, "got NoneType"),
        (b"a.wav", "got bytes"),
        ({"a.wav"}, "got set"),
        (iter(["a.wav"]), "got list_iterator"),
    ],
)
def test_what_is_no_recording_is_refused_with_what_to_pass(method: str, inputs: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"^expected an audio file, .*{said}"):
        getattr(Stub(), method)(inputs)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"window": "1"}, TypeError),
        ({"hop": [1]}, TypeError),
        ({"top_k": "3"}, TypeError),
        ({"min_score": None, "top_k": 0}, ValueError),
        ({"reporting": Reporting(), "top_k": 1}, ValueError),
    ],
)
def test_options_of_another_type_are_refused_in_a_sentence(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Stub().predict((SOUND, RATE), **options)


def test_a_part_of_a_label_cannot_be_asked_for(untyped: Callable[[], AbstractContextManager[None]]) -> None:
    with untyped(), pytest.raises(ValueError, match="whole number of 1 or more, not 1.5"):
        Reporting(top_k=1.5)  # type: ignore[arg-type]


def test_a_rate_is_a_whole_number_of_hertz() -> None:
    assert Stub().predict((SOUND, 1000.0)).seconds == 0.5
    for rate in (0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="^the rate is a whole number of hertz"):
            Stub().predict((SOUND, rate))


def test_a_list_is_predicted_and_embedded_one_by_one() -> None:
    sounds = [(SOUND, RATE), (SOUND * 0.5, RATE)]
    assert [one.scores[0] for one in Stub().predict(sounds)] == [Stub().predict(one).scores[0] for one in sounds]
    assert [vector.tolist() for vector in Stub().embed(sounds)] == [[1.0], [0.5]]
    ((vectors, times),) = Stub().embed(sounds[:1], timestamps=True)
    assert vectors.shape == (1, 1) and times.tolist() == [0.25]


def test_a_prediction_shows_what_matters_in_one_line() -> None:
    prediction = Stub().predict((SOUND, RATE))
    assert repr(prediction) == "Prediction('', 0.5 s, top=('sound', 0.7311), 1 row)"


def test_a_recording_without_samples_is_refused() -> None:
    predictor = Stub()
    predictor._blocks = lambda recording, info=None: []  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="without a single sample"):
        predictor.predict("empty.wav")
