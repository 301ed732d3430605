"""Decoded samples are kept for the next run, as far as the budget goes, and no reason that has gone away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.data import Item, cache, lengths
from ossicle.data.cache import SampleStore, StreamedStore, open_store
from ossicle.errors import AudioUnreadable, DataRefused

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


def test_what_fits_the_budget_is_decoded_once_and_what_does_not_is_streamed(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = cache.decode, []
    monkeypatch.setattr(cache, "decode", lambda item, rate: (decoded.append(item.file.stem), decode(item, rate))[1])
    store = open_store(items, RATE, folder=tmp_path, budget_bytes=16_000)
    assert isinstance(store, StreamedStore) and not decoded and store.lengths.tolist() == list(SIZES)
    for _ in range(2):
        for number in (3, 0, 2, 1):
            samples = store.read(number)
            assert len(samples) == SIZES[number] and np.allclose(samples, 0.1 * (number + 1), atol=1e-3)
    assert decoded == ["3", "0", "2", "1", "0", "2", "1"]  # clip 3 alone fills the budget
    whole = open_store(items, RATE, folder=tmp_path, budget_bytes=40_000)
    assert type(whole) is SampleStore and len(decoded) == 11 and whole.samples.nbytes == 40_000
    assert type(open_store(items, RATE, folder=tmp_path, budget_bytes=0)) is SampleStore  # it is there already


@pytest.mark.parametrize("budget", [0, 2**20])
def test_broken_recordings_are_known_before_the_start_beyond_the_budget_too(
    budget: int, items: list[Item], tmp_path: Path
) -> None:
    items[3].file.write_bytes(b"RIFF no sound")
    items[1].file.unlink()
    items[0] = replace(items[0], start=1.0)
    for _ in range(2):
        store = open_store(items, RATE, folder=tmp_path, budget_bytes=budget)
        assert sorted(store.failures) == [0, 1, 3] and store.usable.tolist() == [2]
        assert "0.wav: " in store.failures[0] and "1.wav: there is no such file" in store.failures[1]
        assert "3.wav: this is " in store.failures[3]


def test_headers_are_read_once_and_say_how_long_recordings_are(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("flac", "ogg", "mp3", "aiff"):
        samples = np.random.default_rng(0).normal(0, 0.1, 30_011)
        soundfile.write(tmp_path / f"a.{suffix}", samples, RATE)
        items.append(Item(file=tmp_path / f"a.{suffix}", labels=("a",)))
    items.append(Item(file=items[3].file, labels=("a",), start=0.25, end=0.4))
    stores = [open_store(items, rate, folder=tmp_path, budget_bytes=0) for rate in (RATE, 44_100)]
    for store in stores:
        for number, item in enumerate(items):
            length = len(cache.decode(item, store.rate))
            assert abs(store.lengths[number] - length) <= (0 if item.file.suffix != ".mp3" else 0.3 * store.rate)
    monkeypatch.setattr(lengths, "measure_frames", None)  # not called again
    assert open_store(items, RATE, folder=tmp_path, budget_bytes=0).lengths.tolist() == stores[0].lengths.tolist()
    (known, _) = sorted(tmp_path.glob("samples/*.lengths"))
    known.write_bytes(known.read_bytes()[:-1] + b"!")
    with pytest.raises(TypeError, match="not callable"):
        for rate in (RATE, 44_100):
            open_store(items, rate, folder=tmp_path, budget_bytes=0)


def test_a_stream_whose_data_have_gone_stops_with_a_sentence(
    items: list[Item], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ossicle.data")
    store = open_store(items, RATE, folder=tmp_path, budget_bytes=0)
    items[0].file.unlink()
    for _ in range(2):  # a clip is tried again, and counted once
        with pytest.raises(AudioUnreadable, match="no such file"):
            store.read(0)
        store.read(1)
    assert list(store.failures) == [0] and [record.message[:36] for record in caplog.records] == [
        "left out, as clip number 1 that cann"
    ]
    for item in items[1:]:
        item.file.unlink()
    for number in range(3):
        with pytest.raises(AudioUnreadable):
            store.read(number)
    with pytest.raises(DataRefused, match=r"4 clips one after the other cannot be read, .*3\.wav.*--resume goes on"):
        store.read(3)


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
