"""The network at the first step: random, or from weights that somebody trained."""

from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import torch

from ossicle.bundle import WEIGHTS, find_bundle
from ossicle.errors import BundleRefused, SettingRefused
from ossicle.models import create_model, find_preset
from ossicle.models.datar import Datar, DatarConfig
from ossicle.models.passt import Passt, PasstConfig
from ossicle.models.registry import PATCHOUT
from ossicle.settings import typed
from ossicle.training.config import TrainConfig
from ossicle.weights.foreign import adapt, infer_config, read_checkpoint
from ossicle.weights.tensors import load_into

FILES = (".pt", ".pth", ".ckpt", ".safetensors")  # that weights come in


def start_from(
    config: TrainConfig, *, num_classes: int, frames: int, told: Callable[[str], None] = lambda sentence: None
) -> Passt | Datar:
    """Builds the network of a run.

    Random weights, also those of a new head on given ones, depend on `config.seed` alone and leave the global generator
    as it was. Given weights bring their own time positions and depth; a head for another number of labels is replaced.

    Args:
        frames: of a training clip. A network without trained positions gets exactly so many.
        told: which weights of a checkpoint with several were taken, in a sentence.

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
        tensors = read_checkpoint(path, average=config.weights_average, told=told)
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
    if twice := [name for name in config.network if name in (*PATCHOUT, "depth", "drop_path")]:
        raise SettingRefused(f"network.{twice[0]}: this is a setting of its own; write {twice[0]}=VALUE.")
    options: dict[str, Any] = {"drop_path": config.drop_path}
    own = {**{name: amount(getattr(config, name) or 0) for name in PATCHOUT}, "depth": config.depth}
    if find_preset(config.model).family == "passt":
        options |= {name: value for name, value in own.items() if value is not None}
    elif given := [name for name, value in own.items() if value]:
        raise SettingRefused(f"{', '.join(given)}: settings of a PaSST; {config.model} is none.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            network = checked_network(config)
            return create_model(config.model, num_classes=num_classes, **{**options, **found, **network})
        except (TypeError, ValueError) as error:
            raise SettingRefused(f"{config.model} cannot be built with these settings: {error}.") from error


def checked_network(config: TrainConfig) -> dict[str, Any]:
    """The options of the network, each number of the type that it wants; the others the network checks itself.

    Raises: SettingRefused for another type, such as 16.5 rows, or a word where true or false is meant.
    """
    hints = get_type_hints(PasstConfig if find_preset(config.model).family == "passt" else DatarConfig)
    numbers = {name for name, hint in hints.items() if set(get_args(hint) or (hint,)) <= {bool, int, float, NoneType}}
    numbers -= {name for name, hint in hints.items() if get_origin(hint) is tuple}
    return {
        name: typed(f"network.{name}", value, hints[name]) if name in numbers else value
        for name, value in config.network.items()
    }


def amount(value: float | int) -> int | float:
    """A setting of patchout: from 1 on a count, below a share."""
    return int(value) if value >= 1 else value
