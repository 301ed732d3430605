"""Tars with an index: the very data of the folder, readable by others, and refused where they are damaged."""

import contextlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ossicle
from ossicle import TrainConfig
from ossicle.data import cache, check_dataset, read_dataset, write_shards
from ossicle.data.cache import StreamedStore, decode, open_store
from ossicle.data.lengths import clip_lengths
from ossicle.data.parts import contents_of
from ossicle.errors import AudioUnreadable, DataRefused

RATE = 8_000
FORMATS = ("wav", "flac", "ogg", "mp3", "aiff")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten recordings of two classes in five formats, with a table."""
    rng = np.random.default_rng(0)
    lines = ["file,label,group"]
    (tmp_path / "data").mkdir()
    for number in range(10):
        name = f"a.{number}.{FORMATS[number % 5]}"
        soundfile.write(tmp_path / "data" / name, rng.normal(0, 0.1, 3000 + 7 * number), RATE)
        lines.append(f"{name},{'dog' if number % 2 else 'cat'},g{number // 2}")
    (tmp_path / "data" / "meta.csv").write_text("\n".join(lines))
    return tmp_path / "data"


@pytest.fixture
def tars(folder: Path, tmp_path: Path) -> Path:
    """The same in several tars."""
    shards = write_shards(read_dataset(folder), tmp_path / "tars", shard_bytes=20_000)
    assert len(shards.tars) > 2 and shards.files == 10 and not shards.failures
    return tmp_path / "tars"


def test_a_data_set_is_the_same_from_tars(folder: Path, tars: Path) -> None:
    before, after = read_dataset(folder), read_dataset(tars)
    assert after.fingerprint() == before.fingerprint()
    assert contents_of(after.items) == contents_of(before.items)
    assert after.group_name == "group" and after.labels == before.labels
    assert "10 clips, 2 classes" in after.layout and "5 groups from `group`" in after.layout
    for rate in (RATE, 16_000, 11_025, 44_100):
        lengths, failures = clip_lengths(after.items, rate)
        assert lengths.tolist() == [len(decode(item, rate)) for item in after] and not failures
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(decode(other, rate), decode(one, rate))
    assert not check_dataset(after).failed


def test_segments_of_one_recording_lie_in_one_file(folder: Path, tmp_path: Path) -> None:
    table = folder / "segments.csv"
    rows = ["a.0.wav,0,0.1,x", "a.0.wav,0.1,0.25,y", "a.0.wav,0.2,0.3,x;y", "a.1.flac,0,0.1,y", "a.1.flac,0.2,0.3,x"]
    table.write_text("\n".join(["file,start,end,labels", *rows]))
    before = read_dataset(table)
    assert write_shards(before, tmp_path / "tars").files == 2
    after = read_dataset(tmp_path / "tars")
    assert after.fingerprint() == before.fingerprint() and "5 clips of 2 files" in after.layout
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(decode(other, 16_000), decode(one, 16_000))


def test_any_reader_of_tars_finds_recordings_with_what_they_are(folder: Path, tars: Path) -> None:
    found = {}
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                opened = archive.extractfile(member)
                assert opened is not None
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = opened.read()
    assert len(found) == 10
    for files in found.values():
        about = json.loads(files["json"])
        (suffix,) = files.keys() - {"json", "cls"}
        assert files[suffix] == (folder / about["file"]).read_bytes()
        assert ["cat", "dog"][int(files["cls"])] == about["labels"][0] and about["group"].startswith("g")


def test_the_webdataset_library_reads_them(tars: Path) -> None:
    tars_of = pytest.importorskip("webdataset.tariterators", reason="webdataset is not installed")
    from webdataset.autodecode import Decoder

    with contextlib.ExitStack() as stack:
        opened = [{"url": path.name, "stream": stack.enter_context(open(path, "rb"))} for path in tars.glob("*.tar")]
        samples = list(tars_of.group_by_keys(tars_of.tar_file_expander(opened)))
    assert len(samples) == 10
    for sample in map(Decoder([]), samples):
        assert sample["json"]["labels"] == [["cat", "dog"][sample["cls"]]]


def test_training_from_tars_gives_the_weights_of_the_folder_streamed_too(
    folder: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    config = TrainConfig(depth=1, epochs=1, batch_size=4, device="cpu", precision="float32")
    weights = []
    for data, gigabytes in ((folder, 1.0), (folder, 1e-4), (tars, 1.0), (tars, 1e-4)):
        cache = tmp_path / f"cache of {data.name} {gigabytes}"
        run = tmp_path / f"run of {data.name} {gigabytes}"
        monkeypatch.setenv("OSSICLE_CACHE", str(cache))
        result = ossicle.train(data, replace(config, cache_gigabytes=gigabytes), output=run)
        assert bool(list(cache.glob("samples/*.places"))) == (gigabytes < 1)
        weights.append((result.folder / "model" / "model.safetensors").read_bytes())
    assert len(set(weights)) == 1
    # A model that was trained on the folder knows its test part in the tars.
    evaluated = ossicle.evaluate(tmp_path / "run of data 0.0001", tars)
    assert evaluated.metrics.to_json() == result.evaluation.metrics.to_json()


def test_packing_goes_on_where_it_was_interrupted(folder: Path, tars: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tars.iterdir()}
    (tars / "000001.index.jsonl").unlink()
    again = write_shards(read_dataset(folder), tars, shard_bytes=20_000)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tars.iterdir()}
    assert again.files == 10 and {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert after["000000.tar"] == before["000000.tar"] and after["000001.tar"] != before["000001.tar"]


Damage = Callable[[Path], None]


def cut(tars: Path) -> None:
    path = tars / "000001.tar"
    path.write_bytes(path.read_bytes()[:-512])


def lose_tar(tars: Path) -> None:
    (tars / "000001.tar").unlink()


def lose_index(tars: Path) -> None:
    (tars / "000001.index.jsonl").unlink()


def lose_both(tars: Path) -> None:
    lose_tar(tars)
    lose_index(tars)


def flip_index(tars: Path) -> None:
    path = tars / "000001.index.jsonl"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def swap(tars: Path) -> None:
    (tars / "000000.index.jsonl").write_bytes((tars / "000001.index.jsonl").read_bytes())


def other_version(tars: Path) -> None:
    path = tars / "000001.index.jsonl"
    path.write_text(path.read_text().replace('"version": 2', '"version": 9'))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, r"000001.tar has [\d,]+ bytes, and its index counts [\d,]+"),
        (lose_tar, "is the index of 000001.tar, which is not there"),
        (lose_index, "000001.tar has no index 000001.index.jsonl beside it"),
        (lose_both, r"holds \d of \d tars: number 1 is missing"),
        (flip_index, "000001.index.jsonl is damaged, or no index of a tar"),
        (swap, "000000.tar has [0-9,]+ bytes, and its index counts"),
        (other_version, "has version 9; this ossicle reads version 2"),
    ],
)
def test_what_is_damaged_is_refused(damage: Damage, sentence: str, tars: Path) -> None:
    damage(tars)
    with pytest.raises(DataRefused, match=sentence):
        read_dataset(tars)


def test_a_flipped_byte_is_noticed_and_costs_one_clip(tars: Path, tmp_path: Path) -> None:
    item = read_dataset(tars).items[3]
    assert item.member is not None
    path, content = item.file, bytearray(item.file.read_bytes())
    content[int(item.member.tar.offsets[item.member.row]) + 60] ^= 1
    path.write_bytes(content)
    dataset = read_dataset(tars)
    with pytest.raises(AudioUnreadable, match=rf"{path.name}:a.3.mp3: its bytes are not those that the index counts"):
        decode(dataset.items[3], RATE)
    store = open_store(dataset.items, RATE, folder=tmp_path / "cache")
    assert list(store.failures) == [3] and "a.3.mp3" in store.failures[3]


def test_a_tar_that_is_cut_or_gone_while_it_is_used_gives_a_sentence(tars: Path) -> None:
    dataset = read_dataset(tars)
    expected = decode(dataset.items[5], RATE)
    np.testing.assert_array_equal(decode(dataset.items[5], RATE), expected)  # without a copy from the second use on
    other = next(item for item in dataset if item.file != dataset.items[5].file)
    other.file.unlink()
    with pytest.raises(AudioUnreadable, match=r"the tar cannot be read \(No such file"):
        decode(other, RATE)
    with open(dataset.items[5].file, "r+b") as file:
        file.truncate(100)
    with pytest.raises(AudioUnreadable, match=r"a\.5\.wav: the tar cannot be read|ends before this file does"):
        decode(dataset.items[5], RATE)


def test_a_model_predicts_an_item_of_a_tar_as_it_does_its_file(folder: Path, tars: Path, shared_bundle: Path) -> None:
    recognizer = ossicle.load(shared_bundle)
    one, other = (recognizer.predict_item(read_dataset(data).items[1]) for data in (folder, tars))
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
    assert other.file.endswith(".tar:a.1.flac") and {row.file for row in other.rows} <= {other.file}


def test_what_cannot_be_decoded_is_refused_or_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "a.2.ogg").write_bytes(b"OggS and no sound")
    (folder / "a.5.wav").unlink()
    dataset = read_dataset(folder)
    with pytest.raises(DataRefused, match="--skip-bad leaves out what cannot be used"):
        write_shards(dataset, tmp_path / "tars")
    shards = write_shards(dataset, tmp_path / "tars", skip_bad=True)
    assert shards.files == 8 and len(shards.failures) == 2
    assert any("a.5.wav: no such file" in failure for failure in shards.failures)
    after = read_dataset(tmp_path / "tars")
    assert len(after) == 8 and "2 recordings were left out when the tars were packed" in after.layout


def test_no_tar_is_written_of_recordings_of_which_none_can_be_decoded(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("a.*"):
        path.write_bytes(b"no sound")
    with pytest.raises(DataRefused, match="none of the 10 recordings can be decoded; `ossicle data check` says why"):
        write_shards(read_dataset(folder), tmp_path / "tars", skip_bad=True)
    assert not (tmp_path / "tars").exists()


def test_other_files_are_not_mixed_with_tars(folder: Path, tars: Path, tmp_path: Path) -> None:
    dataset = read_dataset(folder)
    with pytest.raises(DataRefused, match="holds tars of other data, or cut otherwise"):
        write_shards(dataset, tars, shard_bytes=40_000)
    with pytest.raises(DataRefused, match=r"holds other files, such as a\.0\.wav: name a new folder"):
        write_shards(dataset, folder)
    with pytest.raises(DataRefused, match="is packed already"):
        write_shards(read_dataset(tars), tmp_path / "again")
    with pytest.raises(DataRefused, match="--label sort names a column, but .* holds tars"):
        read_dataset(tars, label="sort")


# ---------------------------------------------------------------- more than the budget


def streamed(tars: Path, folder: Path, *, budget: int) -> StreamedStore:
    store = open_store(read_dataset(tars).items, RATE, folder=folder, budget_bytes=budget)
    assert isinstance(store, StreamedStore)
    return store


def test_tars_beyond_the_budget_are_decoded_at_their_use_and_kept_up_to_it(
    folder: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(read_dataset(folder).items, RATE, folder=tmp_path / "whole")
    decoded: list[str] = []
    monkeypatch.setattr(cache, "decode", lambda item, rate: (decoded.append(item.place), decode(item, rate))[1])
    budget = 4 * 3100 * 4
    store = streamed(tars, tmp_path / "cache", budget=budget)
    assert not decoded and store.lengths.tolist() == whole.lengths.tolist()
    for _ in range(2):
        for index in (7, 2, 9, 0, 5, 1):
            np.testing.assert_array_equal(store.read(index), whole.read(index))
    assert len(decoded) == 8  # four are kept, two are decoded at every use
    again = streamed(tars, tmp_path / "cache", budget=budget)  # as another rank would, while the first goes on
    np.testing.assert_array_equal(again.read(9), whole.read(9))
    assert len(decoded) == 8
    np.testing.assert_array_equal(again.read(3), whole.read(3))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.f32")) <= budget


def test_what_was_kept_and_is_damaged_is_decoded_again(folder: Path, tars: Path, tmp_path: Path) -> None:
    expected = decode(read_dataset(folder).items[4], RATE)
    store = streamed(tars, tmp_path, budget=50_000)
    store.read(4)
    store.read(6)
    (data,), (log,) = tmp_path.glob("samples/*.f32"), tmp_path.glob("samples/*.places")
    content = bytearray(data.read_bytes())
    content[40] ^= 1
    data.write_bytes(content)
    log.write_bytes(log.read_bytes() + b"half of a record")
    for one in (store, streamed(tars, tmp_path, budget=50_000)):
        np.testing.assert_array_equal(one.read(4), expected)
    data.unlink()
    np.testing.assert_array_equal(store.read(6), decode(read_dataset(folder).items[6], RATE))


def test_a_full_disk_ends_keeping_and_nothing_else(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ossicle.data")
    store = streamed(tars, tmp_path, budget=50_000)
    store.kept.log = tmp_path / "no folder" / "log"
    samples = store.read(0)
    np.testing.assert_array_equal(store.read(0), samples)
    assert ["no more decoded samples are kept" in record.message for record in caplog.records] == [True]
