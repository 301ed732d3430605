"""The optimizer's loop of `ossicle tune`: hidden states of a frozen encoder in, the weights of a head out."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ossicle.data import Dataset, Split
from ossicle.encoders import Encoder, Hidden
from ossicle.errors import RunRefused
from ossicle.training.callbacks import validation_score
from ossicle.training.config import TuneConfig
from ossicle.training.folds import Part
from ossicle.training.loader import label_weights
from ossicle.training.module import adamw, learning_rate, loss_of
from ossicle.tuning.guard import GradientGuard
from ossicle.tuning.tuned import TunedHead
from ossicle.tuning.tuners import Tuner

# What a head is given for some items: its layers, pooled over time as it takes them.
Source = Callable[[Part], Hidden]
Progress = Callable[[int, int], None]
Watch = Callable[[str], Progress]
SCORED = 32  # items of a pass without gradients: with all their frames no more than a step of training holds


def unwatched(sentence: str) -> Progress:
    """What is told of a piece of work that nobody watches."""
    return lambda done, total: None


@dataclass(eq=False)
class Fitted:
    """What a fit leaves beside the weights in the model: a row per epoch, and the epoch that was kept, from 0."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1


def fit_head(
    model: TunedHead,
    source: Source,
    config: TuneConfig,
    *,
    dataset: Dataset,
    split: Split,
    tuner: Tuner | None = None,
    encoder: Encoder | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
    watch: Watch = unwatched,
) -> Fitted:
    """Trains a head, and the tuner if there is one; they end with the weights of the best validation score.

    Without a validation part the last epoch's weights stay.

    Args:
        source: gives hidden states, with a graph where there is a tuner.
        encoder: that of the tuner, which trains and evaluates as the head does.
        on_epoch: told the row of each epoch.
        watch: given a sentence with two holes, makes what is told how much of a piece of work is done, and of how much.

    Raises:
        RunRefused: a loss that is not finite, or a parameter that the guard names.
    """
    targets, task, train, validation = dataset.targets(), dataset.task, split.train, split.validation
    generator = torch.Generator().manual_seed(config.seed)
    if config.standardize:
        standardize(model, source, train, progress=watch("{} of {} items read for their mean and deviation"))
    parts: dict[str, TunedHead | Tuner] = {"head": model, **({"tuner": tuner} if tuner is not None else {})}
    named = [(f"{part}.{name}", p) for part, owner in parts.items() for name, p in owner.named_parameters()]
    optimizer = adamw(named, config)
    guard = GradientGuard([*named, *(encoder.named_parameters(prefix="encoder") if encoder is not None else [])])
    weights = label_weights(targets[train]) if config.balance == "class" else None
    steps = math.ceil(len(train) / config.batch_size) * config.epochs
    warmup = min(config.warmup / config.epochs, 0.5)
    fitted, best, kept = Fitted(), (-1.0, -math.inf), None
    started, step = time.monotonic(), 0
    progress = watch("trained {} of {} steps")
    progress(step, steps)
    with seeded(config.seed):
        for epoch in range(config.epochs):
            set_training(model, encoder, True)
            losses = []
            for batch in batches(train, size=config.batch_size, weights=weights, generator=generator):
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * learning_rate((step + 0.5) / steps, config, warmup=warmup)
                step += 1
                wanted = torch.from_numpy(targets[batch]).float()
                gamma = config.focal_gamma if config.loss == "focal" else 0.0
                logits = model.score(source(batch)).cpu()
                loss = loss_of(logits, wanted, task=task, smoothing=config.label_smoothing, focal_gamma=gamma)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    found = f"the loss became {losses[-1]} in epoch {epoch + 1}"
                    raise RunRefused(f"{found}; a lower rate than lr={config.lr:g} may help.")
                optimizer.zero_grad()
                loss.backward()
                guard.check()
                if config.clip_gradient:
                    torch.nn.utils.clip_grad_norm_([p for _, p in named], config.clip_gradient)
                optimizer.step()
                progress(step, steps)
            row = {"epoch": epoch + 1, "step": step, "seconds": round(time.monotonic() - started, 2)}
            row |= {"lr": optimizer.param_groups[0]["lr"], "train_loss": float(np.mean(losses))}
            if len(validation):
                set_training(model, encoder, False)
                scored = watch(f"epoch {epoch + 1}: scored {{}} of {{}} items of the validation part")
                logits = score_part(model, source, validation, progress=scored)
                row["val_loss"] = float(loss_of(logits, torch.from_numpy(targets[validation]).float(), task=task))
                row["val_score"] = validation_score(logits, targets[validation], task=task)
                if (row["val_score"], -row["val_loss"]) > best:
                    best, fitted.best_epoch = (row["val_score"], -row["val_loss"]), epoch
                    kept = {part: copy.deepcopy(owner.state_dict()) for part, owner in parts.items()}
            fitted.rows.append(row)
            on_epoch(row)
    guard.finish()
    for part, owner in parts.items():
        if kept is not None:
            owner.load_state_dict(kept[part])
    set_training(model, encoder, False)
    return fitted


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes what draws from torch's global streams depend on the seed alone; behind it they are as they were.

    Dropout of a tuner and of other people's networks takes no generator.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def set_training(model: TunedHead, encoder: Encoder | None, mode: bool) -> None:
    """Tells both whether they train."""
    model.train(mode)
    if encoder is not None:
        encoder.train(mode)


@torch.no_grad()
def standardize(model: TunedHead, source: Source, train: Part, *, progress: Progress) -> None:
    """Sets the mean and deviation of every layer and feature over the clips of the training part.

    Of frames too it is the deviation of the clips' means: what a head makes of a clip has unit scale then, however much
    the frames of a clip differ.
    """
    number, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in pieces(train):
        x = source(part).mean().cpu().double()  # Apple's GPUs have no doubles
        total, squares = total + x.sum(0), squares + x.square().sum(0)
        number += len(part)
        progress(number, len(train))
    mean = total / number
    variance = (squares / number - mean.square()).clamp(min=0)
    # What is the same in all clips tells nothing, and stays as it is.
    deviation = torch.where(variance > 1e-10 * mean.square().clamp(min=1e-6), variance.sqrt(), 1.0)
    model.mean.copy_(mean)
    model.deviation.copy_(deviation)


@torch.no_grad()
def score_part(
    model: TunedHead, source: Source, part: Part, *, progress: Progress = lambda done, total: None
) -> Float[Tensor, "clip label"]:
    """The logits of some items."""
    logits = []
    for piece in pieces(part):
        logits.append(model.score(source(piece)).float().cpu())
        progress(sum(map(len, logits)), len(part))
    return torch.cat(logits)


def pieces(part: Part) -> Iterator[Part]:
    for start in range(0, len(part), SCORED):
        yield part[start : start + SCORED]


def batches(
    train: Part, *, size: int, weights: np.ndarray | None, generator: torch.Generator
) -> Iterator[Int64[np.ndarray, "batch"]]:
    """One epoch: each clip once in random order, or as many draws by weight."""
    if weights is None:
        order = torch.randperm(len(train), generator=generator)
    else:
        order = torch.multinomial(torch.from_numpy(weights), len(train), replacement=True, generator=generator)
    for chosen in order.split(size):
        yield train[chosen.numpy()]
