"""Gradient guard: stops a training with a trainable weight that does not train, or a frozen one that does.

An adapter around a layer whose weight the network reads without calling the layer learns nothing, while the loss
decreases, since a head trains too. So these parameters raise an error with their names:

- a trainable parameter whose gradient was absent or zero in each of the first 10 passes. A single pass is not enough: a
  matrix after a zero-initialized one (A of LoRA) gets its first gradient after the first step, and LayerDrop or drop
  path skip blocks at random;
- a trainable parameter that has lost `requires_grad`, or a frozen one that has a gradient, in the same pass;
- a frozen parameter whose values changed: after 10 passes, and at the end.

After 10 passes a check is free. On a GPU nothing waits before the tenth, when all is read at once.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ossicle.errors import RunRefused

PASSES = 10
SHOWN = 3  # parameters named before "and n more"
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # whole numbers of so many bytes


class GradientGuard:
    """Checks parameters from now on; those with `requires_grad` at construction are trainable.

        guard = GradientGuard(model.named_parameters())
        loss.backward()
        guard.check()  # before the optimizer's step
        guard.finish()  # after the last step

    With gradient accumulation, check once before each step: a matrix after a zero-initialized one has no gradient
    before the first step, whatever the number of passes.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        names: dict[nn.Parameter, str] = {}
        for name, p in parameters:
            names.setdefault(p, name)  # may be listed twice, for a tuner and for the network
        self.trained = {name: p for p, name in names.items() if p.requires_grad}
        self.frozen = {name: p for p, name in names.items() if not p.requires_grad}
        self.passes = 0
        self._silent = dict(self.trained)  # those with absent or zero gradients so far
        self._unreached = dict(self.trained)  # those with absent gradients so far
        self._found: list[tuple[tuple[str, ...], Tensor]] = []  # by pass: names, and which are not zero, on the device
        self._sums = bit_sums(self.frozen.values())

    def check(self) -> None:
        """Checks the gradients of a pass.

        Raises:
            RunRefused: trainable parameters do not train, or frozen ones do; the message has their names.
        """
        if self.passes == PASSES:
            return
        self.passes += 1
        refuse(
            [name for name, p in self.trained.items() if not p.requires_grad],
            of=self.trained,
            what="should train and no longer require a gradient; something froze them since the training was set up",
        )
        refuse(
            [name for name, p in self.frozen.items() if p.grad is not None],
            of=self.frozen,
            what="are frozen and received a gradient; something unfroze them since the training was set up",
        )
        gradients = {name: p.grad for name, p in self._silent.items() if p.grad is not None}
        for name in gradients:
            self._unreached.pop(name, None)
        if gradients:
            found = any_nonzero(gradients.values())
            self._found.append((tuple(gradients), found))
            if found.device.type == "cpu":
                self._read()
        if self.passes == PASSES:
            self._read()
            self._refuse_silent(self._silent)
            self._refuse_changed()

    def finish(self) -> None:
        """Checks a run at its end.

        With 2 to 9 passes all are checked as above, so LayerDrop at a high rate can cause a false alarm. After a single
        pass, in which zero gradients are normal, only absent gradients are refused. Without a pass nothing is checked.

        Raises:
            RunRefused: as `check`, and for frozen parameters that changed after the first passes.
        """
        if 0 < self.passes < PASSES:
            self._read()
            self._refuse_silent(self._unreached if self.passes == 1 else self._silent)
        if self.passes:
            self._refuse_changed()

    def _read(self) -> None:
        """Takes over what the passes have found."""
        for names, found in self._found:
            for name, other_than_zero in zip(names, found.tolist(), strict=True):
                if other_than_zero:
                    self._silent.pop(name, None)
        self._found = []

    def _refuse_silent(self, silent: Iterable[str]) -> None:
        passes = "the only pass" if self.passes == 1 else f"each of the first {self.passes} passes"
        refuse(
            list(silent),
            of=self.trained,
            what=f"should train, and their gradient was absent or zero in {passes}; the network may read these weights "
            "without calling the layer or the adapter around them, or the loss may not depend on them",
        )

    def _refuse_changed(self) -> None:
        if not self.frozen:
            return
        changed = (self._sums != bit_sums(self.frozen.values())).tolist()
        refuse(
            [name for name, other in zip(self.frozen, changed, strict=True) if other],
            of=self.frozen,
            what="are frozen and changed; an optimizer may hold them, or something may have loaded other weights",
        )


def refuse(names: list[str], *, of: dict[str, nn.Parameter], what: str) -> None:
    """Raises an error if there are names."""
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise RunRefused(f"{', '.join(names[:SHOWN])}{more}: {len(names)} of {len(of)} parameters that {what}.")


def any_nonzero(tensors: Iterable[Tensor]) -> Tensor:
    """Whether each of some tensors has an entry other than zero (including NaN), on the device of the first."""
    found = [tensor.any() for tensor in tensors]
    return torch.stack([one.to(found[0].device) for one in found])


def bit_sums(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of each tensor's bits, read as integers, on the device of the first: a checksum of its values.

    It replaces a copy, which would double the memory of a frozen network.
    """
    words = (tensor.detach().flatten().view(WORDS[tensor.element_size()]) for tensor in tensors)
    sums = [word.sum(dtype=torch.int64) for word in words]
    return torch.stack([one.to(sums[0].device) for one in sums]) if sums else torch.zeros(0, dtype=torch.int64)
