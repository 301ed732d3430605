"""The filterbank against kaldi-native-fbank, which is Kaldi's own code."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ossicle.frontend import RECIPES, create_frontend
from ossicle.frontend.filterbank import hertz_to_mel
from ossicle.frontend.mel import KALDI_FLOOR

kaldi = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")

CONFIG = RECIPES["kaldi_fbank"]
LOW = hertz_to_mel(CONFIG.min_hertz)
STEP = (hertz_to_mel(CONFIG.max_hertz) - LOW) / (CONFIG.mels + 1)


def edge_hertz(index: int) -> float:
    return min(700.0 * math.expm1((LOW + index * STEP) / 1127.0), CONFIG.max_hertz)


def kaldi_run(wave: torch.Tensor, first: int, last: int) -> np.ndarray:
    """Kaldi's log-mel of the filters `first` to `last`, as a bank of its own."""
    options = kaldi.FbankOptions()
    options.frame_opts.samp_freq = CONFIG.rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.snip_edges = True
    options.use_energy = False
    options.htk_compat = True
    options.mel_opts.num_bins = last - first + 1
    options.mel_opts.low_freq = edge_hertz(first)
    options.mel_opts.high_freq = edge_hertz(last + 2)
    bank = kaldi.OnlineFbank(options)
    bank.accept_waveform(CONFIG.rate, (wave - wave.mean()).tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)]).T


def kaldi_log_mel(wave: torch.Tensor) -> np.ndarray:
    """All 128 filters. Kaldi refuses a bank with an empty filter, and number 3 is one, so the bank is made of two."""
    below, above = kaldi_run(wave, 0, 2), kaldi_run(wave, 4, 127)
    return np.concatenate([below, np.full((1, below.shape[1]), math.log(KALDI_FLOOR)), above])


def ours(wave: torch.Tensor) -> np.ndarray:
    features = create_frontend("kaldi_fbank").eval()(wave[None])[0]
    return (features * 2.0 * CONFIG.deviation + CONFIG.mean).numpy()


def signal(name: str, samples: int) -> torch.Tensor:
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    time = torch.arange(samples) / CONFIG.rate
    click = torch.zeros(samples)
    click[samples // 2] = 1.0
    return {
        "loud noise": noise,
        "quiet noise": 1e-3 * noise,
        "tone in noise": 0.5 * torch.sin(2 * torch.pi * 440 * time) + 1e-2 * noise,
        "sweep in noise": 0.5 * torch.sin(2 * torch.pi * (100 + 1500 * time) * time) + 1e-2 * noise,
        "noise on an offset": 0.3 + 1e-2 * noise,
        "click": click,
        "silence": torch.zeros(samples),
    }[name]


@pytest.mark.parametrize("samples", [CONFIG.min_samples, CONFIG.min_samples + 159, 8_000, 16_001, 33_333])
@pytest.mark.parametrize(
    "name",
    ["loud noise", "quiet noise", "tone in noise", "sweep in noise", "noise on an offset", "click", "silence"],
)
def test_the_filterbank_is_kaldis(name: str, samples: int, exact_log_mel: Callable) -> None:
    wave = signal(name, samples)
    exact, bound = exact_log_mel(wave, CONFIG)
    assert (np.abs(kaldi_log_mel(wave) - exact) <= bound).all()
    assert (np.abs(ours(wave) - exact) <= bound).all()


def test_only_filter_three_is_empty() -> None:
    empty = create_frontend("kaldi_fbank").bank.sum(dim=1) == 0
    assert empty.nonzero().flatten().tolist() == [3]
