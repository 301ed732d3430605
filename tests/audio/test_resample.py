import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.audio import resample
from ossicle.audio.resample import memory, resampled

RATES = (1_000, 8_000, 11_025, 16_000, 22_050, 31_999, 32_000, 44_100, 48_000, 96_000, 192_000, 768_000)
COMMON_RATES = (8_000, 22_050, 32_000, 44_100, 48_000)
rates = st.sampled_from(RATES)


@given(length=st.integers(1, 5_000), source_rate=rates, rate=rates)
@settings(deadline=None)
def test_length_is_the_duration_times_the_new_rate(length, source_rate, rate):
    resampled_length = len(resample(np.zeros(length, np.float32), source_rate, rate))
    assert abs(resampled_length - length * rate / source_rate) <= 0.5


@given(level=st.floats(-1, 1, width=32), source_rate=rates, rate=rates)
@settings(max_examples=30, deadline=None)
def test_a_constant_stays_constant_away_from_the_edges(level, source_rate, rate):
    edge = memory(source_rate, rate)
    frames = int(2.2 * edge * source_rate / rate) + 100
    samples = resample(np.full(frames, level, np.float32), source_rate, rate)
    inner = samples[edge : len(samples) - edge]
    assert len(inner) > 0
    np.testing.assert_allclose(inner, level, atol=2e-5)


@pytest.mark.parametrize(("source_rate", "rate"), list(itertools.permutations(COMMON_RATES, 2)))
def test_a_tone_below_both_nyquists_survives_and_one_above_dies(sounds, source_rate, rate):
    inner = slice(rate // 4, 3 * rate // 4)
    survivor = resample(sounds.tone(1_000, source_rate, 1.0), source_rate, rate)
    np.testing.assert_allclose(survivor[inner], sounds.tone(1_000, rate, 1.0)[inner], atol=1e-5)
    if rate < source_rate:
        dead = resample(sounds.tone(0.5 * rate + 0.45 * (source_rate - rate), source_rate, 1.0), source_rate, rate)
        assert np.abs(dead[inner]).max() < 1e-4


def test_a_band_limited_sound_returns_from_another_rate(sounds):
    there = resample(sounds.tone(3_000, 32_000, 1.0), 32_000, 44_100)
    back = resample(there, 44_100, 32_000)
    np.testing.assert_allclose(back[1_000:-1_000], sounds.tone(3_000, 32_000, 1.0)[1_000:-1_000], atol=1e-5)


def test_equal_rates_change_no_bit(sounds):
    samples = sounds.chirp(32_000, 0.1)[:, 0]
    np.testing.assert_array_equal(resample(samples, 32_000, 32_000), samples)


@given(cuts=st.lists(st.integers(0, 3_000), max_size=8), source_rate=rates, rate=rates)
@settings(max_examples=50, deadline=None)
def test_blocks_of_any_sizes_join_to_the_whole_bit_for_bit(cuts, source_rate, rate):
    samples = np.random.default_rng(0).standard_normal(3_000).astype(np.float32)
    blocks = np.split(samples, sorted(cuts))
    joined = np.concatenate(list(resampled(iter(blocks), source_rate, rate)))
    np.testing.assert_array_equal(joined, resample(samples, source_rate, rate))


@pytest.mark.parametrize(("source_rate", "rate"), [(0, 32_000), (32_000, 0), (-1, 32_000)])
def test_a_rate_that_is_not_positive_is_the_callers_slip(source_rate, rate):
    with pytest.raises(ValueError, match="positive"):
        resample(np.zeros(8, np.float32), source_rate, rate)
