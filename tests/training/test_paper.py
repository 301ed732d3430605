"""Density heads as the paper's code trains them: the recipe, its schedule, its loss, its decay, and LoRA+."""

import csv
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ossicle.cli import app
from ossicle.data import Dataset
from ossicle.encoders import Encoder, load_encoder
from ossicle.errors import SettingRefused
from ossicle.training import TrainConfig, TrainResult, TuneConfig, tune
from ossicle.training.callbacks import Checkpoints
from ossicle.training.losses import mean_loss
from ossicle.training.optimizers import adamw
from ossicle.training.recipes import tune_recipe
from ossicle.training.schedules import falls
from ossicle.tuning.heads import create_head

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PaSST with random weights, of six blocks."""
    return make_bundle(tmp_path_factory.mktemp("encoder") / "passt", depth=6)


def like(modality: str, layers: int) -> Any:
    """What a recipe asks of an encoder."""
    return SimpleNamespace(modality=modality, num_layers=layers)


# --- the recipe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "layers", "wanted"),
    [
        ("sound", 24, {"lr": 1e-4, "batch_size": 8, "loss": "focal", "focal_alpha": 0.25, "focal_gamma": 2.5}),
        ("text", 40, {"lr": 5e-5, "batch_size": 32, "loss": "cross_entropy"}),
        ("image", 24, {"lr": 1e-5, "batch_size": 32, "loss": "cross_entropy"}),
    ],
)
def test_the_recipe_is_that_of_the_released_code(
    modality: str, layers: int, wanted: dict[str, Any], untyped: Any
) -> None:
    with untyped():
        config, grouped = (
            tune_recipe("paper", like(modality, layers), head=head) for head in ("density", "gq_density")
        )
    common = {
        "epochs": 35,
        "weight_decay": 0.01,
        "weight_decay_on": "all",
        "schedule": "plateau",
        "plateau_patience": 10,
    }
    common |= {"plateau_factor": 0.1, "standardize": False, "balance": "none", "warmup": 0.0, "clip_gradient": 0.015}
    found = dataclasses.asdict(config)
    assert {name: found[name] for name in common | wanted} == common | wanted
    assert config.options == {"num_heads": 8} and grouped.head == "gq_density"
    dim = 5120 if modality == "text" else 1024
    with torch.device("meta"):
        gate, grid = (
            create_head(one.head, layers=layers, dim=dim, num_classes=4, options=one.options)
            for one in (config, grouped)
        )
    assert gate.density is not None and gate.density.num_heads == 8
    assert gate.decode.grid == ((64, 80) if modality == "text" else (32, 32))
    assert grid.decode.grid == ((64, 8) if modality == "text" else (8, 64))


def test_an_encoder_of_few_layers_has_as_many_heads_as_it_can(untyped: Any) -> None:
    with untyped():
        assert tune_recipe("paper", like("sound", 6)).options == {}
        assert tune_recipe("paper", like("sound", 24), head="mha_bn").options == {}
        with pytest.raises(SettingRefused, match="Recipe 'papr' is not available; did you mean paper"):
            tune_recipe("papr", like("sound", 6))


def test_the_command_takes_the_recipe_of_the_modality_and_settings_win_over_it(
    bundle: Path, sounds: Path, tmp_path: Path
) -> None:
    def invoke(*more: str) -> Any:
        command = ["tune", str(bundle), str(sounds), "--recipe", "paper", "-o", str(tmp_path / "run"), *more]
        return CliRunner().invoke(app, command)

    result = invoke("--set", "epochs=2", "device=cpu", "plateau_patience=3", "options.hidden=4")
    assert result.exit_code == 0, result.output
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["tuning"]
    assert (kept["lr"], kept["loss"], kept["schedule"], kept["plateau_patience"]) == (1e-4, "focal", "plateau", 3)
    assert kept["encoder_precision"] == "float32" and kept["options"] == {"hidden": 4}
    refused = invoke("--resume")
    assert refused.exit_code == 1 and "--resume and --config take from a file: one of them" in refused.stderr


# --- the schedule -----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.0, 0.5, 0.50001, 0.6, 0.7]), max_size=40), st.integers(0, 5))
def test_the_rate_falls_when_that_of_torch_does(scores: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # A tenth of 1e-8 is no change for torch's own; a half of a few falls is.
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=patience, eps=0)
    for number, score in enumerate(scores, start=1):
        theirs.step(score)
        ours = falls(scores[:number], patience=patience)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**ours)


Tune = Callable[..., TrainResult]


@pytest.fixture
def run(dataset: Dataset, bundle: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    cache = tmp_path_factory.getbasetemp() / "cache"
    encoder: Encoder = load_encoder(bundle)

    def go(name: str = "run", *, resume: bool = False, **changes: Any) -> TrainResult:
        settled = {"epochs": 6, "batch_size": 8, "options": {"hidden": 4}, "device": "cpu", "warmup": 0.0}
        config = TuneConfig(**{**settled, "schedule": "plateau", "plateau_patience": 0, **changes})
        return tune(encoder, dataset, config, output=tmp_path / name, resume=resume, cache=cache)

    return go


def rates_of(folder: Path) -> list[float]:
    """The rate of the last step of each epoch; with one of each epoch."""
    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def scored(scores: Sequence[float], patch: pytest.MonkeyPatch) -> None:
    given = iter(scores)
    patch.setattr("ossicle.training.callbacks.validation_score", lambda *_, **__: next(given))


def test_the_rate_falls_with_the_first_step_after_the_scores_that_say_so_and_a_resumed_run_is_the_same(
    run: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.5, 0.4, 0.6, 0.6, 0.3, 0.9]
    fallen = [1.0, 0.1, 0.1, 0.01, 0.001, 0.001]  # at the end of each epoch, for the next one
    scored(scores, monkeypatch)
    whole = run("whole", lr=1e-2)
    assert rates_of(whole.folder) == pytest.approx([1e-2 * one for one in fallen])
    with pytest.MonkeyPatch.context() as patch:
        end = Checkpoints.on_train_batch_end

        def press(self: Checkpoints, trainer: Any, *rest: Any) -> None:
            self._interrupted = self._interrupted or trainer.current_epoch == 3
            end(self, trainer, *rest)

        patch.setattr(Checkpoints, "on_train_batch_end", press)
        scored(scores, patch)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", lr=1e-2)
    done = len(rates_of(whole.folder.with_name("stopped")))
    scored(scores[done:], monkeypatch)
    resumed = run("stopped", lr=1e-2, resume=True)
    assert rates_of(resumed.folder) == rates_of(whole.folder)


def test_a_rate_that_goes_by_a_validation_part_needs_one(run: Tune, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match="schedule=plateau goes by the score of a validation part, and there is"):
        run(validation=0.0)
    assert not (tmp_path / "run" / "config.yaml").exists()


# --- loss, decay, rates -----------------------------------------------------------------------------------------------


def test_the_focal_loss_has_the_factor_of_its_paper() -> None:
    logits, hard = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = float(logits.softmax(1)[0, 0])
    by_hand = -0.25 * (1 - p) ** 2.5 * math.log(p)
    settings = TrainConfig(loss="focal", focal_alpha=0.25, label_smoothing=0.0)
    assert float(mean_loss(logits, hard, task="single-label", settings=settings)) == pytest.approx(by_hand, rel=1e-5)


def test_decay_of_all_pulls_on_the_parameters_of_a_density_too() -> None:
    head = create_head("density", layers=6, dim=8, num_classes=2, options={"hidden": 4})
    for decay, wanted in (("matrices", False), ("all", True)):
        config = TuneConfig(weight_decay_on=decay, weight_decay=0.1)  # type: ignore[arg-type]
        optimizer = adamw(head.named_parameters(), config)
        decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        named = dict(head.named_parameters())
        found = {name: named[name] in decayed for name in ("weigh.offset", "weigh.log_spread", "decode.fc.bias")}
        assert set(found.values()) == {wanted}, found
        assert named["decode.conv1.weight"] in decayed


def test_b_of_lora_learns_faster_than_a(run: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'ossicle[peft]'")
    seen: dict[str, float] = {}

    def watched(parameters: Any, settings: Any, **options: Any) -> Any:
        optimizer = adamw(listed := list(parameters), settings, **options)
        rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
        seen.update({name: rates[p] for name, p in listed if p in rates})
        return optimizer

    monkeypatch.setattr("ossicle.training.module.adamw", watched)
    run(tuner="lora", lora_plus=16.0, lr=1e-3, epochs=1, schedule="constant")
    assert {round(rate, 9) for name, rate in seen.items() if "lora_B" in name} == {16e-3}
    assert {rate for name, rate in seen.items() if "lora_B" not in name} == {1e-3}
    assert any("lora_A" in name for name in seen)


@pytest.mark.parametrize(
    ("setting", "needed"), [("lora_plus=16", "tuner=lora"), ("plateau_factor=0.5", "schedule=plateau")]
)
def test_settings_that_would_do_nothing_are_refused(setting: str, needed: str, bundle: Path, sounds: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(bundle), str(sounds), "--set", setting])
    assert result.exit_code == 1 and f"does nothing with {needed.split('=')[0]}=" in result.stderr
    assert f"it needs {needed}" in result.stderr
