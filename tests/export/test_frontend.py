"""The front end in matrix products hears what the other one hears."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ossicle.export.frontend import MatrixLogMel
from ossicle.frontend import LogMel, create_frontend


def assert_same(found: Tensor, frontend: LogMel, wave: Tensor, exact_log_mel: Callable) -> None:
    """Both are as near to double precision as float32 can be."""
    config = frontend.config
    assert found.shape == (len(wave), config.mels, frontend.frames(wave.shape[1]))
    for features in (found, frontend(wave)):
        for one, samples in zip(features.double() * 2 * config.deviation + config.mean, wave, strict=True):
            exact, bound = exact_log_mel(samples, config)
            assert (np.abs(one.numpy() - exact) <= bound).all()


@pytest.mark.parametrize("recipe", ["passt", "passt_hop160", "passt_hop100", "kaldi_fbank"])
@settings(max_examples=25)
@given(extra=st.integers(0, 3000), seed=st.integers(0, 9))
def test_it_gives_the_same_features_at_any_length(recipe: str, exact_log_mel: Callable, extra: int, seed: int) -> None:
    frontend = create_frontend(recipe).eval()
    wave = 0.1 * torch.randn(2, frontend.min_samples + extra, generator=torch.Generator().manual_seed(seed))
    assert_same(MatrixLogMel(frontend)(wave), frontend, wave, exact_log_mel)


@pytest.mark.parametrize("recipe", ["passt", "kaldi_fbank"])
def test_a_loud_tone_does_not_hide_what_is_60_db_below(recipe: str, exact_log_mel: Callable) -> None:
    frontend = create_frontend(recipe).eval()
    time = torch.arange(frontend.rate) / frontend.rate
    wave = (0.5 * torch.sin(2 * np.pi * 440 * time) + 5e-4 * torch.sin(2 * np.pi * 5000 * time))[None]
    found = MatrixLogMel(frontend)(wave)
    assert_same(found, frontend, wave, exact_log_mel)
    quiet = found[0, found.shape[1] // 2 :].mean(1)
    assert quiet.max() - quiet.median() > 1.0  # the tone at 5 kHz stands out, in units of two deviations


def test_transforms_of_other_lengths_are_right(exact_log_mel: Callable) -> None:
    frontend = create_frontend("passt", fft_samples=600, window_samples=450, hop_samples=77).eval()
    wave = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    assert_same(MatrixLogMel(frontend)(wave), frontend, wave, exact_log_mel)


@pytest.mark.parametrize("frames", [10, 40, 90])
def test_silence_follows_short_clips_and_cuts_no_long_one(frames: int) -> None:
    frontend = create_frontend("passt").eval()
    wave = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    plain, padded = MatrixLogMel(frontend)(wave), MatrixLogMel(frontend, frames=frames)(wave)
    real = plain.shape[2]
    assert padded.shape[2] == max(real, frames)
    assert torch.equal(padded[..., :real], plain)
    assert (padded[..., real:] == frontend.silence()).all()
