"""How much faster two processes train than one, each with one thread: `python benchmarks/scale.py [MODEL] [STEPS]`.

The batch is the same for both, of clips in memory, so what one process takes longer is the network's and the front
end's; efficiency is the speed of two over twice that of one. Data wait is what a step waits for its batch. The share of
a step outside the network is that of features, augmentation, clipping, optimizer and average beside the network's
forward and backward pass, each measured by itself, in turns; the whole step in the loop stands beside their sum.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import about_this_run, claim_table, in_turns, write_by_processor
from lightning.pytorch import Callback

from ossicle.data.cache import SampleStore
from ossicle.frontend import create_frontend, frontend_config
from ossicle.models import create_model
from ossicle.training import TrainConfig
from ossicle.training.averaging import WeightAverage
from ossicle.training.loader import Batch, WaveBatches
from ossicle.training.loop import fit
from ossicle.training.module import NetworkTraining
from ossicle.training.ranks import Ranks, in_processes

BATCH, SECONDS, RATE = 16, 2.0, 32_000


class Timed(WaveBatches):
    """Batches that note how long a step waits for each."""

    def __iter__(self) -> Iterator[Batch]:
        self.waits: list[float] = []
        batches = super().__iter__()
        for _ in range(len(self)):
            began = time.perf_counter()
            batch = next(batches)
            self.waits.append(time.perf_counter() - began)
            yield batch


class Clock(Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def steps(ranks: Ranks, *, model: str, number: int) -> dict[str, float]:
    """Median seconds of a step, and of its wait for data."""
    torch.set_num_threads(1)
    clips, window = number * BATCH, round(SECONDS * RATE)
    lengths = np.full(64, window)
    noise = np.random.default_rng(0).standard_normal(lengths.sum(), np.float32)
    offsets = np.cumsum(lengths) - lengths
    options: dict[str, Any] = {"failures": {}, "items": (), "rate": RATE}
    store = SampleStore(samples=noise, offsets=offsets, lengths=lengths, **options)
    targets = np.eye(50, dtype=bool)[np.arange(64) % 50]
    config = TrainConfig(epochs=1, batch_size=BATCH, device="cpu", precision="float32", devices=ranks.world)
    frontend = create_frontend(frontend_config("passt"))
    network = create_model(model, num_classes=50, frames=frontend.frames(window))
    batches = Timed(
        store, np.arange(64), targets, window=window, batch_size=BATCH, seed=0, epoch_clips=clips, ranks=ranks
    )
    frames = frontend.frames(window)
    module = NetworkTraining(network, frontend, config, task="single-label", frames=frames, batches=batches)
    clock = Clock()
    fit(module, None, targets=targets, device=torch.device("cpu"), callbacks=[clock])
    step = median(np.diff(clock.ends)[1:])
    parts = parts_of(module.train(), rounds=number // 2) if ranks.world == 1 else {}
    return {"step": float(step), "wait": float(median(batches.waits[2:])), **parts}


def parts_of(module: NetworkTraining, *, rounds: int) -> dict[str, float]:
    """Median seconds of the parts of a step by themselves, in turns."""
    batch = module.batches.peek()
    optimizer, average = module.optimizer(), WeightAverage((p for _, p in module.trained()), decay=0.998)
    average.update()
    spec, targets, _ = module.augmented(batch, batch.generator())

    def network() -> None:
        (module.model(spec, generator=batch.generator()).log_softmax(1) * targets).sum().backward()

    def weights() -> None:
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        average.update()

    parts = {
        "network": network,
        "features and augmentation": lambda: module.augmented(batch, batch.generator()),
        "clipping, optimizer and average": weights,
    }
    return in_turns(parts, rounds=rounds)


def main(model: str, number: int) -> None:
    """Runs both and writes the table."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            file = Path(folder) / str(processes)
            command = [sys.executable, __file__, model, str(number), str(processes), str(file)]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            found[processes] = json.loads(file.read_text())
    result = {**about_this_run(), "threads": 1, "model": model, "processes": {str(n): row for n, row in found.items()}}
    write_by_processor("scale", result, table, title="One process and two")


def table(result: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    one, two = result["processes"]["1"], result["processes"]["2"]
    parts = {name: seconds for name, seconds in one.items() if name not in ("step", "wait")}
    whole = sum(parts.values())
    shares = ", ".join(f"{name} {100 * seconds / whole:.1f} %" for name, seconds in parts.items())
    speed = one["step"] / two["step"]
    wait = max(row["wait"] / row["step"] for row in (one, two))
    claims: list[tuple[str, str, str, bool | None]] = [
        ("a step in one process, and in two", f"{one['step']:.3f} s, {two['step']:.3f} s", "", None),
        ("two beside one", f"{speed:.2f} times as fast: efficiency {100 * speed / 2:.0f} %", "", None),
        ("longest wait for data, of a step", f"{100 * wait:.1f} %", "at most 5 %", wait <= 0.05),
        ("a step outside the network", f"{100 * (1 - parts['network'] / whole):.1f} % ({shares})", "", None),
        ("a step in the loop, beside the sum of its parts", f"{one['step'] / whole:.2f}", "", None),
    ]
    about = f"{result['model']}, {BATCH} clips of {SECONDS:g} s a step, one thread a process, two workers each."
    return [about, "", *claim_table(claims)]


if __name__ == "__main__":
    chosen, count, *rest = [*sys.argv[1:], *["passt_tiny_s16", "20"][len(sys.argv) - 1 :]]
    if not rest:
        main(chosen, int(count))
    else:
        processes, output = rest

        def measured(ranks: Ranks) -> None:
            result = steps(ranks, model=chosen, number=int(count))
            if ranks.zero:
                Path(output).write_text(json.dumps(result))

        in_processes(TrainConfig(devices=int(processes), device="cpu"), measured)
