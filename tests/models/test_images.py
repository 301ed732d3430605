"""Weights of image networks as a start: every tensor at its place, and what could not be used is listed."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.errors import WeightsRefused
from ossicle.models import create_model
from ossicle.models.base import Network
from ossicle.models.datar import Datar, Merge, WindowAttention
from ossicle.models.images import from_flax, pyramid_weights, resized, vit_weights
from ossicle.weights.foreign import load_checkpoint, read_checkpoint
from ossicle.weights.tensors import save_weights

PASST: dict[str, Any] = {"dim": 32, "num_heads": 2, "depth": 2}
DATAR: dict[str, Any] = {"dims": (16, 32, 64, 128), "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
DATAR |= {"num_groups": (1, 1, 2, 4), "frames": 256}


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def pair(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def started(model: Network, tensors: dict[str, Tensor], folder: Path) -> str:
    """Loads image weights into a network; what is said of them."""
    save_weights(folder / "w.safetensors", tensors)
    said: list[str] = []
    load_checkpoint(model, folder / "w.safetensors", report=said.append)
    assert len(said) == 1
    return said[0]


# --- ViT --------------------------------------------------------------------------------------------------------------


def vit(*, tokens: int, side: int = 14, dim: int = 32, depth: int = 2) -> dict[str, Tensor]:
    """The names and shapes of timm, as of DeiT with two class tokens."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, tokens + side**2, dim)} | pair("norm", dim)
    shapes |= pair("patch_embed.proj", dim, 3, 16, 16) | pair("head", 1000, dim)
    shapes |= {"dist_token": (1, 1, dim)} | pair("head_dist", 1000, dim) if tokens == 2 else {}
    for block in range(depth):
        for name, *weight in (
            ("norm1", dim),
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("norm2", dim),
            ("mlp.fc1", 4 * dim, dim),
            ("mlp.fc2", dim, 4 * dim),
        ):
            shapes |= pair(f"blocks.{block}.{name}", *weight)
    return draw(shapes)


@pytest.mark.parametrize("stride", [10, 12, 14, 16, 20])
@pytest.mark.parametrize("tokens", [1, 2])
def test_a_transformer_of_images_starts_a_passt_of_any_stride(tmp_path: Path, stride: int, tokens: int) -> None:
    model, image = create_model(f"passt_tiny_s{stride}", num_classes=5, **PASST), vit(tokens=tokens)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith("head")}
    said = started(model, image, tmp_path)
    after = model.state_dict()
    assert ("DeiT" if tokens == 2 else "ViT") in said and "Not used: its own head" in said
    assert all(torch.equal(after[name], image[name]) for name in after if name.startswith(("blocks", "norm")))
    torch.testing.assert_close(after["patch_embed.proj.weight"][:, 0], image["patch_embed.proj.weight"].sum(1))
    assert all(torch.equal(after[name], tensor) for name, tensor in own.items())
    assert torch.equal(after["cls_token"], image["cls_token"])
    assert torch.equal(after["dist_token"], image["dist_token" if tokens == 2 else "cls_token"])
    assert torch.equal(after["new_pos_embed"], image["pos_embed"][:, [0, tokens - 1]])
    grid = image["pos_embed"][:, tokens:].mT.unflatten(2, (14, 14))
    grid = F.interpolate(grid, (model.config.rows, model.config.columns), mode="bicubic")
    torch.testing.assert_close(after["freq_new_pos_embed"], grid.mean(3, keepdim=True))
    torch.testing.assert_close(after["time_new_pos_embed"], grid.mean(2, keepdim=True))


