"""Settings: read, refused, kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ossicle.checkpoint.weights import load_weights
from ossicle.errors import RunRefused, SettingRefused, WeightsRefused
from ossicle.frontend import frontend_config
from ossicle.models import create_model
from ossicle.training import TrainConfig, run_training
from ossicle.training.config import read_config, with_settings, write_config
from ossicle.training.defaults import resolve
from ossicle.training.initial import start_from
from ossicle.training.recipes import RECIPES, recipe


def test_text_becomes_a_value_of_the_settings_own_kind() -> None:
    config = with_settings(
        TrainConfig(), {"lr": "1e-4", "epochs": "7", "window": "null", "jitter": "false", "schedule": "linear"}
    )
    assert (config.lr, config.epochs, config.window, config.jitter) == (1e-4, 7, None, False)
    assert with_settings(config, {"patchout_t": "10"}).patchout_t == 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": "1"}, "there is no setting 'learning_rate'"),
        ({"epoch": "1"}, "did you mean epochs"),
        ({"lr": "fast"}, "lr='fast' is not float"),
        ({"epochs": "1.5"}, r"epochs=1.5 is not int or nothing \(null\)"),
        ({"epochs": "0"}, "epochs=0 lies outside its range, 1 to"),
        ({"jitter": "1"}, "jitter=1 is not bool"),
        ({"schedule": "spiral"}, "schedule='spiral' is not one of cosine, linear, constant"),
        ({"development": "0.9"}, "development=0.9 lies outside its range, 0 to 0.5"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_sentence(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        with_settings(TrainConfig(), settings)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for name in RECIPES:
        config = recipe(name)
        write_config(tmp_path / "config.yaml", config, data={"path": "sounds", "label": None})
        assert read_config(tmp_path / "config.yaml") == (config, {"path": "sounds", "label": None})


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("- a list\n")
    with pytest.raises(SettingRefused, match=r"not a run's config\.yaml"):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(SettingRefused, match="no such configuration"):
        read_config(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingRefused, match="no recipe 'scrach'; did you mean scratch"):
        recipe("scrach")
    with pytest.raises(RunRefused, match="no run to continue"):
        run_training(data=tmp_path, output=tmp_path / "run", resume=True)


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
    model = start_from(TrainConfig(weights=str(tmp_path / "their.ckpt")), num_classes=50, frames=100)
    assert torch.equal(model.time_new_pos_embed, published.time_new_pos_embed)
    assert len(model.blocks) == 2
    with pytest.raises(WeightsRefused, match="do not fit"):
        start_from(TrainConfig(model="passt_small_s16", weights=str(tmp_path / "their.ckpt")), num_classes=5, frames=9)
