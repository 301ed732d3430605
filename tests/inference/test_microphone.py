"""A microphone that is made of numbers: its sound comes at the model's rate, and a slow model is told so."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ossicle.audio.microphone import microphone_blocks
from ossicle.audio.resample import resample
from ossicle.errors import AudioUnreadable

OWN = 16_000  # hertz, of the microphone


class Stream:
    """Hears all of the sound at once, as soon as it is opened."""

    sound = np.random.default_rng(0).normal(scale=0.1, size=8 * OWN).astype(np.float32)

    def __init__(self, *, blocksize: int, callback: Callable[..., None], channels: int, **_: Any) -> None:
        assert channels == 1
        self.blocksize, self.callback = blocksize, callback

    def __enter__(self) -> "Stream":
        for at in range(0, len(self.sound), self.blocksize):
            self.callback(self.sound[at : at + self.blocksize, None], self.blocksize, None, None)
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    module = SimpleNamespace(
        PortAudioError=OSError,
        InputStream=Stream,
        query_devices=lambda device, kind: {"default_samplerate": float(OWN)},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


@pytest.mark.parametrize("rate", [OWN, 32_000])
def test_it_gives_the_sound_at_the_rate_of_the_model(rate: int, microphone: SimpleNamespace) -> None:
    wanted, heard = resample(Stream.sound, OWN, rate), np.zeros(0, np.float32)
    for block in microphone_blocks(rate):
        heard = np.concatenate([heard, block])
        if len(heard) >= 7 * rate:
            break
    np.testing.assert_allclose(heard, wanted[: len(heard)], atol=1e-6)


def test_a_model_that_falls_behind_is_told_once(microphone: SimpleNamespace) -> None:
    said: list[str] = []
    blocks = microphone_blocks(OWN, behind=said.append)
    for _ in range(20):
        next(blocks)
    assert len(said) == 1 and "8 s behind the sound" in said[0]


def test_a_microphone_that_is_not_there_is_one_sentence(microphone: SimpleNamespace) -> None:
    def missing(device: Any, kind: str) -> dict[str, float]:
        raise ValueError(f"No input device matching {device!r}")

    microphone.query_devices = missing
    with pytest.raises(AudioUnreadable, match="microphone 7 does not open: No input device"):
        next(microphone_blocks(OWN, device="7"))