def flax(image: dict[str, Tensor], *, heads: int) -> dict[str, np.ndarray]:
    """The same weights as Google's files have them, as the inverse of what is tested."""
    made: dict[str, np.ndarray] = {}
    for name, tensor in image.items():
        array, kind = tensor.numpy(), "kernel" if tensor.ndim == 2 else "scale"
        name = re.sub(r"^blocks\.(\d+)\.", r"Transformer/encoderblock_\1/", name)
        name = name.replace("norm1", "LayerNorm_0").replace("norm2", "LayerNorm_2")
        name = re.sub(r"^norm\.", "Transformer/encoder_norm.", name)
        name = name.replace("mlp.fc1", "MlpBlock_3/Dense_0").replace("mlp.fc2", "MlpBlock_3/Dense_1")
        if name == "patch_embed.proj.weight":
            made["embedding/kernel"] = array.transpose(2, 3, 1, 0)
        elif name == "patch_embed.proj.bias":
            made["embedding/bias"] = array
        elif name == "cls_token":
            made["cls"] = array
        elif name == "pos_embed":
            made["Transformer/posembed_input/pos_embedding"] = array
        elif "attn.qkv" in name:
            prefix = name.partition("attn.")[0] + "MultiHeadDotProductAttention_1/"
            for part, third in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                split = third.T.reshape(-1, heads, third.shape[0] // heads) if array.ndim == 2 else third
                ending = "kernel" if array.ndim == 2 else "bias"
                made[f"{prefix}{part}/{ending}"] = split if array.ndim == 2 else split.reshape(heads, -1)
        elif "attn.proj" in name:
            prefix = name.partition("attn.")[0] + "MultiHeadDotProductAttention_1/out/"
            made[prefix + ("kernel" if array.ndim == 2 else "bias")] = (
                array.T.reshape(heads, -1, array.shape[0]) if array.ndim == 2 else array
            )
        elif name.endswith("weight"):
            made[name.replace(".weight", f"/{kind}")] = array.T if array.ndim == 2 else array
        else:
            made[name.replace(".bias", "/bias")] = array
    return made


def test_googles_arrays_are_the_same_transformer(tmp_path: Path) -> None:
    image = vit(tokens=1)
    np.savez(tmp_path / "B_16.npz", **flax(image, heads=2))
    found = from_flax(read_checkpoint(tmp_path / "B_16.npz"))
    assert found.keys() == image.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in image.items())
    model = create_model("passt_tiny_s16", num_classes=5, **PASST)
    load_checkpoint(model, tmp_path / "B_16.npz")
    assert torch.equal(model.state_dict()["blocks.1.attn.qkv.weight"], image["blocks.1.attn.qkv.weight"])


