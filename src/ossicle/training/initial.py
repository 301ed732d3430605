"""Initial network of a run: random weights, or given ones."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import torch
from torch import nn

from ossicle.bundle import CONFIG, WEIGHTS, find_weights, read_bundle_config
from ossicle.catalog import GENERAL, checkpoint, find_checkpoint
from ossicle.errors import BundleRefused, SettingRefused, WeightsRefused
from ossicle.frontend import FrontendConfig, frontend_config
from ossicle.models import create_model, find_preset, network_class
from ossicle.models.base import Network
from ossicle.models.tokens import PATCHOUT
from ossicle.settings import typed
from ossicle.training.config import TrainConfig
from ossicle.weights.foreign import read_checkpoint
from ossicle.weights.tensors import load_into

FILES = (".pt", ".pth", ".ckpt", ".safetensors", ".npz")  # of weights
DRAWN = ("min_hertz_jitter", "max_hertz_jitter", "freq_mask", "time_mask")  # settings of a front end in training only
NETWORK_SETTINGS = ("depth", "drop_path", *PATCHOUT)  # settings of a run that are options of a network


def start_from(
    config: TrainConfig,
    *,
    num_classes: int,
    frames: int,
    labels: Sequence[str] | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> Network:
    """Builds the network of a run.

    Random weights, also those of a new head, depend on `config.seed` alone and leave the global generator unchanged.
    Given weights may determine options, such as length and depth. Positions for shorter clips are stretched. A head for
    other labels is replaced.

    Args:
        frames: length of a training clip; the option `frames` of the network, unless the weights determine it.
        labels: of the data, in the order of the network's outputs.
        report: called with sentences about what was taken of the weights.

    Raises:
        BundleRefused: `config.weights` is not a file, bundle, run or name of published weights.
        SettingRefused: options that this network does not have, values outside their range, or weights of another
            architecture.
        WeightsRefused: tensors that do not fit the network, or published weights that cannot be had.
    """
    if config.weights is None:
        return build(config, num_classes=num_classes, frames=frames)
    path = weights_file(config.weights)
    given = read_checkpoint(path, average=config.weights_average, report=report)
    network = network_class(config.model)
    tensors = network.lengthened(given, frames=frames)
    if tensors is not given:
        report(f"The positions of {path} are for shorter clips, and are stretched to {frames} frames.")
    found = network.options_of(tensors)
    if config.depth is not None and found.get("depth", config.depth) != config.depth:
        raise SettingRefused(
            f"depth={config.depth} does not go with {config.weights}, which has {found['depth']} blocks; leave it out, "
            "or start at random with --init none."
        )
    model = build(config, num_classes=num_classes, **{"frames": frames, **found})
    head = head_of(model)
    try:
        load_into(model, model.adapted(tensors, source=path, report=report), source=path)
    except WeightsRefused as error:
        own = architecture_of(config.weights)
        if own in (None, config.model):
            raise
        raise SettingRefused(
            f"model={config.model} does not go with {config.weights}, which is a {own}; leave it out, or start at "
            "random with --init none."
        ) from error
    if labels is None or all(torch.equal(tensor, head[name]) for name, tensor in head_of(model).items()):
        return model  # the head is new already, as it has another number of labels
    if (bundle := bundle_beside(path)) is None:
        report(
            f"{path} has as many labels as the data, {num_classes}: its head is kept, and they are taken to be these."
        )
    elif sorted(bundle["labels"]) == sorted(labels):
        order = [bundle["labels"].index(label) for label in labels]
        model.load_state_dict({name: tensor[order] for name, tensor in head_of(model).items()}, strict=False)
    else:
        model.load_state_dict(head, strict=False)
        report(f"The head is new: the data have other labels than {config.weights}.")
    return model


def weights_file(weights: str) -> Path:
    """The file of the weights that a run starts from.

    Raises: BundleRefused, WeightsRefused as `start_from`.
    """
    path = Path(weights).expanduser()
    if path.suffix in FILES and not path.exists():
        raise BundleRefused(f"{path}: there is no such file.")
    return path if path.is_file() else find_weights(weights)


def architecture_of(weights: str) -> str | None:
    """The architecture of published weights, a bundle or a run; None of a file that does not say.

    Raises: BundleRefused, WeightsRefused as `start_from`.
    """
    if row := find_checkpoint(weights):
        return row.architecture
    bundle = bundle_beside(weights_file(weights))
    return bundle["model"]["name"] if bundle else None


def origin(config: TrainConfig) -> str:
    """What the network of a run begins as, and what else it could."""
    shipped = checkpoint(GENERAL)
    if config.weights is not None and find_checkpoint(config.weights) == shipped:
        return f"{shipped.name}, which the package has (--init none: random weights)"
    if config.weights is None and config.model != shipped.architecture:
        return f"random weights (the package has trained ones for {shipped.architecture})"
    return config.weights or "random weights"


def frontend_of(config: TrainConfig) -> FrontendConfig:
    """The front end of the architecture, with the settings that the bundle of given weights has for it.

    Where the weights are of an architecture with another front end, that of `config.model` is meant. Masks and jitter
    are those of a training.

    Raises:
        BundleRefused, WeightsRefused: as `start_from`
        SettingRefused: a front end that cannot have this jitter
    """
    name = find_preset(config.model).frontend
    own = frontend_config(name)
    if config.weights is None:
        return own
    path = weights_file(config.weights)
    given = bundle_beside(path)
    if given is None or find_preset(given["model"]["name"]).frontend != name:
        return own
    try:
        return dataclasses.replace(
            FrontendConfig.from_dict(given["frontend"]), **{drawn: getattr(own, drawn) for drawn in DRAWN}
        )
    except ValueError as error:
        raise SettingRefused(f"{path.parent}: no training with this front end: {error}.") from error


def head_of(model: Network) -> dict[str, torch.Tensor]:
    """A copy of the tensors of the last maps, which have a row for each label."""
    maps = (name for name, module in model.named_modules() if name.startswith("head") and isinstance(module, nn.Linear))
    return {f"{name}.{key}": t.clone() for name in maps for key, t in model.get_submodule(name).state_dict().items()}


def bundle_beside(path: Path) -> dict[str, Any] | None:
    """The configuration of the bundle of a network whose weights are in this file, if it is that of one."""
    if path.name != WEIGHTS or not (path.parent / CONFIG).exists():
        return None
    config = read_bundle_config(path.parent)
    return config if "model" in config else None


def build(config: TrainConfig, *, num_classes: int, **found: Any) -> Network:
    """Builds the network of the settings with random weights.

    Args:
        found: options determined by the data or given weights, unless the settings have them.

    Raises:
        SettingRefused: options that this network does not have, or values outside their range.
    """
    network = network_class(config.model)
    if config.freeze_epochs and config.weights is None:
        raise SettingRefused(
            f"freeze_epochs={config.freeze_epochs} keeps the weights below the head, and these are random; name "
            "trained ones with --init, or leave freeze_epochs out."
        )
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
