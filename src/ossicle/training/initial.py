"""Initial network of a run: random weights, or given ones."""

from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import torch

from ossicle.bundle import find_weights
from ossicle.errors import BundleRefused, SettingRefused
from ossicle.models import create_model, network_class
from ossicle.models.base import Network
from ossicle.models.tokens import PATCHOUT
from ossicle.settings import typed
from ossicle.training.config import TrainConfig
from ossicle.weights.foreign import read_checkpoint
from ossicle.weights.tensors import load_into

FILES = (".pt", ".pth", ".ckpt", ".safetensors", ".npz")  # of weights
NETWORK_SETTINGS = ("depth", "drop_path", *PATCHOUT)  # settings of a run that are options of a network


def start_from(
    config: TrainConfig, *, num_classes: int, frames: int, report: Callable[[str], None] = lambda sentence: None
) -> Network:
    """Builds the network of a run.

    Random weights, also those of a new head, depend on `config.seed` alone and leave the global generator unchanged.
    Given weights may determine options, such as length and depth; a head for another number of labels is replaced.

    Args:
        frames: length of a training clip; the option `frames` of the network, unless the weights determine it.
        report: called with a sentence about which weights were read from a checkpoint with several.

    Raises:
        BundleRefused: `config.weights` is not a file, bundle, run or name of published weights.
        SettingRefused: options that this network does not have, or values outside their range.
        WeightsRefused: tensors that do not fit the network, or published weights that cannot be had.
    """
    tensors, found = None, {"frames": frames}
    if config.weights is not None:
        path = Path(config.weights).expanduser()
        if path.suffix in FILES and not path.exists():
            raise BundleRefused(f"{path}: there is no such file.")
        if not path.is_file():
            path = find_weights(config.weights)
        tensors = read_checkpoint(path, average=config.weights_average, report=report)
        found |= network_class(config.model).options_of(tensors)
    model = build(config, num_classes=num_classes, **found)
    if tensors is not None:
        load_into(model, model.adapted(tensors, source=path, report=report), source=path)
    return model


def build(config: TrainConfig, *, num_classes: int, **found: Any) -> Network:
    """Builds the network of the settings with random weights.

    Args:
        found: options determined by the data or given weights, unless the settings have them.

    Raises:
        SettingRefused: options that this network does not have, or values outside their range.
    """
    network = network_class(config.model)
    if twice := [name for name in config.network if name in NETWORK_SETTINGS]:
        raise SettingRefused(f"network.{twice[0]} is a separate setting; use {twice[0]}=VALUE.")
    given = {name: value for name in NETWORK_SETTINGS if (value := getattr(config, name)) is not None}
    if foreign := [name for name, value in given.items() if value and name not in network.train_settings]:
        raise SettingRefused(f"{', '.join(foreign)}: not a setting of {config.model}; remove it.")
    options = {name: value for name, value in found.items() if name in network.option_types()}
    options |= {name: value for name, value in given.items() if name in network.train_settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            options |= checked_network(config)
            return create_model(config.model, num_classes=num_classes, **options)
        except (TypeError, ValueError) as error:
            raise SettingRefused(f"{config.model} cannot be built with these settings: {error}.") from error


def checked_network(config: TrainConfig) -> dict[str, Any]:
    """The options of the network, with numbers converted to their types; the network checks the others.

    Raises: SettingRefused for another type, such as 16.5 rows, or text instead of true or false.
    """
    hints = network_class(config.model).option_types()
    numbers = {name for name, hint in hints.items() if set(get_args(hint) or (hint,)) <= {bool, int, float, NoneType}}
    numbers -= {name for name, hint in hints.items() if get_origin(hint) is tuple}
    return {
        name: typed(f"network.{name}", value, hints[name]) if name in numbers else value
        for name, value in config.network.items()
    }
