import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.frontend import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


SEEDS = st.integers(0, 2**32)


# Gain and roll


def test_gain_fills_its_range_evenly_one_draw_a_clip() -> None:
    wave = torch.ones(4_000, 2)
    louder = augment.gain(wave, generator=seeded(), decibels=7.0)
    assert torch.equal(louder[:, 0], louder[:, 1])
    decibels = 20.0 * louder[:, 0].log10()
    assert -7.001 < decibels.min() < -6.9 and 6.9 < decibels.max() < 7.001
    assert decibels.mean().abs() < 0.2
    assert decibels.std() == pytest.approx(14 / math.sqrt(12), rel=0.03)


def test_gain_of_nothing_changes_nothing() -> None:
    wave = noise(3, 10)
    assert torch.equal(augment.gain(wave, generator=seeded(), decibels=0.0), wave)


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(1, 5), samples=st.integers(1, 40), most=st.integers(0, 60), seed=SEEDS)
def test_roll_turns_each_clip_and_loses_no_sample(clips: int, samples: int, most: int, seed: int) -> None:
    wave = torch.arange(clips * samples).float().view(clips, samples)
    rolled = augment.roll(wave, generator=seeded(seed), max_samples=most)
    for before, after in zip(wave, rolled, strict=True):
        assert any(torch.equal(after, torch.roll(before, shift)) for shift in range(-most, most + 1))


def test_roll_reaches_both_ends_of_its_range_and_each_clip_has_its_own() -> None:
    wave = torch.zeros(500, 11)
    wave[:, 5] = 1.0
    assert augment.roll(wave, generator=seeded(), max_samples=3).argmax(dim=1).unique().tolist() == list(range(2, 9))


# Mixing


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
def test_beta_has_the_moments_of_its_distribution(alpha: float) -> None:
    drawn = augment.beta(200_000, alpha, generator=seeded()).double()
    assert 0.0 <= drawn.min() and drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(0.5, abs=5e-3)
    variance = 1.0 / (4.0 * (2.0 * alpha + 1.0))
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    fourth = variance**2 * (3.0 - 6.0 / (2.0 * alpha + 3.0))  # kurtosis of a symmetric Beta
    assert (drawn - 0.5).pow(4).mean() == pytest.approx(fourth, rel=0.03)


def test_beta_follows_its_generator() -> None:
    generator = seeded(1)
    first, second = (augment.beta(8, 0.3, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, augment.beta(8, 0.3, generator=seeded(1)))


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(1, 9), seed=SEEDS)
def test_mixed_labels_keep_their_sum(clips: int, seed: int) -> None:
    targets = torch.eye(9)[:clips]
    for _, mixed in (
        augment.mix_waves(noise(clips, 20), targets, generator=seeded(seed)),
        augment.mix_spectrograms(noise(clips, 4, 5), targets, generator=seeded(seed)),
    ):
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(clips))
        assert mixed.min() >= 0.0


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(2, 9), seed=SEEDS)
def test_labels_say_how_much_of_which_spectrogram_is_in_the_mix(clips: int, seed: int) -> None:
    spec, targets = noise(clips, 4, 5), torch.eye(clips)
    mixed, parts = augment.mix_spectrograms(spec, targets, generator=seeded(seed))
    torch.testing.assert_close(mixed, torch.einsum("ij,jmf->imf", parts, spec), atol=1e-5, rtol=1e-5)
    assert parts.diagonal().min() >= 0.5 - 1e-6  # a clip stays the larger part of itself


@settings(max_examples=40, deadline=None)
@given(clips=st.integers(2, 9), seed=SEEDS)
def test_labels_say_how_much_of_which_wave_is_in_the_mix(clips: int, seed: int) -> None:
    wave, targets = 1.0 + noise(clips, 50), torch.eye(clips)
    mixed, parts = augment.mix_waves(wave, targets, generator=seeded(seed), probability=1.0)
    centered = wave - wave.mean(dim=1, keepdim=True)
    torch.testing.assert_close(mixed, parts @ centered, atol=1e-5, rtol=1e-5)
    assert parts.diagonal().min() >= 0.5 - 1e-6
    assert mixed.mean(dim=1).abs().max() < 1e-6


