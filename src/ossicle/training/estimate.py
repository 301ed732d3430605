"""How long a training will take, measured before its first epoch; durations for people."""

import copy
import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ossicle.training.averaging import WeightAverage
from ossicle.training.loader import Windows
from ossicle.training.module import Trainee, adamw

SAID_SECONDS = 30.0  # between two lines of a log while something long runs
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


def measure(
    module: Trainee, validation: Windows | None, *, numbers: Callable[[], AbstractContextManager[None]]
) -> tuple[float, float]:
    """Seconds of a step on the next batch, and of a pass over the validation part, as this machine does them now.

    On a copy: weights, optimizer, order and random streams stay as they are, so that a run is the same with it. The
    copy is not compiled.

    Args:
        numbers: a context in which the network computes in the precision of the run
    """
    config = dataclasses.replace(module.config, compile=False, lr=0.0)  # a copy must not diverge
    copied = Trainee(
        copy.deepcopy(module.model).train(),
        copy.deepcopy(module.frontend),
        config,
        task=module.task,
        frames=module.frames,
        batches=module.batches,
    )
    optimizer = adamw(copied.model.named_parameters(), config, fused=True)
    average = WeightAverage(copied.model, decay=config.ema_decay) if config.average == "ema" else None
    began = time.monotonic()
    batch = module.batches.peek().to(module.device)
    loading = (time.monotonic() - began) / config.workers  # others load while a step runs

    def step() -> None:
        with numbers():
            loss = copied.training_step(batch, 0)
        loss.backward()
        copied.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update()
        next(copied.model.parameters()).flatten()[0].item()  # waits for the device

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if module.device.type == "cuda" else []):
        seconds = timed(step)
        if validation is None:
            return seconds + loading, 0.0
        part = next(iter(validation))
        copied.eval()

        def score() -> None:
            with torch.no_grad(), numbers():
                copied.validation_step(part.to(module.device), 0)

        return seconds + loading, timed(score) * validation.number() / len(part.waves)


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
