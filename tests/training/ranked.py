"""Steps of a small network in one process or in several, ten an epoch: python ranked.py OUTPUT DEVICES EPOCHS.

Saves the loss of every step and of the validation part, in float64 and in float32.
"""

import sys
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor

from ossicle.data.cache import SampleStore
from ossicle.frontend import create_frontend, frontend_config
from ossicle.models import create_model
from ossicle.training import TrainConfig
from ossicle.training.loader import Batch, WaveBatches, Windows
from ossicle.training.loop import fit
from ossicle.training.module import NetworkTraining
from ossicle.training.ranks import ALONE, Ranks, in_processes, settle_processes

CLIPS, VALIDATION, RATE = 64, 9, 32_000  # ten batches of seven: the last one has a single clip, fewer than processes


class Precise(NetworkTraining):
    """A network in `dtype`, on features in float32; with a seed its sums over the clips are in another order."""

    dtype, seed = torch.float64, None

    def augmented(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        spec, targets, known = super().augmented(batch, generator)
        order = torch.arange(len(spec))
        if self.seed is not None:
            order = torch.randperm(len(spec), generator=torch.Generator().manual_seed(self.seed + batch.seed % 1000))
        return spec[order].to(self.dtype), targets[order].to(self.dtype), None if known is None else known[order]

    def val_logits(self, batch: Batch) -> Tensor:
        return self.model(self.frontend(batch.waves, lengths=batch.lengths, frames=self.frames).to(self.dtype))

    def copied(self) -> None:
        """Nothing is measured."""


class Losses(Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.each: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.each.append(module.last_loss)


def store() -> SampleStore:
    """Noise of three lengths, one of them longer than the window."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([9_600, 12_800, 16_000], CLIPS + VALIDATION)
    return SampleStore(
        items=(),
        rate=RATE,
        samples=rng.standard_normal(lengths.sum()).astype(np.float32) * 0.1,
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        failures={},
    )


def steps(
    ranks: Ranks = ALONE, *, dtype: torch.dtype = torch.float64, seed: int | None = None, **changes: Any
) -> tuple[list[float], list[float]]:
    """The loss of each step, and that of the validation part after each epoch."""
    options: dict[str, Any] = {
        **{"epochs": 5, "batch_size": 7, "lr": 1e-3, "warmup": 1.0, "device": "cpu", "precision": "float32"},
        **{"gain": 7.0, "roll": 0.01, "mixup": 0.0, "jitter": True, "patchout_t": 1, "drop_path": 0.3},
    }
    config = TrainConfig(**{**options, "devices": ranks.world, **changes})
    targets = np.random.default_rng(1).random((CLIPS + VALIDATION, 3)) < 0.4
    known = np.random.default_rng(2).random(targets.shape) < 0.8
    data, window = store(), 12_800
    frontend = frontend_config("passt", freq_mask=16, time_mask=8)
    frames = frontend.frames(window)
    torch.manual_seed(0)
    model = create_model(
        "passt_tiny_s16",
        num_classes=3,
        depth=2,
        frames=frames,
        patchout_t=config.patchout_t,
        drop_path=config.drop_path,
    )
    batches = WaveBatches(
        data, np.arange(CLIPS), targets, window=window, batch_size=7, seed=0, known=known, ranks=ranks
    )
    part = np.arange(CLIPS, CLIPS + VALIDATION)
    validation = Windows(data, part, targets, window=window, batch_size=4, ranks=ranks)
    module = Precise(
        model.to(dtype), create_frontend(frontend), config, task="multi-label", frames=frames, batches=batches
    )
    module.dtype, module.seed = dtype, seed
    losses = Losses()
    recorder = fit(module, validation, targets=targets, known=known, device=torch.device("cpu"), callbacks=[losses])
    return losses.each, [row["val_loss"] for row in recorder.rows]


if __name__ == "__main__":
    output, devices, epochs = sys.argv[1:]
    start = settle_processes(TrainConfig(devices=int(devices), device="cpu"))

    def both(ranks: Ranks) -> None:
        exact, validation = steps(ranks, epochs=int(epochs))
        single, _ = steps(ranks, dtype=torch.float32, drop_path=0.0, epochs=min(int(epochs), 2))
        if ranks.zero:
            np.savez(output, exact=exact, validation=validation, single=single)

    in_processes(start, both)
