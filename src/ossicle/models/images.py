"""Weights of image networks as a start for networks of sounds: names, orders of axes, tables of positions.

- ViT: DeiT with its two class tokens (Touvron et al., arXiv 2012.12877) and AugReg ViT with one (Steiner et al., arXiv
  2106.10270), under the names of timm or in Google's .npz files.
- DAT (Xia et al., CVPR 2022), as released by its authors.
- Swin (Liu et al., arXiv 2103.14030), as released by its authors or by timm.

Color kernels become mono by the sum over colors, as for a gray image. Bias tables are resized bicubically, as DAT and
Swin do for other sizes of images.
"""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ossicle.errors import WeightsRefused


def mono_kernel(kernel: Float[Tensor, "dim 3 height width"]) -> Float[Tensor, "dim 1 height width"]:
    """A color patch kernel for spectrograms: the sum over colors, as for a gray image."""
    return kernel.sum(dim=1, keepdim=True)


# --- ViT --------------------------------------------------------------------------------------------------------------

FLAX = "Transformer/posembed_input/pos_embedding"
FLAX_NAMES = (
    (r"^cls$", "cls_token"),
    (r"^embedding/", "patch_embed.proj/"),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^Transformer/encoder_norm/", "norm/"),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"LayerNorm_0/", "norm1/"),
    (r"LayerNorm_2/", "norm2/"),
    (r"MlpBlock_3/Dense_0/", "mlp.fc1/"),
    (r"MlpBlock_3/Dense_1/", "mlp.fc2/"),
    (r"MultiHeadDotProductAttention_1/out/", "attn.proj/"),
    (r"MultiHeadDotProductAttention_1/", "attn."),
    (r"/(kernel|scale)$", ".weight"),
    (r"/bias$", ".bias"),
)


def vit_kind(tensors: Mapping[str, Tensor]) -> str | None:
    """Which image transformer of plain blocks these are the weights of."""
    if FLAX in tensors:
        return "ViT"
    if not {"pos_embed", "patch_embed.proj.weight"} <= tensors.keys() or of_sound(tensors):
        return None
    return "DeiT" if "dist_token" in tensors else "ViT"


