"""The optimizer of a run: AdamW, with weight decay on matrices only, and a learning rate for each group."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

FUSED = ("cpu", "cuda", "mps", "xpu")  # devices with a kernel for the whole step


@runtime_checkable
class OptimizerSettings(Protocol):
    """The settings that optimizers read."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def weight_decay_on(self) -> str: ...


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    settings: OptimizerSettings,
    *,
    fused: bool = False,
    scale: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """AdamW over all parameters that train, with decay of all of them, or where `decays` says.

    Args:
        fused: the step in one kernel, where all parameters are on a device that has it.
        scale: the learning rate of a parameter, by its name, as a multiple of that of the settings. The groups with the
            largest come first.
    """
    scaled: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, p in parameters:
        if p.requires_grad:
            scaled.setdefault(scale(name), []).append((name, p))
    groups: list[dict[str, Any]] = []
    for factor in sorted(scaled, reverse=True):
        for decay in (True, False):
            chosen = [
                p for name, p in scaled[factor] if (settings.weight_decay_on == "all" or decays(name, p)) == decay
            ]
            groups.append(
                {
                    "params": chosen,
                    "lr": settings.lr * factor,
                    "weight_decay": settings.weight_decay if decay else 0.0,
                }
            )
    fused = fused and all(p.device.type in FUSED for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=settings.lr, fused=fused)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to biases and their tables, norms, tokens, positions,
    learned signals and what places a density, which are no smaller for being nearer to zero."""
    matrix = sum(size > 1 for size in parameter.shape) > 1 and parameter.shape[0] > 1
    own = name.rpartition(".")[2]
    return matrix and "bias" not in own and own not in ("offset", "log_spread", "log_scale", "logit")
