"""Other people's checkpoints into our networks; the only file that opens a pickle, and only without running code.

What arrives in the wild: a flat state dict, or one inside {"model": ...} or {"state_dict": ...}; beside it the average
of its weights, by names of its own: `net.` and `net_swa.` in front (the published training code), `model.` and
`model_ema.`, or {"model": ..., "model_ema": ...} (timm, DeiT); `module.` (data parallel) or `_orig_mod.`
(torch.compile) anywhere; the image transformer DeiT, whose position table and color kernel are adapted as
the paper does (section 3.2 of arXiv 2110.05069, and models/passt.py of github.com/kkoutini/PaSST).
"""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ossicle.errors import WeightsRefused
from ossicle.models.datar import Datar, stretch
from ossicle.models.deformable import fit_table
from ossicle.models.passt import Passt, PasstConfig
from ossicle.weights.tensors import load_weights

MAX_BYTES = 8 * 2**30  # unpacked
STRIDES = (10, 12, 14, 16, 20)
LENGTHS = (998, 2000, 3000, 3200)  # frames that published networks were declared with
HEAD_DIM = 64


# Where trained weights lie, and where their average does: entries of a file, and what names begin with.
ENTRIES = {
    "state_dict": ("state_dict_ema", "ema_state_dict", "model_ema", "ema"),
    "model": ("model_ema", "ema_model", "ema"),
}
PREFIXES = {"net": ("net_swa", "net_ema"), "model": ("model_ema", "ema_model", "swa_model")}


