"""The network at the first step: random, or from weights that somebody trained."""

from pathlib import Path
from typing import Any

import torch

from ossicle.bundle import WEIGHTS, find_bundle
from ossicle.checkpoint.foreign import adapt, infer_config, read_checkpoint
from ossicle.checkpoint.weights import load_into
from ossicle.models import create_model
from ossicle.models.passt import Passt
from ossicle.training.config import TrainConfig


def start_from(config: TrainConfig, *, num_classes: int, frames: int) -> Passt:
    """Builds the network of a run.

    Random weights, also those of a new head on given ones, depend on `config.seed` alone and leave the global generator
    as it was. Given weights bring their own time positions and depth; a head for another number of labels is replaced.

    Args:
        frames: of a training clip. A network without trained positions gets exactly so many.

    Raises:
        BundleRefused: `config.weights` names no file, bundle or run.
        WeightsRefused: tensors that do not fit the network.
    """
    options: dict[str, Any] = {
        "patchout_t": amount(config.patchout_t or 0),
        "patchout_f": amount(config.patchout_f or 0),
        "patchout_u": amount(config.patchout_u),
        "drop_path": config.drop_path,
        "frames": frames,
    }
    if config.depth is not None:
        options["depth"] = config.depth
    tensors = None
    if config.weights is not None:
        path = Path(config.weights).expanduser()
        if not path.is_file():
            path = find_bundle(config.weights) / WEIGHTS
        tensors = read_checkpoint(path)
        if "time_new_pos_embed" in tensors:
            found = infer_config(tensors)
            options |= {"frames": found.frames, "depth": config.depth or found.depth}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = create_model(config.model, num_classes=num_classes, **options)
    if tensors is not None:
        load_into(model, adapt(tensors, model, source=path), source=path)
    return model


def amount(value: float | int) -> int | float:
    """A setting of patchout: from 1 on a count, below a share."""
    return int(value) if value >= 1 else value
