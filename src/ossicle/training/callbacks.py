"""What happens around the steps: the gradient guard, averaging, the record of every epoch, checkpoints, and the line
the user watches."""

import contextlib
import csv
import io
import math
import shutil
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
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ossicle.files import write_atomically
from ossicle.inference import summarize
from ossicle.metrics import balanced_accuracy, mean_average_precision
from ossicle.training.averaging import WeightAverage
from ossicle.training.config import TrainConfig
from ossicle.training.estimate import SAID_SECONDS, Every, duration, measure
from ossicle.training.loader import Windows
from ossicle.training.module import Trainee, loss_of
from ossicle.tuning.guard import GradientGuard
from ossicle.types import Task
from ossicle.weights.state import checkpoints
from ossicle.weights.tensors import save_weights

Moved = Callable[[int, int, float], None]  # told steps done, steps in all, seconds left


class Guard(Callback):
    """Stops a run in which a parameter silently does not train, or a frozen one does; a resumed run is watched anew."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Notes which parameters are to train."""
        assert isinstance(module, Trainee)
        self.guard = GradientGuard(module.model.named_parameters())

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Looks at the gradients of a step, all that it accumulates."""
        self.guard.check()

    def on_train_end(self, *_: Any) -> None:
        """Judges what was seen."""
        self.guard.finish()


class Averaging(Callback):
    """Keeps the average of the weights and puts it in their place while the validation part is scored."""

    def __init__(self, module: Trainee) -> None:
        config = module.config
        self.config = config
        self.average = WeightAverage(module.model, decay=config.ema_decay if config.average == "ema" else None)
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


def is_snapshot(epoch: int, config: TrainConfig) -> bool:
    """Whether the weights at the end of this epoch (from 0) enter the SWA mean; the last epoch's always do."""
    epochs = config.epochs or 1
    first = min(int(config.swa_start * epochs), epochs - 1)
    return epoch >= first and ((epoch - first) % config.swa_every == 0 or epoch == epochs - 1)


