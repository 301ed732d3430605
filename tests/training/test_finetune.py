"""Fine-tuning: rates by layer, a frozen start, a new head, positions for the clip, and the recipes of data sets."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ossicle
from ossicle.bundle import load_bundle, save_bundle
from ossicle.ensemble import Ensemble
from ossicle.errors import BundleRefused, SettingRefused
from ossicle.frontend import frontend_config
from ossicle.models import create_model
from ossicle.models.tokens import Patchout, select_patches
from ossicle.training import TrainConfig, TrainResult
from ossicle.training.callbacks import Checkpoints, is_snapshot
from ossicle.training.defaults import resolve
from ossicle.training.initial import build, frontend_of, start_from, weights_file
from ossicle.training.optimizers import adamw
from ossicle.training.recipes import RECIPES, recipe
from ossicle.training.schedules import learning_rate
from ossicle.weights.tensors import load_weights

pytestmark = pytest.mark.usefixtures("undrawn")
Run = Callable[..., TrainResult]


def weights_of(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_weights(result.folds[0].folder / "model" / "model.safetensors")


# --- depth of a parameter ---------------------------------------------------------------------------------------------


def test_a_parameter_is_as_deep_as_its_block() -> None:
    depths = create_model("passt_tiny_s16", num_classes=2, depth=3).parameter_depths()
    assert {depths[name] for name in ("cls_token", "time_new_pos_embed", "patch_embed.proj.weight")} == {0}
    assert [depths[f"blocks.{number}.mlp.fc1.bias"] for number in range(3)] == [1, 2, 3]
    assert {depths[name] for name in ("norm.weight", "head.0.weight", "head.1.weight")} == {4}


def test_the_depth_of_a_pyramid_grows_over_its_stages_and_a_merge_belongs_to_the_next_block() -> None:
    model = create_model("datar_nano", num_classes=2, depths=(1, 1, 2, 1), adaptor="spectrogram")
    depths = model.parameter_depths()
    assert list(depths) != [] and depths.keys() == dict(model.named_parameters()).keys()
    assert {depths[name] for name in depths if "adaptor" in name or "stages.0.merge" in name} == {0}
    for stage, blocks in enumerate(((1,), (2,), (3, 4), (5,))):
        assert {depths[name] for name in depths if f"stages.{stage}.blocks" in name} == set(blocks)
        assert stage == 0 or {depths[name] for name in depths if f"stages.{stage}.merge" in name} == {blocks[0]}
    assert {depths[name] for name in depths if name.startswith(("norm", "head"))} == {6}


# --- rates by layer, and a frozen start -------------------------------------------------------------------------------


def test_each_block_learns_slower_than_the_next_by_the_decay() -> None:
    model = create_model("passt_tiny_s16", num_classes=2, depth=2)
    depths = model.parameter_depths()
    optimizer = adamw(
        model.named_parameters(), TrainConfig(lr=1.0, weight_decay=0.5), scale=lambda name: 0.5 ** (3 - depths[name])
    )
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0] * 4
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert [rates[named[name]] for name in ("cls_token", "blocks.0.norm1.bias", "blocks.1.mlp.fc1.weight")] == [
        0.125,
        0.25,
        0.5,
    ]
    assert rates[named["head.1.weight"]] == 1.0
    assert rates.keys() == {p for p in named.values() if p.requires_grad}


def test_with_a_small_decay_the_lowest_layers_stay_and_the_head_learns(run: Run, published: Path) -> None:
    drawing = {"weights": str(published), "depth": None, "validation": 0.0, "weight_decay": 0.0}
    plain = weights_of(run("plain", **drawing))
    layered = weights_of(run("layered", layer_decay=0.01, **drawing))
    given = torch.load(published)
    moved = {
        name: [float((tensors[name] - given[name]).abs().max()) for tensors in (plain, layered)]
        for name in ("cls_token", "blocks.0.mlp.fc2.weight", "blocks.1.mlp.fc2.weight", "head.0.weight")
    }
    assert moved["cls_token"][1] < 1e-4 * moved["cls_token"][0]
    assert moved["blocks.0.mlp.fc2.weight"][1] < 1e-2 * moved["blocks.0.mlp.fc2.weight"][0]
    assert moved["blocks.1.mlp.fc2.weight"][1] < 0.1 * moved["blocks.1.mlp.fc2.weight"][0]
    assert moved["head.0.weight"][1] > 0.3 * moved["head.0.weight"][0] > 0


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_in_a_frozen_start_the_head_alone_trains_and_then_all(average: str, run: Run, published: Path) -> None:
    drawing = {"weights": str(published), "depth": None, "validation": 0.0, "average": average}
    given = torch.load(published)
    frozen = weights_of(run("frozen", freeze_epochs=2, **drawing))
    assert not torch.equal(frozen["head.0.weight"], given["head.0.weight"])
    for name, tensor in frozen.items():
        assert name.startswith("head") or torch.equal(tensor, given[name]), name
    thawed = weights_of(run("thawed", freeze_epochs=1, **drawing))
    assert all(
        not torch.equal(tensor, given[name]) for name, tensor in thawed.items() if name.startswith(("blocks", "patch"))
    )


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_frozen_start_resumes_to_the_very_same_weights(step: int, run: Run, published: Path) -> None:
    """Inside the frozen start, at its end, and behind it."""
    drawing = {"weights": str(published), "depth": None, "freeze_epochs": 1, "layer_decay": 0.5, "average": "ema"}
    whole = run("whole", **drawing)
    with pytest.MonkeyPatch.context() as patch:
        end = Checkpoints.on_train_batch_end

        def press(self: Checkpoints, trainer: Any, *rest: Any) -> None:
            self._interrupted = self._interrupted or trainer.global_step == step
            end(self, trainer, *rest)

        patch.setattr(Checkpoints, "on_train_batch_end", press)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", **drawing)
    one, other = weights_of(whole), weights_of(run("stopped", resume=True, **drawing))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_random_weights_are_not_frozen(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match=r"freeze_epochs=2 keeps the weights below the head, and these are random"):
        run(freeze_epochs=2)
    assert not (tmp_path / "run").exists()


# --- a new head, and positions for the clip ---------------------------------------------------------------------------


def test_a_head_of_other_labels_is_new_and_one_of_the_same_stays(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    given = create_model("passt_tiny_s16", num_classes=2, depth=1)
    save_bundle(
        bundle,
        model=given,
        model_name="passt_tiny_s16",
        frontend=frontend_config("passt"),
        task="single-label",
        labels=("dog", "cat"),
        window_seconds=1.0,
    )
    config = TrainConfig(weights=str(bundle), depth=1)

    def head(*labels: str) -> tuple[torch.Tensor, list[str]]:
        said: list[str] = []
        model = start_from(config, num_classes=2, labels=labels, frames=100, report=said.append)
        assert torch.equal(model.blocks[0].attn.qkv.weight, given.blocks[0].attn.qkv.weight)
        return model.head[1].weight, said

    same, nothing = head("dog", "cat")
    assert torch.equal(same, given.head[1].weight) and nothing == []
    turned, nothing = head("cat", "dog")  # the same labels in another order
    assert torch.equal(turned, given.head[1].weight[[1, 0]]) and nothing == []
    other, said = head("car", "bus")
    assert not torch.equal(other, given.head[1].weight)
    assert said == [f"The head is new: the data have other labels than {bundle}."]


def test_a_training_takes_the_front_end_of_its_weights(tmp_path: Path, record: Callable[..., Path]) -> None:
    bundle, own = tmp_path / "bundle", frontend_config("passt", hop_samples=160, min_hertz_jitter=1, freq_mask=0)
    save_bundle(
        bundle,
        model=create_model("passt_tiny_s16", num_classes=2, depth=1, frames=100),
        model_name="passt_tiny_s16",
        frontend=own,
        task="single-label",
        labels=("bell", "drum"),
        window_seconds=0.5,
    )
    config = TrainConfig(weights=str(bundle), epochs=1, batch_size=4, device="cpu", precision="float32")
    taken = frontend_of(config)
    assert taken.hop_samples == 160 and (taken.min_hertz_jitter, taken.freq_mask) == (10, 48)  # drawn in training
    # Of an architecture with another front end it is that one which is meant.
    assert frontend_of(dataclasses.replace(config, model="passt_base_s10_hop100")).hop_samples == 100
    for number, label in enumerate(("bell", "drum")):
        for take in range(4):
            record(f"data/{label}/{take}.wav", seconds=0.5, seed=10 * number + take)
    ossicle.train(tmp_path / "data", config, output=tmp_path / "run")
    assert load_bundle(tmp_path / "run" / "model").frontend.config.hop_samples == 160


def test_what_is_no_network_starts_none(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    members = [ossicle.load(make_bundle(tmp_path / name)) for name in ("one", "two")]
    Ensemble.of(members).save_pretrained(tmp_path / "both")
    with pytest.raises(BundleRefused, match="both is an ensemble of several networks.*member0"):
        weights_file(str(tmp_path / "both"))


def test_a_head_whose_labels_nobody_knows_is_kept_if_it_has_as_many_and_that_is_said(tmp_path: Path) -> None:
    given = create_model("passt_tiny_s16", num_classes=2, depth=1)
    torch.save(given.state_dict(), tmp_path / "fold1.pt")
    said: list[str] = []
    config = TrainConfig(weights=str(tmp_path / "fold1.pt"))
    model = start_from(config, num_classes=2, labels=("a", "b"), frames=100, report=said.append)
    assert torch.equal(model.head[1].weight, given.head[1].weight)
    assert len(said) == 1 and "has as many labels as the data, 2: its head is kept" in said[0]


def test_positions_of_shorter_clips_are_stretched_and_those_of_longer_ones_stay(published: Path) -> None:
    given = torch.load(published)["time_new_pos_embed"]
    config, said = TrainConfig(weights=str(published)), list[str]()
    short = start_from(config, num_classes=3, frames=100, report=said.append)
    assert torch.equal(short.time_new_pos_embed, given) and said == []
    long = start_from(config, num_classes=3, frames=2000, report=said.append)
    assert long.time_new_pos_embed.shape[3] == (2000 - 16) // 16 + 1 and "are stretched to 2000 frames" in said[0]
    torch.testing.assert_close(long.time_new_pos_embed[..., [0, -1]], given[..., [0, -1]])
    assert long.split(torch.zeros(1, 128, 2000)).shape == (1, 128, 2000)  # one pass, no windows


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.05, 0.2, 1.0, 5.0, 10.0, 30.0])
def test_the_recipe_for_any_data_takes_clips_of_any_length(seconds: float) -> None:
    frontend = frontend_config("passt")
    config, _ = resolve(recipe("finetune"), seconds=np.full(9, seconds), counts=np.array([9]), frontend=frontend)
    assert config.window is not None and config.patchout_t == 0.2
    with torch.device("meta"):
        model = build(config, num_classes=2, frames=frontend.frames(round(config.window * frontend.rate))).train()
        rows, columns = model.config.rows, (frontend.frames(round(config.window * frontend.rate)) - 16) // 10 + 1
    kept = select_patches((rows, columns), model.config.patchout, generator=torch.Generator().manual_seed(0))
    assert kept is not None and 0 < len(kept) <= rows * columns
    if seconds == 5.0:  # as the script for ESC-50 has them
        assert (rows, columns) == (12, 49) and len(kept) == (12 - 3) * (49 - 10)


PUBLISHED_SETTINGS: dict[str, dict[str, Any]] = {
    "esc50": {"window": 5.0, "epochs": 10, "batch_size": 12, "patchout_t": 10, "patchout_f": 3, "wave_mixup": 0.0},
    "fsd50k": {"window": 10.0, "epochs": 50, "batch_size": 12, "patchout_t": 10, "patchout_f": 4, "wave_mixup": 0.5},
    "openmic": {"window": 10.0, "epochs": 10, "batch_size": 6, "patchout_t": 40, "patchout_f": 4, "wave_mixup": 0.5},
    "dcase20": {"window": 10.0, "epochs": 10, "batch_size": 12, "patchout_t": 40, "patchout_f": 4, "wave_mixup": 0.0},
}
TOKENS = {"esc50": 353, "fsd50k": 714, "openmic": 474, "dcase20": 474}  # in training, with the two class tokens
MASKED_FRAMES = {"esc50": (48, 80), "fsd50k": (0, 0), "openmic": (48, 192), "dcase20": (48, 192)}


@pytest.mark.parametrize("name", PUBLISHED_SETTINGS)
def test_the_recipes_of_data_sets_have_the_settings_of_their_scripts(name: str) -> None:
    config = recipe(name)
    found = dataclasses.asdict(config)
    wanted = {"lr": 1e-5, "weight_decay": 1e-4, "warmup": 5.0, "gain": 7.0, "mixup": 0.3, "clip_gradient": 0.0}
    wanted |= {"weights": "passt_base_s10.audioset_ap476", "model": "passt_base_s10", "validation": 0.0}
    assert wanted | PUBLISHED_SETTINGS[name] == {key: found[key] for key in wanted | PUBLISHED_SETTINGS[name]}
    frames = round(config.window * 100)
    assert (config.freq_mask, round(config.time_mask * frames)) == MASKED_FRAMES[name]
    rows, columns = 12, (frames - 16) // 10 + 1
    patchout = Patchout(time=config.patchout_t, freq=config.patchout_f)
    kept = select_patches((rows, columns), patchout, generator=torch.Generator().manual_seed(0))
    assert len(kept) + 2 == TOKENS[name]


def test_fsd50k_decays_and_averages_as_its_script() -> None:
    config = recipe("fsd50k")
    rates = [learning_rate(epoch / 50, config, warmup=5 / 50) for epoch in (5, 10, 15, 20, 50)]
    assert rates == pytest.approx([1, 1, 0.505, 0.01, 0.01])
    assert [epoch for epoch in range(20) if is_snapshot(epoch, config)] == [9, 12, 15, 18]
    assert [epoch for epoch in range(10) if is_snapshot(epoch, recipe("esc50"))] == list(range(1, 10))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_says_where_it_is_from_and_where_it_differs(name: str) -> None:
    said = RECIPES[name].__doc__ or ""
    assert "Command: ossicle train " in said
    assert name in ("general", "scratch", "finetune") or all(
        part in said for part in ("Source: PaSST", "**Deviations**", "eproduced here")
    )
