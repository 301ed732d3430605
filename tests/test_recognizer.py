"""`Recognizer`: the scores of a recording do not depend on how it is passed or on the rest of a batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import ossicle
from ossicle.devices import choose_dtype
from ossicle.errors import AudioUnreadable, SettingRefused
from ossicle.inference import probabilities, window_starts
from ossicle.loading import load
from ossicle.recognizer import Recognizer

Record = Callable[..., Path]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def recognizer(shared_bundle: Path) -> Recognizer:
    torch.set_num_threads(1)
    return load(shared_bundle, device="cpu")


def test_a_path_and_its_samples_give_the_same_bits(recognizer: Recognizer, record: Record) -> None:
    for name, rate in (("same.wav", 32_000), ("resampled.wav", 44_100)):
        path = record(name, seconds=2.3, rate=rate)
        from_path = recognizer.predict(path)
        from_samples = recognizer.predict((soundfile.read(path, dtype="float32")[0], rate))
        np.testing.assert_array_equal(from_path.scores, from_samples.scores)
        assert [row.score for row in from_path.rows] == [row.score for row in from_samples.rows]
        assert (from_path.file, from_samples.file) == (str(path), "")


def test_a_recording_scores_the_same_alone_and_among_others(recognizer: Recognizer, record: Record) -> None:
    paths = [record(f"{seed}.wav", seconds=seconds, seed=seed) for seed, seconds in enumerate((0.4, 1.0, 3.7))]
    together = recognizer.predict(list(paths))
    for path, among_others in zip(paths, together, strict=True):
        np.testing.assert_array_equal(recognizer.predict(path).scores, among_others.scores)


def test_a_window_scores_the_same_alone_and_in_a_batch(recognizer: Recognizer) -> None:
    windows = np.random.default_rng(0).normal(scale=0.1, size=(5, 32_000)).astype(np.float32)
    batch = recognizer.scores(windows)
    for window, scores in zip(windows, batch, strict=True):
        np.testing.assert_allclose(recognizer.scores(window[None])[0], scores, rtol=1e-5, atol=1e-5)


def test_different_sounds_get_different_scores(recognizer: Recognizer, record: Record) -> None:
    one, other = (recognizer.predict(record(f"{seed}.wav", seed=seed)).scores for seed in (1, 2))
    assert np.abs(one - other).max() > 1e-4


def test_a_long_recording_gets_time_stamped_rows_over_its_whole_length(recognizer: Recognizer, record: Record) -> None:
    prediction = recognizer.predict(record("long.wav", seconds=3.25), hop=0.5)
    starts = window_starts(round(3.25 * 32_000), window=32_000, hop=16_000) / 32_000
    assert [row.start for row in prediction.rows] == starts.tolist()
    assert prediction.rows[-1].end == prediction.seconds == 3.25


def test_a_short_recording_is_heard_at_its_own_length_and_padding_is_said(
    recognizer: Recognizer, record: Record
) -> None:
    short = recognizer.predict(record("short.wav", seconds=0.5))
    assert (short.seconds, short.padded_seconds) == (0.5, 0.0)
    alone = recognizer.scores(soundfile.read(record("short.wav", seconds=0.5), dtype="float32")[0][None])
    np.testing.assert_array_equal(short.scores, recognizer.activate(alone)[0])

    tiny = recognizer.predict((np.ones(10, dtype=np.float32), 32_000))
    assert tiny.rows[0].end == 10 / 32_000
    assert tiny.padded_seconds == (recognizer.frontend.min_samples - 10) / 32_000


def test_a_window_beyond_the_time_positions_is_heard_whole(recognizer: Recognizer, record: Record) -> None:
    prediction = recognizer.predict(
        record("long.wav", seconds=4), window=4.0
    )  # the network has positions for one second
    assert len(prediction.rows) == 1 and prediction.rows[0].end == 4.0


def test_temperature_and_task_turn_logits_into_scores(
    shared_bundle: Path, tmp_path: Path, record: Record, make_bundle: Make
) -> None:
    path = record("a.wav")
    single = load(shared_bundle, device="cpu")
    logits = single.score_windows(path).scores[0]
    expected = torch.from_numpy(logits).double().div(1.5)
    np.testing.assert_allclose(single.predict(path).scores, expected.softmax(0).numpy(), rtol=1e-12)
    several = load(make_bundle(tmp_path / "several", task="multi-label"), device="cpu")
    np.testing.assert_allclose(several.predict(path).scores, expected.sigmoid().numpy(), rtol=1e-12)


def test_rows_are_chosen_as_asked(recognizer: Recognizer, record: Record) -> None:
    path = record("a.wav")
    assert len(recognizer.predict(path).rows) == 1
    assert len(recognizer.predict(path, top_k=2).rows) == 2
    everything = recognizer.predict(path, min_score=0.0)
    assert {row.label for row in everything.rows} == set(recognizer.labels)
    assert everything.chosen[0] == everything.top[0] == everything.rows[0].label
    assert everything.top[1] == everything.scores.max()


def test_thresholds_of_the_bundle_decide_in_a_multi_label_task(
    tmp_path: Path, record: Record, make_bundle: Make
) -> None:
    path = record("a.wav")
    bundle = make_bundle(tmp_path / "several", task="multi-label", thresholds=[0.0, 1.0, 0.0])
    prediction = load(bundle, device="cpu").predict(path)
    assert set(prediction.chosen) == {row.label for row in prediction.rows} == {"bell", "voice"}


def test_embeddings_are_the_features_before_the_head(recognizer: Recognizer, record: Record) -> None:
    path = record("a.wav", seconds=2.5)
    embedding = recognizer.embed(path)
    windows, middles = recognizer.embed(path, timestamps=True)
    assert embedding.shape == (192,) and windows.shape == (3, 192)
    assert middles.tolist() == [0.5, 1.5, 2.0]
    np.testing.assert_allclose(embedding, windows.mean(axis=0), rtol=1e-6)
    with torch.inference_mode():
        logits = recognizer.model.head(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(logits, recognizer.score_windows(path).scores, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_asked_for_and_close(recognizer: Recognizer, shared_bundle: Path, record: Record) -> None:
    path = record("a.wav")
    half = load(shared_bundle, device="cpu", precision="bfloat16").predict(path).scores
    full = recognizer.predict(path).scores
    assert not np.array_equal(half, full)
    np.testing.assert_allclose(half, full, atol=0.1)
    with pytest.raises(ValueError, match="expected precision"):
        choose_dtype("float8", torch.device("cpu"))


def test_prediction_draws_no_random_number_and_leaves_no_gradient(recognizer: Recognizer, record: Record) -> None:
    before = torch.random.get_rng_state()
    recognizer.predict(record("a.wav"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not recognizer.model.training and not recognizer.frontend.training
    assert all(parameter.grad is None for parameter in recognizer.model.parameters())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ({"window": 0.01}, "window of 0.01 s"),
        ({"window": 1e9}, "window of"),
        ({"window": float("nan")}, "window of nan"),
        ({"hop": 0.0}, "hop of 0 s"),
        ({"hop": 2.0}, "hop of 2 s"),
        ({"window": 0.5, "hop": 1.0}, "hop of 1 s"),
    ],
)
def test_windows_and_hops_that_cannot_be_are_refused(
    recognizer: Recognizer, seconds: dict[str, float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        recognizer.predict((np.zeros(32_000, dtype=np.float32), 32_000), **seconds)


def test_a_broken_file_and_a_device_that_is_not_there_are_our_errors(
    recognizer: Recognizer, shared_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF, and then nothing")
    with pytest.raises(AudioUnreadable, match=r"broken\.wav"):
        recognizer.predict(tmp_path / "broken.wav")
    with pytest.raises(SettingRefused, match="warp"):
        load(shared_bundle, device="warp")


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=6), st.floats(0.1, 10))
def test_probabilities_are_probabilities_at_any_logit(values: list[float], temperature: float) -> None:
    logits = np.array(values)
    single = probabilities(logits, task="single-label", temperature=temperature)
    several = probabilities(logits, task="multi-label", temperature=temperature)
    assert single.sum() == pytest.approx(1.0)
    assert ((several >= 0) & (several <= 1)).all()
    assert single[logits.argmax()] == single.max()


def test_the_front_door_is_at_the_top_of_the_package(shared_bundle: Path) -> None:
    assert ossicle.load is load
    assert "3 labels, single-label, 32000 Hz, window 1 s, cpu" in repr(ossicle.load(shared_bundle, device="cpu"))
