"""A microphone that is made of numbers: its sound comes at the model's rate, and what is lost or late is told."""

import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ossicle.audio import microphone as module
from ossicle.audio.microphone import microphone_blocks
from ossicle.audio.resample import resample
from ossicle.errors import AudioUnreadable

OWN = 16_000  # hertz, of the microphone


class Stream:
    """Hears all of the sound at once, as soon as it is opened, but for `dropped` frames before the block `drops_at`."""

    drops_at, dropped, clock = -1, 0, 100.0
    sound = np.random.default_rng(0).normal(scale=0.1, size=8 * OWN).astype(np.float32)

    def __init__(self, *, blocksize: int, callback: Callable[..., None], channels: int, **_: Any) -> None:
        assert channels == 1
        self.blocksize, self.callback = blocksize, callback

    def __enter__(self) -> "Stream":
        at = block = 0
        while at < len(self.sound):
            at += self.dropped if block == self.drops_at else 0
            samples = self.sound[at : at + self.blocksize, None]
            time = SimpleNamespace(inputBufferAdcTime=self.clock and self.clock + at / OWN)
            self.callback(samples, len(samples), time, SimpleNamespace(input_overflow=block == self.drops_at))
            at, block = at + len(samples), block + 1
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Gone(Stream):
    """Does not even start."""

    def __enter__(self) -> "Stream":
        raise OSError("Device unavailable")


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    module = SimpleNamespace(
        PortAudioError=OSError,
        InputStream=Stream,
        query_devices=lambda device, kind: {"default_samplerate": float(OWN)},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    # A shell has what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield module
    signal.signal(signal.SIGINT, before)


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
    assert len(said) == 1 and "8 s behind" in said[0]


def test_a_microphone_that_is_not_there_is_one_sentence(microphone: SimpleNamespace) -> None:
    def missing(device: Any, kind: str) -> dict[str, float]:
        raise ValueError(f"No input device matching {device!r}")

    microphone.query_devices = missing
    with pytest.raises(AudioUnreadable, match="microphone 7 cannot be opened: No input device"):
        next(microphone_blocks(OWN, device="7"))


def test_a_microphone_that_does_not_start_is_one_sentence(microphone: SimpleNamespace) -> None:
    microphone.InputStream = Gone
    with pytest.raises(AudioUnreadable, match="the microphone cannot be opened: Device unavailable"):
        next(microphone_blocks(OWN))


@pytest.mark.parametrize("rate", [OWN, 32_000])
def test_an_unplugged_microphone_ends_in_a_sentence_after_all_that_it_heard(
    rate: int, microphone: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.01)
    said: list[str] = []
    heard = np.concatenate(list(microphone_blocks(rate, block_seconds=0.05, cut_off=said.append)))
    np.testing.assert_allclose(heard, resample(Stream.sound, OWN, rate), atol=1e-6)
    assert len(said) == 1 and "no audio from the microphone for" in said[0]
    with pytest.raises(AudioUnreadable, match="no audio from the microphone 7 for .* connection"):
        list(microphone_blocks(rate, block_seconds=0.05, device="7"))


def test_ctrl_c_ends_the_sound_after_all_that_was_heard_and_the_next_one_the_program(
    microphone: SimpleNamespace,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    blocks = microphone_blocks(32_000)
    heard = [next(blocks)]
    signal.raise_signal(signal.SIGINT)  # while the caller computes
    np.testing.assert_allclose(np.concatenate(heard + list(blocks)), resample(Stream.sound, OWN, 32_000), atol=1e-6)
    assert signal.getsignal(signal.SIGINT) is before
    next(blocks := microphone_blocks(32_000))
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("clock", "length"), [(100.0, 8 * OWN), (0.0, 8 * OWN - 4_000)])
def test_sound_that_the_system_drops_is_told_and_becomes_silence_where_its_length_is_known(
    clock: float, length: int, microphone: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"drops_at": 20, "dropped": 4_000, "clock": clock}.items():
        monkeypatch.setattr(Stream, name, value)
    said: list[str] = []
    blocks = microphone_blocks(OWN, behind=said.append, cut_off=said.append)
    next(blocks)
    signal.raise_signal(signal.SIGINT)
    rest = np.concatenate(list(blocks))
    assert len(rest) == length - OWN // 10
    told = [sentence for sentence in said if "dropped" in sentence]
    assert told == [
        "the system dropped 0.25 s of audio, which is replaced by silence"
        if clock
        else "the system dropped audio; times from here on may be too early"
    ]
    if clock:
        expected = Stream.sound.copy()
        expected[20 * 1_600 : 20 * 1_600 + 4_000] = 0
        np.testing.assert_array_equal(rest, expected[1_600:])


@pytest.mark.parametrize("block_seconds", [0.0, -1.0, np.nan, np.inf])
def test_blocks_of_no_length_are_the_callers_slip(block_seconds: float, microphone: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="block_seconds"):
        next(microphone_blocks(OWN, block_seconds=block_seconds))
