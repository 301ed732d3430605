"""Fine-tuning: rates by layer, a frozen start, a new head, positions for the clip, and the recipes of data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ossicle.errors import SettingRefused
from ossicle.models import create_model
from ossicle.training import TrainConfig, TrainResult
from ossicle.training.callbacks import Checkpoints
from ossicle.training.optimizers import adamw
from ossicle.weights.tensors import load_weights

pytestmark = pytest.mark.usefixtures("undrawn")
Run = Callable[..., TrainResult]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the published layout: a flat state dict of 527 labels and 10 s, of two narrow blocks."""
    file = tmp_path_factory.mktemp("published") / "passt.pt"
    torch.manual_seed(0)
    torch.save(create_model("passt_tiny_s16", num_classes=527, depth=2).state_dict(), file)
    return file


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
