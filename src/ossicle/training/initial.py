"""The network at the first step: random, or from weights that somebody trained."""

from typing import Any

import torch

from ossicle.models import create_model
from ossicle.models.passt import Passt
from ossicle.training.config import TrainConfig


def start_from(config: TrainConfig, *, num_classes: int, frames: int) -> Passt:
    """Builds the network of a run.

    Random weights depend on `config.seed` alone, and leave the global generator as it was.

    Args:
        frames: of a training clip. A random network gets exactly so many time positions.
    """
    options: dict[str, Any] = {
        "patchout_t": amount(config.patchout_t or 0),
        "patchout_f": amount(config.patchout_f or 0),
        "patchout_u": amount(config.patchout_u),
        "drop_path": config.drop_path,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return create_model(config.model, num_classes=num_classes, frames=frames, **options)


def amount(value: float) -> int | float:
    """A setting of patchout: from 1 on a count, below a share."""
    return int(value) if value >= 1 else value
