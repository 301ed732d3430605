"""A sweep trains every combination of some settings, whatever becomes of one of them, and compares by validation."""

import csv
import dataclasses
import functools
import io
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from ossicle.cli.train import read_grid
from ossicle.data import Dataset
from ossicle.errors import JobStopped, RunRefused, SettingRefused
from ossicle.training import SweepResult, SweepRun, TrainConfig, TuneConfig, sweep, sweeps
from ossicle.training.callbacks import csv_text
from ossicle.training.sweeps import combined, ordered, row_of, tables_of, write_tables

Go = Callable[..., SweepResult]


@pytest.fixture
def go(
    dataset: Dataset,
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Go:
    """Does a sweep of one epoch a run in a folder of its own."""
    monkeypatch.setattr("ossicle.evaluation.result.write_evaluation", write_metrics)
    cache = tmp_path_factory.getbasetemp() / "cache"

    def one(grid: dict[str, Any], *, data: Any = dataset, resume: bool = False, **options: Any) -> SweepResult:
        config = options.pop("config", None) or tiny(epochs=1)
        return sweep(data, config, grid=grid, output=tmp_path / "sweep", cache=cache, resume=resume, **options)

    return one


def write_metrics(evaluation: Any, folder: Path, **_: Any) -> None:
    """What tells a finished run, and its metrics, without the pictures."""
    from ossicle.files import write_json

    write_json(folder / "metrics.json", evaluation.metrics.to_json())
    (folder / "report.html").write_text("")


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "sweep.csv").read_text())))


def scored(score: float | None, *, error: str | None = None, test: float = 0.5, **settings: Any) -> SweepRun:
    name = ",".join(f"{key}={value}" for key, value in settings.items())
    metrics = {"balanced_accuracy": test, "accuracy": test + 0.1}
    return SweepRun(
        folder=Path(name), settings=settings, val_score=score, test=metrics, task="single-label", error=error
    )


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_every_combination_is_trained_in_a_folder_that_names_it(go: Go, tmp_path: Path) -> None:
    result = go({"lr": ["1e-3", 4e-4], "network.dropout": [0.0, 0.5]})
    names = {f"lr={lr},network.dropout={dropout}" for lr in (0.001, 0.0004) for dropout in (0.0, 0.5)}
    assert {run.folder.name for run in result.runs} == names and result.failures == ()
    scores = [run.val_score for run in result.runs]
    assert scores == sorted(scores, reverse=True) and result.best is result.runs[0]  # type: ignore[type-var]
    rows = table(result.folder)
    assert [row["run"] for row in rows] == [run.folder.name for run in result.runs]
    assert float(rows[0]["val_score"]) == result.runs[0].val_score
    for run in result.runs:
        curve = list(csv.DictReader(io.StringIO((run.folder / "metrics.csv").read_text())))
        assert run.val_score == max(float(row["val_score"]) for row in curve)
        assert (run.folder / "model" / "model.safetensors").exists() and 0 <= run.test["accuracy"] <= 1
    page = (result.folder / "sweep.html").read_text()
    assert "choice is made on the validation part" in page and "test balanced accuracy" in page
    assert (result.folder / "sweep.md").read_text().count("\n| 0.0") == 4


