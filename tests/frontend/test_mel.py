import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ossicle.frontend import (
    RECIPES,
    FrontendConfig,
    create_frontend,
    frontend_config,
    jitter_edges,
    log_mel,
    measure_statistics,
    normalize,
)
from ossicle.frontend.filterbank import hertz_to_mel, mel_filterbank

GOLDEN = Path(__file__).parents[1] / "golden" / "passt_mel.safetensors"
OFF = {"min_hertz_jitter": 1, "max_hertz_jitter": 1, "freq_mask": 0, "time_mask": 0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=seeded(seed))


def raw(features: torch.Tensor, config: FrontendConfig) -> torch.Tensor:
    """Undoes the normalization."""
    return features * 2.0 * config.deviation + config.mean


def edges_of(config: FrontendConfig) -> list[float]:
    """The mel edges of the filters, in double precision: `mels + 2` of them."""
    low, high = hertz_to_mel(config.min_hertz), hertz_to_mel(config.max_hertz)
    return [low + index * (high - low) / (config.mels + 1) for index in range(config.mels + 2)]


# The reference


CASES = [("default", "passt"), ("hop160", "passt_hop160"), ("short", "passt")]


@pytest.mark.parametrize("case, recipe", CASES)
def test_the_published_front_end_is_reproduced(case: str, recipe: str, exact_log_mel: Callable) -> None:
    golden, config = load_file(GOLDEN), RECIPES[recipe]
    ours = create_frontend(recipe).eval()(golden[f"{case}.wave"])
    error = ours - golden[f"{case}.logmel"]
    assert error.abs().max() < 5e-4 and error.square().mean().sqrt() < 2e-5  # what the stored numbers are good for
    for wave, features, published in zip(golden[f"{case}.wave"], ours, golden[f"{case}.logmel"], strict=True):
        exact, bound = exact_log_mel(wave, config)
        for found in (features, published):
            assert (np.abs(raw(found, config).numpy() - exact) <= bound).all()


@pytest.mark.parametrize("case, recipe", [*CASES, ("short", "kaldi_fbank")])
@pytest.mark.parametrize(
    "wrong",
    [{"window": "periodic Hann"}, {"window": "Hamming"}, {"scale": 701.0}, {"preemphasis": 0.971}, {"power": 1.999}],
    ids=str,
)
def test_another_window_scale_or_pre_emphasis_is_beyond_what_rounding_does(
    case: str, recipe: str, wrong: dict, exact_log_mel: Callable
) -> None:
    wave, config = load_file(GOLDEN)[f"{case}.wave"][0], RECIPES[recipe]
    ours = raw(create_frontend(recipe).eval()(wave[None])[0], config).numpy()
    exact, bound = exact_log_mel(wave, config, **wrong)
    assert (np.abs(ours - exact) > bound).mean() > 0.5


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_function_is_the_module_in_evaluation(recipe: str) -> None:
    wave = noise(2, 32_000)
    assert torch.equal(log_mel(wave, RECIPES[recipe]), create_frontend(recipe).eval()(wave))


# Physics


@settings(max_examples=25, deadline=None)
@given(recipe=st.sampled_from(["passt", "passt_hop160", "kaldi_fbank"]), bin=st.integers(20, 126))
def test_a_tone_at_the_center_of_a_filter_is_loudest_there(recipe: str, bin: int) -> None:
    config = RECIPES[recipe]
    hertz = 700.0 * math.expm1(edges_of(config)[bin + 1] / 1127.0)
    time = torch.arange(16_000, dtype=torch.float64) / config.rate
    spec = log_mel((0.5 * torch.sin(2 * torch.pi * hertz * time)).float()[None], config)
    middle = spec[0, :, 5:-5]
    assert (middle.argmax(dim=0) - bin).abs().max() <= 1