class Recorder(Callback):
    """Writes a row per epoch, keeps the weights of the best one, and stops a run that no longer improves.

    Comes before `Averaging` among the callbacks, so that it sees the averaged weights after validation.

    Args:
        targets: of all items of the store, to be compared with the validation part's scores.
        patience, min_delta: see `TrainConfig`.
        best: where the best weights go; without a validation part nothing is written.
    """

    def __init__(self, targets: np.ndarray, *, folder: Path, task: Task, patience: int, min_delta: float = 0.0) -> None:
        self.targets, self.folder, self.task = targets, folder, task
        self.patience, self.min_delta = patience, min_delta
        self.rows: list[dict[str, Any]] = []
        self.best_epoch, self.best_score, self.best_loss = -1, -1.0, float("inf")
        self.losses: list[float] = []
        self.seconds, self._started = 0.0, time.monotonic()
        self.val: dict[str, float] = {}

    @property
    def best_weights(self) -> Path:
        """The weights of the epoch with the best validation score."""
        return self.folder / "checkpoints" / "best.safetensors"

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Starts the clock, which a resumed run continues; one that had stopped improving stays stopped."""
        self._started = time.monotonic() - self.seconds
        trainer.should_stop = self.improves_no_more

    @property
    def improves_no_more(self) -> bool:
        """Whether the validation score has been no better for `patience` epochs."""
        return bool(self.patience and self.val) and epochs_without_gain(self.rows, self.min_delta) >= self.patience

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Notes the loss."""
        assert isinstance(module, Trainee)
        self.losses.append(module.last_loss)
        self.seconds = time.monotonic() - self._started

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Scores the validation part; a better score, or an equal one with a smaller loss, keeps the weights."""
        assert isinstance(module, Trainee)
        logits, clips = clip_logits(module.val_outputs, task=self.task)
        targets = torch.from_numpy(self.targets[clips.numpy()]).float()
        loss = float(loss_of(logits, targets, task=self.task))
        score = validation_score(logits, self.targets[clips.numpy()], task=self.task)
        self.val = {"val_loss": loss, "val_score": score}
        if (score, -loss) > (self.best_score, -self.best_loss):
            self.best_score, self.best_loss, self.best_epoch = score, loss, trainer.current_epoch
            save_weights(self.best_weights, module.model.state_dict())

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Writes `metrics.csv` anew, whole."""
        self.seconds = time.monotonic() - self._started
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 2),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": float(np.mean(self.losses)),
            **self.val,
        }
        self.losses = []
        self.rows.append(row)
        write_atomically(self.folder / "metrics.csv", csv_text(self.rows))
        trainer.should_stop = self.improves_no_more

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to write the same rows and choose the same epoch."""
        names = ("rows", "best_epoch", "best_score", "best_loss", "losses", "seconds", "val")
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
    """The logits of each clip from its windows', joined as in prediction, and the clips' positions, ascending."""
    owners = torch.cat([clips for clips, _ in outputs])
    logits = torch.cat([rows for _, rows in outputs])
    order = owners.argsort(stable=True)
    clips, counts = owners[order].unique_consecutive(return_counts=True)
    joined = [summarize(rows.numpy(), task=task) for rows in logits[order].split(counts.tolist())]
    return torch.from_numpy(np.stack(joined)), clips


def validation_score(logits: torch.Tensor, targets: np.ndarray, *, task: Task) -> float:
    """Balanced accuracy of labels that exclude each other, mean average precision of labels that do not.

    Where no clip has a label it is 0, so that the loss decides between epochs.
    """
    if task == "single-label":
        return balanced_accuracy(logits.softmax(-1).numpy(), targets)
    score = mean_average_precision(logits.sigmoid().numpy(), targets)[0]
    return 0.0 if math.isnan(score) else score


def csv_text(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class StateKeeper(Callback):
    """Saves the run's state at the end of every epoch, every few minutes inside one, and when the user interrupts.

    Comes last among the callbacks: what it saves includes what the others did. Ctrl-C takes effect after the step under
    way, where the state is whole; a second one stops at once and the last saved state remains.
    """

    def __init__(self, folder: Path, *, minutes: float, keep: int = 2) -> None:
        self.folder, self.minutes, self.keep = folder, minutes, keep
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
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, ask)
        for left in self.folder.glob(".step-*"):  # by a process that was killed while it saved
            shutil.rmtree(left, ignore_errors=True)
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is time, and stops when the user asked: between optimizer steps, as gradients are not saved."""
        due = time.monotonic() - self._saved > 60 * self.minutes
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if (self._interrupted or due) and whole and not trainer.is_last_batch:
            self.save(trainer)
            if self._interrupted:
                raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves at the end of the epoch."""
        self.save(trainer)
        if self._interrupted:
            raise KeyboardInterrupt

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint and removes all but the newest few."""
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:08d}")
        for old in checkpoints(self.folder)[self.keep :]:
            trainer.strategy.remove_checkpoint(old)
        self._saved = time.monotonic()


