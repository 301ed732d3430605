"""A dry run measures what a training would cost, writes nothing, and says what it measured."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ossicle.cli import app
from ossicle.data import Dataset, Item, read_dataset, write_shards
from ossicle.data.cache import decode
from ossicle.errors import AudioUnreadable, DataRefused, SettingRefused
from ossicle.training import DryRun, TrainConfig, TuneConfig, dry_run
from ossicle.training.estimate import StepCost
from ossicle.training.initial import frontend_of
from ossicle.training.train_network import settled_frontend
from ossicle.training.trial import peeked


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an empty cache below it."""
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "home" / "cache"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_a_command_prints_the_cost_and_writes_nothing(sounds: Path, home: Path) -> None:
    settings = ("depth=1", "epochs=7", "device=cpu", "precision=float32")
    done = CliRunner().invoke(
        app, ["train", str(sounds), "--init", "none", "--dry-run", "--set", *settings], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for beginning in ("A step on ", "Memory: ", "Before the first epoch: decoding 24 recordings", "An epoch: "):
        assert any(line.startswith(beginning) for line in lines), done.stdout
    assert any("batches in 7 epochs" in line for line in lines)
    assert [*home.rglob("*")] == []


def test_every_part_of_a_step_is_measured(dataset: Dataset, tiny: Callable[..., TrainConfig]) -> None:
    found = dry_run(dataset, tiny(average="ema", epochs=3), folds="all", output="run")
    cost = found.cost
    assert 0 < cost.frontend < cost.computing and cost.loading > 0 and cost.scoring > 0
    assert found.clips == 4 and found.epochs == 3 and found.folds == 5 and found.memory["memory_gigabytes"] > 0.05
    assert found.seconds == pytest.approx(15 * (found.batches * cost.step + cost.scoring) + found.before)


def test_shards_that_are_streamed_are_measured_with_their_decoding(
    dataset: Dataset, tiny: Callable[..., TrainConfig], tmp_path: Path, home: Path
) -> None:
    write_shards(dataset, tmp_path / "shards")
    shards = read_dataset(tmp_path / "shards")
    stored, streamed = (dry_run(shards, tiny(cache_gigabytes=size)) for size in (1.0, 0.0))
    assert stored.before > 0 and streamed.before == 0
    assert streamed.cost.loading > stored.cost.loading
    assert [*home.rglob("*")] == []


def test_what_a_training_refuses_is_refused(dataset: Dataset, sounds: Path, tiny: Callable[..., TrainConfig]) -> None:
    with pytest.raises(SettingRefused, match="there is no preset|has no option|not available"):
        dry_run(dataset, tiny(network={"colour": 3}))
    (sounds / "0.wav").rename(sounds / "gone")
    try:
        with pytest.raises(DataRefused, match="1 of 24 clips cannot be used"):
            dry_run(dataset, tiny())
    finally:
        (sounds / "gone").rename(sounds / "0.wav")
    usage = CliRunner().invoke(app, ["train", str(sounds), "--dry-run", "--grid", "seed=0,1"])
    assert usage.exit_code == 2 and "leave out --grid" in usage.output


def test_lengths_come_from_headers_and_of_very_many_clips_from_some(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(peeked(dataset.items, 32_000).lengths) == {12_800}
    monkeypatch.setattr("ossicle.training.trial.HEADERS", 3)
    read: list[Any] = []
    monkeypatch.setattr("ossicle.data.lengths.measure_frames", lambda file, **_: read.append(file) or (16_000, 16_000))
    assert set(peeked(dataset.items, 8_000).lengths) == {8_000} and len(read) == 3


def test_a_pyramid_is_measured_by_the_first_clip_with_sound(
    dataset: Dataset, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(item: Item, rate: int) -> np.ndarray:
        number = int(item.file.stem)
        if number < heard:
            raise AudioUnreadable(f"{item.file}: it does not decode")
        return np.zeros(6400, np.float32) if number == heard else decode(item, rate)

    monkeypatch.setattr("ossicle.training.trial.decode", decoded)
    config, heard = tiny(model="datar_nano", depth=None), 2
    store = peeked(dataset.items, 16_000)
    order = np.argsort([int(item.file.stem) for item in dataset.items])
    found = settled_frontend(frontend_of(config), config, store=store, clips=order, frames=40, described=1)
    alone = settled_frontend(frontend_of(config), config, store=store, clips=order[3:4], frames=40)
    assert (found.mean, found.deviation) == (alone.mean, alone.deviation)
    heard = 24
    with pytest.raises(DataRefused, match="train part gives no mean and deviation .* first that cannot be read: .* it"):
        dry_run(dataset, config)


@pytest.mark.parametrize("tuner", [None, "lora"])
def test_a_tuning_is_measured_with_its_encoder(
    tuner: str | None, sounds: Path, make_bundle: Callable[..., Path], tmp_path: Path, home: Path
) -> None:
    encoder = make_bundle(tmp_path / "encoder")
    config = TuneConfig(encoder=str(encoder), head="mean", tuner=tuner, device="cpu", epochs=2, batch_size=8)
    found = dry_run(sounds, config)
    assert found.cost.computing > 0 and found.cost.frontend == 0 and found.epochs == 2
    assert found.work == ("encoding 24 clips" if tuner is None else "reading 24 clips")
    assert [*home.rglob("*")] == []


def test_several_processes_and_folds_are_said() -> None:
    cost = StepCost(loading=0.1, computing=0.9, frontend=0.2, scoring=10.0)
    found = DryRun(
        cost=cost,
        clips=16,
        processes=2,
        batches=100,
        epochs=20,
        folds=5,
        before=90.0,
        work="decoding 1,600 recordings",
        memory={"memory_gigabytes": 1.5},
        patience=True,
    )
    assert found.lines() == [
        "A step on 16 clips takes 1 s (data 10 %, front end 20 %, network 70 %), measured in 2 processes at once, "
        "without the exchange of their gradients",
        "Memory: 1.5 GB in each process",
        "Before the first epoch: decoding 1,600 recordings takes about 1.5 min, once",
        "An epoch: 100 batches and the validation part in 1.8 min",
        "The whole run: at most 3.1 h for 2,000 batches in 20 epochs of each of 5 folds",
    ]


@pytest.mark.slow
def test_two_processes_are_measured_together(sounds: Path, home: Path) -> None:
    command = [sys.executable, "-m", "ossicle", "train", sounds, "--init", "none", "--dry-run", "--devices", "2"]
    command += ["--set", "depth=1"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measured in 2 processes at once") == 1 and "GB in each process" in done.stdout
    assert not (home / "runs").exists()
