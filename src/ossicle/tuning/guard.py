"""The gradient guard: no training goes on with a weight that silently does not train, or a frozen one that does.

An adapter around a layer whose weight the network reads without calling the layer runs for hours and learns nothing;
the loss falls all the same, since a head trains beside it. So the first passes are looked at:

- a parameter that is to train, and whose gradient was absent or all zero in every one of the first 10 passes, is named.
  Not in a single pass: a matrix behind a zero-initialized one (A of LoRA) gets its first gradient after the first step,
  and LayerDrop or drop path leave out a block now and then;
- so is one that was to train and has lost `requires_grad`, and a frozen one that has a gradient, in the same pass;
- so is a frozen one whose values changed, whatever changed them: after 10 passes, and at the end.

After 10 passes a check costs nothing. Until then it asks the device one question a pass, and only while some parameter
has had no gradient, which in most networks is over after the second.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ossicle.errors import RunRefused

PASSES = 10
SHOWN = 3  # parameters named before "and n more"
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # whole numbers of so many bytes


class GradientGuard:
    """Watches parameters from here on; which of them are to train is what `requires_grad` says now.

        guard = GradientGuard(model.named_parameters())
        loss.backward()
        guard.check()  # before the optimizer's step
        guard.finish()  # behind the last step

    Where gradients are accumulated, one check before each step is the better measure: a matrix behind a
    zero-initialized one has no gradient before the first step, however many passes it is made of.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        names: dict[nn.Parameter, str] = {}
        for name, p in parameters:
            names.setdefault(p, name)  # one may be listed twice, as a tuner's own and as the network's
        self.trained = {name: p for p, name in names.items() if p.requires_grad}
        self.frozen = {name: p for p, name in names.items() if not p.requires_grad}
        self.passes = 0
        self._silent = dict(self.trained)  # those without any gradient other than zero so far
        self._unreached = dict(self.trained)  # those without any gradient so far, also none of zeros
        self._sums = bit_sums(self.frozen.values())

    def check(self) -> None:
        """Looks at the gradients of a pass.

        Raises:
            RunRefused: names parameters that should train and do not, or should not and do.
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
        for name, other_than_zero in zip(gradients, any_nonzero(gradients.values()), strict=True):
            self._unreached.pop(name, None)
            if other_than_zero:
                del self._silent[name]
        if self.passes == PASSES:
            self._refuse_silent(self._silent)
            self._refuse_changed()

    def finish(self) -> None:
        """Judges a run at its end.

        Of a run of fewer than 10 passes, all that it had: from two passes on as above, so that LayerDrop at a high rate
        can be mistaken for a dead weight there; after a single pass, in which zeros are in order, only those without
        any gradient. Without a pass nothing is judged.

        Raises:
            RunRefused: as `check`, and for frozen parameters that changed after the first passes.
        """
        if 0 < self.passes < PASSES:
            self._refuse_silent(self._unreached if self.passes == 1 else self._silent)
        if self.passes:
            self._refuse_changed()

    def _refuse_silent(self, silent: Iterable[str]) -> None:
        passes = "the only pass" if self.passes == 1 else f"each of the first {self.passes} passes"
        refuse(
            list(silent),
            of=self.trained,
            what=f"should train, and their gradient was absent or zero in {passes}; the network may read these weights "
            "without calling the layer or the adapter around them, or the loss may not depend on them",
        )

    def _refuse_changed(self) -> None:
        sums = bit_sums(self.frozen.values())
        refuse(
            [name for name, old, new in zip(self.frozen, self._sums, sums, strict=True) if old != new],
            of=self.frozen,
            what="are frozen and changed; an optimizer may hold them, or something may have loaded other weights",
        )


def refuse(names: list[str], *, of: dict[str, nn.Parameter], what: str) -> None:
    """Stops the run, unless there is no name."""
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise RunRefused(f"{', '.join(names[:SHOWN])}{more}: {len(names)} of {len(of)} parameters that {what}.")


def any_nonzero(tensors: Iterable[Tensor]) -> list[bool]:
    """Whether each tensor has an entry other than zero (NaN is one); the device is waited for once."""
    found = [tensor.any() for tensor in tensors]
    return torch.stack([one.to(found[0].device) for one in found]).tolist() if found else []


def bit_sums(tensors: Iterable[Tensor]) -> list[int]:
    """The sum of each tensor's bits, read as whole numbers: other values have, but for a rare chance, another sum.

    Instead of a copy, which would double the memory of a frozen network.
    """
    words = (tensor.detach().flatten().view(WORDS[tensor.element_size()]) for tensor in tensors)
    sums = [word.sum(dtype=torch.int64) for word in words]
    return torch.stack([one.to(sums[0].device) for one in sums]).tolist() if sums else []
