"""Decoded samples are kept for the next run: all that fit, and no reason that has gone away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.data import Item, cache
from ossicle.data.cache import open_store
from ossicle.errors import AudioUnreadable

RATE = 8_000
SIZES = (1000, 2000, 3000, 4000)


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Four recordings of different lengths."""
    found = []
    for number, size in enumerate(SIZES):
        soundfile.write(tmp_path / f"{number}.wav", np.full(size, 0.1 * (number + 1)), RATE)
        found.append(Item(file=tmp_path / f"{number}.wav", labels=("a",)))
    return found


@pytest.mark.parametrize("kept", range(5))
def test_what_exceeds_the_budget_is_decoded_at_every_use_and_is_the_same(
    kept: int, items: list[Item], tmp_path: Path
) -> None:
    budget = 4 * sum(SIZES[:kept])
    store = open_store(items, RATE, folder=tmp_path, budget_bytes=budget)
    assert store.stored == kept and store.samples.nbytes == budget
    assert store.lengths.tolist() == list(SIZES)
    for number, size in enumerate(SIZES):
        samples = store.read(number)
        assert len(samples) == size and np.allclose(samples, 0.1 * (number + 1), atol=1e-3)


def test_a_larger_budget_is_used(items: list[Item], tmp_path: Path) -> None:
    assert [open_store(items, RATE, folder=tmp_path, budget_bytes=size).stored for size in (0, 20_000, 8_000)] == [
        0,
        2,
        2,
    ]
    assert open_store(items, RATE, folder=tmp_path).stored == 4


@pytest.mark.parametrize("budget", [0, 2**20])
def test_broken_recordings_are_known_beyond_the_budget_too(budget: int, items: list[Item], tmp_path: Path) -> None:
    items[3].file.write_bytes(b"RIFF no sound")
    store = open_store(items, RATE, folder=tmp_path, budget_bytes=budget)
    assert list(store.failures) == [3] and "3.wav" in store.failures[3]
    assert store.usable.tolist() == [0, 1, 2]


def test_what_could_not_be_decoded_is_tried_again(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder may have been installed since; nothing about the file has changed."""
    decode, tried = cache.decode, []

    def without_a_decoder(item: Item, rate: int) -> np.ndarray:
        tried.append(item.file.name)
        if item.file.name == "1.wav":
            raise AudioUnreadable(f"{item.file}: needs a decoder.")
        return decode(item, rate)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "decode", without_a_decoder)
        assert list(open_store(items, RATE, folder=tmp_path).failures) == [1]
        tried.clear()
        assert list(open_store(items, RATE, folder=tmp_path).failures) == [1]
        assert tried == ["1.wav"]
    assert not open_store(items, RATE, folder=tmp_path).failures


def test_samples_that_were_cut_are_decoded_anew(items: list[Item], tmp_path: Path) -> None:
    open_store(items, RATE, folder=tmp_path)
    (data,) = (tmp_path / "samples").glob("*.f32")
    data.write_bytes(data.read_bytes()[:-4])
    assert len(open_store(items, RATE, folder=tmp_path).read(3)) == SIZES[3]


def test_what_another_decoder_made_is_decoded_anew(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version may have read less of a file that has not changed since."""
    with monkeypatch.context() as patch:
        patch.setattr(cache, "DECODER", cache.DECODER - 1)
        patch.setattr(cache, "decode", lambda item, rate: np.full(7, 0.5, np.float32))
        assert open_store(items, RATE, folder=tmp_path).lengths.tolist() == [7, 7, 7, 7]
    assert open_store(items, RATE, folder=tmp_path).lengths.tolist() == list(SIZES)
    assert len(list((tmp_path / "samples").glob("*.f32"))) == 2


def test_another_track_is_another_item(items: list[Item], tmp_path: Path) -> None:
    first = open_store(items, RATE, folder=tmp_path)
    again = open_store([replace(item, track=1) for item in items], RATE, folder=tmp_path)
    assert first.lengths.tolist() == again.lengths.tolist() == list(SIZES)
    assert len(list((tmp_path / "samples").glob("*.f32"))) == 2
    third = open_store([replace(items[0], track=2)], RATE, folder=tmp_path)
    assert "track 2 is not available" in third.failures[0]
