"""What a head trains on: kept features of a frozen encoder, or the encoder itself where a tuner changes it."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ossicle.data import Dataset, modality_of
from ossicle.data.cache import SampleStore, open_store
from ossicle.encoders import Encoder, Hidden
from ossicle.encoders.cache import FeatureStore, Pool, open_features
from ossicle.training.config import TuneConfig
from ossicle.training.estimate import logged
from ossicle.training.loader import pieces
from ossicle.training.run import Positions
from ossicle.tuning.tuned import TunedHead, pool_time

logger = logging.getLogger(__name__)


class Readable:
    """Which examples can be read, where nothing of them is kept."""

    def __init__(self, dataset: Dataset) -> None:
        modality = modality_of(dataset.modality)
        self.failures: dict[int, str] = {}
        for position, item in enumerate(dataset.items):
            try:
                modality.read(item)
            except modality.errors as error:
                self.failures[position] = str(error)
        self.usable = np.setdiff1d(np.arange(len(dataset)), list(self.failures))


Inputs = FeatureStore | SampleStore | Readable


def open_inputs(
    dataset: Dataset,
    config: TuneConfig,
    *,
    encoder: Encoder,
    pool: Pool,
    layers: int | None = None,
    cache: Path | None = None,
) -> Inputs:
    """What every pass reads: features of a frozen encoder; decoded sound for one with a tuner; else the files again.

    Args:
        layers: of a frozen encoder the first so many run; by default all.
    """
    if config.tuner is None:
        progress = logged(f"encoded {{}} of {{}} {dataset.noun}s")
        return open_features(encoder, dataset.items, pool=pool, layers=layers, folder=cache, progress=progress)
    if encoder.rate is not None:
        budget = int(config.cache_gigabytes * 2**30)
        progress = logged(f"decoded {{}} of {{}} {dataset.noun}s")
        return open_store(dataset.items, encoder.rate, folder=cache, budget_bytes=budget, progress=progress)
    return Readable(dataset)


class HeadInputs:
    """Gives a head the hidden states of examples: its layers, pooled over time as it takes them."""

    def __init__(self, dataset: Dataset, inputs: Inputs, encoder: Encoder, head: TunedHead) -> None:
        self.dataset, self.inputs, self.encoder, self.head = dataset, inputs, encoder, head

    def __call__(self, positions: Positions) -> Hidden:
        """Hidden states of these examples."""
        if isinstance(self.inputs, FeatureStore):
            hidden = self.inputs.read(positions.tolist())
            return self.head.pooled(hidden) if self.inputs.pool == "time" else self.head.chosen(hidden)
        batch = self.encoder.prepare([self._read(position) for position in positions.tolist()])
        return self.head.pooled(self.encoder.encode(batch, layers=max(self.head.layers)))

    def _read(self, position: int) -> Any:
        if isinstance(self.inputs, SampleStore):
            return np.array(self.inputs.read(position))
        return modality_of(self.encoder.modality).read(self.dataset.items[position])

    def means(self, positions: Positions) -> Float[Tensor, "clip layer dim"]:
        """The means over time of these examples, in memory once."""
        found: Tensor | None = None
        done = 0
        for piece in pieces(positions):
            x = pool_time(self(piece), "mean").features[:, :, 0]
            found = x.new_empty(len(positions), *x.shape[1:]) if found is None else found
            found[done : done + len(piece)] = x
            done += len(piece)
        assert found is not None
        return found

    @torch.no_grad()
    def standardize(self, positions: Positions) -> None:
        """Sets the head's mean and deviation of every layer and feature over these examples.

        Of frames too it is the deviation of the clips' means: what a head makes of a clip has unit scale then, however
        much the frames of a clip differ.
        """
        progress = logged("{} of {} examples read for their mean and deviation", end=False)
        number, total, squares = 0, torch.zeros(()), torch.zeros(())
        for piece in pieces(positions):
            x = self(piece).mean().cpu().double()  # Apple's GPUs have no doubles
            total, squares = total + x.sum(0), squares + x.square().sum(0)
            number += len(piece)
            progress(number, len(positions))
        mean = total / number
        variance = (squares / number - mean.square()).clamp(min=0)
        # What is the same in all clips tells nothing, and stays as it is.
        deviation = torch.where(variance > 1e-10 * mean.square().clamp(min=1e-6), variance.sqrt(), 1.0)
        self.head.mean.copy_(mean)
        self.head.deviation.copy_(deviation)

    @torch.no_grad()
    def logits(
        self, positions: Positions, *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Float[Tensor, "clip label"]:
        """The logits of these examples."""
        logits: list[Tensor] = []
        for piece in pieces(positions):
            logits.append(self.head.score(self(piece)).float().cpu())
            progress(sum(map(len, logits)), len(positions))
        return torch.cat(logits)
