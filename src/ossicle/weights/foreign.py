"""Other people's checkpoints into our networks; the only file that opens a pickle, and only without running code.

What arrives in the wild: a flat state dict, or one inside {"model": ...} or {"state_dict": ...}; beside it the average
of its weights, by names of its own: `net.` and `net_swa.` in front (the published training code), `model.` and
`model_ema.`, or {"model": ..., "model_ema": ...} (timm, DeiT); `module.` (data parallel) or `_orig_mod.`
(torch.compile) anywhere. What the names and shapes mean, `Network.adapted` of each family knows.
"""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.errors import WeightsRefused
from ossicle.models.base import Network
from ossicle.weights.tensors import load_into, load_weights

MAX_BYTES = 8 * 2**30  # unpacked

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


def load_checkpoint(
    model: Network,
    path: str | Path,
    *,
    average: bool | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Loads a published checkpoint into a network, as the network's family adapts it; see `read_checkpoint`.

    Example:
        model = create_model("passt_s_swa_p16_128_ap476", pretrained=False)
        load_checkpoint(model, "passt-s-f128-p16-s10-ap.476-swa.pt")

    Raises:
        WeightsRefused: what cannot be read or does not fit; the network is unchanged.
    """
    tensors = read_checkpoint(path, average=average, told=told)
    load_into(model, model.adapted(tensors, source=path), source=path)