def test_a_transformer_with_a_tensor_less_or_another_patch_is_refused(tmp_path: Path) -> None:
    whole = vit(tokens=2)
    model = create_model("passt_tiny_s16", num_classes=5, **PASST)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for changed, said in (
        ({name: t for name, t in whole.items() if name != "blocks.1.norm2.bias"}, "1 missing (blocks.1.norm2.bias"),
        (whole | {"patch_embed.proj.weight": torch.ones(32, 3, 32, 32)}, "(32, 1, 32, 32), wanted (32, 1, 16, 16)"),
        (whole | {"pos_embed": torch.ones(1, 2 + 195, 32)}, "pos_embed has 197 positions; two class tokens and"),
        (whole | {"pos_embed": torch.ones(198, 32)}, "unexpected (pos_embed (198, 32))"),
        (whole | {"blocks.0.ls1.gamma": torch.ones(32)}, "1 unexpected (blocks.0.ls1.gamma (32,))"),
    ):
        save_weights(tmp_path / "w.safetensors", changed)
        with pytest.raises(WeightsRefused, match=re.escape(said)):
            load_checkpoint(model, tmp_path / "w.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_one_class_token_serves_as_both() -> None:
    two = vit_weights(vit(tokens=1))
    assert two["pos_embed"].shape == (1, 198, 32) and torch.equal(two["pos_embed"][:, 0], two["pos_embed"][:, 1])


# --- pyramids ---------------------------------------------------------------------------------------------------------


def dat(*, window: int = 7, side: int = 56, spec: tuple[str, ...] = ("LS", "LS", "LD", "LD")) -> dict[str, Tensor]:
    """The names and shapes of the released DAT, with its buffers."""
    dims, heads, groups = DATAR["dims"], DATAR["num_heads"], DATAR["num_groups"]
    shapes = pair("patch_proj.0", dims[0], 3, 4, 4) | pair("patch_proj.1.norm", dims[0])
    shapes |= pair("cls_norm.norm", dims[-1]) | pair("cls_head", 1000, dims[-1])
    for stage, kinds in enumerate(spec):
        dim, size, kernel = dims[stage], side // 2**stage, (9, 7, 5, 3)[stage]
        if stage:
            shapes |= {f"down_projs.{stage - 1}.0.weight": (dim, dims[stage - 1], 2, 2)}
            shapes |= pair(f"down_projs.{stage - 1}.1.norm", dim)
        for block, kind in enumerate(kinds):
            mlp, attn = f"stages.{stage}.mlps.{block}.chunk", f"stages.{stage}.attns.{block}"
            shapes |= pair(f"{mlp}.linear1", 4 * dim, dim) | pair(f"{mlp}.linear2", dim, 4 * dim)
            shapes |= pair(f"stages.{stage}.layer_norms.{2 * block}.norm", dim)
            shapes |= pair(f"stages.{stage}.layer_norms.{2 * block + 1}.norm", dim)
            if kind == "D":
                for part in "qkv":
                    shapes |= pair(f"{attn}.proj_{part}", dim, dim, 1, 1)
                width = dim // groups[stage]
                shapes |= pair(f"{attn}.proj_out", dim, dim, 1, 1) | pair(f"{attn}.conv_offset.1.norm", width)
                shapes |= pair(f"{attn}.conv_offset.0", width, 1, kernel, kernel)
                shapes |= {f"{attn}.conv_offset.3.weight": (2, width, 1, 1)}
                shapes |= {f"{attn}.rpe_table": (heads[stage], 2 * size - 1, 2 * size - 1)}
            else:
                shapes |= pair(f"{attn}.proj_qkv", 3 * dim, dim) | pair(f"{attn}.proj_out", dim, dim)
                shapes |= {f"{attn}.relative_position_bias_table": ((2 * window - 1) ** 2, heads[stage])}
                shapes |= {f"{attn}.relative_position_index": (window**2, window**2)}
                shapes |= {f"{attn}.attn_mask": (4, window**2, window**2)} if kind == "S" else {}
    return draw(shapes)


def swin(*, timm: bool, window: int = 7) -> dict[str, Tensor]:
    """The names and shapes of Swin, as released or of timm, which counts a merge to the stage after it."""
    dims, heads = DATAR["dims"], DATAR["num_heads"]
    shapes = pair("patch_embed.proj", dims[0], 3, 4, 4) | pair("patch_embed.norm", dims[0]) | pair("norm", dims[-1])
    shapes |= pair("head.fc" if timm else "head", 1000, dims[-1])
    for stage, dim in enumerate(dims):
        if stage:
            merge = f"layers.{stage if timm else stage - 1}.downsample"
            shapes |= {f"{merge}.reduction.weight": (dim, 2 * dim)} | pair(f"{merge}.norm", 2 * dim)
        for block in range(2):
            name = f"layers.{stage}.blocks.{block}"
            shapes |= pair(f"{name}.norm1", dim) | pair(f"{name}.norm2", dim)
            shapes |= pair(f"{name}.attn.qkv", 3 * dim, dim) | pair(f"{name}.attn.proj", dim, dim)
            shapes |= pair(f"{name}.mlp.fc1", 4 * dim, dim) | pair(f"{name}.mlp.fc2", dim, 4 * dim)
            shapes |= {f"{name}.attn.relative_position_bias_table": ((2 * window - 1) ** 2, heads[stage])}
            if not timm:
                shapes |= {f"{name}.attn.relative_position_index": (window**2, window**2)}
    return draw(shapes)


def pyramid(**options: Any) -> Datar:
    torch.manual_seed(1)
    model = create_model("datar_nano", num_classes=5, **{**DATAR, **options})
    assert isinstance(model, Datar)
    return model


def test_dat_starts_a_datar_of_the_same_kinds(tmp_path: Path) -> None:
    model, image = pyramid(), dat()
    head = model.head.weight.clone()
    said = started(model, image, tmp_path)
    assert said.endswith("weights of DAT, a network of images. New: head; not used: head.")
    after, kernel = model.state_dict(), image["patch_proj.0.weight"].sum(1)
    assert torch.equal(after["head.weight"], head)
    assert torch.equal(after["stages.0.merge.proj.weight"], kernel.flatten(1))
    window, deformed = "stages.2.blocks.0", "stages.2.blocks.1"
    assert torch.equal(after[f"{window}.attn.qkv.weight"], image["stages.2.attns.0.proj_qkv.weight"])
    assert torch.equal(after[f"{window}.norm2.bias"], image["stages.2.layer_norms.1.norm.bias"])
    assert torch.equal(after[f"{deformed}.norm1.weight"], image["stages.2.layer_norms.2.norm.weight"])
    kv = torch.cat([image[f"stages.2.attns.1.proj_{part}.weight"][..., 0, 0] for part in "kv"])
    assert torch.equal(after[f"{deformed}.attn.kv_proj.weight"], kv)
    assert torch.equal(after[f"{deformed}.attn.q_proj.bias"], image["stages.2.attns.1.proj_q.bias"])
    offset = f"{deformed}.attn.offset"
    assert torch.equal(after[f"{offset}.depthwise.weight"], image["stages.2.attns.1.conv_offset.0.weight"])
    assert torch.equal(after[f"{offset}.pointwise.weight"], image["stages.2.attns.1.conv_offset.3.weight"][..., 0, 0])
    table = image["stages.2.attns.1.rpe_table"]
    assert after[f"{deformed}.attn.relative_position_bias_table"].shape == (4, 15, 31)
    torch.testing.assert_close(
        after[f"{deformed}.attn.relative_position_bias_table"],
        F.interpolate(table[None], (15, 31), mode="bicubic")[0],
    )


def test_a_merge_by_dats_kernel_is_its_convolution(tmp_path: Path) -> None:
    model, image = pyramid(), dat()
    started(model, image, tmp_path)
    stem, x = model.stages[0].merge, torch.randn(1, 32, 64)
    assert isinstance(stem, Merge)
    wanted = F.conv2d(x[:, None].expand(-1, 3, -1, -1), image["patch_proj.0.weight"], image["patch_proj.0.bias"], 4)
    torch.testing.assert_close(stem.proj(squares(x[..., None], 4)), wanted.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    second, x = model.stages[1].merge, torch.randn(1, 8, 16, 16)
    wanted = F.conv2d(x.permute(0, 3, 1, 2), image["down_projs.0.0.weight"], stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(second.proj(squares(x, 2)), wanted, rtol=1e-4, atol=1e-4)


def squares(x: Tensor, side: int) -> Tensor:
    parts = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
    return parts.flatten(3)


@pytest.mark.parametrize("timm", [False, True])
def test_swins_merge_takes_its_four_places_in_their_order(tmp_path: Path, timm: bool) -> None:
    model, image = pyramid(), swin(timm=timm)
    said = started(model, image, tmp_path)
    name = "layers.1.downsample" if timm else "layers.0.downsample"
    x = torch.randn(1, 8, 16, 16)
    places = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
    wanted = (places * image[f"{name}.norm.weight"]) @ image[f"{name}.reduction.weight"].T
    torch.testing.assert_close(model.stages[1].merge.proj(squares(x, 2)), wanted, rtol=1e-4, atol=1e-3)
    assert f"{name}.norm" in said.partition("not used")[2] and "stages.1.merge.norm" in said.partition("not used")[0]


def test_swin_gives_a_deformable_block_what_both_have_and_lists_the_rest(tmp_path: Path) -> None:
    model, image = pyramid(), swin(timm=True)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new, _, unused = started(model, image, tmp_path).partition("not used")
    after, deformed = model.state_dict(), "stages.3.blocks.1"
    assert torch.equal(after[f"{deformed}.attn.q_proj.weight"], image["layers.3.blocks.1.attn.qkv.weight"][:128])
    assert torch.equal(after[f"{deformed}.attn.kv_proj.bias"], image["layers.3.blocks.1.attn.qkv.bias"][128:])
    assert torch.equal(after[f"{deformed}.attn.out_proj.weight"], image["layers.3.blocks.1.attn.proj.weight"])
    for part in ("attn.offset.pointwise.weight", "attn.relative_position_bias_table"):
        assert torch.equal(after[f"{deformed}.{part}"], own[f"{deformed}.{part}"])
        assert f"{deformed}.{part.removesuffix('.weight')}" in new
    assert "stages.3.blocks.1.attn.relative_position_bias_table" in unused
    shifted = "stages.1.blocks.1.attn.relative_position_bias_table"
    assert shifted not in new + unused and not torch.equal(after[shifted], own[shifted])


def test_a_deformable_start_of_a_pyramid_of_windows_keeps_the_products(tmp_path: Path) -> None:
    model, image = pyramid(deform=(False,) * 4), dat()
    new, _, unused = started(model, image, tmp_path).partition("not used")
    qkv = torch.cat([image[f"stages.2.attns.1.proj_{part}.weight"][..., 0, 0] for part in "qkv"])
    assert torch.equal(model.state_dict()["stages.2.blocks.1.attn.qkv.weight"], qkv)
    assert "stages.2.blocks.1.attn.relative_position_bias_table" in new
    assert "stages.2.blocks.1.attn.offset.depthwise" in unused


@pytest.mark.parametrize("options", [{"offsets": "none"}, {"position_bias": False}, {"hop_features": True}])
def test_options_of_sound_are_new_or_not_used(tmp_path: Path, options: dict[str, Any]) -> None:
    said = started(pyramid(**options), dat(), tmp_path)
    wanted = {
        "offsets": "not used: head, stages.2.blocks.1.attn.offset",
        "position_bias": "rpe",
        "hop_features": "lateral",
    }
    assert wanted[next(iter(options))].replace("rpe", "attn.relative_position_bias_table") in said


def test_windows_look_the_way_they_did_in_the_image() -> None:
    """One block, with its table read by differences of places as the published code reads it."""
    torch.manual_seed(0)
    dim, heads, w = 8, 2, 4
    table, qkv, proj = torch.randn((2 * w - 1) ** 2, heads), torch.randn(3 * dim, dim), torch.randn(dim, dim)
    block = WindowAttention(dim, heads, window=(w, w), shift=False).eval()
    state = {"qkv.weight": qkv, "qkv.bias": torch.zeros(3 * dim), "proj.weight": proj, "proj.bias": torch.zeros(dim)}
    block.load_state_dict(state | {"relative_position_bias_table": table.T.unflatten(1, (2 * w - 1, 2 * w - 1))})
    x = torch.randn(1, w, w, dim)
    q, k, v = (x.flatten(0, 2) @ qkv.T).unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
    place = torch.cartesian_prod(torch.arange(w), torch.arange(w))
    apart = place[:, None] - place[None] + w - 1  # query, key
    bias = table[apart[..., 0] * (2 * w - 1) + apart[..., 1]].permute(2, 0, 1)
    weights = (q @ k.mT / math.sqrt(dim // heads) + bias).softmax(-1)
    wanted = (weights @ v).transpose(0, 1).flatten(1) @ proj.T
    with torch.inference_mode():
        torch.testing.assert_close(block(x).flatten(0, 2), wanted, rtol=1e-4, atol=1e-4)


def test_tables_keep_their_middle_when_they_are_resized() -> None:
    y, x = (torch.arange(13.0) - 6), (torch.arange(13.0) - 6)
    table = (-(y[:, None] ** 2) - x**2)[None]
    fitted = resized(table, torch.Size([7, 15]))
    assert fitted.shape == (1, 7, 15) and int(fitted.argmax()) == 3 * 15 + 7
    assert resized(table, torch.Size([13, 13])) is table


def test_damaged_pyramids_are_refused(tmp_path: Path) -> None:
    model = pyramid()
    for whole, name in (
        (dat(), "stages.2.attns.1.proj_k.weight"),
        (dat(), "stages.1.attns.0.relative_position_bias_table"),
        (dat(), "down_projs.1.0.weight"),
        (swin(timm=False), "layers.2.downsample.reduction.weight"),
        (swin(timm=True), "layers.3.blocks.1.attn.qkv.weight"),
    ):
        for changed in (
            {key: tensor for key, tensor in whole.items() if key != name},
            whole | {name: torch.cat([whole[name]] * 2)},
            whole | {name: whole[name].flatten()},
            whole | {name: torch.ones(())},
            whole | {"extra": torch.ones(3)},
        ):
            save_weights(tmp_path / "w.safetensors", changed)
            with pytest.raises(WeightsRefused, match=r"w\.safetensors: "):
                load_checkpoint(model, tmp_path / "w.safetensors")


def test_the_successor_of_dat_is_another_network(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", dat() | {"patch_proj.0.weight": torch.ones(8, 3, 3, 3)})
    with pytest.raises(WeightsRefused, match=r"w\.safetensors: these are weights of DAT\+\+"):
        load_checkpoint(pyramid(), tmp_path / "w.safetensors")


def test_nothing_is_new_without_being_told() -> None:
    own = pyramid(adaptor="feature").state_dict()
    fitted, told = pyramid_weights(dat(), own=own)
    assert fitted.keys() == own.keys() and "stages.2.blocks.1.adaptor.theta" in told[0]
