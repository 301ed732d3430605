"""Learning-rate schedules by name. To add one, write a function and put it into `SCHEDULES`."""

import math
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class ScheduleSettings(Protocol):
    """The settings that decide the learning rate."""

    @property
    def schedule(self) -> str: ...
    @property
    def hold(self) -> float: ...
    @property
    def decay_until(self) -> float: ...
    @property
    def final_lr(self) -> float: ...


# The fraction of the decay that is left, 1 to 0, to the fraction of the way from the final to the peak rate.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "linear": lambda left: left,
    "constant": lambda left: 1.0,
    "plateau": lambda left: 1.0,  # and falls by steps: see `falls`
}


def learning_rate(progress: float, settings: ScheduleSettings, *, warmup: float) -> float:
    """The learning rate as a fraction of its peak.

    Args:
        progress: fraction of the run that is done, 0 to 1.
        warmup: fraction of the run over which the rate rises linearly.
    """
    if progress < warmup:
        return progress / warmup
    start = max(warmup, settings.hold)
    if settings.schedule in ("constant", "plateau") or progress <= start:
        return 1.0
    left = 1 - min((progress - start) / max(settings.decay_until - start, 1e-9), 1.0)
    return settings.final_lr + (1 - settings.final_lr) * SCHEDULES[settings.schedule](left)


def falls(scores: Iterable[float], *, patience: int, threshold: float = 1e-4) -> int:
    """How often the rate has fallen by these scores of one epoch after another: each time after more than `patience`
    epochs without a score that is better by the fraction `threshold` of the best.

    As torch's ReduceLROnPlateau with mode="max"; but a function of the scores, so that a resumed run needs no state.
    """
    count, best, waited = 0, -math.inf, 0
    for score in scores:
        if score > best * (1 + threshold):
            best, waited = score, 0
        else:
            waited += 1
        if waited > patience:
            count, waited = count + 1, 0
    return count
