"""How long a training will take, measured before its first epoch; durations for people."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from ossicle.training.averaging import WeightAverage
from ossicle.training.loader import Batch, Items, Windows
from ossicle.training.module import TrainingModule
from ossicle.training.ranks import ALONE

logger = logging.getLogger(__name__)

LOG_SECONDS = 30.0  # between two lines of a log while something long runs
STEPS, SECONDS = 5, 1.0  # a step is timed so often, or so long


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(45), duration(150), duration(20_000)
    ('45 s', '2.5 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Every:
    """Says when it is time again.

    Args:
        seconds: from one time to the next
        first: before the first time; by default the same
    """

    def __init__(self, seconds: float, *, first: float | None = None) -> None:
        self.seconds = seconds
        self._next = time.monotonic() + (seconds if first is None else first)

    def due(self) -> bool:
        """Whether it is time, and if so, not again for a while."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.seconds
        return True


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Seconds that a training takes on this machine now."""

    loading: float
    """Of a batch, by the threads that load ahead; they share the processor with a step on it."""
    computing: float
    """From a loaded batch to the changed weights."""
    frontend: float = 0.0
    """The part of `computing` that makes features and augments them, where it was measured."""
    scoring: float
    """Of a pass over the validation part."""

    @property
    def step(self) -> float:
        """Of a whole step."""
        return self.loading + self.computing


def measure(
    module: TrainingModule,
    validation: Windows | Items | None,
    *,
    precision: Callable[[], AbstractContextManager[None]],
    copied: TrainingModule | None = None,
    features: Callable[[TrainingModule, Batch], Tensor] | None = None,
) -> StepCost | None:
    """What a step on the next batch costs, and a pass over the validation part.

    On a copy: weights, optimizer, order and random streams stay as they are, so that a run is the same with it. None
    where the module has no copy to measure on.

    Args:
        precision: a context in which the network computes in the precision of the run
        copied: what to measure on; by default a copy
        features: makes what the network computes on, to be measured by itself too
    """
    copied = copied or module.copied()
    if copied is None:
        return None
    copied.ranks = ALONE  # each process measures as long as it takes
    optimizer = copied.optimizer()
    average = None
    if copied.config.average == "ema":
        average = WeightAverage((p for _, p in copied.trained()), decay=copied.config.ema_decay)
    began = time.monotonic()
    batch = module.batches.peek().to(module.device)
    loading = (time.monotonic() - began) / module.batches.workers  # others load while a step runs
    first = next(p for _, p in copied.trained())

    def step() -> None:
        with precision():
            loss = copied.training_step(batch, 0)
        loss.backward()
        copied.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update()
        first.flatten()[0].item()  # waits for the device

    def prepare() -> None:
        assert features is not None
        with torch.no_grad(), precision():
            features(copied, batch).flatten()[0].item()

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if module.device.type == "cuda" else []):
        computing = timed(step)
        frontend = 0.0 if features is None else timed(prepare)
        scoring = 0.0
        # Of more processes than clips some have none.
        if validation is not None and (part := next(iter(validation), None)) is not None:
            copied.eval()

            def score() -> None:
                with torch.no_grad(), precision():
                    copied.validation_step(part.to(module.device), 0)

            scoring = timed(score) * validation.number() / len(part.clips)
    return StepCost(loading=loading, computing=computing, frontend=frontend, scoring=scoring)


def timed(function: Callable[[], None]) -> float:
    """Mean seconds of a call; a first one, which also makes what the later ones find, does not count unless long."""
    began = time.monotonic()
    function()
    first = time.monotonic() - began
    if first > 10 * SECONDS:
        return first
    began = time.monotonic()
    calls = 0
    while calls < STEPS and time.monotonic() - began < SECONDS:
        function()
        calls += 1
    return (time.monotonic() - began) / calls


def logged(sentence: str, *, end: bool = True) -> Callable[..., None]:
    """Logs how far a piece of work is and how long the rest takes: soon, then every half minute.

    Args:
        sentence: with two holes, for what succeeded and for all
        end: log also that all is done
    """
    first: tuple[int, float] | None = None  # what was done at the first call, perhaps by an earlier run
    every = Every(LOG_SECONDS, first=2.0)

    def progress(done: int, total: int, failed: int = 0) -> None:
        nonlocal first
        now = time.monotonic()
        line = sentence.format(done - failed, total) + (f", {failed} failed" if failed else "")
        if first is None:
            first = done, now
        if done == total:
            if end:
                logger.info(line)
        elif done > first[0] and every.due():
            left = (now - first[1]) / (done - first[0]) * (total - done)
            logger.info(f"{line}, about {duration(left)} left")

    return progress
