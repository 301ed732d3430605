"""What a run records beside its log: speed and memory of each epoch, and metrics for loggers such as TensorBoard.

`metrics.csv` is written in any case. Loggers are Lightning's; this module calls them, and not its trainer, so that one
that fails, for want of a network or of disk space, ends with a sentence and the training goes on.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from ossicle.allocator import peak_bytes
from ossicle.errors import ExtraMissing, first_line
from ossicle.training.module import TrainingModule

log = logging.getLogger(__name__)
TENSORBOARD = "tensorboard"  # the logger by that name, and its folder in that of the run
STEPS = 50  # from one step that is logged to the next, as Lightning has it

# A logger, `tensorboard`, or a function that makes a logger for the folder of a run.
AnyLogger = str | Logger | Callable[[Path], Logger]


def checked_loggers(loggers: AnyLogger | Sequence[AnyLogger] | None, *, several: bool) -> tuple[AnyLogger, ...]:
    """The loggers of a training as a sequence.

    Args:
        several: the training has several runs, which a logger that is made already would mix up

    Raises:
        ExtraMissing: TensorBoard is not installed.
        ValueError: another name, or one logger for several runs.
        TypeError: something else.
    """
    found = list(loggers) if isinstance(loggers, Sequence) and not isinstance(loggers, str) else [loggers]
    chosen = tuple(one for one in found if one is not None)
    for one in chosen:
        if isinstance(one, str):
            if one != TENSORBOARD:
                raise ValueError(f"logger={one!r} is not available by name; available: {TENSORBOARD}")
            check_tensorboard()
        elif isinstance(one, Logger):
            if several:
                raise ValueError(
                    f"one {type(one).__name__} cannot log several runs; pass a function that takes a run folder and "
                    "makes a logger"
                )
        elif not callable(one):
            raise TypeError(f"expected a logger of Lightning, a name or a function, got {type(one).__name__}")
    return chosen


def check_tensorboard() -> None:
    """Raises ExtraMissing where TensorBoard does not work here, with what to install."""
    try:
        import tensorboard  # noqa: F401
    except Exception as error:  # installed but broken counts as absent
        raise ExtraMissing(
            f"logger=tensorboard needs TensorBoard, which does not work here ({error}): pip install 'ossicle[track]'"
        ) from error


class Tracking(Callback):
    """Hands the settings, the loss of every 50th step and the row of every epoch to loggers. Of rank zero alone.

    Steps count from the start of the run, so that a resumed run continues its curves. Comes before `Checkpoints` among
    the callbacks: what a checkpoint has, the loggers have.

    Args:
        loggers: see `checked_loggers`.
        folder: of the run.
    """

    def __init__(self, loggers: Sequence[AnyLogger], *, folder: Path) -> None:
        self.chosen, self.folder = loggers, folder
        self.loggers: list[Logger] = []
        self.latest: Callable[[], Mapping[str, Any]] = dict  # the recorder's row of the epoch that has ended
        self._step = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Opens the loggers."""
        assert isinstance(module, TrainingModule)
        self._step = trainer.global_step
        for one in self.chosen:
            self._attempt(partial(self._open, one), name_of(one))
        self._each(lambda logger: logger.log_hyperparams(asdict(module.config)))

    def _open(self, one: AnyLogger) -> None:
        self.loggers.append(self._opened(one))

    def _opened(self, one: AnyLogger) -> Logger:
        if isinstance(one, Logger):
            return one
        if isinstance(one, str):
            # What a killed run has logged beyond its last checkpoint is done again.
            purge = self._step + 1 if self._step else None
            return TensorBoardLogger(self.folder, TENSORBOARD, version="", default_hp_metric=False, purge_step=purge)
        return one(self.folder)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Logs the loss and the rate of a step."""
        assert isinstance(module, TrainingModule)
        if self.loggers and trainer.global_step >= self._step + STEPS:
            metrics = {"lr": float(trainer.optimizers[0].param_groups[0]["lr"])}
            if math.isfinite(module.last_loss):  # on a GPU that of a step before, or none yet
                metrics["train_loss_step"] = module.last_loss
            self.record(metrics, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Logs the row of the epoch."""
        self.record({name: value for name, value in self.latest().items() if name != "step"}, step=trainer.global_step)

    def record(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Logs metrics, by default at the step of the latest ones."""
        self._step = self._step if step is None else step
        self._each(lambda logger: logger.log_metrics(dict(metrics), step=self._step))

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the loggers."""
        status = "success" if kind is None else "aborted" if kind is KeyboardInterrupt else "failed"
        self._each(lambda logger: logger.finalize(status))
        # Nothing that the run has trained stays in memory; Lightning gives a callback the `log` of its module.
        self.loggers, self.latest = [], dict
        for name in ("log", "log_dict"):
            vars(self).pop(name, None)

    def _each(self, call: Callable[[Logger], object]) -> None:
        for logger in list(self.loggers):
            if not self._attempt(partial(call, logger), name_of(logger)):
                self.loggers.remove(logger)

    def _attempt(self, call: Callable[[], object], name: str) -> bool:
        try:
            call()
        except Exception as error:  # whatever a tracker raises, the training goes on
            log.warning(
                f"{name} has failed and is not called again ({type(error).__name__}: {first_line(error)}); the "
                f"training goes on, and {self.folder / 'metrics.csv'} has every epoch."
            )
            return False
        return True


def name_of(logger: AnyLogger) -> str:
    """A logger for people."""
    if isinstance(logger, str):
        return logger
    return type(logger).__name__ if isinstance(logger, Logger) else getattr(logger, "__name__", repr(logger))


class Throughput:
    """Speed of the steps of an epoch, from its start, or from where the run was resumed in it."""

    def __init__(self, module: TrainingModule) -> None:
        # Not the module, which would hold itself by way of its trainer.
        self.batches, self.ranks, self.device = module.batches, module.ranks, module.device
        self.waited, self.began = self.batches.waited, time.monotonic()
        self.clips, self.seconds = 0, 0.0

    def step(self, clips: int) -> None:
        """Counts a step on so many clips; what follows the last one, such as the validation part, does not count."""
        self.clips += clips
        self.seconds = time.monotonic() - self.began

    def row(self, *, expected: float | None) -> dict[str, float]:
        """Columns of `metrics.csv`. Of several processes the longest wait and the largest memory count.

        Args:
            expected: clips per second by the estimate
        """
        pace = self.clips / max(self.seconds, 1e-9)
        wait = (self.batches.waited - self.waited) / max(self.seconds, 1e-9)
        mine = {"data_wait": wait, **memory_gigabytes(self.device)}
        most = {name: max(one[name] for one in self.ranks.gather(mine)) for name in mine}
        of_estimate = {} if expected is None else {"of_estimate": pace / expected}
        return {
            name: float(f"{value:.3g}") for name, value in ({"clips_per_second": pace} | of_estimate | most).items()
        }


def memory_gigabytes(device: torch.device) -> dict[str, float]:
    """Peak memory of this process, where the system tells, and most that torch had allocated on its GPU; 1e9 bytes."""
    own = peak_bytes()
    found = {} if own is None else {"memory_gigabytes": own / 1e9}
    if device.type == "cuda":
        found["gpu_gigabytes"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found
