"""Averages of the weights along the run: the exponential moving average and the mean of snapshots.

Source: SWA as in Izmailov et al. 2018 and the released PaSST checkpoints (a plain mean of epoch snapshots; there is no
batch normalization to update); EMA as in Polyak and Juditsky 1992.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """A running average of the parameters that train.

    Args:
        decay: weight of the past in an exponential average; None takes the plain mean of all updates.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, decay: float | None) -> None:
        self.decay = decay
        self.count = 0
        self._live: list[Tensor] = [p for p in parameters if p.requires_grad]
        self._mean: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Takes the present weights into the average; the first update copies them."""
        if self.count == 0:
            self._mean = [p.detach().clone() for p in self._live]
        else:
            weight = 1 / (self.count + 1)
            if self.decay is not None:
                # The past weighs less while it is short, or the random start would linger in the average.
                weight = max(weight, 1 - self.decay)
            # A stored average is loaded before the module moves to its device.
            self._mean = [mean.to(live) for mean, live in zip(self._mean, self._live, strict=True)]
            if lerp := getattr(torch, "_foreach_lerp_", None):  # private to torch, and one call for all tensors
                lerp(self._mean, self._live, weight)
            else:
                for mean, live in zip(self._mean, self._live, strict=True):
                    mean.lerp_(live, weight)
        self.count += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights and the average; calling it twice restores both. Nothing before an update."""
        for mean, live in zip(self._mean, self._live, strict=False):
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """The average and how many updates are in it."""
        return {"count": self.count, "mean": self._mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a stored average."""
        self.count = state["count"]
        self._mean = state["mean"]
