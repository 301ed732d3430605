"""What happens around the steps: the gradient guard, averaging, the record of every epoch, checkpoints, progress."""

import contextlib
import csv
import io
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ossicle.errors import DataRefused, RunRefused
from ossicle.files import write_atomically
from ossicle.inference import summarize
from ossicle.metrics import balanced_accuracy, mean_average_precision
from ossicle.report import throughput_text
from ossicle.training.averaging import WeightAverage
from ossicle.training.config import FitConfig
from ossicle.training.estimate import LOG_SECONDS, Every, duration, measure
from ossicle.training.loader import Items, Known, Targets, Windows
from ossicle.training.losses import cross_entropy, weighted_mean
from ossicle.training.module import NetworkTraining, TrainingModule
from ossicle.training.ranks import ALONE, STOPPING, Ranks
from ossicle.training.tracking import Throughput
from ossicle.tuning.guard import GradientGuard
from ossicle.types import Task
from ossicle.weights.state import checkpoints
from ossicle.weights.tensors import load_weights, save_weights

BEST = Path("checkpoints") / "best.safetensors"  # in a run folder
logger = logging.getLogger(__name__)
# Called with steps done, steps in all, seconds left; True shows a bar on a terminal.
Progress = bool | Callable[[int, int, float], None]


class FrozenStart(Callback):
    """Keeps all but the head of a network as it is, for the first epochs.

    Comes last among the callbacks, so that the others see at the start which parameters train in all.
    """

    def __init__(self, module: NetworkTraining) -> None:
        head = set(module.head_parameters())
        self.body = [p for _, p in module.trained() if p.requires_grad and p not in head]
        self.epochs = module.config.freeze_epochs

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Freezes, also in a run that is resumed inside an epoch, where no epoch starts."""
        self.set(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Unfreezes when it is time."""
        if trainer.current_epoch == self.epochs:
            logger.info(f"epoch {self.epochs + 1}: from here on the whole network trains, not the head alone")
        self.set(trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Leaves nothing frozen."""
        self.set(self.epochs)

    def set(self, epoch: int) -> None:
        """Freezes or unfreezes what an epoch has so."""
        for p in self.body:
            p.requires_grad_(epoch >= self.epochs)


class Guard(Callback):
    """Stops a run in which a parameter silently does not train, or a frozen one does.

    A resumed run is watched anew, and so is one whose frozen start ends.
    """

    guard: GradientGuard | None = None

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Judges a frozen start at its end."""
        assert isinstance(module, TrainingModule)
        if self.guard is not None and trainer.current_epoch == getattr(module.config, "freeze_epochs", 0):
            self.guard.finish()
            self.guard = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Notes which parameters are to train."""
        assert isinstance(module, TrainingModule)
        self.guard = self.guard or GradientGuard(module.watched())

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Looks at the gradients of a step, all that it accumulates."""
        assert self.guard is not None
        self.guard.check()

    def on_train_end(self, *_: Any) -> None:
        """Judges what was seen."""
        if self.guard is not None:
            self.guard.finish()


class Averaging(Callback):
    """Keeps the average of the weights and puts it in their place while the validation part is scored."""

    def __init__(self, module: TrainingModule) -> None:
        self.config = module.config
        decay = self.config.ema_decay if self.config.average == "ema" else None
        self.average = WeightAverage((p for _, p in module.trained()), decay=decay)
        self.steps_seen = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Updates after an optimizer step (EMA), or at the end of an epoch that gives a snapshot (SWA)."""
        if self.config.average == "ema":
            if trainer.global_step > self.steps_seen:
                self.average.update()
        elif trainer.is_last_batch and is_snapshot(trainer.current_epoch, self.config):
            self.average.update()
        self.steps_seen = trainer.global_step

    def on_validation_epoch_start(self, *_: Any) -> None:
        """The average goes in."""
        self.average.swap()

    def on_validation_epoch_end(self, *_: Any) -> None:
        """The weights that train come back."""
        self.average.swap()

    def state_dict(self) -> dict[str, Any]:
        """The average itself."""
        return {**self.average.state_dict(), "steps_seen": self.steps_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a stored average."""
        self.average.load_state_dict(state)
        self.steps_seen = state["steps_seen"]


def is_snapshot(epoch: int, config: FitConfig) -> bool:
    """Whether the weights at the end of this epoch (from 0) enter the SWA mean; the last epoch's always do."""
    epochs = config.epochs or 1
    first = min(int(config.swa_start * epochs), epochs - 1)
    return epoch >= first and ((epoch - first) % config.swa_every == 0 or epoch == epochs - 1)


class Recorder(Callback):
    """Writes a row per epoch, keeps the weights of the best one, and stops a run that no longer improves.

    Comes before `Averaging` among the callbacks, so that it sees the averaged weights after validation.

    Args:
        targets: of all examples of the data set, to be compared with the validation part's scores.
        known: of which labels it is known whether an example has them; None is all.
        folder: of the run; without one rows and best weights stay in memory.
        ranks: the processes that train; all of them decide by the scores that rank zero has computed.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        config: FitConfig,
        task: Task,
        known: Known = None,
        folder: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.targets, self.known, self.config, self.task, self.folder = targets, known, config, task, folder
        self.rows: list[dict[str, Any]] = []
        self.best_epoch, self.best_score, self.best_loss = -1, -1.0, float("inf")
        self.seconds, self._started = 0.0, time.monotonic()
        self.expected: float | None = None  # clips per second, by the estimate
        self._throughput: Throughput | None = None
        self.val: dict[str, float] = {}
        self._best: dict[str, torch.Tensor] | None = None

    def best_weights(self) -> dict[str, torch.Tensor] | None:
        """The weights of the epoch with the best validation score, if any epoch had one."""
        if self.folder is None:
            return self._best
        if self.best_epoch < 0:
            return None
        path = self.folder / BEST
        if not path.exists():
            raise RunRefused(f"{path}: the weights of the best epoch are gone; put back a copy, or begin another run.")
        return load_weights(path)

    def _keep(self, tensors: Mapping[str, torch.Tensor]) -> None:
        if self.folder is None:
            self._best = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        elif self.ranks.zero:
            save_weights(self.folder / BEST, tensors)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Starts the clock, which a resumed run continues; one that had stopped improving stays stopped."""
        assert isinstance(module, TrainingModule)
        self._started = time.monotonic() - self.seconds
        module.val_scores = [row["val_score"] for row in self.rows if "val_score" in row]
        trainer.should_stop = self.improves_no_more

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Starts to measure the throughput."""
        assert isinstance(module, TrainingModule)
        self._throughput = Throughput(module)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Starts to measure the throughput of a run that is resumed inside an epoch, where no epoch starts."""
        assert isinstance(module, TrainingModule)
        self._throughput = self._throughput or Throughput(module)

    @property
    def improves_no_more(self) -> bool:
        """Whether the validation score has been no better for `patience` epochs."""
        patience = self.config.patience
        return bool(patience and self.val) and epochs_without_gain(self.rows, self.config.min_delta) >= patience

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the time."""
        assert self._throughput is not None
        self.seconds = time.monotonic() - self._started
        self._throughput.step(batch.total)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Scores the validation part; a better score, or an equal one with a smaller loss, keeps the weights."""
        assert isinstance(module, TrainingModule)
        own = [(clips, logits.cpu()) for clips, logits in module.val_outputs]
        outputs = [one for part in self.ranks.gather(own) for one in part]
        judge = module.judge or self._judge
        loss, score = self.ranks.from_zero(lambda: judge(outputs))
        self.val = {"val_loss": loss, "val_score": score}
        before = module.fallen_rate
        module.val_scores = [*(row["val_score"] for row in self.rows), score]
        for group in trainer.optimizers[0].param_groups:  # the schedule comes by only after the next step
            group["lr"] *= module.fallen_rate / before
        if (score, -loss) > (self.best_score, -self.best_loss):
            self.best_score, self.best_loss, self.best_epoch = score, loss, trainer.current_epoch
            self._keep(module.weights())

    def _judge(self, outputs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
        """Loss and score of the validation part."""
        logits, clips = clip_logits(outputs, task=self.task)
        targets, known = self.targets[clips.numpy()], None if self.known is None else self.known[clips.numpy()]
        each = cross_entropy(logits, torch.from_numpy(targets).float(), self.task)
        loss = float(weighted_mean(each, None if known is None else torch.from_numpy(known).float()))
        return loss, validation_score(logits, targets, task=self.task, known=known)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Adds the row of the epoch."""
        assert isinstance(module, TrainingModule) and self._throughput is not None
        self.seconds = time.monotonic() - self._started
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 2),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": module.epoch_loss(),
            **self.val,
            **self._throughput.row(expected=self.expected),
        }
        self.rows.append(row)
        self.write()
        trainer.should_stop = self.improves_no_more

    def write(self) -> None:
        """Writes `metrics.csv` anew, whole."""
        if self.folder is not None and self.ranks.zero and self.rows:
            write_atomically(self.folder / "metrics.csv", csv_text(self.rows))

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to write the same rows and choose the same epoch."""
        names = ("rows", "best_epoch", "best_score", "best_loss", "seconds", "val")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues a stored record."""
        for name, value in state.items():
            setattr(self, name, value)


def epochs_without_gain(rows: Sequence[Mapping[str, Any]], min_delta: float) -> int:
    """How many of the last epochs have not raised the validation score by `min_delta`.

    Small steps count once they add up to it. A loss that falls at the same score counts for the weights that are kept
    alone: it falls by a little almost for ever. Where no clip has a label all scores are 0, and the loss stands in.
    """
    gained, best = -1, (-math.inf, math.inf)
    for epoch, row in enumerate(rows):
        score, loss = row["val_score"], row["val_loss"]
        rises = score > best[0] and score >= best[0] + min_delta
        falls = score == best[0] == 0 and loss < best[1] and loss <= best[1] - min_delta
        if rises or falls:
            gained, best = epoch, (score, loss)
    return len(rows) - 1 - gained


def clip_logits(
    outputs: list[tuple[torch.Tensor, torch.Tensor]], *, task: Task
) -> tuple[Float[torch.Tensor, "clip label"], Int64[torch.Tensor, "clip"]]:
    """The logits of each clip from its windows', joined as in prediction, and the clips' positions, ascending.

    Raises: DataRefused where there is none, as every clip of a part was lost.
    """
    if not outputs:
        raise DataRefused("no clip of a part that is scored could be read; bring the data back, and --resume goes on.")
    owners = torch.cat([clips for clips, _ in outputs])
    logits = torch.cat([rows for _, rows in outputs])
    order = owners.argsort(stable=True)
    clips, counts = owners[order].unique_consecutive(return_counts=True)
    if len(clips) == len(owners):
        return logits[order], clips
    joined = [summarize(rows.numpy(), task=task) for rows in logits[order].split(counts.tolist())]
    return torch.from_numpy(np.stack(joined)), clips


def validation_score(
    logits: torch.Tensor, targets: np.ndarray, *, task: Task, known: np.ndarray | None = None
) -> float:
    """Balanced accuracy of labels that exclude each other, mean average precision of labels that do not.

    Where no clip has a label it is 0, so that the loss decides between epochs.
    """
    if task == "single-label":
        return balanced_accuracy(logits.softmax(-1).numpy(), targets)
    score = mean_average_precision(logits.sigmoid().numpy(), targets, known)[0]
    return 0.0 if math.isnan(score) else score


def score_name(task: str) -> str:
    """What the validation part is scored by."""
    return "balanced accuracy" if task == "single-label" else "mAP"


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV; a cell that a row does not have is empty."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Checkpoints(Callback):
    """Saves a checkpoint at the end of every epoch, every few minutes inside one, and when the user interrupts.

    Comes last among the callbacks: what it saves includes what the others did. Ctrl-C, SIGTERM, and SIGUSR1, by which a
    cluster says that the time is nearly up, take effect after the step under way, where the state is whole; a second
    one stops at once and the last saved state remains. A signal to any process is one to all.
    """

    def __init__(self, folder: Path, *, minutes: float, keep: int = 2, ranks: Ranks = ALONE) -> None:
        self.folder, self.minutes, self.keep, self.ranks = folder, minutes, keep, ranks
        self._saved = time.monotonic()
        self._interrupted = False

    def on_train_start(self, *_: Any) -> None:
        """Takes over the signals that ask a program to stop; Lightning gives them back, as it does those of its own."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        # The main thread alone may set handlers: in another the caller keeps the signals.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, *STOPPING):
                signal.signal(number, ask)
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time, and stops when the user asked: between optimizer steps, as gradients are not saved."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not whole or trainer.is_last_batch:
            return
        due = self.ranks.zero and time.monotonic() - self._saved > 60 * self.minutes
        interrupted, due = self.ranks.any([self._interrupted, due])
        if interrupted or due:
            self.save(trainer)
        if interrupted:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves at the end of the epoch."""
        (interrupted,) = self.ranks.any([self._interrupted])
        self.save(trainer)
        if interrupted:
            raise KeyboardInterrupt

    def on_train_end(self, *_: Any) -> None:
        """Stops where the user asked while the last checkpoint was written."""
        if any(self.ranks.any([self._interrupted])):
            raise KeyboardInterrupt

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint and removes all but the newest few."""
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:08d}")
        if self.ranks.zero:
            for old in checkpoints(self.folder)[self.keep :]:
                trainer.strategy.remove_checkpoint(old)
        self._saved = time.monotonic()


class Reporter(Callback):
    """Logs what the training will take before it begins, and how far it is: a line per epoch, and every half minute
    inside a longer one. On request also a bar on a terminal, or a function that is called after every step.

    Args:
        validation: measured beside a step.
        progress: see `Progress`.
    """

    def __init__(self, recorder: Recorder, *, validation: Windows | Items | None, progress: Progress = False) -> None:
        self.recorder, self.validation = recorder, validation
        self.epochs = recorder.config.epochs or 1
        self.score_name = score_name(recorder.task)
        self.watch = progress if callable(progress) else None
        self._bar = bar() if progress is True else None
        self._clips, self._batches, self._started = 0, 0, time.monotonic()
        self._step, self._pass = 0.0, 0.0  # seconds of a step, and of a pass over the validation part
        self._passes, self._pass_began = 0.0, 0.0  # seconds of all passes, and when the one under way began
        self._every = Every(LOG_SECONDS)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Measures a step, logs the estimate, and opens the bar."""
        assert isinstance(module, TrainingModule)
        done, steps = module.batches.position, self.epochs * len(module.batches)
        if trainer.should_stop or done >= steps:
            return
        measured = measure(module, self.validation, precision=trainer.precision_plugin.forward_context)
        if measured is not None:
            self._step, self._pass = measured.step, measured.scoring
            self.recorder.expected = module.config.batch_size / measured.step if module.config.batch_size else None
            most = "at most" if module.config.patience else "about"
            compiled = " that is not compiled" if getattr(module.config, "compile", False) else ""
            logger.info(
                f"Estimate: {most} {duration(self._left(module))} for {steps - done} batches in "
                f"{self.epochs - module.batches.epoch} epochs; a step{compiled} takes {self._step:.2g} s on this "
                "machine now"
            )
        self._clips, self._batches, self._passes, self._started = 0, 0, 0.0, time.monotonic()
        self._every = Every(LOG_SECONDS)
        if self.watch is not None:
            self.watch(done, steps, self._left(module))
        if self._bar is not None:
            self._task = self._bar.add_task("training", total=steps, completed=done)
            self._bar.start()

    def _left(self, module: TrainingModule) -> float:
        """Seconds to the end, by what steps and passes have taken since the start; before them, by the measurement."""
        if self._batches:
            self._step = (time.monotonic() - self._started - self._passes) / self._batches
        steps = self.epochs * len(module.batches) - module.batches.position
        passes = self.epochs - len(self.recorder.rows)
        return steps * self._step + passes * self._pass

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, or logs how far the epoch is."""
        assert isinstance(module, TrainingModule)
        self._clips += batch.total
        self._batches += 1
        number, batches = trainer.current_epoch + 1, len(module.batches)
        done = trainer.current_epoch * batches + batch_idx + 1
        pace = f"loss {module.last_loss:.3f}  {self._pace():.0f} clips/s"
        if self.watch is not None:
            self.watch(done, self.epochs * batches, self._left(module))
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"epoch {number}/{self.epochs}  {pace}")
        elif not trainer.is_last_batch and self._every.due():
            left = duration(self._left(module))
            logger.info(f"epoch {number}/{self.epochs}, batch {batch_idx + 1} of {batches}  {pace}  {left} left")

    def _pace(self) -> float:
        """Clips a second since the start."""
        return self._clips / max(time.monotonic() - self._started, 1e-9)

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Notes when a pass over the validation part begins."""
        self._pass_began = time.monotonic()

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Logs how far the pass is."""
        assert isinstance(module, TrainingModule) and self.validation is not None
        if self._bar is None and self._every.due():
            scored = sum(len(clips) for clips, _ in module.val_outputs)  # of this process's part
            epoch = f"epoch {trainer.current_epoch + 1}/{self.epochs}"
            logger.info(f"{epoch}, validation part: {scored} of {self.validation.number()}")

    def on_validation_epoch_end(self, *_: Any) -> None:
        """Notes how long the pass took."""
        self._pass = time.monotonic() - self._pass_began
        self._passes += self._pass

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Logs how the epoch went."""
        assert isinstance(module, TrainingModule)
        row = self.recorder.rows[-1]
        if self._bar is not None or row["epoch"] % module.logged_epochs and row["epoch"] != self.epochs:
            return
        self._every = Every(LOG_SECONDS)
        name = module.score_name or self.score_name
        val = f"  validation {name} {row['val_score']:.3f}" if "val_score" in row else ""
        logger.info(
            f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.3f}{val}  {throughput_text(row)}  "
            f"{duration(self._left(module))} left"
        )

    def on_exception(self, *_: Any) -> None:
        """Closes the bar of a run that was stopped or refused."""
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def bar() -> Bar | None:
    """A bar for a person who watches, or None where nobody does."""
    if not sys.stdout.isatty():
        return None
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(compact=True),
        console=Console(),
        transient=True,
    )
