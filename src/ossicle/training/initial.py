"""The network at the first step: random, or from weights that somebody trained."""

from pathlib import Path
from typing import Any

import torch

from ossicle.bundle import WEIGHTS, find_bundle
from ossicle.checkpoint.foreign import adapt, infer_config, read_checkpoint
from ossicle.checkpoint.weights import load_into
from ossicle.errors import BundleRefused, SettingRefused
from ossicle.models import create_model, find_preset
from ossicle.models.datar import Datar
from ossicle.models.passt import Passt
from ossicle.models.registry import PATCHOUT
from ossicle.training.config import TrainConfig

FILES = (".pt", ".pth", ".ckpt", ".safetensors")  # that weights come in


def start_from(config: TrainConfig, *, num_classes: int, frames: int) -> Passt | Datar:
    """Builds the network of a run.

    Random weights, also those of a new head on given ones, depend on `config.seed` alone and leave the global generator
    as it was. Given weights bring their own time positions and depth; a head for another number of labels is replaced.

    Args:
        frames: of a training clip. A network without trained positions gets exactly so many.

    Raises:
        BundleRefused: `config.weights` names no file, bundle or run.
        SettingRefused: options that this network does not have, or values outside their range.
        WeightsRefused: tensors that do not fit the network.
    """
    tensors, found = None, {}
    if config.weights is not None:
        path = Path(config.weights).expanduser()
        if path.suffix in FILES and not path.exists():
            raise BundleRefused(f"{path}: there is no such file.")
        if not path.is_file():
            path = find_bundle(config.weights) / WEIGHTS
        tensors = read_checkpoint(path)
        if "time_new_pos_embed" in tensors:
            theirs = infer_config(tensors)
            found = {"frames": theirs.frames, "depth": config.depth or theirs.depth}
    model = build(config, num_classes=num_classes, **{"frames": frames, **found})
    if tensors is not None:
        load_into(model, adapt(tensors, model, source=path), source=path)
    return model


def build(config: TrainConfig, *, num_classes: int, **found: int) -> Passt | Datar:
    """The network that the settings ask for, with random weights.

    Args:
        found: options that the data or given weights decide.

    Raises:
        SettingRefused: options that this network does not have, or values outside their range.
    """
    options: dict[str, Any] = {"drop_path": config.drop_path}
    own = {**{name: amount(getattr(config, name) or 0) for name in PATCHOUT}, "depth": config.depth}
    if find_preset(config.model).family == "passt":
        options |= {name: value for name, value in own.items() if value is not None}
    elif given := [name for name, value in own.items() if value]:
        raise SettingRefused(f"{', '.join(given)}: settings of a PaSST; {config.model} is none.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            return create_model(config.model, num_classes=num_classes, **{**options, **found, **config.network})
        except (TypeError, ValueError) as error:
            raise SettingRefused(f"{config.model} cannot be built with these settings: {error}.") from error


def amount(value: float | int) -> int | float:
    """A setting of patchout: from 1 on a count, below a share."""
    return int(value) if value >= 1 else value
