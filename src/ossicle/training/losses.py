"""Losses by name. To add one, write a function and put it into `LOSSES`: `--set loss=NAME` takes it everywhere."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ossicle.types import Task


@runtime_checkable
class LossSettings(Protocol):
    """The settings that losses read."""

    @property
    def loss(self) -> str: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def focal_gamma(self) -> float: ...
    @property
    def focal_alpha(self) -> float: ...


# Logits and targets (clip, label) to a loss for each clip, or for each label of each clip.
Loss = Callable[[Tensor, Tensor, Task, LossSettings], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor, task: Task, settings: LossSettings | None = None) -> Tensor:
    """Cross-entropy of labels that exclude each other, binary cross-entropy of labels that do not."""
    if task == "single-label":
        smoothing = settings.label_smoothing if settings is not None else 0.0
        return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor, task: Task, settings: LossSettings) -> Tensor:
    """Cross-entropy times alpha (1 - p)^gamma, where p is the probability of the right answer.

    Source: Lin et al., arXiv 1708.02002, equation 5, with one alpha for all classes.
    """
    if task == "single-label":
        p = (logits.softmax(-1) * targets).sum(-1)
    else:
        p = torch.where(targets > 0.5, logits, -logits).sigmoid()
    factor = settings.focal_alpha * (1 - p).clamp(min=1e-6) ** settings.focal_gamma
    return cross_entropy(logits, targets, task, settings) * factor


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "focal": focal}


def mean_loss(
    logits: Float[Tensor, "clip label"],
    targets: Float[Tensor, "clip label"],
    *,
    task: Task,
    settings: LossSettings,
    known: Float[Tensor, "clip label"] | None = None,
) -> Float[Tensor, ""]:
    """The mean of the loss that the settings name, in float32, or in float64 if the logits are.

    Args:
        known: how much each label counts, in a multi-label task: 0 where nobody knows whether the clip has it. None
            counts all of them whole.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return weighted_mean(LOSSES[settings.loss](logits, targets, task, settings), known)


def weighted_mean(
    losses: Float[Tensor, "clip label"] | Float[Tensor, "clip"], known: Float[Tensor, "clip label"] | None
) -> Float[Tensor, ""]:
    """The mean, or that of what is known; 0 where nothing is.

    Of labels that exclude each other, all are known of a clip, or none.
    """
    if known is None:
        return losses.mean()
    known = known if losses.ndim == 2 else known[:, 0]
    return (losses * known).sum() / known.sum().clamp(min=1e-6)
