"""The names and shapes of published files, and such files with random numbers.

Source: the published code of each: PaSST and DeiT (facebookresearch/deit models.py), timm's ViT, Swin
(microsoft/Swin-Transformer models/swin_transformer.py) and DAT as of 2022 (LeapLabTHU/DAT models/dat.py, configs).
"""

from collections.abc import Callable
from pathlib import Path

import torch

from ossicle.catalog import Checkpoint
from ossicle.models import create_model
from ossicle.weights.tensors import save_weights

Shapes = dict[str, tuple[int, ...]]
IMAGENET = 1000


def linear(name: str, inside: int, out: int) -> Shapes:
    return {f"{name}.weight": (out, inside), f"{name}.bias": (out,)}


def norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def vit(dim: int, *, image: int, tokens: int = 1, depth: int = 12) -> Shapes:
    """A ViT with patches of 16; with two class tokens a distilled DeiT."""
    shapes: Shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, tokens + (image // 16) ** 2, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 16, 16), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        block = f"blocks.{i}."
        shapes |= norm(block + "norm1", dim) | linear(block + "attn.qkv", dim, 3 * dim)
        shapes |= linear(block + "attn.proj", dim, dim) | norm(block + "norm2", dim)
        shapes |= linear(block + "mlp.fc1", dim, 4 * dim) | linear(block + "mlp.fc2", 4 * dim, dim)
    shapes |= norm("norm", dim) | linear("head", dim, IMAGENET)
    if tokens == 2:
        shapes |= {"dist_token": (1, 1, dim)} | linear("head_dist", dim, IMAGENET)
    return shapes


def swin(dim: int = 96, depths: tuple[int, ...] = (2, 2, 6, 2), heads: tuple[int, ...] = (3, 6, 12, 24)) -> Shapes:
    """Swin of windows of 7 on images of 224."""
    shapes: Shapes = {"patch_embed.proj.weight": (dim, 3, 4, 4), "patch_embed.proj.bias": (dim,)}
    shapes |= norm("patch_embed.norm", dim)
    for stage, depth in enumerate(depths):
        width, side = dim * 2**stage, 56 // 2**stage
        for i in range(depth):
            block = f"layers.{stage}.blocks.{i}."
            if i % 2 and side > 7:
                shapes[block + "attn_mask"] = ((side // 7) ** 2, 49, 49)
            shapes |= norm(block + "norm1", width)
            shapes[block + "attn.relative_position_bias_table"] = (13 * 13, heads[stage])
            shapes[block + "attn.relative_position_index"] = (49, 49)
            shapes |= linear(block + "attn.qkv", width, 3 * width) | linear(block + "attn.proj", width, width)
            shapes |= norm(block + "norm2", width)
            shapes |= linear(block + "mlp.fc1", width, 4 * width) | linear(block + "mlp.fc2", 4 * width, width)
        if stage < len(depths) - 1:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes |= norm(f"layers.{stage}.downsample.norm", 4 * width)
    return shapes | norm("norm", width) | linear("head", width, IMAGENET)


def dat(dim: int, depths: tuple[int, ...], heads: tuple[int, ...], groups: tuple[int, int]) -> Shapes:
    """DAT on images of 224: windows in the first two stages, then windows and deformable attention in turn."""
    shapes: Shapes = {"patch_proj.0.weight": (dim, 3, 4, 4), "patch_proj.0.bias": (dim,)} | norm(
        "patch_proj.1.norm", dim
    )
    for stage, depth in enumerate(depths):
        width, side = dim * 2**stage, 56 // 2**stage
        for i in range(depth):
            attn = f"stages.{stage}.attns.{i}."
            if stage >= 2 and i % 2:
                group = width // groups[stage - 2]
                kernel = {14: 5, 7: 3}[side]
                shapes |= {
                    attn + "conv_offset.0.weight": (group, 1, kernel, kernel),
                    attn + "conv_offset.0.bias": (group,),
                    **norm(attn + "conv_offset.1.norm", group),
                    attn + "conv_offset.3.weight": (2, group, 1, 1),
                    attn + "rpe_table": (heads[stage], 2 * side - 1, 2 * side - 1),
                }
                for name in ("proj_q", "proj_k", "proj_v", "proj_out"):
                    shapes |= {f"{attn}{name}.weight": (width, width, 1, 1), f"{attn}{name}.bias": (width,)}
            else:
                shapes |= linear(attn + "proj_qkv", width, 3 * width) | linear(attn + "proj_out", width, width)
                shapes[attn + "relative_position_bias_table"] = (13 * 13, heads[stage])
                shapes[attn + "relative_position_index"] = (49, 49)
                if i % 2:
                    shapes[attn + "attn_mask"] = ((side // 7) ** 2, 49, 49)
            mlp = f"stages.{stage}.mlps.{i}.chunk."
            shapes |= linear(mlp + "linear1", width, 4 * width) | linear(mlp + "linear2", 4 * width, width)
        for i in range(2 * depth):
            shapes |= norm(f"stages.{stage}.layer_norms.{i}.norm", width)
        if stage < len(depths) - 1:
            shapes[f"down_projs.{stage}.0.weight"] = (2 * width, width, 2, 2)
            shapes |= norm(f"down_projs.{stage}.1.norm", 2 * width)
    return shapes | norm("cls_norm.norm", width) | linear("cls_head", width, IMAGENET)


STARTS = {
    "passt_tiny_s16.deit_imagenet": vit(192, image=224, tokens=2),
    "passt_small_s16.deit_imagenet": vit(384, image=224, tokens=2),
    "passt_base_s10.deit_imagenet": vit(768, image=384, tokens=2),
    "passt_tiny_s16.augreg_imagenet": vit(192, image=384),
    "passt_small_s16.augreg_imagenet": vit(384, image=384),
    "passt_base_s10.augreg_imagenet": vit(768, image=384),
    "datar_tiny.dat_imagenet": dat(96, (2, 2, 6, 2), (3, 6, 12, 24), (3, 6)),
    "datar_small.dat_imagenet": dat(96, (2, 2, 18, 2), (3, 6, 12, 24), (3, 6)),
    "datar_base.dat_imagenet": dat(128, (2, 2, 18, 2), (4, 8, 16, 32), (4, 8)),
    "datar_tiny.swin_imagenet": swin(),
}


def shapes_of(row: Checkpoint) -> Shapes:
    """The names and shapes of a row's file; of a PaSST those of our own network, which has the published names."""
    if row.is_start:
        return STARTS[row.name]
    with torch.device("meta"):
        network = create_model(row.architecture, num_classes=len(row.labels))
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def write_published(
    row: Checkpoint,
    path: Path,
    *,
    shapes: Shapes | None = None,
    seed: int = 0,
    damage: Callable[[dict[str, torch.Tensor]], object] | None = None,
) -> Path:
    """A file in the layout of a row's, with random numbers; DeiT, DAT and Swin wrap it in `model`."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.zeros(shape, dtype=torch.int64)
        if name.endswith("_index")
        else 0.05 * torch.randn(shape, generator=generator)
        for name, shape in (shapes or shapes_of(row)).items()
    }
    if damage is not None:
        damage(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_weights(path, tensors)
    else:
        torch.save({"model": tensors} if row.is_start else tensors, path)
    return path
