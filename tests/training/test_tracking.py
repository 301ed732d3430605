"""Loggers of a training, its speed and its memory; a run is the same with them."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger

from ossicle.data import Dataset
from ossicle.errors import ExtraMissing
from ossicle.report import memory_text, throughput_text, training_section
from ossicle.training import TrainConfig, TrainResult, tracking, train
from ossicle.training.callbacks import csv_text
from ossicle.training.tracking import checked_loggers
from ossicle.weights.tensors import load_weights


class Kept(Logger):
    """Keeps what it is told; fails from the given call on."""

    name = version = "kept"  # type: ignore[assignment]

    def __init__(self, *, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at, self.calls = fails_at, 0
        self.settings: dict[str, Any] = {}
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.status: list[str] = []

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.settings = params

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ConnectionError("no route to host\nand more")
        self.metrics.append((step, dict(metrics)))

    def finalize(self, status: str) -> None:
        self.status.append(status)


Go = Callable[..., TrainResult]


@pytest.fixture
def go(
    dataset: Dataset,
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Go:
    """Trains with loggers."""
    without_pictures(monkeypatch)
    cache = tmp_path_factory.getbasetemp() / "cache"

    def train_with(logger: Any, *, name: str = "run", resume: bool = False, **changes: Any) -> TrainResult:
        return train(dataset, tiny(**changes), output=tmp_path / name, cache=cache, logger=logger, resume=resume)

    return train_with


def test_a_logger_gets_settings_steps_epochs_and_test_metrics(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "STEPS", 2)
    kept = Kept()
    result = go(kept, lr=1e-3)
    assert kept.settings["lr"] == 1e-3 and kept.status == ["success"]
    epochs = [(step, row) for step, row in kept.metrics if "train_loss" in row]
    steps = epochs[0][0]
    assert steps is not None and [step for step, _ in epochs] == [steps, 2 * steps]
    assert {"val_score", "clips_per_second", "data_wait", "memory_gigabytes"} <= epochs[0][1].keys()
    losses = [step for step, row in kept.metrics if "train_loss_step" in row]
    assert losses == list(range(2, 2 * steps + 1, 2))
    step, test = kept.metrics[-1]
    accuracy = result.evaluation.metrics.accuracy.value
    assert step == 2 * steps and test["test_accuracy"] == accuracy


def test_a_resumed_run_continues_its_curves(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Kept(), Kept()
    with monkeypatch.context() as patch:
        patch.setattr("ossicle.training.run.Run.conclude", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(first, epochs=1)
    go(second, epochs=3, resume=True)
    assert first.status == ["aborted"]
    steps = [step for kept in (first, second) for step, row in kept.metrics if "train_loss" in row]
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]]  # type: ignore[operator]


def stopped(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_logger_that_fails_is_named_and_changes_nothing(go: Go, log: pytest.LogCaptureFixture) -> None:
    failing, kept = Kept(fails_at=2), Kept()

    def unreachable(folder: Path) -> Logger:
        raise OSError("no network")

    one = go([failing, unreachable, kept], name="one")
    said = [record.getMessage() for record in log.records if record.levelname == "WARNING"]
    assert [line.split(";")[0] for line in said] == [
        "unreachable has failed and is not called again (OSError: no network)",
        "Kept has failed and is not called again (ConnectionError: no route to host)",
    ]
    assert failing.calls == 2 and failing.status == [] and len(kept.metrics) == 3
    other = go(None, name="other")
    models = [load_weights(result.folder / "model" / "model.safetensors") for result in (one, other)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_tensorboard_has_one_curve_of_a_run_that_was_killed(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with monkeypatch.context() as patch:  # the second epoch is logged, and its checkpoint is not written
        patch.setattr("ossicle.training.callbacks.Checkpoints.on_train_epoch_end", after_the_first)
        with pytest.raises(RuntimeError, match="killed"):
            go("tensorboard", epochs=3)
    result = go("tensorboard", epochs=3, resume=True)
    events = accumulator.EventAccumulator(str(result.folder / "tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("train_loss")]
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]]
    assert [event.step for event in events.Scalars("test_accuracy")] == steps[-1:]
    assert (result.folder / "tensorboard" / "hparams.yaml").exists()


def after_the_first(self: Any, trainer: Any, *_: Any) -> None:
    if trainer.current_epoch > 0:
        raise RuntimeError("killed")
    self.save(trainer)


@pytest.mark.slow
def test_of_two_processes_one_logs(sounds: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    command = [sys.executable, "-m", "ossicle", "train", sounds, "-o", tmp_path / "run", "--devices", "2"]
    command += ["--init", "none", "--logger", "tensorboard", "--set", "depth=1", "epochs=2"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len([*(tmp_path / "run" / "tensorboard").glob("events*")]) == 1


def test_loggers_that_cannot_be_used_are_refused_before_anything_starts(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untyped: Callable[[], AbstractContextManager[None]]
) -> None:
    with pytest.raises(ValueError, match="logger='wandb' is not available by name; available: tensorboard"):
        go("wandb")
    with untyped(), pytest.raises(TypeError, match="expected a logger of Lightning, a name or a function, got int"):
        go([3])
    with pytest.raises(ValueError, match="one CSVLogger cannot log several runs"):
        checked_loggers(CSVLogger(tmp_path), several=True)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'ossicle\[track\]'"):
        go("tensorboard")
    assert not (tmp_path / "run").exists()


def test_speed_and_memory_are_for_people() -> None:
    row = {"clips_per_second": 210.4, "of_estimate": 0.97, "data_wait": 0.012, "memory_gigabytes": 1.24}
    assert throughput_text(row) == "210 clips/s (97 % of the estimate)  1 % data wait  1.2 GB"
    assert memory_text({"memory_gigabytes": 1.0, "gpu_gigabytes": 8.04}) == "1.0 GB and 8.0 GB on the GPU"
    assert throughput_text({"clips_per_second": 9.0, "data_wait": 0.5}) == "9 clips/s  50 % data wait"
    told = {"epoch": 1, "step": 1234, "seconds": 90.0, "train_loss": 1.0, **row, "gpu_gigabytes": 8.0}
    sentence = training_section([told]).blocks[1]
    assert sentence == (
        "1 epochs, 1,234 steps, 1.5 minutes. The median epoch trained on 210 clips per second, 97 % of the estimate, "
        "and waited for data in 1.2 % of its time. Peak memory: 1.2 GB and 8.0 GB on the GPU."
    )
    assert len(training_section([{"epoch": 1, "train_loss": 1.0}]).blocks) == 1


def test_a_run_that_moves_to_a_gpu_keeps_the_rows_that_it_has() -> None:
    assert csv_text([{"epoch": 1}, {"epoch": 2, "gpu_gigabytes": 1.0}]) == "epoch,gpu_gigabytes\n1,\n2,1.0\n"
