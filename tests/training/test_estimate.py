"""What a training says before it begins and while it runs, and that measuring it changes nothing."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ossicle.data import Dataset
from ossicle.errors import RunRefused
from ossicle.training import TrainConfig, TrainResult, train
from ossicle.training import callbacks as callbacks_module
from ossicle.training.callbacks import Recorder
from ossicle.training.estimate import Every, StepCost, duration, logged, measure
from ossicle.training.loader import Windows
from ossicle.weights.tensors import load_weights

Run = Callable[..., TrainResult]
Say = Callable[..., list[str]]


@pytest.fixture
def said(
    dataset: Dataset,
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    without_pictures: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> Say:
    """Trains, or goes on with a training, and gives the lines that were logged."""
    without_pictures(monkeypatch)
    monkeypatch.setattr("ossicle.training.callbacks.measure", measure)
    cache = tmp_path_factory.getbasetemp() / "cache"

    def go(*, resume: bool = False, lines: list[str] | None = None, **changes: Any) -> list[str]:
        log.clear()
        try:
            train(dataset, tiny(**changes), output=tmp_path / "run", cache=cache, resume=resume)
        finally:
            if lines is not None:
                lines += log.messages
        return list(log.messages)

    return go


def position(lines: list[str], start: str) -> int:
    return next(number for number, line in enumerate(lines) if line.startswith(start))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("average", ["none", "ema"])
def test_measuring_a_step_changes_no_weight_and_no_random_stream(
    average: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {"average": average, "mixup": 0.3, "gain": 7.0, "jitter": True, "patchout_f": 0.3, "drop_path": 0.3}
    results = {}
    for name in ("measured", "unmeasured"):
        if name == "unmeasured":
            monkeypatch.setattr(
                callbacks_module, "measure", lambda *_, **__: StepCost(loading=0.5, computing=0.5, scoring=1.0)
            )
        torch.manual_seed(0)
        result = run(name, report=True, **drawn)
        results[name] = load_weights(result.folder / "model" / "model.safetensors"), torch.random.get_rng_state()
    (one, stream), (other, same_stream) = results.values()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert torch.equal(stream, same_stream)


def test_what_a_training_will_take_is_said_before_its_first_epoch(said: Say) -> None:
    lines = said(epochs=2)
    estimate = position(lines, "Estimate: about ")
    assert estimate < position(lines, "epoch 1/2")
    assert "batches in 2 epochs; a step takes" in lines[estimate]


def test_a_process_without_a_validation_clip_measures_its_steps(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the last of four processes that share three clips."""
    found: list[StepCost | None] = []

    def of_the_last(module: Any, validation: Windows, **how: Any) -> None:
        part = copy.copy(validation)
        part.clips = part.clips[:0]
        found.append(measure(module, part, **how))
        refuse()

    monkeypatch.setattr(callbacks_module, "measure", of_the_last)
    with pytest.raises(RunRefused):
        said(epochs=1)
    assert found[0] is not None and found[0].computing > 0 and found[0].scoring == 0


def test_a_run_that_goes_on_counts_the_steps_that_are_left(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_epoch_end", refuse)
        first: list[str] = []
        with pytest.raises(RunRefused):
            said(epochs=3, save_minutes=0.0, lines=first)
    steps = int(first[position(first, "Estimate")].split(" for ")[1].split()[0])
    line = (lines := said(epochs=3, save_minutes=0.0, resume=True))[position(lines, "Estimate")]
    assert 0 < int(line.split(" for ")[1].split()[0]) < steps


def refuse(*_: Any) -> None:
    raise RunRefused("stopped here")


def test_a_log_moves_within_an_epoch_and_within_its_validation_part(said: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks_module, "LOG_SECONDS", 0.0)
    lines = said(epochs=1)
    step = position(lines, "epoch 1/1, batch 1 of ")
    assert "loss" in lines[step] and lines[step].endswith(" left")
    assert step < position(lines, "epoch 1/1, validation part: ") < position(lines, "epoch 1/1  loss")


def test_a_finished_training_is_not_measured_again(said: Say, tmp_path: Path) -> None:
    said(epochs=1)
    (tmp_path / "run" / "report.html").unlink()  # stopped between its last step and its report
    assert not any(line.startswith("Estimate") for line in said(epochs=1, resume=True))


def test_progress_is_logged_soon_then_every_half_minute_with_what_is_left(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = logged("decoded {} of {}")
    for done in range(10, 91):  # ten of them by an earlier run
        progress(done, 90)
        now[0] += 1
    assert log.messages == [
        "decoded 12 of 90, about 78 s left",
        "decoded 42 of 90, about 48 s left",
        "decoded 72 of 90, about 18 s left",
        "decoded 90 of 90",
    ]


def test_it_is_time_at_first_when_asked_and_then_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    every = Every(10.0, first=2.0)
    due = []
    for second in range(25):
        now[0] = float(second)
        due.append(every.due())
    assert [second for second, yes in enumerate(due) if yes] == [2, 12, 22]


def test_durations_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0.2, 89.0, 90.0, 5399.0, 7200.0)] == [
        "0 s",
        "89 s",
        "1.5 min",
        "90.0 min",
        "2.0 h",
    ]
