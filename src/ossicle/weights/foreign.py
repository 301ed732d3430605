"""Load published checkpoints; the only module that opens pickles, with `weights_only=True`.

Supported files: a flat state dict, or one inside {"model": ...} or {"state_dict": ...}. The averaged weights may be
stored with it under other prefixes: `net.` and `net_swa.` (the published training code), `model.` and `model_ema.`, or
{"model": ..., "model_ema": ...} (timm, DeiT). `module.` (data parallel) and `_orig_mod.` (torch.compile) are removed.
`Network.adapted` of each family converts names and shapes.
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

# Trained weights and their averages: entries of a file, and prefixes of names.
ENTRIES = {
    "state_dict": ("state_dict_ema", "ema_state_dict", "model_ema", "ema"),
    "model": ("model_ema", "ema_model", "ema"),
}
PREFIXES = {"net": ("net_swa", "net_ema"), "model": ("model_ema", "ema_model", "swa_model")}


def read_checkpoint(
    path: str | Path, *, average: bool | None = None, report: Callable[[str], None] = lambda sentence: None
) -> dict[str, Tensor]:
    """Reads the tensors of a published checkpoint (.pt, .pth, .ckpt, .safetensors), with plain names.

    Args:
        average: for a file with both the weights of a network and their average, whether to read the average, which is
            what its authors evaluate; None reads the average if it fits the same network
        report: called with a sentence about which of both was read

    Raises:
        WeightsRefused: the file is missing, damaged, larger than 8 GB unpacked, needs code to load, has no tensors, no
            average although `average` is true, or an average of other shapes.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return plain_names(load_weights(path), source=path, average=average, report=report)
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
                    f"{path}: unpacks to {size / 2**30:.1f} GB; at most {MAX_BYTES / 2**30:.0f} GB are allowed"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the file; it loads or it is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsRefused:
        raise
    # Errors of unpickling damaged bytes have no common base class below Exception.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsRefused(f"{path}: the checkpoint cannot be loaded without running code ({reason})") from error
    tensors = plain_names(unwrap(content), source=path, average=average, report=report)
    if not tensors:
        raise WeightsRefused(f"{path}: no named tensors found; expected a state dict")
    return tensors


def unwrap(content: Any) -> dict[str, Tensor]:
    """The named tensors of a checkpoint, at the top level or inside `model` or `state_dict`.

    If the file has an average in another entry, its names get the prefix `model_ema.`, the others `model.`.
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
    report: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Tensor]:
    """Removes the prefixes of wrappers; where networks have prefixes, tensors without one are dropped.

    See `read_checkpoint` for `average` and `report`.
    """
    bare = {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in tensors.items()}
    found = {prefix: below(bare, prefix) for pair in PREFIXES.items() for prefix in (pair[0], *pair[1])}
    found = {prefix: inside for prefix, inside in found.items() if inside}
    means = [prefix for prefix in found if prefix not in PREFIXES]
    if average and not means:
        raise WeightsRefused(f"{source}: the file has no averaged weights; remove weights_average=true")
    if not found:
        return bare
    trained = next((prefix for prefix in PREFIXES if prefix in found), None)
    if average is False and trained is None:
        raise WeightsRefused(f"{source}: the file has only {means[0]}; remove weights_average=false")
    if trained is None or not means:
        return found[trained or means[0]]
    mean = means[0]
    if average is None and shapes(found[mean]) != shapes(found[trained]):
        raise WeightsRefused(
            f"{source}: {trained} and {mean} differ in their shapes; select {mean} with weights_average=true, "
            f"or {trained} with weights_average=false"
        )
    chosen, other = (trained, mean) if average is False else (mean, trained)
    report(f"{source}: the file has {trained} and its average {mean}; using {chosen}, not {other}.")
    return found[chosen]


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix, without it; torch's counter of averaged weights is left out."""
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
    report: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Loads a published checkpoint into a network, as the network's family adapts it; see `read_checkpoint`.

    Example:
        model = create_model("passt_base_s10")
        load_checkpoint(model, "passt-s-f128-p16-s10-ap.476-swa.pt")

    Raises:
        WeightsRefused: the file cannot be read or does not fit; the network is unchanged.
    """
    tensors = read_checkpoint(path, average=average, report=report)
    load_into(model, model.adapted(tensors, source=path), source=path)
