"""Training on data that do not fit: order, crops and what is lost are those of data that do, and nothing is silence."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ossicle.data import Dataset, read_dataset, split_dataset
from ossicle.data.cache import SampleStore, StreamedStore, open_store
from ossicle.data.parts import contents_of, read_past
from ossicle.errors import AudioUnreadable, DataRefused
from ossicle.training import TrainConfig, train
from ossicle.training.initial import frontend_of
from ossicle.training.loader import Batch, WaveBatches, Windows
from ossicle.training.losses import mean_loss
from ossicle.training.ranks import ALONE, Ranks
from ossicle.training.train_network import first_readable, settled_frontend

RATE = 32_000


@pytest.fixture
def folder(sounds: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sounds, tmp_path / "sounds"))


class Losing(SampleStore):
    """A store that has lost one clip."""

    def read(self, index: int) -> np.ndarray:
        if index == 3:
            raise AudioUnreadable("3.wav: there is no such file")
        return super().read(index)


def store_of(kind: type[SampleStore]) -> SampleStore:
    lengths = np.array([900, 1200, 500, 800, 1000, 700, 1100])
    samples = np.random.default_rng(0).standard_normal(lengths.sum()).astype(np.float32)
    offsets = np.cumsum(lengths) - lengths
    return kind(items=(), rate=RATE, samples=samples, offsets=offsets, lengths=lengths, failures={})


def batch_of(kind: type[SampleStore], *, ranks: Ranks = ALONE) -> Batch:
    targets = np.arange(7)[:, None] % 3 == np.arange(3)
    return WaveBatches(store_of(kind), np.arange(7), targets, window=800, batch_size=7, seed=0, ranks=ranks).peek()


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_lost_clip_is_left_out_of_the_loss_and_changes_nothing_else(task: str, world: int) -> None:
    whole = batch_of(SampleStore)
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    loss = {"task": task, "settings": TrainConfig()}
    each = [float(mean_loss(logits[row : row + 1], whole.targets[row : row + 1], **loss)) for row in range(7)]
    expected = sum(value for value, clip in zip(each, whole.clips.tolist(), strict=True) if clip != 3) / 7
    found, row = 0.0, 0
    for rank in range(world):
        batch = batch_of(Losing, ranks=Ranks(rank=rank, world=world))
        rows = slice(row, row + len(batch.clips))
        row = rows.stop
        assert batch.seed == whole.seed and torch.equal(batch.clips, whole.clips[rows])
        lost = (batch.clips == 3).tolist()
        assert torch.equal(batch.lengths, whole.lengths[rows])
        for wave, same, gone in zip(batch.waves, whole.waves[rows, : batch.waves.shape[1]], lost, strict=True):
            assert torch.equal(wave, torch.zeros_like(same) if gone else same)
        assert (batch.known is not None) == any(lost)
        if batch.known is not None:
            assert batch.known.sum(1).tolist() == [0 if gone else 3 for gone in lost]
        value = mean_loss(logits[rows], batch.targets, known=batch.known, **loss)
        found += float(value) * batch.part / world
    assert row == 7 and found == pytest.approx(expected, rel=1e-5)


def test_a_lost_clip_is_not_scored() -> None:
    targets = np.zeros((7, 3), dtype=bool)
    windows = Windows(store_of(Losing), np.arange(7), targets, window=600, batch_size=4)
    assert {clip for batch in windows for clip in batch.clips.tolist()} == {0, 1, 2, 4, 5, 6}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_that_is_resumed_inside_an_epoch_gives_the_same_batches(
    workers: int, folder: Path, tmp_path: Path
) -> None:
    dataset = read_dataset(folder)
    whole = open_store(dataset.items, RATE, folder=tmp_path / "whole")

    def batches(store: SampleStore, workers: int) -> WaveBatches:
        targets = dataset.label_rows
        return WaveBatches(store, np.arange(24), targets, window=5000, batch_size=5, seed=1, workers=workers)

    every = batches(whole, 1)
    expected = [*every, *every]
    first = batches(open_store(dataset.items, RATE, folder=tmp_path / "a", budget_bytes=200_000), workers)
    seen = [batch for _, batch in zip(range(3), first, strict=False)]
    store = open_store(dataset.items, RATE, folder=tmp_path / "a", budget_bytes=200_000)  # what was kept is found
    assert isinstance(store, StreamedStore) and (store.kept.places[:, 0] >= 0).sum() == 3
    resumed = batches(store, 3 - workers)
    resumed.load_state_dict(first.state_dict())
    seen += [*resumed, *resumed]
    for one, other in zip(expected, seen, strict=False):
        assert one.seed == other.seed and one.clips.tolist() == other.clips.tolist()
        assert torch.equal(one.waves, other.waves) and torch.equal(one.lengths, other.lengths)


def test_a_header_that_says_too_much_or_too_little_changes_no_length(folder: Path, tmp_path: Path) -> None:
    """Lengths are those of headers, so that draws do not depend on what has been decoded so far."""
    dataset = read_dataset(folder)
    store = open_store(dataset.items, RATE, folder=tmp_path, budget_bytes=0)
    store.lengths[:12], store.lengths[12:] = 20_000, 9_000  # and all clips have 12,800 samples
    batches = WaveBatches(store, np.arange(24), dataset.label_rows, window=16_000, batch_size=24, seed=0)
    batch = batches.peek()
    for clip, wave, length in zip(batch.clips.tolist(), batch.waves, batch.lengths.tolist(), strict=True):
        assert length == (16_000 if clip < 12 else 9_000)
        assert (wave[12_800:] == 0).all() and wave[:9_000].abs().max() > 0.1


def test_files_lost_while_a_stream_trains_are_named_and_not_scored(
    folder: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    table = folder / "meta.csv"
    table.write_text(table.read_text().replace("label", "labels", 1).replace(",tone,", ",tone;high,"))
    dataset = read_dataset(table)
    split = split_dataset(dataset)
    gone = [int(part[0]) for part in (split.train, split.validation, split.test)]

    def lose(done: int, total: int, left: float) -> None:
        for position in gone if done == 1 else ():
            dataset.items[position].file.unlink()

    monkeypatch.setattr(Dataset, "targets", None)  # no table of labels is made
    config = tiny(epochs=2, cache_gigabytes=1e-6)
    contents = contents_of(dataset.items)
    result = train(dataset, config, output=tmp_path / "run", cache=tmp_path / "cache", progress=lose)
    named = [failure.partition(": there is no such file")[0] for failure in result.failures]
    assert {str(dataset.items[position].file) for position in gone} == set(named)
    with open(tmp_path / "run" / "failures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == list(result.failures)
    assert rows[0]["file"] == Path(named[0]).name and rows[0]["start"] == "0.000"
    assert gone[2] not in result.evaluation.positions and len(result.evaluation.positions) == len(split.test) - 1
    past = read_past(tmp_path / "run" / "split.json")
    assert past is not None
    assert [one for one in past.contents if one] == [
        one for position, one in enumerate(contents) if position not in gone
    ]


def test_a_stream_is_refused_where_headers_say_that_clips_are_bad(
    folder: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]
) -> None:
    (folder / "5.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(DataRefused, match=r"1 of 24 clips cannot be used; --skip-bad .*5\.wav"):
        train(folder, replace(tiny(), cache_gigabytes=1e-6), output=tmp_path / "run", cache=tmp_path / "cache")


def test_a_stream_that_has_lost_its_training_part_is_refused_and_has_no_clip_to_show(
    folder: Path, tmp_path: Path
) -> None:
    dataset = read_dataset(folder)
    store = open_store(dataset.items, 16_000, folder=tmp_path, budget_bytes=0)
    config = TrainConfig(model="datar_nano")
    for item in dataset.items[:8]:
        item.file.unlink()
    with pytest.raises(DataRefused, match=r"at least one clip; first that cannot be read: .*0\.wav: there is no such"):
        settled_frontend(frontend_of(config), config, store=store, clips=np.arange(8), frames=40)
    assert first_readable(dataset.items[:8], 16_000) is None
    readable = first_readable(dataset.items, 16_000)
    assert readable is not None and readable[0] == dataset.items[8] and len(readable[1]) == 6400
