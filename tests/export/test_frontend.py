"""The front end in matrix products hears what the other one hears."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ossicle.export.frontend import MatrixLogMel
from ossicle.frontend import create_frontend
from ossicle.frontend.batch import spectrograms


@pytest.mark.parametrize("recipe", ["passt", "passt_hop160", "passt_hop100", "kaldi_fbank"])
@given(extra=st.integers(0, 3000), seed=st.integers(0, 9))
def test_it_gives_the_same_features_at_any_length(recipe: str, extra: int, seed: int) -> None:
    frontend = create_frontend(recipe).eval()
    samples = frontend.min_samples + extra
    wave = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))
    got = MatrixLogMel(frontend)(wave)
    assert got.shape[-1] == frontend.frames(samples)
    torch.testing.assert_close(got, frontend(wave), rtol=0, atol=1e-4)


@pytest.mark.parametrize("recipe", ["passt", "kaldi_fbank"])
def test_a_loud_tone_does_not_hide_what_is_60_db_below(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    time = torch.arange(frontend.rate) / frontend.rate
    wave = (0.5 * torch.sin(2 * np.pi * 440 * time) + 5e-4 * torch.sin(2 * np.pi * 5000 * time))[None]
    torch.testing.assert_close(MatrixLogMel(frontend)(wave), frontend(wave), rtol=0, atol=2e-3)


def test_transforms_of_other_lengths_are_right() -> None:
    frontend = create_frontend("passt", fft_samples=600, window_samples=450, hop_samples=77).eval()
    wave = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MatrixLogMel(frontend)(wave), frontend(wave), rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [10, 40, 90])
def test_silence_follows_short_clips_and_cuts_no_long_one(frames: int) -> None:
    frontend = create_frontend("passt").eval()
    wave = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    wanted = spectrograms(frontend, list(wave), frames=frames)
    torch.testing.assert_close(MatrixLogMel(frontend, frames=frames)(wave), wanted, rtol=0, atol=1e-4)