@settings(max_examples=25, deadline=None)
@given(recipe=st.sampled_from(sorted(RECIPES)), decibels=st.floats(-20, 20))
def test_gain_shifts_the_log_mel_by_as_many_decibels(recipe: str, decibels: float) -> None:
    config = RECIPES[recipe]
    wave = noise(1, 8_000)
    quiet, loud = log_mel(wave, config), log_mel(wave * 10 ** (decibels / 20), config)
    audible = torch.minimum(raw(quiet, config), raw(loud, config)) > math.log(1e-5) + 8.0  # far above the floor
    shift = (raw(loud, config) - raw(quiet, config))[audible]
    assert audible.any()
    torch.testing.assert_close(shift, torch.full_like(shift, decibels * math.log(10) / 10), atol=2e-3, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_silence_is_finite_and_flat(recipe: str) -> None:
    spec = create_frontend(recipe).eval()(torch.zeros(1, 16_000))
    assert spec.isfinite().all()
    assert spec.max() == spec.min()


def test_filters_rise_from_one_center_and_fall_to_the_next() -> None:
    config = RECIPES["passt"]
    bank = create_frontend(config).bank
    assert bank.shape == (128, 513)
    assert bank.min() == 0.0 and 0.9 < bank.max() <= 1.0
    assert not bank[:, -1].any()
    # Between the first and the last center every frequency is shared by two filters that add up to one.
    edges = edges_of(config)
    mel = 1127.0 * torch.log1p(31.25 * torch.arange(513) / 700.0)
    inside = (mel > edges[1]) & (mel < edges[-2])
    torch.testing.assert_close(bank[:, inside].sum(0), torch.ones(int(inside.sum())), atol=1e-4, rtol=0)


def test_the_range_of_the_filterbank_follows_its_edges() -> None:
    bank = mel_filterbank(mels=16, fft_samples=1024, rate=32_000, min_hertz=1_000.0, max_hertz=2_000.0)
    hertz = 31.25 * bank.any(dim=0).nonzero()[:, 0]
    assert 1_000 <= hertz.min() < 1_063 and 1_937 < hertz.max() <= 2_000


# Lengths


@settings(max_examples=30, deadline=None)
@given(recipe=st.sampled_from(sorted(RECIPES)), more=st.integers(0, 2_000))
def test_frames_are_counted_as_they_come_out(recipe: str, more: int) -> None:
    frontend = create_frontend(recipe).eval()
    samples = frontend.min_samples + more
    assert frontend(torch.zeros(1, samples)).shape == (1, 128, frontend.frames(samples))


@settings(deadline=None)
@given(recipe=st.sampled_from(sorted(RECIPES)), frames=st.integers(16, 5_000))
def test_samples_is_the_shortest_clip_with_so_many_frames(recipe: str, frames: int) -> None:
    config = RECIPES[recipe]
    samples = config.samples(frames)
    assert config.frames(samples) == frames
    assert config.frames(samples - 1) == frames - 1


def test_even_a_single_frame_needs_enough_samples_to_reflect() -> None:
    frontend = create_frontend("passt", min_frames=1).eval()
    assert frontend.min_samples == frontend.samples(1) == 514
    assert frontend(noise(1, 514)).shape == (1, 128, 2)
    with pytest.raises(ValueError, match="513 samples"):
        frontend(noise(1, 513))


def test_known_lengths() -> None:
    assert RECIPES["passt"].frames(320_000) == 1000  # 10 s
    assert RECIPES["passt"].frames(160_000) == 500
    assert RECIPES["passt"].frames(5_120) == 16
    assert RECIPES["passt"].min_samples == 4_801
    assert RECIPES["passt_hop100"].frames(320_000) == 3200
    assert RECIPES["kaldi_fbank"].frames(160_000) == 998
    assert RECIPES["kaldi_fbank"].frames(399) == 0
    assert RECIPES["passt"].frames(513) == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_clip_that_is_too_short_is_refused_with_both_lengths(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    least = frontend.min_samples
    with pytest.raises(ValueError, match=rf"{least - 1} samples .* needs {least} "):
        frontend(torch.zeros(1, least - 1))


# Neighbors, precision, devices


@settings(max_examples=25, deadline=None)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    clips=st.integers(2, 20),
    more=st.integers(0, 1_000),
    data=st.data(),
)
def test_a_clip_alone_has_the_bits_it_has_in_a_batch(recipe: str, clips: int, more: int, data: st.DataObject) -> None:
    frontend = create_frontend(recipe).eval()
    wave = noise(clips, frontend.min_samples + more, seed=clips)
    index = data.draw(st.integers(0, clips - 1))
    assert torch.equal(frontend(wave[index : index + 1].clone())[0], frontend(wave)[index])


@pytest.mark.parametrize("recipe", RECIPES)
def test_long_clips_too_have_their_own_bits_in_a_batch(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    wave = noise(5, 100_003)
    together = frontend(wave)
    for clip, spec in zip(wave, together, strict=True):
        assert torch.equal(frontend(clip[None].clone())[0], spec)


@pytest.mark.parametrize("recipe", ["passt", "kaldi_fbank"])
def test_autocast_changes_no_bit(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    wave = noise(2, 8_000)
    plain = frontend(wave)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = frontend(wave)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_a_model_cast_to_half_precision_keeps_its_filterbank() -> None:
    frontend = create_frontend("passt").eval()
    wave = noise(1, 8_000)
    assert torch.equal(copy.deepcopy(frontend).to(torch.bfloat16)(wave), frontend(wave))
    assert torch.equal(copy.deepcopy(frontend).double()(wave), frontend(wave))


def test_the_front_end_has_no_tensors_to_save() -> None:
    frontend = create_frontend("passt")
    assert not frontend.state_dict()
    assert not list(frontend.parameters())


@pytest.mark.parametrize("recipe", ["passt", "kaldi_fbank"])
def test_the_exported_graph_takes_any_number_of_clips(recipe: str, exact_log_mel: Callable) -> None:
    frontend = create_frontend(recipe).eval()
    exported = torch.export.export(frontend, (noise(3, 8_000),), dynamic_shapes=({0: torch.export.Dim("clip")},))
    wave = noise(5, 8_000, seed=1)
    for features, samples in zip(exported.module()(wave), wave, strict=True):
        exact, bound = exact_log_mel(samples, RECIPES[recipe])
        assert (np.abs(raw(features, RECIPES[recipe]).numpy() - exact) <= bound).all()


# Training


def test_training_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        create_frontend("passt").train()(noise(1, 8_000))


def test_evaluation_draws_nothing() -> None:
    frontend = create_frontend("passt").eval()
    generator = seeded()
    before, handed = torch.get_rng_state(), generator.get_state()
    first, second = frontend(noise(2, 8_000), generator=generator), frontend(noise(2, 8_000))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), handed)


def test_training_leaves_the_global_stream_alone_and_follows_its_generator() -> None:
    frontend = create_frontend("passt").train()
    wave = noise(3, 32_000)
    before = torch.get_rng_state()
    first, again, other = (frontend(wave, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_with_everything_off_is_evaluation(recipe: str) -> None:
    frontend = create_frontend(recipe, **OFF)
    wave = noise(2, 16_000)
    assert torch.equal(frontend.train()(wave, generator=seeded()), frontend.eval()(wave))


@pytest.mark.parametrize(
    "switch", [{"min_hertz_jitter": 200}, {"max_hertz_jitter": 2_000}, {"freq_mask": 48}, {"time_mask": 40}]
)
def test_each_switch_alone_changes_training_features(switch: dict[str, int]) -> None:
    wave = noise(4, 32_000)
    frontend = create_frontend("passt", **(OFF | switch))
    assert not torch.equal(frontend.train()(wave, generator=seeded(3)), frontend.eval()(wave))


def test_masked_cells_are_zero_in_log_mel_units() -> None:
    frontend = create_frontend("passt", **(OFF | {"freq_mask": 48, "time_mask": 40}))
    wave = noise(8, 32_000)
    plain, masked = frontend.eval()(wave), frontend.train()(wave, generator=seeded())
    changed = plain != masked
    assert changed.any() and not changed.all()
    torch.testing.assert_close(masked[changed], torch.full_like(masked[changed], 0.9))


def test_masks_belong_to_the_clip_and_jitter_to_the_batch() -> None:
    wave = noise(1, 32_000).expand(4, -1)
    masked = create_frontend("passt", min_hertz_jitter=1, max_hertz_jitter=1).train()(wave, generator=seeded())
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(masked, 2))
    jittered = create_frontend("passt", freq_mask=0, time_mask=0).train()(wave, generator=seeded())
    assert all(torch.equal(one, jittered[0]) for one in jittered)


def test_jitter_draws_every_edge_of_its_range_and_no_other() -> None:
    generator = seeded()
    config = frontend_config("passt", min_hertz_jitter=5, max_hertz_jitter=6)
    drawn = [jitter_edges(config, generator=generator) for _ in range(150)]
    assert {config.min_hertz for config in drawn} == set(range(5))
    assert {config.max_hertz for config in drawn} == set(range(14_998, 15_004))


def test_jitter_of_the_published_recipe_fills_its_range() -> None:
    generator = seeded()
    drawn = [jitter_edges(RECIPES["passt"], generator=generator) for _ in range(150)]
    assert {config.min_hertz for config in drawn} == set(range(10))
    highest = [config.max_hertz for config in drawn]
    assert 14_001 <= min(highest) < 14_100 and 15_900 < max(highest) <= 16_000


def test_jittered_features_are_those_of_the_drawn_edges() -> None:
    frontend = create_frontend("passt", freq_mask=0, time_mask=0)
    wave = noise(2, 16_000)
    drawn = jitter_edges(frontend.config, generator=seeded(5))
    assert torch.equal(frontend.train()(wave, generator=seeded(5)), log_mel(wave, drawn))


# Statistics


def test_measured_statistics_are_those_of_all_cells() -> None:
    config = RECIPES["kaldi_fbank"]
    waves = [noise(length, seed=length) * 10.0 ** -(length % 4) for length in (6_000, 9_001, 16_002, 30_003)]
    mean, deviation = measure_statistics(iter(waves), config)
    cells = torch.cat([raw(log_mel(wave[None], config), config).flatten().double() for wave in waves])
    assert mean == pytest.approx(cells.mean().item(), abs=1e-5)
    assert deviation == pytest.approx(cells.std(correction=0).item(), abs=1e-5)


def test_measured_statistics_normalize() -> None:
    waves = [noise(8_000, seed=seed).numpy() for seed in range(4)]
    mean, deviation = measure_statistics(waves, RECIPES["kaldi_fbank"])
    frontend = create_frontend("kaldi_fbank", mean=mean, deviation=deviation).eval()
    features = torch.stack([frontend(torch.from_numpy(wave)[None]) for wave in waves])
    assert features.mean().abs() < 1e-4
    assert features.std() == pytest.approx(0.5, abs=1e-4)


def test_statistics_of_nothing_or_of_silence_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        measure_statistics([], RECIPES["passt"])
    with pytest.raises(ValueError, match="silence"):
        measure_statistics([torch.zeros(8_000)], RECIPES["passt"])


def test_mean_and_deviation_reach_the_features() -> None:
    config = FrontendConfig(mean=1.0, deviation=2.0)
    assert normalize(torch.tensor([1.0, 5.0]), config).tolist() == [0.0, 1.0]
    wave = noise(1, 8_000)
    same = raw(log_mel(wave, config), config)
    torch.testing.assert_close(same, raw(log_mel(wave, RECIPES["passt"]), RECIPES["passt"]))