def test_a_run_that_fails_is_said_and_the_others_go_on(
    go: Go, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    real = sweeps.train

    def train(data: Any, config: TrainConfig, **options: Any) -> Any:
        if config.seed == 1:
            raise RuntimeError("CUDA out of memory\nTried to allocate")
        return real(data, config, **options)

    monkeypatch.setattr(sweeps, "train", train)
    result = go({"seed": [0, 1, 2]})
    assert result.failures == ("seed=1: RuntimeError: CUDA out of memory",)
    assert [run.error is None for run in result.runs] == [True, True, False]
    assert table(result.folder)[-1]["error"] == "RuntimeError: CUDA out of memory"
    assert "seed=1 has failed: RuntimeError" in (result.folder / "sweep.html").read_text()
    warned = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    assert warned[0].startswith("Traceback") and warned[1] == "seed=1: RuntimeError: CUDA out of memory"
    assert tables_of(result.runs)[0].rows[1][:2] == ["all", "2"]  # of three

    monkeypatch.setattr(sweeps, "train", real)  # it has memory now
    again = go({"seed": [0, 1, 2, 3]}, resume=True)
    assert again.failures == () and len(again.runs) == 4
    assert sum("this fold is finished" in line for line in log.messages) == 2
    before = {run.folder: run.val_score for run in result.runs}
    assert all(run.val_score == before[run.folder] for run in again.runs if before.get(run.folder) is not None)


def test_a_sweep_that_is_stopped_goes_on_where_it_was(go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real, trained = sweeps.train, list[int]()

    def train(data: Any, config: TrainConfig, **options: Any) -> Any:
        trained.append(config.seed)
        if trained == [0, 1]:
            raise KeyboardInterrupt("Stopped after step 3")
        return real(data, config, **options)

    monkeypatch.setattr(sweeps, "train", train)
    with pytest.raises(KeyboardInterrupt, match=r"the same command with --resume -o .*sweep continues"):
        go({"seed": [0, 1]})
    assert [row["run"] for row in table(tmp_path / "sweep")] == ["seed=0"]
    assert len(go({"seed": [0, 1]}, resume=True).runs) == 2
    with pytest.raises(SettingRefused, match="lr=0.0004 there and 0.1 here"):
        go({"seed": [0, 1]}, resume=True, config=TrainConfig(lr=0.1))


def test_a_sweep_of_heads_needs_no_more_than_their_settings_and_knows_its_encoder_by_another_name(
    go: Go,
    make_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    encoder = str(make_bundle(tmp_path / "encoder"))
    config = TuneConfig(encoder=encoder, head="mean", device="cpu", epochs=1, batch_size=8, validation=0.0, warmup=0.0)
    result = go({"lr": [1e-3, 1e-2]}, config=config)
    assert result.failures == () and result.best is None  # nothing to choose by
    assert [row["val_score"] for row in table(result.folder)] == ["", ""]
    monkeypatch.chdir(tmp_path)
    again = go({"lr": [1e-3]}, config=dataclasses.replace(config, encoder="encoder"), resume=True)
    assert again.failures == () and any("this fold is finished" in line for line in log.messages)


def test_a_sweep_of_students_without_labels_goes_on_with_the_same_command(
    go: Go,
    make_bundle: Callable[..., Path],
    sounds: Path,
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "plain").mkdir()
    for number in range(8):
        (tmp_path / "plain" / f"{number}.wav").symlink_to(sounds / f"{number}.wav")
    make_bundle(tmp_path / "teacher", pad=True)
    monkeypatch.chdir(tmp_path)
    config = tiny(epochs=1, unlabeled=True, teachers=["teacher"], mixup=0.3)  # a path, and what a teacher switches off
    assert go({"seed": [0]}, data="plain", config=config).failures == ()
    assert go({"seed": [0]}, data="plain", config=config, resume=True).failures == ()
    assert sum("this fold is finished" in line for line in log.messages) == 1
    other = dataclasses.replace(config, teachers=["other"])
    with pytest.raises(SettingRefused, match=r"teachers=\['/.*/teacher'\] there and \['other'\] here"):
        go({"seed": [0]}, data="plain", config=other, resume=True)


# --- before anything starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"lrr": [1e-3]}, "there is no setting 'lrr'; did you mean lr"),
        ({"lr": ["fast"]}, "lr='fast' is not float"),
        ({"lr": [1e-3, "0.001"]}, "lr=0.001 is there twice"),
        ({"lr": []}, "lr: a sweep needs at least one value"),
        ({}, "at least one value of each setting"),
        ({"ema_decay": [0.9, 0.99]}, "ema_decay does nothing with average=none"),
        ({"model": ["passt_tiny_s16", "passt_tinny"]}, "passt_tinny"),
        ({"network.colour": [1]}, "has no option colour"),
        ({"devices": [1, 2]}, "a sweep trains each run in one process, not in 2"),
    ],
)
def test_a_mistyped_setting_is_refused_before_anything_starts(
    grid: dict[str, Any], said: str, go: Go, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=said):
        go(grid)
    assert not (tmp_path / "sweep").exists()


def test_folders_of_something_else_and_loggers_of_one_run_are_refused(go: Go, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    with pytest.raises(RunRefused, match="no sweep to continue"):
        go({"seed": [0]}, resume=True)
    with pytest.raises(ValueError, match="one CSVLogger cannot log several runs"):
        go({"seed": [0]}, logger=CSVLogger(tmp_path))
    folder.mkdir()
    (folder / "notes.txt").write_text("")
    with pytest.raises(RunRefused, match="holds a sweep or other files"):
        go({"seed": [0]})
    (folder / "config.yaml").write_text("")
    with pytest.raises(RunRefused, match="holds a run and no sweep"):
        go({"seed": [0]}, resume=True)


def test_names_of_folders_are_legible_and_distinct(tmp_path: Path) -> None:
    weights = [f"runs/{'x' * 200}/{end}" for end in "ab"]
    members = sweeps.members_of(combined(TrainConfig(), {"weights": weights}), tmp_path)
    names = [member.folder.name for member in members]
    assert len(set(names)) == 2 and all(name.startswith("weights=runs-xxx") and len(name) < 140 for name in names)


def test_values_of_a_grid_are_cut_at_commas_that_no_quotes_enclose() -> None:
    assert read_grid(["lr=1e-4,4e-4", 'keep_layers="1,3,5", best:4', "seed=0"]) == {
        "lr": ["1e-4", "4e-4"],
        "keep_layers": ["1,3,5", "best:4"],
        "seed": ["0"],
    }


def test_random_weights_have_their_name_in_a_grid_too() -> None:
    ((_, none), (_, general)) = combined(TrainConfig(), read_grid(["weights=none,general"]))
    assert (none.weights, general.weights) == (None, "general")
    assert read_grid(["average=none,ema"]) == {"average": ["none", "ema"]}


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_best_settings_are_those_with_the_best_mean_over_the_seeds() -> None:
    scores = {0.1: (0.9, 0.1, 0.2), 0.01: (0.7, 0.6, 0.8)}
    runs = ordered(
        scored(score, test=score / 2, lr=lr, seed=seed) for lr, own in scores.items() for seed, score in enumerate(own)
    )
    result = SweepResult(folder=Path(), runs=runs)
    assert runs[0].settings == {"lr": 0.1, "seed": 0}  # lucky
    assert result.best is not None and result.best.settings == {"lr": 0.01, "seed": 2}
    over, every = tables_of(runs)
    assert over.rows[0] == ["lr", "seeds", "validation balanced accuracy", "test balanced accuracy", "test accuracy"]
    mean, deviation = statistics.mean(scores[0.01]), statistics.stdev(scores[0.01])
    assert over.rows[1][:3] == ["0.01", "3", f"{mean:.3f} ± {deviation:.3f}"]
    assert over.rows[1][3] == f"{mean / 2:.3f} ± {deviation / 2:.3f}" and over.rows[2][0] == "0.1"
    assert len(every.rows) == 7 and every.rows[1][:3] == ["0.1", "0", "0.900"]


def test_runs_without_a_score_come_last_and_equal_scores_go_by_the_loss(tmp_path: Path) -> None:
    runs = [scored(None, error="of 5 | 6 <b>", lr=1), scored(None, lr=2), scored(0.5, lr=3), scored(0.9, lr=4)]
    assert [run.settings["lr"] for run in ordered(runs)] == [4, 3, 2, 1]
    assert [row[0] for row in tables_of(ordered(runs))[0].rows] == ["lr", "4", "3", "2", "1"]
    write_tables(tmp_path, ordered(runs), title="a <b>")
    assert "<b>" not in (tmp_path / "sweep.html").read_text()
    assert csv_text([row_of(runs[0])]).endswith("of 5 | 6 <b>\n")
    near, far = (
        SweepRun(folder=Path(name), settings={}, val_score=1.0, val_loss=loss)
        for name, loss in zip("ab", (2.0, 1.0), strict=True)
    )
    assert [run.folder.name for run in ordered([near, far])] == ["b", "a"]


# --- on a cluster ----------------------------------------------------------------------------------------------------


class RayError(Exception):
    """The root of Ray's errors, of a stand-in."""


def test_a_cluster_trains_a_run_on_each_gpu_or_core(go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    there = {"CPU": 8.0, "GPU": 2.0}

    def remote(**needs: Any) -> Any:
        asked.append(needs)
        return lambda function: SimpleNamespace(remote=lambda *given: functools.partial(function, *given))

    def get(task: Any) -> Any:
        if task.args[1].settings["seed"] == 1:
            raise RayError("worker died\n")
        return task()

    ray = SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: there,
        remote=remote,
        put=lambda value: value,
        wait=lambda tasks, **_: (tasks[:1], tasks[1:]),
        get=get,
        data=None,
        exceptions=SimpleNamespace(RayError=RayError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray)
    monkeypatch.setattr(sweeps, "keep_freed_memory", lambda: None)  # of a whole process
    result = go({"seed": [0, 1]}, cluster="auto")
    assert asked == [{"num_cpus": 4, "num_gpus": 1}] and result.failures == ("seed=1: worker died",)
    there["GPU"] = 0
    assert go({"seed": [0]}, cluster="auto", resume=True).failures == ()
    assert asked[1] == {"num_cpus": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_local_cluster_trains_what_one_process_does(go: Go, tmp_path: Path, sounds: Path) -> None:
    pytest.importorskip("ray")
    grid = {"lr": [1e-3, 1e-4]}
    there = go(grid, data=sounds, cluster="local")
    assert there.failures == ()
    (tmp_path / "sweep").rename(tmp_path / "there")
    here = go(grid, data=sounds)
    assert [(run.settings, run.val_score) for run in there.runs] == [(run.settings, run.val_score) for run in here.runs]


def test_no_cluster_is_a_sentence(go: Go) -> None:
    pytest.importorskip("ray")
    with pytest.raises(JobStopped, match=r"127\.0\.0\.1:9: there is no Ray cluster"):
        go({"seed": [0]}, cluster="127.0.0.1:9")
