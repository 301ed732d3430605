"""What a training would cost: its first step is done at real size and measured, and nothing is written.

The settings are resolved, the first fold is prepared and the training begins as ever, up to the step that every
training measures before its first epoch (see `estimate`); there it stops. Recordings are not decoded ahead: those of a
batch are, and how long that takes gives the time for all.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ossicle.data import Dataset, split_folds
from ossicle.data.arrays import TarItems
from ossicle.data.cache import SampleStore, decode
from ossicle.data.items import Item
from ossicle.data.lengths import UNREADABLE, clip_lengths
from ossicle.devices import choose_device
from ossicle.errors import SettingRefused
from ossicle.kernels import using_kernels
from ossicle.report import memory_text
from ossicle.training.config import TrainConfig, TuneConfig
from ossicle.training.estimate import StepCost, duration, measure
from ossicle.training.features import HeadInputs, Readable
from ossicle.training.initial import frontend_of
from ossicle.training.layers import create_tuned_head, head_training, insert_tuner, required_layers
from ossicle.training.loader import Batch, Items, Windows
from ossicle.training.loop import fit
from ossicle.training.module import NetworkTraining, TrainingModule
from ossicle.training.ranks import Ranks, in_processes, settle_processes
from ossicle.training.run import Run, Runs, refuse_or_name
from ossicle.training.tracking import memory_gigabytes
from ossicle.training.train_network import prepare_fold
from ossicle.training.tune_head import encoder_of

logger = logging.getLogger(__name__)
HEADERS = 5000  # recordings whose header says how long they are; the others count as long as these


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a training would cost on this machine, as it is busy now."""

    cost: StepCost
    clips: int
    """Of a batch, in all processes."""
    processes: int = 1
    batches: int
    """Of an epoch."""
    epochs: int
    folds: int = 1
    before: float
    """Seconds of the work that is done once, such as decoding."""
    work: str
    """What that is, for people."""
    memory: dict[str, float]
    """Peak of a process: `memory_gigabytes`, and on a GPU `gpu_gigabytes`; 1e9 bytes."""
    patience: bool = False
    """Whether the run may stop sooner."""

    @property
    def epoch(self) -> float:
        """Seconds of an epoch, with its validation part."""
        return self.batches * self.cost.step + self.cost.scoring

    @property
    def seconds(self) -> float:
        """Of all epochs of all folds, and of the work before them."""
        return self.folds * self.epochs * self.epoch + self.before

    def lines(self) -> list[str]:
        """What was measured, for people."""
        cost, noun = self.cost, "network" if self.cost.frontend else "model"
        parts = {"data": cost.loading, "front end": cost.frontend, noun: cost.computing - cost.frontend}
        where = ", ".join(f"{name} {100 * part / cost.step:.0f} %" for name, part in parts.items() if part)
        shared = ""
        if self.processes > 1:
            shared = f", measured in {self.processes} processes at once, without the exchange of their gradients"
        number = f"{self.batches * self.epochs:,} batches in {self.epochs} epochs"
        folds = f" of each of {self.folds} folds" if self.folds > 1 else ""
        return [
            f"A step on {self.clips} clips takes {cost.step:.2g} s ({where}){shared}",
            f"Memory: {memory_text(self.memory) or 'not known here'}{' in each process' if self.processes > 1 else ''}",
            f"Before the first epoch: {self.work} takes about {duration(self.before)}, once",
            f"An epoch: {self.batches:,} batches and the validation part in {duration(self.epoch)}",
            f"The whole run: {'at most' if self.patience else 'about'} {duration(self.seconds)} for {number}{folds}",
        ]


def dry_run(data: Any, config: TrainConfig | TuneConfig, **options: Any) -> DryRun:
    """Measures what a training would cost; for the arguments see `train` and `tune`.

    >>> dry_run("sounds", TrainConfig(epochs=30)).seconds / 3600  # hours  # doctest: +SKIP

    Raises: what the training would, before it begins.
    """
    if isinstance(config, TuneConfig):
        return dry_tune(data, config, **options)
    if config.teachers:
        raise SettingRefused(
            "a dry run asks no teachers; the first lines of a training say how long they and steps take."
        )
    settled = settle_processes(config)
    return in_processes(settled, lambda ranks: dry_train(data, settled, ranks=ranks, **options))


def dry_train(data: Any, config: TrainConfig, *, ranks: Ranks, **options: Any) -> DryRun:
    """Does what one process does of the measurement for a network."""
    with Runs(data, config, kind=TrainConfig, modality="sound", ranks=ranks, **options) as runs:
        frontend = frontend_of(runs.config)
        store = peeked(runs.dataset.items, frontend.rate)
        run = first_run(runs, store)
        with using_kernels(run.config.kernels):
            module, _, validation = prepare_fold(run, store=store, frontend=frontend, described=1)
            trial = Trial(validation, features=network_features)
            settled = module.config
            fit(
                module,
                validation,
                targets=run.dataset.targets(),
                device=choose_device(settled.device),
                precision=settled.precision,
                trial=trial,
            )
        assert trial.cost is not None
        once, each = store.decoding(settled, workers=settled.workers)
        own = ranks.piece(module.batches.batch_size)
        cost = replace(trial.cost, loading=trial.cost.loading + each * (own.stop - own.start))
        work = f"decoding {len(store.items):,} recordings"
        return described(runs, module, cost=cost, before=once, work=work, memory=trial.memory)


def network_features(module: TrainingModule, batch: Batch) -> Tensor:
    """What the network computes on."""
    assert isinstance(module, NetworkTraining)
    return module.augmented(batch, batch.generator())[0]