def of_sound(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the head has a norm, as in PaSST and AST."""
    return any(name.startswith(("head.0.", "head.1.")) for name in tensors)


def vit_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an image transformer by timm's names, with two class tokens and without its heads.

    The only class token of a ViT serves as both: the mean of the two outputs is then near its own.
    """
    named = from_flax(tensors) if FLAX in tensors else dict(tensors)
    named = {name: t for name, t in named.items() if not re.match(r"(head|head_dist|pre_logits)\.", name)}
    if "dist_token" not in named and "cls_token" in named and named["pos_embed"].ndim == 3:
        named["dist_token"] = named["cls_token"]
        named["pos_embed"] = torch.cat([named["pos_embed"][:, :1], named["pos_embed"]], dim=1)
    return named


def from_flax(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one of Google's files by timm's names, matrices as (out, in)."""
    named = {}
    for name, tensor in tensors.items():
        for theirs, ours in FLAX_NAMES:
            name = re.sub(theirs, ours, name)
        if name == "patch_embed.proj.weight" and tensor.ndim == 4:
            tensor = tensor.permute(3, 2, 0, 1)  # from (row, column, color, dim)
        elif re.search(r"attn\.(query|key|value)\.weight", name) and tensor.ndim == 3:
            tensor = tensor.flatten(1).mT  # from (dim, head, part)
        elif name.endswith("attn.proj.weight") and tensor.ndim == 3:
            tensor = tensor.flatten(0, 1).mT  # from (head, part, dim)
        elif name.endswith(".weight") and tensor.ndim == 2:
            tensor = tensor.mT
        elif re.search(r"attn\.(query|key|value)\.bias", name):
            tensor = tensor.flatten()
        named[name] = tensor
    return join_parts(named)


def join_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with query, key and value of a block, if of equal shapes, as one."""
    joined = dict(tensors)
    for name in [name for name in tensors if ".attn.query." in name]:
        names = [name.replace("query", part) for part in ("query", "key", "value")]
        shapes = {tensors[part].shape if part in tensors else None for part in names}
        if len(shapes) == 1 and tensors[name].ndim:
            joined[name.replace("query", "qkv")] = torch.cat([joined.pop(part) for part in names])
    return joined


# --- pyramids ---------------------------------------------------------------------------------------------------------

DAT_STEM = "patch_proj.0.weight"
DAT_NAMES = (
    (r"^patch_proj\.0\.", "stages.0.merge.proj."),
    (r"^patch_proj\.1\.norm\.", "stages.0.merge.norm."),
    (r"^cls_norm\.norm\.", "norm."),
    (r"^cls_head\.", "head."),
    (r"^stages\.(\d+)\.attns\.(\d+)\.", r"stages.\1.blocks.\2.attn."),
    (r"^stages\.(\d+)\.mlps\.(\d+)\.chunk\.linear([12])\.", r"stages.\1.blocks.\2.mlp.fc\3."),
    (r"\.attn\.proj_qkv\.", ".attn.qkv."),
    (r"\.attn\.proj_q\.", ".attn.query."),
    (r"\.attn\.proj_k\.", ".attn.key."),
    (r"\.attn\.proj_v\.", ".attn.value."),
    (r"\.attn\.proj_out\.", ".attn.proj."),
    (r"\.attn\.conv_offset\.0\.", ".attn.offset.depthwise."),
    (r"\.attn\.conv_offset\.1\.norm\.", ".attn.offset.norm."),
    (r"\.attn\.conv_offset\.3\.", ".attn.offset.pointwise."),
    (r"\.attn\.rpe_table$", ".attn.relative_position_bias_table"),
)
SWIN_TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
SWIN_NAMES = (
    (r"^patch_embed\.", "stages.0.merge."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"^head\.fc\.", "head."),
)
BUFFERS = r"(relative_position_index|attn_mask)$"
OF_KIND = r"\.attn\.(offset\.|relative_position_bias_table$)"  # what blocks of another kind cannot use
OF_SOUND = r"^(head|lateral|spectrogram_adaptor|position_table)\.|\.adaptor\."  # what no image network has


def pyramid_kind(tensors: Mapping[str, Tensor]) -> str | None:
    """Which image pyramid these are the weights of."""
    if DAT_STEM in tensors:
        return "DAT"
    return "Swin" if SWIN_TABLE in tensors else None


def pyramid_weights(tensors: Mapping[str, Tensor], *, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of DAT or Swin for a pyramid of sounds; and clauses about what is new and what is not used.

    Blocks of one kind match: windows to windows, deformable to deformable. Of a block of another kind everything is
    used but its table of positions and its offset network.

    Args:
        own: the state of the network, from which new tensors are taken

    Raises:
        WeightsRefused: DAT++, whose stem and blocks are others
    """
    named, unused = from_dat(tensors) if DAT_STEM in tensors else from_swin(tensors)
    deformable = {block_of(name) for name in own if ".attn.q_proj." in name}
    other = {block_of(name) for name in named if ".attn.offset." in name} ^ deformable
    fitted = {}
    for name, tensor in join_parts(named).items():
        if re.search(OF_KIND, name) and (block_of(name) in other or name not in own) or name.startswith("head."):
            unused.append(name)
        elif block_of(name) not in deformable or ".attn." not in name or re.search(OF_KIND, name):
            fitted[name] = tensor
        elif ".attn.qkv." in name and tensor.ndim:
            fitted[name.replace("qkv", "q_proj")] = tensor[: len(tensor) // 3]
            fitted[name.replace("qkv", "kv_proj")] = tensor[len(tensor) // 3 :]
        else:
            fitted[name.replace(".attn.proj.", ".attn.out_proj.")] = tensor
    for name, table in fitted.items():
        if name.endswith("bias_table") and name in own and table.ndim == 3 and table.is_floating_point():
            fitted[name] = resized(table, own[name].shape[1:])
    after = {f"stages.{number}.merge.norm.{part}" for number in (1, 2, 3) for part in ("weight", "bias")}
    expected = after if DAT_STEM not in tensors else set()  # Swin has its norms before the merge
    new = [
        name
        for name in own.keys() - fitted.keys()
        if name in expected or re.search(OF_SOUND, name) or re.search(OF_KIND, name) and block_of(name) in other
    ]
    told = [f"{what}: {', '.join(short_names(names))}" for what, names in (("new", new), ("not used", unused)) if names]
    return fitted | {name: own[name].clone() for name in new}, told


def block_of(name: str) -> str:
    """The block of a tensor, such as `stages.2.blocks.1`."""
    return ".".join(name.split(".")[:4])


def short_names(names: list[str]) -> list[str]:
    """The modules of tensors, each once."""
    return sorted({re.sub(r"\.(weight|bias)$", "", name) for name in names})


def from_dat(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of DAT by our names, with `query`, `key` and `value`; and the names of those that are not used."""
    if tensors[DAT_STEM].shape[2:] != (4, 4):
        raise WeightsRefused("these are weights of DAT++, with another stem and other blocks; expected DAT of 2022")
    named = {}
    for name, tensor in tensors.items():
        if re.search(BUFFERS, name):
            continue
        norm = re.fullmatch(r"stages\.(\d+)\.layer_norms\.(\d+)\.norm\.(weight|bias)", name)
        merge = re.fullmatch(r"down_projs\.(\d+)\.(0|1\.norm)\.(weight|bias)", name)
        if norm:
            name = f"stages.{norm[1]}.blocks.{int(norm[2]) // 2}.norm{1 + int(norm[2]) % 2}.{norm[3]}"
        elif merge:
            name = f"stages.{int(merge[1]) + 1}.merge.{'proj' if merge[2] == '0' else 'norm'}.{merge[3]}"
        else:
            for theirs, ours in DAT_NAMES:
                name = re.sub(theirs, ours, name)
        if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and not name.endswith("depthwise.weight"):
            tensor = tensor.flatten(1)
        named[name] = fitted_shape(name, tensor)
    return named, []


def from_swin(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of Swin by our names; and the names of those that are not used.

    Swin normalizes before it merges and we do after: the norm's gain goes into the merge, its bias is not used.
    """
    own_stage = 0 if "layers.0.downsample.reduction.weight" not in tensors else 1  # timm counts a merge to the next
    named, unused = {}, []
    for name, tensor in tensors.items():
        merge = re.fullmatch(r"layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)", name)
        if re.search(BUFFERS, name) or merge and merge[2] == "norm.weight":
            continue
        if merge and merge[2] == "norm.bias":
            unused.append(name)
        elif merge:
            gain = tensors.get(name.replace("reduction", "norm"))
            weight = tensor if gain is None or gain.shape != tensor.shape[1:] else tensor * gain
            # Swin takes the four places column by column, we row by row.
            if weight.ndim == 2 and weight.shape[1] % 4 == 0:
                weight = weight.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)
            named[f"stages.{int(merge[1]) + own_stage}.merge.proj.weight"] = weight
        else:
            for theirs, ours in SWIN_NAMES:
                name = re.sub(theirs, ours, name)
            named[name] = fitted_shape(name, tensor)
    return named, unused


def fitted_shape(name: str, tensor: Tensor) -> Tensor:
    """Kernels of merges as matrices, of (row, column, channel); tables of windows as (head, y, x)."""
    if name.endswith("merge.proj.weight") and tensor.ndim == 4:
        kernel = mono_kernel(tensor) if tensor.shape[1] == 3 else tensor
        return kernel.permute(0, 2, 3, 1).flatten(1)
    if name.endswith("bias_table") and tensor.ndim == 2:
        side = round(len(tensor) ** 0.5)
        if side**2 == len(tensor):
            return tensor.mT.unflatten(1, (side, side))
    return tensor


def resized(table: Float[Tensor, "head y x"], size: torch.Size) -> Float[Tensor, "head fitted_y fitted_x"]:
    """A table of positions in another size."""
    return table if table.shape[1:] == size else F.interpolate(table[None], size, mode="bicubic")[0]
