"""`ossicle train` and `ossicle demo` hand over exactly what was typed."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the training was called with; `failed` is what it answers."""
    calls: dict[str, Any] = {"failed": 0}

    def run_training(**arguments: Any) -> int:
        calls.update(arguments)
        return calls["failed"]

    monkeypatch.setitem(sys.modules, "ossicle.training", SimpleNamespace(run_training=run_training))
    return calls


def test_every_option_reaches_the_training(run: Run, handed: dict[str, Any]) -> None:
    result = run(
        *("train", "data", "--model", "passt_tiny_s16", "--recipe", "scratch", "-o", "run"),
        *("--set", "epochs=3", "lr = 1e-4", "--config", "c.yaml", "--set", "weights=a=b"),
        *(
            "--file",
            "P",
            "--label",
            "L",
            "--group",
            "G",
            "--fold",
            "F",
            "--folds",
            "all",
            "--resume",
            "--skip-bad",
            "--init",
            "w",
            "--track",
            "2",
        ),
    )
    assert result.exit_code == 0
    assert handed == {
        "data": Path("data"),
        "model": "passt_tiny_s16",
        "recipe": "scratch",
        "output": Path("run"),
        "settings": {"epochs": "3", "lr": "1e-4", "weights": "a=b"},
        "config": Path("c.yaml"),
        "file": "P",
        "label": "L",
        "group": "G",
        "fold_column": "F",
        "folds": "all",
        "resume": True,
        "skip_bad": True,
        "weights": "w",
        "track": 2,
        "failed": 0,
    }


def test_nothing_but_the_data_is_needed(run: Run, handed: dict[str, Any]) -> None:
    assert run("train", "data").exit_code == 0
    chosen = {name for name, value in handed.items() if value}
    assert chosen == {"data"}


def test_files_left_out_end_with_3(run: Run, handed: dict[str, Any]) -> None:
    handed["failed"] = 2
    assert run("train", "data", "--skip-bad").exit_code == 3


def test_settings_may_stand_before_the_data(run: Run, handed: dict[str, Any]) -> None:
    assert run("train", "--set", "epochs=3", "network.adaptor=none", "data").exit_code == 0
    assert handed["settings"] == {"epochs": "3", "network.adaptor": "none"}
    assert handed["data"] == Path("data")


@pytest.mark.parametrize("setting", ["epochs", "=3", ""])
def test_a_setting_without_key_and_value_is_wrong_usage(setting: str, run: Run, handed: dict[str, Any]) -> None:
    result = run("train", "data", "--set", setting)
    assert result.exit_code == 2 and "KEY=VALUE" in result.stderr
    assert "data" not in handed


def test_the_demo_writes_where_it_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    monkeypatch.setitem(sys.modules, "ossicle.demo", SimpleNamespace(run_demo=lambda *, output: outputs.append(output)))
    assert run("demo", "-o", "tour").exit_code == run("demo").exit_code == 0
    assert outputs == [Path("tour"), Path("ossicle-demo")]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("train", "data", "--batch-size", "3"), "It is a setting: --set batch_size=VALUE"),
        (("tune", "encoder", "data", "--pool", "mean"), "It is a setting: --set pool=VALUE"),
        (("train", "data", "--pool", "mean"), "No such option: --pool"),
    ],
)
def test_a_setting_that_is_given_as_an_option_is_shown_how(run: Run, call: tuple[str, ...], said: str) -> None:
    result = run(*call)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("\u2502", " ").split())