def read_checkpoint(
    path: str | Path, *, average: bool | None = None, told: Callable[[str], None] = lambda sentence: None
) -> dict[str, Tensor]:
    """Reads the tensors of a published checkpoint (.pt, .pth, .ckpt, .safetensors), with plain names.

    Args:
        average: of a file that holds a trained network and the average of its weights, the average, which is what its
            authors evaluate, or the trained one; None is the average, if it is one of the same network
        told: which was taken, in a sentence

    Raises:
        WeightsRefused: no such file, damaged, larger than 8 GB unpacked, in need of code to load, without tensors,
            without an average that is asked for, or with one that has not the shapes of what was trained.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return plain_names(load_weights(path), source=path, average=average, told=told)
    if not path.is_file():
        raise WeightsRefused(
            f"{path}: there is no such file; a checkpoint is one .pt, .pth, .ckpt or .safetensors file"
        )
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_BYTES:
                raise WeightsRefused(
                    f"{path}: unpacks to {size / 2**30:.1f} GB; {MAX_BYTES / 2**30:.0f} GB are allowed"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the file; it loads or it is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsRefused:
        raise
    # What an unpickler raises over damaged bytes has no common root below Exception.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsRefused(f"{path}: no checkpoint that loads without running code ({reason})") from error
    tensors = plain_names(unwrap(content), source=path, average=average, told=told)
    if not tensors:
        raise WeightsRefused(f"{path}: holds no tensors by name; a state dict is needed")
    return tensors


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by name in what a checkpoint file holds, bare or inside `model` or `state_dict`.

    Where an average lies in an entry beside them, its names get `model_ema.` in front, and theirs `model.`.
    """
    for key in ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = [name for name in ENTRIES[key] if isinstance(content.get(name), Mapping)]
            if beside:
                content = {
                    **{f"model.{name}": value for name, value in content[key].items()},
                    **{f"model_ema.{name}": value for name, value in content[beside[0]].items()},
                }
            else:
                content = content[key]
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def plain_names(
    tensors: Mapping[str, Tensor],
    *,
    source: str | Path,
    average: bool | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers; where networks have prefixes, what belongs to none is left out.

    For `average` and `told` see `read_checkpoint`.
    """
    bare = {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in tensors.items()}
    found = {prefix: below(bare, prefix) for pair in PREFIXES.items() for prefix in (pair[0], *pair[1])}
    found = {prefix: inside for prefix, inside in found.items() if inside}
    means = [prefix for prefix in found if prefix not in PREFIXES]
    if average and not means:
        raise WeightsRefused(f"{source}: it holds no average of its weights; leave out weights_average=true")
    if not found:
        return bare
    trained = next((prefix for prefix in PREFIXES if prefix in found), None)
    if average is False and trained is None:
        raise WeightsRefused(f"{source}: it holds {means[0]} alone; leave out weights_average=false")
    if trained is None or not means:
        return found[trained or means[0]]
    mean = means[0]
    if average is None and shapes(found[mean]) != shapes(found[trained]):
        raise WeightsRefused(
            f"{source}: it holds {trained} and {mean}, which are not of one network; choose {mean} by "
            f"weights_average=true, or {trained} by weights_average=false"
        )
    chosen, other = (trained, mean) if average is False else (mean, trained)
    told(f"{source}: it holds {trained} and its average {mean}; {chosen} was taken, not {other}.")
    return found[chosen]


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What lies behind a prefix; how many weights an average is of, as torch counts it, is none of them."""
    inside = (
        (name.removeprefix(prefix + ".").removeprefix("module."), tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix + ".")
    )
    return {name: tensor for name, tensor in inside if name != "n_averaged"}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor, by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def infer_config(tensors: Mapping[str, Tensor], *, num_heads: int | None = None) -> PasstConfig:
    """Reads width, depth, stride, length and labels from the shapes of a PaSST checkpoint.

    Args:
        num_heads: no shape tells it; by default heads of 64, as in every published network.

    Raises:
        WeightsRefused: no tensors of a PaSST, or tables that no stride gives.
    """
    try:
        rows = tensors["freq_new_pos_embed"].shape[2]
        columns = tensors["time_new_pos_embed"].shape[3]
        dim = tensors["cls_token"].shape[2]
        num_classes = tensors["head.1.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise WeightsRefused(f"these are not the tensors of a PaSST: {error} is missing or of another rank") from error
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    for stride in STRIDES:
        for frames in (*LENGTHS, columns * stride):
            config = PasstConfig(
                num_classes=num_classes,
                dim=dim,
                num_heads=num_heads or max(1, dim // HEAD_DIM),
                depth=depth,
                stride=stride,
                frames=max(frames, 16),
            )
            if (config.rows, config.columns) == (rows, columns):
                return config
    raise WeightsRefused(
        f"no stride of {', '.join(map(str, STRIDES))} gives {rows} x {columns} positions (frequency x time)"
    )


def adapt(tensors: Mapping[str, Tensor], model: Passt | Datar, *, source: str | Path) -> dict[str, Tensor]:
    """What `load_into` needs to start `model` from a checkpoint: for a PaSST of a PaSST or of DeiT, else of its kind.

    A head for other labels gives way to the new one of `model`. For a PaSST a color kernel becomes a mono one and an
    image's positions become ours; for a DATAR, tables made for another length are cut or continued by their border, and
    learned signals stretched. Everything else passes as it is, and `load_into` refuses it if it does not fit.

    Raises:
        WeightsRefused: an image position table that is no square.
    """
    if isinstance(model, Datar):
        return adapt_pyramid(tensors, model)
    adapted = dict(tensors)
    kernel = adapted.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
        adapted["patch_embed.proj.weight"] = mono_kernel(kernel)
    if "pos_embed" in adapted:
        grid = (model.config.rows, model.config.columns)
        adapted |= positions_from_image(adapted.pop("pos_embed"), grid=grid, source=source)
    own = model.state_dict()
    head = adapted.get("head.1.weight")
    if head is None or head.shape != own["head.1.weight"].shape:
        new = ("head.1.", "head_dist.") if "head.0.weight" in adapted else ("head.", "head_dist.")
        adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith(new)}
        adapted |= {name: tensor.clone() for name, tensor in own.items() if name.startswith(new)}
    return adapted


def adapt_pyramid(tensors: Mapping[str, Tensor], model: Datar) -> dict[str, Tensor]:
    """The tensors of a DATAR for one of another length or with other labels."""
    adapted = dict(tensors)
    for name, own in model.state_dict().items():
        given = adapted.get(name)
        if given is None or given.shape == own.shape or given.ndim != own.ndim:
            continue
        if name.startswith("head."):
            adapted[name] = own.clone()
        elif given.shape[:2] + given.shape[3:] != own.shape[:2] + own.shape[3:]:
            continue  # another length differs along time alone
        elif name.endswith("relative_position_bias_table"):
            adapted[name] = fit_table(given, (own.shape[1] + 1) // 2, (own.shape[2] + 1) // 2)
        elif name.endswith("theta"):
            adapted[name] = stretch(given, own.shape[2])
    return adapted


def mono_kernel(kernel: Float[Tensor, "dim 3 height width"]) -> Float[Tensor, "dim 1 height width"]:
    """A color patch kernel for spectrograms: the sum over colors, which is what a gray image would have met."""
    return kernel.sum(dim=1, keepdim=True)


def positions_from_image(
    pos_embed: Float[Tensor, "1 token dim"], *, grid: tuple[int, int], source: str | Path = "the checkpoint"
) -> dict[str, Tensor]:
    """Splits an image's position table (two class tokens, then a square) into ours for time and for frequency.

    The square is stretched bicubically to (rows, columns); each of our tables is its mean over the other axis.
    """
    tokens, patches = pos_embed[:, :2], pos_embed[:, 2:]
    side = round(patches.shape[1] ** 0.5)
    if side < 1 or side**2 != patches.shape[1]:
        raise WeightsRefused(
            f"{source}: pos_embed has {pos_embed.shape[1]} positions; two class tokens and a square are needed"
        )
    square = patches.mT.unflatten(2, (side, side))  # (1, dim, row, column)
    stretched = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return {
        "new_pos_embed": tokens.clone(),
        "freq_new_pos_embed": stretched.mean(dim=3, keepdim=True),
        "time_new_pos_embed": stretched.mean(dim=2, keepdim=True),
    }
