"""Clips of several lengths in one block of features."""

import torch

from ossicle.frontend import create_frontend
from ossicle.frontend.batch import silence, spectrograms


def waves(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def test_a_clip_has_the_same_features_alone_and_among_longer_ones() -> None:
    frontend = create_frontend("passt").eval()
    clips = waves(8000, 16_000, 8000, 12_345)
    together = spectrograms(frontend, clips)
    for row, clip in zip(together, clips, strict=True):
        alone = frontend(clip[None])[0]
        assert torch.equal(row[:, : alone.shape[1]], alone)


def test_what_follows_a_short_clip_is_silence_as_the_front_end_hears_it() -> None:
    for recipe in ("passt", "kaldi_fbank"):
        frontend = create_frontend(recipe).eval()
        spec = spectrograms(frontend, waves(8000, 16_000))
        beyond = spec[0, :, frontend.frames(8000) :]
        heard = frontend(torch.zeros(1, 16_000))
        torch.testing.assert_close(beyond, torch.full_like(beyond, silence(frontend)))
        torch.testing.assert_close(heard, torch.full_like(heard, silence(frontend)))


def test_frames_pads_up_to_a_length_and_never_cuts() -> None:
    frontend = create_frontend("passt").eval()
    assert spectrograms(frontend, waves(8000), frames=100).shape == (1, 128, 100)
    assert spectrograms(frontend, waves(16_000), frames=10).shape[-1] == frontend.frames(16_000)


def test_a_change_sees_every_clip_once_with_its_place() -> None:
    frontend = create_frontend("passt").eval()
    clips = waves(8000, 9000, 8000)
    seen = {}

    def change(positions: torch.Tensor, stacked: torch.Tensor) -> torch.Tensor:
        for position, clip in zip(positions.tolist(), stacked, strict=True):
            seen[position] = clip
        return 2.0 * stacked

    louder = spectrograms(frontend, clips, change=change)
    assert sorted(seen) == [0, 1, 2]
    assert all(torch.equal(seen[position], clip) for position, clip in enumerate(clips))
    assert (louder > spectrograms(frontend, clips)).float().mean() > 0.7
