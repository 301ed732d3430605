"""What a run leaves on disk: damaged, held by another process, made longer, where nothing can be written."""

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ossicle.cli import app
from ossicle.data import Dataset, Item, read_dataset
from ossicle.data.cache import open_store
from ossicle.encoders.cache import open_features
from ossicle.errors import BundleRefused, JobStopped, OssicleError, RunRefused, SettingRefused, WeightsRefused
from ossicle.files import locks_are_local, noted, write_atomically
from ossicle.kernels import resolve_kernels
from ossicle.loading import load
from ossicle.training import TrainConfig, TrainResult, train
from ossicle.training.callbacks import Checkpoints, epochs_without_gain
from ossicle.training.config import read_config, write_config
from ossicle.training.digests import Digests
from ossicle.training.estimate import logged
from ossicle.training.resume import continued
from ossicle.training.run import Run as TrainingRun
from ossicle.weights.state import valid_states

Run = Callable[..., TrainResult]
HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


# --- one process in a folder -----------------------------------------------------------------------------------------


def test_a_run_that_another_process_trains_is_not_resumed_until_that_has_died(run: Run) -> None:
    pytest.importorskip("fcntl", reason="locks of files are those of Unix")
    folder = run(epochs=1).folder
    command = [sys.executable, "-c", HOLD, str(folder / ".ossicle" / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(RunRefused, match=f"{folder}: another process is training there"):
            run(epochs=1, resume=True)
        other.kill()  # nothing but its death frees the folder
    run(epochs=1, resume=True)


def test_two_trainings_of_one_process_do_not_share_a_folder_either(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingRun, "conclude", lambda *_, **__: run(epochs=1, resume=True))
    with pytest.raises(RunRefused, match="another process is training there"):
        run(epochs=1)


def test_a_file_system_without_locks_is_said(
    dataset: Dataset,
    tmp_path: Path,
    tiny: Callable[..., TrainConfig],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="locks of files are those of Unix")

    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    run(epochs=1)
    monkeypatch.setattr(fcntl, "flock", refuse)
    train(dataset, tiny(epochs=1), output=tmp_path / "run", resume=True)
    assert any("there are no locks here" in line for line in log.messages)


@pytest.mark.parametrize(
    ("options", "local"),
    [("rw,vers=4", False), ("rw,nolock", True), ("rw,local_lock=none", False), ("localflock", True)],
)
def test_a_file_system_whose_locks_hold_on_one_machine_alone_is_known(
    options: str, local: bool, tmp_path: Path
) -> None:
    shared = tmp_path / "shared runs"
    shared.mkdir()
    mounts = tmp_path / "mounts"
    place = str(shared).replace(" ", "\\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/runs {place} nfs {options} 0 0\n")
    assert locks_are_local(shared / "run" / "new", mounts=mounts) == local
    assert not locks_are_local(tmp_path, mounts=mounts) and not locks_are_local(shared, mounts=tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.1}, r"lr=0\.0004 there and 0\.1 here"),
        ({"network": {"dropout": 0.2}}, r"network=\{\} there and \{'dropout': 0\.2\} here"),
        ({"teachers": ["r0"]}, r"teachers=\[\] there and \['r0'\] here"),
    ],
)
def test_a_run_goes_on_with_the_settings_that_it_has_of_whatever_kind_they_are(
    changes: dict[str, Any], said: str, tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    write_config(tmp_path / "config.yaml", tiny(), data={})
    assert continued(tiny(), tmp_path) == (tiny(), None)
    with pytest.raises(SettingRefused, match=f"a run continues with the settings that it has: {said}; begin another"):
        continued(tiny(**changes), tmp_path)


@pytest.mark.parametrize("stored", ["torch", str(resolve_kernels("torch"))], ids=["by name", "spelled out"])
def test_kernels_are_the_same_by_name_and_spelled_out(
    stored: str, tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    write_config(tmp_path / "config.yaml", tiny(kernels=stored), data={})
    for asked in ("torch", str(resolve_kernels("torch")), "auto"):
        assert continued(tiny(kernels=asked), tmp_path)[0].kernels == stored
    with pytest.raises(SettingRefused, match="kernels=.* there and plain here"):
        continued(tiny(kernels="plain"), tmp_path)


# --- longer runs -----------------------------------------------------------------------------------------------------


def rows_of(result: TrainResult) -> list[str]:
    """The rows, but for what the machine made of them."""
    return [",".join(line.split(",")[:7]) for line in (result.folder / "metrics.csv").read_text().splitlines()]


def test_a_finished_run_is_made_longer_and_tested_again(
    dataset: Dataset, tmp_path: Path, tiny: Callable[..., TrainConfig], run: Run, log: pytest.LogCaptureFixture
) -> None:
    first = rows_of(run(epochs=2))
    longer = tiny(epochs=4)
    result = train(dataset, longer, output=tmp_path / "run", resume=True)
    assert rows_of(result)[:3] == first and len(rows_of(result)) == 5
    assert read_config(result.folder / "config.yaml", TrainConfig)[0].epochs == 4
    (sentence,) = [line for line in log.messages if "become" in line]
    assert "2 epochs become 4" in sentence and "rises again" in sentence and "test part is read again" in sentence
    rates = [float(row.split(",")[3]) for row in rows_of(result)[1:]]
    assert rates[2] > rates[1] and rates[3] < rates[2]
    log.clear()
    train(dataset, longer, output=tmp_path / "run", resume=True)
    assert any("this fold is finished" in line for line in log.messages)


def test_a_longer_run_that_is_stopped_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    run(epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ossicle.training.run.fit", stop)
        with pytest.raises(KeyboardInterrupt):
            run(epochs=2, resume=True)
    assert len(rows_of(run(epochs=2, resume=True))) == 3


def test_a_run_is_not_made_shorter_and_what_cannot_be_longer_says_the_way(run: Run, tmp_path: Path) -> None:
    run("mean", epochs=2, average="swa")
    with pytest.raises(RunRefused, match=r"cannot be made longer, as average=swa .*--init .*mean"):
        run("mean", epochs=3, average="swa", resume=True)
    with pytest.raises(SettingRefused, match=r"epochs=2 there and 1 here; begin another with -o \(--init"):
        run("mean", epochs=1, average="swa", resume=True)
    plain = run("plain", epochs=1)
    for checkpoint in (plain.folder / "checkpoints").glob("step-*"):
        checkpoint.rename(tmp_path / checkpoint.name)
    with pytest.raises(RunRefused, match="no checkpoint in it; --init"):
        run("plain", epochs=2, resume=True)


def test_patience_is_not_kept_alive_by_a_loss_that_falls_by_little() -> None:
    def rows(scores: list[float], losses: list[float]) -> list[dict[str, float]]:
        return [{"val_score": score, "val_loss": loss} for score, loss in zip(scores, losses, strict=True)]

    falling = [1.0 - 0.0001 * epoch for epoch in range(5)]
    assert epochs_without_gain(rows([0.5] * 5, falling), 0.001) == 4
    assert epochs_without_gain(rows([0.5, 0.5005, 0.501, 0.5, 0.5], falling), 0.001) == 2  # small steps add up
    assert epochs_without_gain(rows([0.5, 0.5001, 0.5002, 0.5003, 0.5004], falling), 0.001) == 4
    assert epochs_without_gain(rows([0.5, 0.5001, 0.5002, 0.5003, 0.5004], falling), 0.0) == 0
    assert epochs_without_gain(rows([0.0] * 5, [1.0, 0.9, 0.8, 0.7, 0.7]), 0.001) == 1  # no score is defined
    assert epochs_without_gain([], 0.001) == 0


def test_an_early_stop_is_said_and_more_patience_goes_on(
    dataset: Dataset, tmp_path: Path, tiny: Callable[..., TrainConfig], run: Run, log: pytest.LogCaptureFixture
) -> None:
    settings = {"epochs": 4, "lr": 0.0}
    assert len(rows_of(run(patience=1, **settings))) == 3
    assert any("Stopped at" in line for line in log.messages)
    log.clear()
    longer = tiny(patience=0, **settings)
    result = train(dataset, longer, output=tmp_path / "run", resume=True)
    assert len(rows_of(result)) == 5 and not any("Stopped at" in line for line in log.messages)


# --- the data of a run, elsewhere ------------------------------------------------------------------------------------


def test_every_fold_and_a_tuned_head_know_their_clips_in_moved_and_renamed_data(
    sounds: Path,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    tiny: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
) -> None:
    from ossicle.encoders import load_encoder
    from ossicle.evaluation import evaluate
    from ossicle.training import TuneConfig, tune

    without_pictures(monkeypatch)
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(sounds, tmp_path / "data")
    dataset = read_dataset(tmp_path / "data", group="group")
    columns = {"label": None, "group": "group", "fold": None}
    trained = train(dataset, tiny(epochs=1), output=tmp_path / "run", folds="all", columns=columns)
    config = TuneConfig(encoder=str(make_bundle(tmp_path / "bundle", depth=2)), head="mean", epochs=1, device="cpu")
    encoder = load_encoder(config.encoder)
    tuned = tune(encoder, dataset, config, output=tmp_path / "tuned", columns=columns)
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    for number in range(24):
        (moved / f"{number}.wav").rename(moved / f"clip{number}.wav")
    (moved / "meta.csv").write_text((moved / "meta.csv").read_text().replace("\n", "\nclip").removesuffix("clip"))
    for fold in (*trained.folds, *tuned.folds):
        evaluate(fold.folder, moved, output=tmp_path / "out")
        rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:]
        tested = [dataset.items[index].file.name for index in fold.tested]
        assert [row.split(",")[0] for row in rows] == [f"clip{name}" for name in tested]


# --- damaged files ---------------------------------------------------------------------------------------------------

DAMAGES = ["", "{", "[]", "null", '{"lengths": 3}', "[" * 100_000]


@pytest.mark.parametrize(
    "text", [*DAMAGES, '{"rate": 32000, "lengths": ["a"], "stored": 1, "failures": {}, "budget": 9}']
)
def test_a_damaged_index_of_samples_is_made_again(text: str, dataset: Dataset, tmp_path: Path) -> None:
    whole = open_store(dataset.items, 32_000, folder=tmp_path)
    samples = [np.array(whole.read(position)) for position in range(3)]
    (index,) = (tmp_path / "samples").glob("*.json")
    before = index.read_bytes()
    index.write_text(text)
    again = open_store(dataset.items, 32_000, folder=tmp_path)
    assert all(np.array_equal(again.read(position), samples[position]) for position in range(3))
    assert index.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_file_of_a_run_is_one_sentence(
    run: Run, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    folder = run(epochs=1).folder
    resume = ["train", str(sounds), "-o", str(folder), "--resume"]
    for name in ("config.yaml", "split.json", "model/config.json", "test_scores.safetensors"):
        whole = (folder / name).read_bytes()
        refused = name in ("config.yaml", "split.json")  # the others are made again
        for text in [*DAMAGES, "training: 3\ndata: x\n", "training:\n  epochs: many\n"][:: 1 if refused else 4]:
            (folder / name).write_text(text)
            result = CliRunner().invoke(app, resume)
            said = result.stderr if refused else result.stdout
            assert result.exit_code == refused and name.rpartition("/")[2] in said, (name, text[:30], result.output)
            assert len(result.stderr.splitlines()) == refused and "Traceback" not in result.stdout
            if refused:
                (folder / name).write_bytes(whole)
            assert (folder / name).read_bytes() == whole
    assert CliRunner().invoke(app, resume).exit_code == 0


@pytest.mark.usefixtures("undrawn")
def test_a_flipped_byte_in_any_file_of_a_run_is_named_and_nothing_is_lost(
    run: Run, log: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"validation": 0.25, "report": True}
    folder = run(**settings).folder
    (folder / "notes.txt").write_text("mine")
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for figure in sorted((folder / "figures").iterdir())[1:]:
        del files[figure]
    free = {folder / "notes.txt", folder / "model" / "README.md", folder / ".ossicle" / "lock"}  # which people may edit
    assert len(files) >= 15 and free <= files.keys()
    rng = random.Random(0)
    for path, whole in files.items():
        place = rng.randrange(max(len(whole), 1))
        damaged = whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :] if whole else b"x"
        path.write_bytes(damaged)
        log.clear()
        try:
            run(resume=True, **settings)
            said = log.messages
        except OssicleError as error:  # what the run goes on from is not made again
            said = [str(error)]
        named = path.parent if path.parent.name.startswith("step-") else path
        assert any(line.startswith(f"{named}: ") for line in said) == (path not in free), path
        if len(said) == 1 or "checkpoints" in path.parts or path in free:
            path.write_bytes(whole)
        assert all(other.name == "digests" or other.read_bytes() == content for other, content in files.items())


def test_every_flipped_byte_of_a_run_is_noticed(run: Run) -> None:
    folder = run(validation=0.25, epochs=1).folder
    digests, model = Digests(folder), folder / "model"
    files = [folder / name for name in digests.known if (folder / name).stat().st_size]
    files += [model / "config.json", model / "model.safetensors", *folder.glob("checkpoints/step-*/*"), digests.file]
    rng = random.Random(1)
    for path in [*files, *rng.choices(files, k=100)]:
        whole = path.read_bytes()
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :])
        if path == digests.file:
            with pytest.raises(RunRefused, match="digests: damaged; remove it"):
                Digests(folder)
        elif path.parent == model:
            with pytest.raises((BundleRefused, WeightsRefused), match=rf"model/({path.name}|SHA256SUMS): "):
                load(model)
        elif path.parent.parent.name == "checkpoints":
            assert path.parent.name in valid_states(folder / "checkpoints")[1][0]
        else:
            assert digests.damaged() == [path]
        path.write_bytes(whole)
    assert not digests.damaged() and not valid_states(folder / "checkpoints")[1] and load(model)