class Line(Callback):
    """Says what the training will take before it begins, and how far it is: a bar with speed, loss and time left on a
    terminal; elsewhere a plain line per epoch, and every half minute inside a longer one.

    Args:
        say: prints a line.
        moved: told how far it is after every step, in place of the bar.
        validation: measured beside a step.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        say: Callable[[str], None],
        epochs: int,
        score_name: str,
        validation: Windows | None = None,
        moved: Moved | None = None,
    ) -> None:
        self.recorder, self.say, self.epochs, self.score_name = recorder, say, epochs, score_name
        self.validation, self.moved = validation, moved
        self._progress: Progress | None = None
        self._clips, self._batches, self._started = 0, 0, time.monotonic()
        self._step, self._pass = 0.0, 0.0  # seconds of a step, and of a pass over the validation part
        self._passes, self._pass_began = 0.0, 0.0  # seconds of all passes, and when the one under way began
        self._now_and_then = Every(SAID_SECONDS)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Measures a step, says what all of them will take, and opens the bar."""
        assert isinstance(module, Trainee)
        steps = self.epochs * len(module.batches)
        if trainer.should_stop or module.batches.position >= steps:
            return
        numbers = trainer.precision_plugin.forward_context
        self._step, self._pass = measure(module, self.validation, numbers=numbers)
        most = "at most" if module.config.patience else "about"
        compiled = " that is not compiled" if module.config.compile else ""
        left, epochs = steps - module.batches.position, self.epochs - module.batches.epoch
        self.say(
            f"Estimate: {most} {duration(self._left(module))} for {left} batches in {epochs} epochs; a step{compiled} "
            f"takes {self._step:.2g} s on this machine now"
        )
        self._clips, self._batches, self._passes, self._started = 0, 0, 0.0, time.monotonic()
        self._now_and_then = Every(SAID_SECONDS)
        if self.moved is not None:
            self.moved(module.batches.position, steps, self._left(module))
        elif (progress := bar()) is not None:
            self._progress = progress
            self._task = progress.add_task("training", total=steps, completed=module.batches.position)
            progress.start()

    def _left(self, module: Trainee) -> float:
        """Seconds to the end, by what steps and passes have taken since the start; before them, by the measurement."""
        if self._batches:
            self._step = (time.monotonic() - self._started - self._passes) / self._batches
        steps = self.epochs * len(module.batches) - module.batches.position
        passes = self.epochs - len(self.recorder.rows)
        return steps * self._step + passes * self._pass

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, or says how far the epoch is."""
        assert isinstance(module, Trainee)
        self._clips += len(batch.waves)
        self._batches += 1
        number, batches = trainer.current_epoch + 1, len(module.batches)
        done = trainer.current_epoch * batches + batch_idx + 1
        speed = self._clips / (time.monotonic() - self._started)
        pace = f"loss {module.last_loss:.3f}  {speed:.0f} clips/s"
        if self.moved is not None:
            self.moved(done, self.epochs * batches, self._left(module))
        elif self._progress is not None:
            self._progress.update(self._task, completed=done, description=f"epoch {number}/{self.epochs}  {pace}")
        if self._progress is None and not trainer.is_last_batch and self._now_and_then.due():
            left = duration(self._left(module))
            self.say(f"epoch {number}/{self.epochs}, batch {batch_idx + 1} of {batches}  {pace}  {left} left")

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Notes when a pass over the validation part begins."""
        self._pass_began = time.monotonic()

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Says how far the pass is."""
        assert isinstance(module, Trainee) and self.validation is not None
        if self._progress is None and self._now_and_then.due():
            scored = sum(len(clips) for clips, _ in module.val_outputs)
            number = self.validation.number()
            self.say(f"epoch {trainer.current_epoch + 1}/{self.epochs}, validation part: {scored} of {number} windows")

    def on_validation_epoch_end(self, *_: Any) -> None:
        """Notes how long the pass took."""
        self._pass = time.monotonic() - self._pass_began
        self._passes += self._pass

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Says how the epoch went."""
        assert isinstance(module, Trainee)
        if self._progress is not None:
            return
        row = self.recorder.rows[-1]
        self._now_and_then = Every(SAID_SECONDS)
        dev = f"  validation {self.score_name} {row['val_score']:.3f}" if "val_score" in row else ""
        self.say(
            f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.3f}{dev}  "
            f"{self._clips / (time.monotonic() - self._started):.0f} clips/s  {duration(self._left(module))} left"
        )

    def teardown(self, *_: Any, **__: Any) -> None:
        """Closes the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def bar() -> Progress | None:
    """A bar for a person who watches, or None where nobody does."""
    if not sys.stdout.isatty():
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(compact=True),
        console=Console(),
        transient=True,
    )
