"""Settings: read, refused, kept."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ossicle.cli import app
from ossicle.errors import RunRefused, SettingRefused, WeightsRefused
from ossicle.frontend import frontend_config
from ossicle.models import create_model
from ossicle.training import TrainConfig, TuneConfig
from ossicle.training.config import check_acting, read_config, settle_config, with_settings, write_config
from ossicle.training.defaults import resolve
from ossicle.training.initial import build, start_from
from ossicle.training.recipes import RECIPES, recipe
from ossicle.training.schedules import learning_rate
from ossicle.weights.tensors import load_weights, save_weights


def test_text_becomes_a_value_of_the_settings_own_kind() -> None:
    config = with_settings(
        TrainConfig(), {"lr": "1e-4", "epochs": "7", "window": "null", "jitter": "false", "schedule": "linear"}
    )
    assert (config.lr, config.epochs, config.window, config.jitter) == (1e-4, 7, None, False)
    assert with_settings(config, {"patchout_t": "10"}).patchout_t == 10


@pytest.mark.parametrize("path", ["runs/exp #3", "#1", "007", "runs/a: b", "[old] run", "*.pt", "@x", "true", "1e3"])
def test_where_text_is_wanted_text_stays_what_it_is(path: str) -> None:
    assert with_settings(TrainConfig(), {"weights": path}).weights == path
    assert with_settings(TrainConfig(weights=path), {"weights": "null"}).weights is None


def test_options_of_the_network_are_set_one_by_one(tmp_path: Path) -> None:
    config = with_settings(TrainConfig(), {"network.adaptor": "feature", "network.key_strides": "[8, 4, 2, 1]"})
    config = with_settings(config, {"network.offset_range": "null", "network.adaptor": "none"})
    assert config.network == {"adaptor": "none", "key_strides": [8, 4, 2, 1], "offset_range": None}
    write_config(tmp_path / "config.yaml", config, data={})
    assert read_config(tmp_path / "config.yaml", TrainConfig)[0] == config
    with pytest.raises(SettingRefused, match="network=3 is no mapping"):
        with_settings(TrainConfig(), {"network": "3"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": {"adaptr": "feature"}}, "no option adaptr"),
        ({"network": {"adaptor": "feature", "segment": 7}}, "segment is 7 frames"),
        ({"patchout_t": 3}, "patchout_t: not a setting of datar_nano"),
        ({"depth": 3}, "depth: not a setting of datar_nano"),
    ],
)
def test_options_that_the_network_does_not_have_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        start_from(TrainConfig(model="datar_nano", **settings), num_classes=2, frames=96)


def test_a_pyramid_starts_from_one_of_another_length_and_labels(tmp_path: Path) -> None:
    config = TrainConfig(model="datar_nano", network={"adaptor": "spectrogram"})
    given = start_from(config, num_classes=3, frames=96)
    given.spectrogram_adaptor.theta.data.normal_()
    save_weights(tmp_path / "given.safetensors", given.state_dict())
    started = start_from(
        dataclasses.replace(config, weights=str(tmp_path / "given.safetensors"), seed=1), num_classes=5, frames=200
    )
    old, new = given.state_dict(), started.state_dict()
    changed = {name for name in new if old[name].shape != new[name].shape}
    tables = {name for name in changed if name.endswith("relative_position_bias_table")}
    assert changed - tables == {"head.weight", "head.bias", "spectrogram_adaptor.theta"}
    assert len(tables) == 3
    assert all(torch.equal(old[name], new[name]) for name in new if name not in changed)
    for name in tables:  # what was learnt of near places stands
        y, x = (length // 2 for length in old[name].shape[1:])
        far_y, far_x = (length // 2 for length in new[name].shape[1:])
        assert torch.equal(new[name][:, far_y - y : far_y + y + 1, far_x - x : far_x + x + 1], old[name])
    with pytest.raises(WeightsRefused, match="do not fit"):  # what was learnt of other bins is not stretched
        start_from(
            dataclasses.replace(
                config, weights=str(tmp_path / "given.safetensors"), network={**config.network, "mels": 64}
            ),
            num_classes=3,
            frames=96,
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": "1"}, "there is no setting 'learning_rate'"),
        ({"epoch": "1"}, "did you mean epochs"),
        ({"lr": "fast"}, "lr='fast' is not float"),
        ({"epochs": "1.5"}, r"epochs=1.5 is not int or nothing \(null\)"),
        ({"epochs": "0"}, "epochs=0 lies outside its range, 1 to"),
        ({"jitter": "1"}, "jitter=1 is not bool"),
        ({"seed": "-1"}, "seed=-1 lies outside its range, 0 to"),
        ({"network.stride": "[1,"}, r"network.stride=\[1, cannot be read"),
        ({"lr": "*.pt"}, r"lr=\*.pt cannot be read"),
        ({"lr": "2001-99-99"}, "lr=2001-99-99 cannot be read"),
        ({"lr": "[" * 3000}, "cannot be read"),
        ({"schedule": "spiral"}, "schedule=spiral is not available; available: cosine, linear, constant"),
        ({"validation": "0.9"}, "validation=0.9 lies outside its range, 0 to 0.5"),
        ({"patchout_t": "1.5"}, "patchout_t=1.5: above 1 it is a count, and whole; below 1 it is a fraction"),
        ({"patchout_f": "3.25"}, "patchout_f=3.25: above 1"),
        ({"patchout_u": "100.5"}, "patchout_u=100.5: above 1"),
        ({"patchout_t": "inf"}, "patchout_t=inf lies outside its range"),
        ({"lr": "nan"}, "lr=nan lies outside its range"),
        ({"window": "1:30"}, "window='1:30' is not float"),
        ({"compile": "true", "gradient_checkpointing": "true"}, "gradient_checkpointing=true does not go with compile"),
        ({"hold": "0.6", "decay_until": "0.5"}, "the decay ends at decay_until=0.5 of the run, before it starts at"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_sentence(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        with_settings(TrainConfig(), settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ema_decay": 0.9, "average": "swa"}, "ema_decay does nothing with average=swa; it needs average=ema"),
        ({"swa_every": 2}, "swa_every does nothing with average=ema; it needs average=swa"),
        ({"swa_start": 0.2}, "swa_start does nothing"),
        (
            {"final_lr": 0.5, "schedule": "constant"},
            "final_lr does nothing with schedule=constant; .*=cosine or linear",
        ),
        (
            {"balance_offset": 9, "balance": "none"},
            "balance_offset does nothing with balance=none; .*=class",
        ),
        ({"weights_average": True}, "weights_average does nothing without weights"),
        ({"patience": 3, "validation": 0}, "patience does nothing without validation"),
        ({"min_delta": 0.01}, "min_delta does nothing without patience"),
        (
            {"label_weight": 0.5, "unlabeled": True, "teachers": ["a"]},
            "label_weight does nothing with unlabeled=true; it needs unlabeled=false",
        ),
        ({"teacher_loss": "mse"}, "teacher_loss does nothing without teachers"),
        (
            {"teacher_temperature": 3.0, "teacher_loss": "bce", "teachers": ["a"]},
            "teacher_temperature does nothing with teacher_loss=bce; .*=auto or kl",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_beside_the_others_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        settle_config(TrainConfig(), settings, columns={})


def test_settings_that_act_together_pass() -> None:
    pairs: tuple[dict[str, Any], ...] = ({"swa_every": 2, "average": "swa"}, {"patience": 3, "min_delta": 0.01})
    for settings in (*pairs, {"balance_offset": 9}, {"patience": 0, "validation": 0}):
        check_acting(with_settings(TrainConfig(), settings), settings)
    with pytest.raises(SettingRefused, match="focal_gamma does nothing with loss=cross_entropy"):
        check_acting(TuneConfig(), ["focal_gamma"])
    with pytest.raises(SettingRefused, match="tuner_options does nothing without tuner"):
        check_acting(TuneConfig(tuner_options={"rank": 4}), ["tuner_options.rank"])
    with pytest.raises(SettingRefused, match="pool does nothing with head=attentive_stats"):
        check_acting(TuneConfig(head="attentive_stats"), ["pool"])


def test_numbers_are_read_by_tens() -> None:
    assert with_settings(TrainConfig(), {"batch_size": "010", "lr": "1e-3", "window": "0.5"}).batch_size == 10


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"drop_path": 0.1}, "network.drop_path is a separate setting; use drop_path=VALUE"),
        ({"patchout_t": 40}, "network.patchout_t is a separate setting"),
        ({"stride": 16.5}, "network.stride=16.5 is not int"),
        ({"interpolate_positions": "nope"}, "network.interpolate_positions='nope' is not bool"),
        ({"dropout": True}, "network.dropout=True is not float"),
    ],
)
def test_options_of_the_network_are_neither_rounded_nor_given_twice(network: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        build(TrainConfig(network=network), num_classes=2)
    assert build(TrainConfig(network={"stride": 16.0}, depth=1), num_classes=2).config.stride == 16


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for name in RECIPES:
        config = recipe(name)
        write_config(tmp_path / "config.yaml", config, data={"path": "sounds", "label": None})
        assert read_config(tmp_path / "config.yaml", TrainConfig) == (config, {"path": "sounds", "label": None})


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("- a list\n")
    with pytest.raises(SettingRefused, match=r"not a run's config\.yaml"):
        read_config(tmp_path / "config.yaml", TrainConfig)
    with pytest.raises(SettingRefused, match="no such configuration"):
        read_config(tmp_path / "nowhere.yaml", TrainConfig)
    with pytest.raises(SettingRefused, match="Recipe 'scrach' is not available; did you mean scratch"):
        recipe("scrach")
    with pytest.raises(RunRefused, match="no run to continue"):
        settle_config(TrainConfig(), {}, columns={}, output=tmp_path / "run", resume=True)


def test_the_recipes_are_those_of_the_paper() -> None:
    audioset, finetune = recipe("audioset"), recipe("finetune")
    rates = [learning_rate(epoch / 130, audioset, warmup=5 / 130) for epoch in (2.5, 5, 50, 75, 100, 130)]
    assert rates == pytest.approx([0.5, 1, 1, 0.505, 0.01, 0.01])
    assert audioset.warmup == finetune.warmup == 5
    assert audioset.roll == finetune.roll == 50 / 32_000
    assert learning_rate(1.0, finetune, warmup=0.5) == 1


def test_recipes_are_refused_where_they_cannot_be_meant(tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["train", str(tmp_path), *arguments])
        assert result.exit_code == 1
        return result.stderr

    assert "finetune goes on from trained weights: name them with --init" in refused("--recipe", "finetune")
    (tmp_path / "config.yaml").write_text("")
    both = refused("--recipe", "scratch", "-o", str(tmp_path), "--resume")
    assert "--resume and --config take from a file: one of them" in both


def test_patchout_that_leaves_nothing_of_a_clip_is_refused_with_the_way_out() -> None:
    def settle(**settings: Any) -> TrainConfig:
        config = dataclasses.replace(recipe("finetune"), **settings)
        return resolve(config, seconds=np.ones(99), counts=np.array([99]), frontend=frontend_config("passt"))[0]

    with pytest.raises(SettingRefused, match=r"patchout drops 10 of 9 patch columns; .* such as patchout_t=0.3"):
        settle(patchout_t=10)
    with pytest.raises(SettingRefused, match=r"patchout drops 12 of 12 patch rows; .* such as patchout_f=0.3"):
        settle(patchout_t=0.3, patchout_f=12)
    with pytest.raises(SettingRefused, match=r"drops 54 of 54 patches that these leave; .* such as patchout_u=0.3"):
        settle(patchout_t=3, patchout_f=3, patchout_u=54)
    assert settle().patchout_t == 0.2


def test_a_warmup_that_is_cut_is_told() -> None:
    config = TrainConfig(epochs=3)
    _, said = resolve(config, seconds=np.ones(99), counts=np.array([99]), frontend=frontend_config("passt"))
    assert said[-1] == "warmup=1.5 epochs, not 2: half of a run of 3 is the most"


def test_the_data_decide_what_the_user_did_not() -> None:
    frontend = frontend_config("passt")
    config, said = resolve(TrainConfig(), seconds=np.full(1600, 5.0), counts=np.array([800, 800]), frontend=frontend)
    assert (config.window, config.epochs, config.batch_size, config.balance) == (5.0, 60, 16, "none")
    assert all(
        getattr(config, field.name) is not None
        for field in dataclasses.fields(config)
        if field.name in ("window", "epochs", "batch_size", "balance", "patchout_t", "patchout_f")
    )
    assert len(said) == 6
    again, nothing = resolve(config, seconds=np.full(9, 1.0), counts=np.array([8, 1]), frontend=frontend)
    assert again == config and nothing == []
    short, _ = resolve(TrainConfig(), seconds=np.full(9, 0.01), counts=np.array([8, 1]), frontend=frontend)
    assert short.window is not None and frontend.frames(round(short.window * 32_000)) >= 16
    assert short.balance == "class"


def test_a_run_starts_from_the_weights_it_is_given(tmp_path: Path, shared_bundle: Path) -> None:
    config = TrainConfig(weights=str(shared_bundle), depth=1)
    model = start_from(config, num_classes=5, frames=40)
    given = load_weights(shared_bundle / "model.safetensors")
    for name, tensor in model.state_dict().items():
        if not name.startswith(("head.1", "head_dist")):
            assert torch.equal(tensor, given[name]), name
    assert model.head[1].weight.shape == (5, 192)


def test_published_checkpoints_start_a_run_with_their_own_positions(tmp_path: Path) -> None:
    published = create_model("passt_tiny_s16", num_classes=527, depth=2)
    torch.save({"state_dict": {f"net.{k}": v for k, v in published.state_dict().items()}}, tmp_path / "their.ckpt")
    said: list[str] = []
    model = start_from(
        TrainConfig(weights=str(tmp_path / "their.ckpt")), num_classes=50, frames=100, report=said.append
    )
    assert said == []
    assert torch.equal(model.time_new_pos_embed, published.time_new_pos_embed)
    assert len(model.blocks) == 2
    with pytest.raises(WeightsRefused, match="do not fit"):
        start_from(TrainConfig(model="passt_small_s16", weights=str(tmp_path / "their.ckpt")), num_classes=5, frames=9)


def test_a_run_starts_from_the_average_of_published_weights_and_says_so(tmp_path: Path) -> None:
    trained, average = (create_model("passt_tiny_s16", num_classes=3, depth=1) for _ in range(2))
    tensors = {f"net.{name}": tensor for name, tensor in trained.state_dict().items()}
    tensors |= {f"net_swa.{name}": tensor for name, tensor in average.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "their.ckpt")
    for setting, given, name in ((None, average, "net_swa"), (False, trained, "net")):
        config, said = TrainConfig(weights=str(tmp_path / "their.ckpt"), weights_average=setting), list[str]()
        model = start_from(config, num_classes=3, frames=100, report=said.append)
        assert torch.equal(model.head[1].weight, given.head[1].weight)
        assert len(said) == 1 and f"; using {name}" in said[0]
