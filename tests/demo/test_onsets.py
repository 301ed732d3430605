"""Onsets of sounds whose times are known because the test put them there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.demo.onsets import find_onsets, label_onsets, onset_strength

RATE = 16_000


def clicks(times: list[float], *, seconds: float, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """Decaying bursts of noise, each starting at a given time, over faint noise."""
    rng = np.random.default_rng(0)
    samples = 1e-4 * rng.standard_normal(round(seconds * rate))
    burst = rng.standard_normal(round(0.1 * rate)) * np.exp(-np.arange(round(0.1 * rate)) / (0.02 * rate))
    for time in times:
        start = round(time * rate)
        part = burst[: len(samples) - start]
        samples[start : start + len(part)] += level * part / np.abs(burst).max()
    return samples.astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 22_050, 32_000, 48_000])
def test_bursts_are_found_where_they_were_put_at_any_rate(rate: int) -> None:
    times = [0.2, 0.5, 0.62, 1.1, 1.9]
    found = find_onsets(clicks(times, seconds=2.5, rate=rate), rate)
    assert len(found) == len(times)
    np.testing.assert_allclose(found, times, atol=0.02)


@given(st.lists(st.integers(1, 15), min_size=1, max_size=6, unique=True))
@settings(max_examples=15, deadline=None)
def test_bursts_a_tenth_of_a_second_apart_are_all_found(tenths: list[int]) -> None:
    times = sorted(tenth / 10 for tenth in tenths)
    found = find_onsets(clicks(times, seconds=2.0), RATE)
    assert len(found) == len(times)
    np.testing.assert_allclose(found, times, atol=0.05)


def test_a_soft_hit_on_a_loud_tone_is_found() -> None:
    time = np.arange(2 * RATE) / RATE
    tone = 0.8 * np.sin(2 * np.pi * 220 * time) * np.minimum(1, time / 0.01)
    samples = (tone + clicks([1.0], seconds=2.0, level=0.05)).astype(np.float32)
    found = find_onsets(samples, RATE)
    assert np.abs(found - 1.0).min() < 0.02
    assert len(found) == 2  # the tone's own start, and the hit; not its sudden end


@given(st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_a_gain_moves_no_onset(gain: float) -> None:
    samples = clicks([0.2, 0.7], seconds=1.0)
    np.testing.assert_array_equal(find_onsets((gain * samples).astype(np.float32), RATE), find_onsets(samples, RATE))


def test_silence_has_no_onsets() -> None:
    assert len(find_onsets(np.zeros(RATE, np.float32), RATE)) == 0


def test_steady_noise_has_no_onset_but_its_start() -> None:
    noise = np.random.default_rng(1).standard_normal(3 * RATE).astype(np.float32)
    found = find_onsets(noise, RATE)
    assert len(found) <= 1 and (found < 0.05).all()


def test_of_two_onsets_too_close_the_earlier_one_stays() -> None:
    samples = clicks([0.5, 0.58], seconds=1.0)
    assert len(find_onsets(samples, RATE, min_gap=0.03)) == 2
    assert find_onsets(samples, RATE, min_gap=0.2) == pytest.approx([0.5], abs=0.02)


@pytest.mark.parametrize("length", [0, 1, 7, 79, 80, 81, 600])
def test_any_length_down_to_nothing_gives_a_frame_each_5_ms(length: int) -> None:
    strength, times = onset_strength(np.ones(length, np.float32), RATE)
    assert len(strength) == len(times) == -(-length // 80)
    assert np.isfinite(strength).all() and (strength >= 0).all()
    find_onsets(np.ones(length, np.float32), RATE)


def test_a_long_recording_gives_the_frames_of_its_parts() -> None:
    """Frames are computed in blocks; where a block ends must not show."""
    samples = clicks([t / 2 for t in range(1, 20)], seconds=11.0)
    found = find_onsets(samples, RATE)
    np.testing.assert_allclose(found, [t / 2 for t in range(1, 20)], atol=0.02)


def brightness(part: np.ndarray) -> np.ndarray:
    """Scores (dull, bright) by the share of sign changes where something sounds."""
    bright = float((np.diff(np.sign(part[np.abs(part) > 1e-3])) != 0).mean())
    return np.array([1 - bright, bright])


def test_each_onset_is_named_by_what_sounds_until_the_next_one() -> None:
    time = np.arange(round(0.1 * RATE)) / RATE
    fade = np.exp(-time / 0.03)
    samples = np.zeros(2 * RATE, np.float32)
    for start, hertz in ((0.25, 100), (0.6, 7000), (1.5, 100)):
        samples[round(start * RATE) : round(start * RATE) + len(time)] += fade * np.sin(2 * np.pi * hertz * time)
    rows = label_onsets(samples, RATE, brightness, labels=("dull", "bright"), longest=0.5, file="x.wav")
    assert [row.label for row in rows] == ["dull", "bright", "dull"]
    np.testing.assert_allclose([row.start for row in rows], [0.25, 0.6, 1.5], atol=0.02)
    assert rows[0].end == rows[1].start  # until the next
    assert rows[1].end == pytest.approx(rows[1].start + 0.5)  # at most the window
    assert rows[2].end == pytest.approx(2.0, abs=0.02)  # the recording ends first or about then
    assert {row.file for row in rows} == {"x.wav"}


def test_the_model_hears_a_little_of_what_comes_before_the_onset() -> None:
    heard: list[np.ndarray] = []

    def listen(part: np.ndarray) -> np.ndarray:
        heard.append(part)
        return np.ones(1)

    label_onsets(clicks([0.5], seconds=1.0), RATE, listen, labels=("a",), longest=0.3, lead=0.1)
    assert len(heard[0]) == round(0.3 * RATE)
    assert np.flatnonzero(np.abs(heard[0]) > 0.05)[0] == pytest.approx(0.1 * RATE, abs=0.02 * RATE)
