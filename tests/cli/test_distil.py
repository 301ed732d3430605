"""`ossicle distil` and `ossicle train --teacher` hand over exactly what was typed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

from ossicle.training import TrainConfig
from ossicle.training.recipes import general

Run = Callable[..., Result]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was called, and with what."""
    calls: dict[str, Any] = {}

    def called(name: str) -> Callable[..., Any]:
        def call(data: Path, second: TrainConfig | str, **arguments: Any) -> SimpleNamespace:
            calls.update(arguments, call=name, data=data, second=second)
            return SimpleNamespace(failures=())

        return call

    for name in ("train", "distil", "store_views"):
        monkeypatch.setattr(f"ossicle.training.{name}", called(name))
    return calls


def test_every_option_reaches_the_distillation(run: Run, handed: dict[str, Any]) -> None:
    result = run(
        *("distil", "sounds", "--teacher", "big", "--teacher", "e.npz", "--model", "datar_nano", "-o", "run"),
        *("--set", "epochs=3", "teacher_loss=mse", "--group", "G", "--skip-bad", "--devices", "2"),
    )
    assert result.exit_code == 0, result.output
    config = handed["second"]
    assert (handed["call"], handed["data"], handed["output"]) == ("distil", Path("sounds"), Path("run"))
    assert config.teachers == ["big", "e.npz"] and config.unlabeled and config.model == "datar_nano"
    assert (config.epochs, config.teacher_loss, config.mixup, config.devices) == (3, "mse", 0.0, 2)
    assert handed["columns"] == {"file": None, "group": "G", "track": None} and handed["skip_bad"]


def test_a_teacher_of_labeled_data_reaches_the_training(run: Run, handed: dict[str, Any]) -> None:
    assert run("train", "sounds", "--teacher", "big", "--set", "label_weight=0.5").exit_code == 0
    assert handed["second"] == dataclasses.replace(general(), teachers=["big"], label_weight=0.5)


def test_views_are_stored_in_place_of_a_training(run: Run, handed: dict[str, Any]) -> None:
    assert run("distil", "sounds", "--teacher", "big", "--store", "v.safetensors", "--views", "4").exit_code == 0
    assert handed["call"] == "store_views" and handed["second"] == "big"
    assert (handed["output"], handed["views"]) == (Path("v.safetensors"), 4)


@pytest.mark.parametrize(
    ("call", "code", "said"),
    [
        (("distil", "sounds"), 2, "name one or more"),
        (("distil", "sounds", "--teacher", "a", "--views", "3"), 2, "it needs --store FILE"),
        (("distil", "sounds", "--teacher", "a", "--teacher", "b", "--store", "f"), 2, "name one"),
        (("distil", "sounds", "--teacher", "a", "--store", "f", "-o", "run"), 2, "--output: leave it out"),
        (("distil", "sounds", "--teacher", "a", "--store", "f", "--resume"), 2, "--resume: leave it out"),
        (("distil", "sounds", "--teacher", "a", "--store", "f", "--devices", "2"), 2, "--devices: leave it out"),
        (("train", "sounds", "--set", "teacher_weight=2"), 1, "teacher_weight does nothing without teachers"),
    ],
)
def test_what_goes_together_is_said(
    run: Run, handed: dict[str, Any], call: tuple[str, ...], code: int, said: str
) -> None:
    result = run(*call)
    assert result.exit_code == code and "call" not in handed
    assert said in " ".join(result.output.replace("\u2502", " ").split())