def test_waves_are_mixed_with_their_probability_and_else_left_as_they_are() -> None:
    wave, targets = 1.0 + noise(2_000, 8), torch.eye(2_000)
    mixed, parts = augment.mix_waves(wave, targets, generator=seeded(), probability=0.25)
    same = (mixed == wave).all(dim=1)
    assert same.float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(parts[same], targets[same])
    untouched, labels = augment.mix_waves(wave, targets, generator=seeded(), probability=0.0)
    assert torch.equal(untouched, wave) and torch.equal(labels, targets)


def test_alpha_sets_how_much_is_mixed() -> None:
    targets = torch.eye(1_000)
    spec = torch.zeros(1_000, 1, 1)
    minor = [
        1.0 - augment.mix_spectrograms(spec, targets, generator=seeded(), alpha=alpha)[1].diagonal().mean()
        for alpha in (0.3, 2.0)
    ]
    assert minor[0] < minor[1] - 0.1
    wave = torch.zeros(1_000, 1)
    minor = [
        1.0 - augment.mix_waves(wave, targets, generator=seeded(), probability=1.0, alpha=alpha)[1].diagonal().mean()
        for alpha in (0.3, 2.0)
    ]
    assert minor[0] < minor[1] - 0.1


# Masks


@settings(max_examples=60, deadline=None)
@given(
    mels=st.integers(1, 20),
    frames=st.integers(1, 30),
    freq_mask=st.integers(0, 25),
    time_mask=st.integers(0, 40),
    seed=SEEDS,
)
def test_a_mask_hides_one_band_and_one_run(mels: int, frames: int, freq_mask: int, time_mask: int, seed: int) -> None:
    spec = torch.ones(3, mels, frames)
    masked = augment.mask(spec, generator=seeded(seed), freq_mask=freq_mask, time_mask=time_mask, value=-2.0)
    assert set(masked.unique().tolist()) <= {1.0, -2.0}
    for hidden in masked == -2.0:
        rows, columns = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, rows[:, None] | columns[None, :])
        for line, option in ((rows, freq_mask), (columns, time_mask)):
            assert int(line.sum()) <= min(max(option - 1, 0), len(line) // 2)
            assert int((line[1:] != line[:-1]).sum()) <= 2  # in one piece


def test_mask_widths_and_places_are_uniform() -> None:
    masked = augment.mask(torch.ones(20_000, 40, 1), generator=seeded(), freq_mask=8, time_mask=0)
    hidden = masked[:, :, 0] == 0.0
    widths = torch.bincount(hidden.sum(dim=1), minlength=8) / 20_000
    assert widths.shape == (8,)
    torch.testing.assert_close(widths, torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    starts = hidden[hidden.sum(dim=1) == 7].float().argmax(dim=1)
    assert starts.min() == 0 and starts.max() == 33


def test_masks_of_nothing_hide_nothing() -> None:
    spec = noise(2, 8, 9)
    assert torch.equal(augment.mask(spec, generator=seeded(), freq_mask=0, time_mask=0), spec)


# All of them


def test_no_augmentation_touches_the_global_stream_or_its_input() -> None:
    wave, spec, targets = noise(4, 30), noise(4, 6, 8), torch.eye(4)
    kept = wave.clone(), spec.clone(), targets.clone()
    before = torch.get_rng_state()
    augment.gain(wave, generator=seeded())
    augment.roll(wave, generator=seeded())
    augment.mix_waves(wave, targets, generator=seeded())
    augment.mix_spectrograms(spec, targets, generator=seeded())
    augment.mask(spec, generator=seeded(), freq_mask=3, time_mask=3)
    assert torch.equal(torch.get_rng_state(), before)
    for now, then in zip((wave, spec, targets), kept, strict=True):
        assert torch.equal(now, then)


def test_the_same_generator_gives_the_same_clips() -> None:
    wave, targets = noise(6, 30), torch.eye(6)
    for change in (
        lambda generator: augment.gain(wave, generator=generator),
        lambda generator: augment.roll(wave, generator=generator),
        lambda generator: augment.mix_waves(wave, targets, generator=generator, probability=1.0)[0],
    ):
        assert torch.equal(change(seeded(1)), change(seeded(1)))
        assert not torch.equal(change(seeded(1)), change(seeded(2)))
