"""Which patches of the spectrogram a pass works on: the one seam for everything that drops tokens.

A selection is the flat, row-major, ascending indices of the kept patches (rows are frequency, columns are time), the
same for every clip of the batch, or `None` for all of them. The network gathers these patches before it computes
anything, so what is dropped costs nothing.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout" (arXiv 2110.05069), section 2.2.
**Deviations**: an amount may be a fraction of what the clip has, because a count made for 10 s empties shorter clips;
dropping everything is refused instead of failing later on an empty tensor.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Patchout:
    """What training drops: a count (int) or a fraction of what is there (float in (0, 1)); 0 drops nothing."""

    time: int | float = 0  # columns
    freq: int | float = 0  # rows
    unstructured: int | float = 0  # single patches, of those that the structured parts keep

    def __post_init__(self) -> None:
        for name in ("time", "freq", "unstructured"):
            amount = getattr(self, name)
            if not amount >= 0 or isinstance(amount, float) and amount >= 1:
                raise ValueError(f"patchout in {name} is {amount}; a whole count, or a fraction below 1, is allowed")

    def __bool__(self) -> bool:
        return bool(self.time or self.freq or self.unstructured)


def drop_count(amount: int | float, total: int, *, what: str) -> int:
    """How many of `total` an amount drops; a fraction is rounded to the nearest number that leaves one.

    Raises:
        ValueError: a count drops all of them.
    """
    if 0 < amount < 1:
        return min(round(amount * total), total - 1)
    if amount >= total:
        raise ValueError(f"patchout drops {int(amount)} of {total} {what}; at least one must remain")
    return int(amount)


def keep_some(total: int, *, drop: int, generator: torch.Generator) -> Int[Tensor, "kept"]:
    """Draws which of `total` stay when `drop` of them go, in ascending order."""
    return torch.randperm(total, generator=generator)[: total - drop].sort().values


def select_patches(
    grid: tuple[int, int], patchout: Patchout, *, generator: torch.Generator
) -> Int[Tensor, "patch"] | None:
    """Draws the patches of a (rows, columns) grid that survive patchout; a structured draw keeps a subgrid."""
    if not patchout:
        return None
    rows, columns = grid
    kept_columns = keep_some(
        columns, drop=drop_count(patchout.time, columns, what="patch columns"), generator=generator
    )
    kept_rows = keep_some(rows, drop=drop_count(patchout.freq, rows, what="patch rows"), generator=generator)
    patches = (kept_rows[:, None] * columns + kept_columns).flatten()
    drop = drop_count(patchout.unstructured, len(patches), what="patches")
    return patches[keep_some(len(patches), drop=drop, generator=generator)] if drop else patches
