"""`ossicle train` and `ossicle demo` hand over exactly what was typed."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import Result

from ossicle.bundle import save_bundle
from ossicle.frontend import frontend_config
from ossicle.models import create_model
from ossicle.training import TrainConfig
from ossicle.training.config import write_config
from ossicle.training.recipes import general, recipe

Run = Callable[..., Result]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the training was called with; `failures` is what it gives back."""
    calls: dict[str, Any] = {"failures": ()}

    def train(data: Path, config: TrainConfig, **arguments: Any) -> SimpleNamespace:
        calls.update(arguments, data=data, config=config)
        return SimpleNamespace(failures=calls["failures"])

    monkeypatch.setattr("ossicle.training.train", train)
    return calls


def test_every_option_reaches_the_training(run: Run, handed: dict[str, Any], tmp_path: Path) -> None:
    stored = TrainConfig(epochs=7, batch_size=5)
    write_config(tmp_path / "c.yaml", stored, data={"path": "elsewhere", "group": "H", "fold": "S"})
    result = run(
        *("train", "data", "--model", "passt_tiny_s10", "-o", "run", "--set", "epochs=3", "lr = 1e-4"),
        *("--config", tmp_path / "c.yaml", "--set", "mixup=0", "--file", "P", "--label", "L", "--group", "G"),
        *("--folds", "all", "--skip-bad", "--init", "w", "--track", "2"),
        *("--logger", "tensorboard"),
    )
    assert result.exit_code == 0
    config = dataclasses.replace(stored, model="passt_tiny_s10", weights="w", epochs=3, lr=1e-4, mixup=0.0)
    assert handed == {
        "data": Path("data"),
        "config": config,
        "output": Path("run"),
        "columns": {"file": "P", "label": "L", "group": "G", "fold": "S", "track": 2},
        "folds": "all",
        "resume": False,
        "skip_bad": True,
        "progress": True,
        "logger": "tensorboard",
        "failures": (),
    }


def test_nothing_but_the_data_is_needed(run: Run, handed: dict[str, Any]) -> None:
    assert run("train", "data").exit_code == 0
    assert handed["data"] == Path("data") and handed["config"] == general()
    assert not any(handed["columns"].values()) and handed["output"] is None
    assert run("train", "data", "--recipe", "audioset").exit_code == 0
    assert handed["config"] == recipe("audioset")


def test_a_training_starts_from_the_encoder_in_the_package_where_that_can_be(
    run: Run, handed: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "w.pt").touch()
    for options, expected in {
        (): general(),
        ("--model", "passt_tiny_conv"): general(),
        ("--init", "general"): dataclasses.replace(general(), weights="general"),
        ("--init", "none"): TrainConfig(),
        ("--init", "none", "--model", "passt_tiny_conv"): TrainConfig(model="passt_tiny_conv"),
        ("--set", "weights=null"): TrainConfig(),
        ("--model", "datar_nano"): TrainConfig(model="datar_nano"),
        ("--recipe", "scratch"): TrainConfig(),
        ("--init", tmp_path / "w.pt"): TrainConfig(weights=str(tmp_path / "w.pt")),
        ("--recipe", "esc50", "--init", "none"): dataclasses.replace(recipe("esc50"), weights=None),
    }.items():
        assert run("train", "data", *options).exit_code == 0
        assert handed["config"] == expected, options
    # A run names the architecture that a training goes on with.
    torch.manual_seed(0)
    network = create_model("datar_nano", num_classes=2)
    save_bundle(
        tmp_path / "model",
        model=network,
        model_name="datar_nano",
        frontend=frontend_config("kaldi_fbank"),
        task="single-label",
        labels=["a", "b"],
        window_seconds=1.0,
    )
    assert run("train", "data", "--init", tmp_path).exit_code == 0
    assert handed["config"] == TrainConfig(model="datar_nano", weights=str(tmp_path))


def test_files_left_out_end_with_3(run: Run, handed: dict[str, Any]) -> None:
    handed["failures"] = ("a.wav: damaged", "b.wav: damaged")
    assert run("train", "data", "--skip-bad").exit_code == 3


def test_settings_may_stand_before_the_data(run: Run, handed: dict[str, Any]) -> None:
    assert run("train", "--init", "none", "--set", "epochs=3", "network.adaptor=none", "data").exit_code == 0
    assert handed["config"] == TrainConfig(epochs=3, network={"adaptor": "none"})
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