def dry_tune(data: Any, config: TuneConfig, **options: Any) -> DryRun:
    """Measures a tuning: of a frozen encoder a batch is encoded, and a step of the head done on its features."""
    encoder = encoder_of(config)
    with Runs(data, config, kind=TuneConfig, modality=encoder.modality, **options) as runs:
        dataset, noun = runs.dataset, runs.dataset.noun
        inputs = Unread(dataset) if encoder.rate is None else peeked(dataset.items, encoder.rate)
        run = first_run(runs, inputs)
        layers, _ = required_layers(run.config, encoder, labels=dataset.labels)
        head = create_tuned_head(run.config, encoder, labels=dataset.labels, layers=layers).to(encoder.device)
        tuner = insert_tuner(run.config, encoder, layers=layers)
        try:
            features = HeadInputs(dataset, inputs, encoder, head)
            settled = replace(run.config, standardize=False)  # that reads all of the training part
            with using_kernels(run.config.kernels):
                module, validation = head_training(dataset, run.split, settled, features=features, tuner=tuner)
                seconds = 0.0
                if tuner is None:
                    seconds = encoded_once(module, features) * len(dataset)
                trial = Trial(validation, copied=True)
                fit(module, validation, targets=dataset.targets(), device=encoder.device, trial=trial)
        finally:
            if tuner is not None:
                tuner.remove()
        assert trial.cost is not None
        work = f"{'encoding' if tuner is None else 'reading'} {len(dataset):,} {noun}s"
        if isinstance(inputs, PeekedStore):
            seconds += inputs.decoding(settled, workers=1)[0]
        return described(runs, module, cost=trial.cost, before=seconds, work=work, memory=trial.memory)


def encoded_once(module: TrainingModule, features: HeadInputs) -> float:
    """Seconds of the encoder for an example; the module trains on the features of its next batch from then on."""
    clips = module.batches.peek().clips.numpy()
    with torch.no_grad():
        hidden = features(clips)  # what is decoded and loaded for the first time
        began = time.monotonic()
        hidden = features(clips)
    module.features = lambda positions: hidden  # type: ignore[assignment]
    return (time.monotonic() - began) / len(clips)


def first_run(runs: Runs[Any], inputs: Any) -> Run[Any]:
    """The run of the first fold."""
    refuse_or_name(inputs, runs.dataset, skip_bad=runs.skip_bad)
    return next(runs.runs(inputs))


def described(
    runs: Runs[Any], module: TrainingModule, *, cost: StepCost, before: float, work: str, memory: dict[str, float]
) -> DryRun:
    """The measurement, logged."""
    config, batches = module.config, module.batches
    found = DryRun(
        cost=cost,
        clips=min(batches.batch_size, len(batches.clips)),
        processes=runs.ranks.world,
        batches=len(batches),
        epochs=config.epochs or 1,
        folds=len(split_folds(runs.dataset)) if runs.folds == "all" else 1,
        before=before,
        work=work,
        memory=memory,
        patience=bool(config.patience),
    )
    for line in found.lines():
        logger.info(line)
    return found


class Trial(Callback):
    """Measures what a training costs when it has begun, and stops it before its first step.

    Args:
        features: see `measure`
        copied: whether nothing needs the module any more, and steps may be done on it
    """

    def __init__(self, validation: Windows | Items | None, *, features: Any = None, copied: bool = False) -> None:
        self.validation, self.features, self.copied = validation, features, copied
        self.cost: StepCost | None = None
        self.memory: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Decodes a batch, then measures with the samples in memory, as all but the first epoch has them."""
        assert isinstance(module, TrainingModule)
        module.batches.peek()
        self.cost = measure(
            module,
            self.validation,
            precision=trainer.precision_plugin.forward_context,
            copied=module if self.copied else None,
            features=self.features,
        )
        self.memory = memory_gigabytes(module.device)
        trainer.should_stop = True


@dataclass(frozen=True, kw_only=True)
class PeekedStore(SampleStore):
    """Samples that are decoded at their first use and then stay in memory; lengths are those of the headers."""

    memory: dict[int, Float32[np.ndarray, "time"]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # that decoding took
    lock: Any = field(default_factory=threading.Lock)

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        with self.lock:
            if index not in self.memory:
                began = time.monotonic()
                samples = decode(self.items[index], self.rate)
                self.seconds.append(time.monotonic() - began)
                self.memory[index] = np.resize(samples, max(self.lengths[index], 1))
            return self.memory[index]

    def decoding(self, config: TrainConfig | TuneConfig, *, workers: int) -> tuple[float, float]:
        """Seconds to decode once what is kept, and per clip and use to decode again what the budget does not reach."""
        one = float(np.mean(self.seconds)) if self.seconds else 0.0
        size = np.maximum(self.lengths, 0).sum() * np.float32().nbytes
        kept = min(1.0, config.cache_gigabytes * 2**30 / max(size, 1))
        once = one * len(self.items) * kept / (workers if kept < 1 else os.cpu_count() or 1)
        return once, one * (1 - kept) / workers


def peeked(items: Sequence[Item], rate: int) -> PeekedStore:
    """What is known of recordings without decoding them."""
    if isinstance(items, TarItems):
        lengths, failures = clip_lengths(items, rate)
    else:
        chosen = np.sort(np.random.default_rng(0).permutation(len(items))[:HEADERS])
        found, reasons = clip_lengths([items[n] for n in chosen.tolist()], rate)
        failures = {int(chosen[place]): reason for place, reason in reasons.items()}
        known = found[found != UNREADABLE]
        lengths = np.resize(known if len(known) else np.zeros(1, np.int64), len(items))
        lengths[chosen] = found
    return PeekedStore.undecoded(items, rate, lengths=lengths, failures=failures)


class Unread(Readable):
    """Examples that are taken for usable until they are read."""

    def __init__(self, dataset: Dataset) -> None:
        self.failures, self.usable = {}, np.arange(len(dataset))
