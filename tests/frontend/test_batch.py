"""Clips of several lengths in one batch of features."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from ossicle.frontend import LogMel, create_frontend, mel

RECIPES = ("passt", "kaldi_fbank")


def waves(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(length, generator=generator) for length in lengths]
    return pad_sequence(clips, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_clip_has_the_same_features_alone_and_among_longer_ones(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    clips, lengths = waves(8000, 16_000, 8000, 12_345)
    together = frontend(clips, lengths=lengths)
    for row, clip, length in zip(together, clips, lengths.tolist(), strict=True):
        alone = frontend(clip[None, :length])[0]
        assert torch.equal(row[:, : alone.shape[1]], alone)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("lengths", [(8000, 16_000, 8000, 12_345), (8000, 8000), (9000,)])
def test_one_transform_of_a_batch_gives_each_clip_its_features_up_to_rounding(
    recipe: str, lengths: tuple[int, ...]
) -> None:
    frontend = create_frontend(recipe).eval()
    clips, numbers = waves(*lengths)
    of_batch = {"passt": mel._passt_log_mel, "kaldi_fbank": mel._kaldi_log_mel}[recipe]
    found = of_batch(clips, frontend.config, frontend.window, frontend.bank, numbers[:, None])
    for row, clip, length in zip(found, clips, lengths, strict=True):
        alone = mel.raw_log_mel(clip[None, :length], frontend.config, window=frontend.window, bank=frontend.bank)[0]
        torch.testing.assert_close(row[:, : alone.shape[1]], alone, rtol=0, atol=2e-3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_follows_a_short_clip_is_silence_as_the_front_end_computes_it(recipe: str) -> None:
    frontend = create_frontend(recipe).eval()
    clips, lengths = waves(8000, 16_000)
    beyond = frontend(clips, lengths=lengths)[0, :, frontend.frames(8000) :]
    heard = frontend(torch.zeros(1, 16_000))
    torch.testing.assert_close(beyond, torch.full_like(beyond, frontend.silence()))
    torch.testing.assert_close(heard, torch.full_like(heard, frontend.silence()))


def test_frames_pads_up_to_a_length_and_never_cuts() -> None:
    frontend = create_frontend("passt").eval()
    assert frontend(waves(8000)[0], frames=100).shape == (1, 128, 100)
    assert frontend(waves(16_000)[0], frames=10).shape[-1] == frontend.frames(16_000)


def test_a_mask_over_time_lies_within_its_clip() -> None:
    frontend = create_frontend("passt", freq_mask=0, time_mask=1000, min_hertz_jitter=1, max_hertz_jitter=1)
    quiet = copy.deepcopy(frontend).eval()
    clips, lengths = waves(*[8000] * 20, 32_000)
    masked = frontend(clips, lengths=lengths, generator=torch.Generator().manual_seed(0))
    hidden = (masked != quiet(clips, lengths=lengths))[:, 0]  # (clip, frame)
    assert hidden[:, : frontend.frames(8000)].any(1).sum() > 15 and not hidden[:20, frontend.frames(8000) :].any()
    assert hidden[:20].sum(1).max() <= frontend.frames(8000) // 2


def test_a_clip_that_is_too_short_is_refused_in_any_batch() -> None:
    frontend: LogMel = create_frontend("passt").eval()
    clips, _ = waves(8000, 8000)
    with pytest.raises(ValueError, match="clips of 400 samples are too short for the front end, which needs 4801"):
        frontend(clips, lengths=torch.tensor([8000, 400]))