def test_a_process_that_dies_between_a_hash_and_its_file_leaves_nothing_that_counts_as_damaged(tmp_path: Path) -> None:
    digests = Digests(tmp_path)
    with noted(digests.note):
        for version in range(4):
            write_atomically(tmp_path / "metrics.csv", f"{version}")
    (tmp_path / "new").write_text("4")
    digests.note(tmp_path / "metrics.csv", tmp_path / "new")  # and here it dies
    assert not Digests(tmp_path).damaged()
    (tmp_path / "metrics.csv").write_text("2")
    assert Digests(tmp_path).damaged() == [tmp_path / "metrics.csv"]


def test_a_run_whose_checkpoints_are_all_damaged_says_so(run: Run) -> None:
    result = run(epochs=2)
    (result.folder / "report.html").unlink()
    for state in result.folder.glob("checkpoints/*/state.json"):
        state.write_text("[" * 100_000)
    with pytest.raises(RunRefused, match="no checkpoint to resume from .*another folder with -o"):
        run(epochs=2, resume=True)


# --- an unkind world -------------------------------------------------------------------------------------------------


def result_of(folder: Path) -> dict[str, bytes]:
    """The files that say what came of a run, but for the time that it took."""
    names = ("config.yaml", "split.json", "test_scores.safetensors", "model/config.json", "model/model.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".ossicle"]


def fill_the_disk(patch: pytest.MonkeyPatch, *, after: int) -> None:
    """No room for the files that are written after so many."""
    flush, left = os.fsync, iter(range(after))

    def full(handle: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    patch.setattr(os, "fsync", full)


def test_a_full_disk_ends_a_run_with_a_sentence_and_nothing_is_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 2, "validation": 0.25, "save_minutes": 0.0}
    with monkeypatch.context() as patch:
        flushed: list[int] = []
        flush = os.fsync
        patch.setattr(os, "fsync", lambda handle: (flushed.append(handle), flush(handle)))
        wanted = result_of(run("whole", **settings).folder)
    rng, begun, stops = random.Random(0), False, 0
    for after in sorted(rng.sample(range(len(flushed)), 8)):
        with monkeypatch.context() as patch:
            fill_the_disk(patch, after=after // 2 if begun else 3)
            try:
                run("full", resume=begun, **settings)
            except JobStopped as error:
                how = f"continue with --resume -o {tmp_path / 'full'}" if begun else ""
                said, stops = str(error), stops + 1
                assert said.startswith(f"No space left on device: {tmp_path / 'full'}") and "; make room, and " in said
                assert how in said and not litter(tmp_path / "full")
        begun = (tmp_path / "full" / "config.yaml").exists()
    assert stops >= 6
    assert result_of(run("full", resume=begun, **settings).folder) == wanted


def test_recordings_that_all_vanish_end_the_run_and_the_run_goes_on_when_they_are_back(
    run: Run, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for decoded samples, each recording is opened when its turn comes; no score is made of none."""
    here, away = Path(shutil.copytree(sounds, tmp_path / "here")), tmp_path / "away"
    data, settings = read_dataset(here), {"cache_gigabytes": 0.0, "epochs": 3}
    wanted = result_of(run("whole", data=data, **settings).folder)
    save = Checkpoints.save

    def save_and_lose(self: Checkpoints, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step == 4:
            here.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_lose)
        with pytest.raises(OssicleError, match="could be read|cannot be read"):
            run("stopped", data=data, **settings)
    away.rename(here)
    assert result_of(run("stopped", data=data, resume=True, **settings).folder) == wanted


def test_clocks_that_jump_change_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"epochs": 2, "validation": 0.25}
    wanted = result_of(run("whole", **settings).folder)
    rng, clock = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + rng.choice([-1e9, -3600.0, 0.0, 3600.0, 1e9]))
    with monkeypatch.context() as patch:
        fill_the_disk(patch, after=40)
        with pytest.raises(JobStopped):
            run("stopped", **settings)
    states = sorted((tmp_path / "stopped" / "checkpoints").glob("step-*"))
    assert states
    for number, path in enumerate(sorted((tmp_path / "stopped").rglob("*"))):  # the newer are the older, and all odd
        os.utime(path, (1e9 - number, 3e9 - 1e6 * number))
    assert result_of(run("stopped", resume=True, **settings).folder) == wanted


# --- where nothing can be written ------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_decoded(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("ossicle.data.cache.decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(SettingRefused, match=f"{tmp_path}/file/cache/samples: .* cannot be written .*OSSICLE_CACHE"):
        open_store(dataset.items, 32_000)


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_encoded(
    dataset: Dataset, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ossicle.encoders import load_encoder

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "file"))
    encoder = load_encoder(make_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(encoder, "prepare", lambda *_: pytest.fail("it was encoded"))
    with pytest.raises(SettingRefused, match="file/features: the cache of features .*OSSICLE_CACHE"):
        open_features(encoder, dataset.items, pool="mean")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_the_right_to_write_names_the_variable(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OSSICLE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SettingRefused, match="OSSICLE_CACHE"):
            open_store(dataset.items, 32_000)
    finally:
        tmp_path.chmod(0o700)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_recordings_that_failed_are_not_counted_as_decoded(
    dataset: Dataset, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    items = (*dataset.items[:3], Item(file=broken, labels=("tone",)))
    open_store(items, 32_000, folder=tmp_path, progress=logged("decoded {} of {} recordings"))
    assert log.messages == ["decoded 3 of 4 recordings, 1 failed"]


@pytest.mark.parametrize("command", [["train"], ["tune", "encoder"]])
def test_resuming_without_a_folder_says_what_is_missing(command: list[str], sounds: Path) -> None:
    result = CliRunner().invoke(app, [*command, str(sounds), "--resume"])
    assert result.exit_code == 1 and "-o RUN" in result.stderr and "None" not in result.stderr


def test_a_folder_with_an_equals_sign_in_its_name_is_data(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def train(data: Path, config: TrainConfig, **options: Any) -> SimpleNamespace:
        given.update(options, data=data, config=config)
        return SimpleNamespace(failures=())

    monkeypatch.setattr("ossicle.training.train", train)
    monkeypatch.chdir(tmp_path)
    for name in ("take=2", "runs/lr=1e-4", "epochs=9"):
        (tmp_path / name).mkdir(parents=True)
    for data in ("take=2", "runs/lr=1e-4", str(tmp_path / "take=2")):
        for arguments in ([data, "--set", "epochs=3", "lr=1e-4"], ["--set", "epochs=3", "lr=1e-4", data]):
            result = CliRunner().invoke(app, ["train", *arguments, "-o", "out=1"])
            assert result.exit_code == 0, result.output
            assert str(given["data"]) == data and str(given["output"]) == "out=1"
            assert (given["config"].epochs, given["config"].lr) == (3, 1e-4)
    assert CliRunner().invoke(app, ["train", "take=2", "--set", "lr=1", "epochs=9"]).exit_code == 0
    assert (given["config"].epochs, given["config"].lr) == (9, 1.0)  # a setting's own name stays one
