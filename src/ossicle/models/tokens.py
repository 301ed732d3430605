"""Token selection: patchout in training, and fewer tokens in evaluation.

A selection is the flat, row-major, ascending indices of the kept patches (rows are frequency, columns are time), the
same for every clip of the batch, or `None` for all of them. The network gathers these patches first, so
dropped patches cost nothing. Training selects randomly by `Patchout`; a trained network may run on fewer tokens by a
`TokenReduction`, which is deterministic: it selects patches, or merges similar tokens in the blocks.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout" (arXiv 2110.05069), section 2.2;
Bolya et al., "Token Merging: Your ViT But Faster" (ICLR 2023, arXiv 2210.09461), section 3.
**Deviations** of patchout: an amount may be a fraction, because a count for 10 s may drop all patches of shorter clips;
dropping everything is refused instead of failing later on an empty tensor. Of merging: each block merges the same
fraction of its tokens, where the paper merges the same number, so that a network can do less than half of its work; the
last block merges none, because only its class tokens are computed; tokens keep their order.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PATCHOUT = {"patchout_t": "time", "patchout_f": "freq", "patchout_u": "unstructured"}  # options to fields of Patchout


@dataclass(frozen=True, kw_only=True)
class Patchout:
    """Patches to drop in training: a count (int) or a fraction (float in (0, 1)); 0 drops nothing."""

    time: int | float = 0  # columns
    freq: int | float = 0  # rows
    unstructured: int | float = 0  # single patches, of those that the structured parts keep

    def __post_init__(self) -> None:
        for name in ("time", "freq", "unstructured"):
            amount = getattr(self, name)
            if not amount >= 0 or isinstance(amount, float) and amount >= 1:
                raise ValueError(f"patchout in {name} is {amount}; expected a whole count, or a fraction below 1")

    def __bool__(self) -> bool:
        return bool(self.time or self.freq or self.unstructured)


def whole(amount: int | float) -> int | float:
    """An amount of patchout, from 1 on a count: 3.0 becomes 3."""
    return int(amount) if amount >= 1 and amount == int(amount) else amount


def drop_count(amount: int | float, total: int, *, what: str) -> int:
    """Number of `total` that an amount drops; a fraction is rounded, and leaves at least one.

    Raises:
        ValueError: a count drops all of them.
    """
    if 0 < amount < 1:
        return min(round(amount * total), total - 1)
    if amount >= total:
        raise ValueError(f"patchout drops {int(amount)} of {total} {what}; at least one must remain")
    return int(amount)


def keep_some(total: int, *, drop: int, generator: torch.Generator | None) -> Int[Tensor, "kept"]:
    """Draws `total - drop` indices of `total`, in ascending order."""
    return torch.randperm(total, generator=generator)[: total - drop].sort().values


def subgrid(
    kept_rows: Int[Tensor, "row"], kept_columns: Int[Tensor, "column"], *, columns: int
) -> Int[Tensor, "patch"]:
    """The patches at the intersections of rows and columns, in a grid with `columns` columns."""
    return (kept_rows[:, None] * columns + kept_columns).flatten()


def select_patches(
    grid: tuple[int, int], patchout: Patchout, *, generator: torch.Generator | None
) -> Int[Tensor, "patch"] | None:
    """Draws the patches of a (rows, columns) grid that patchout keeps; a structured draw keeps a subgrid."""
    if not patchout:
        return None
    rows, columns = grid
    kept_columns = keep_some(
        columns, drop=drop_count(patchout.time, columns, what="patch columns"), generator=generator
    )
    kept_rows = keep_some(rows, drop=drop_count(patchout.freq, rows, what="patch rows"), generator=generator)
    patches = subgrid(kept_rows, kept_columns, columns=columns)
    drop = drop_count(patchout.unstructured, len(patches), what="patches")
    return patches[keep_some(len(patches), drop=drop, generator=generator)] if drop else patches


# --- fewer tokens in a trained network -------------------------------------------------------------------------------

Method = Literal["strided", "merge"]


@dataclass(frozen=True, kw_only=True)
class TokenReduction:
    """Runs a trained network on a fraction of its patch tokens, deterministically and for each clip alone.

    Args:
        method: `strided` selects evenly spaced rows and columns in proportion, the shape that structured patchout
            leaves in training; `merge` averages the tokens that are most alike, some in every block.
        keep: above 0 and at most 1. `strided`: fraction of the patches that are selected, to the nearest whole rows
            and columns, at least one of each. `merge`: fraction of the patch tokens that enters a block, in the mean
            over the blocks; all of them enter the first.
    """

    keep: int | float
    method: Method

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep is {self.keep}; expected a fraction above 0 and at most 1")
        if self.method not in get_args(Method):
            raise ValueError(f"method is {self.method!r}; expected one of {', '.join(get_args(Method))}")

    def select(self, grid: tuple[int, int]) -> Int[Tensor, "patch"] | None:
        """The patches of a (rows, columns) grid that the network gathers."""
        if self.keep == 1 or self.method != "strided":
            return None
        rows, columns = grid
        few_rows = max(round(self.keep**0.5 * rows), math.ceil(self.keep * rows))
        # The columns, which are more, compensate the rounding of the rows.
        few_columns = min(columns, max(1, round(self.keep * rows * columns / few_rows)))
        return subgrid(evenly(rows, few_rows), evenly(columns, few_columns), columns=columns)

    def merges(self, patches: int, *, depth: int) -> list[int]:
        """Number of patch tokens that each block merges into others."""
        if self.keep == 1 or self.method != "merge":
            return [0] * depth
        fraction = merged_fraction(self.keep, depth)
        counts = [patches]
        for block in range(1, depth):
            # A block merges every second token at most.
            counts.append(max(round(patches * fraction**block), (counts[-1] + 1) // 2))
        return [here - there for here, there in zip(counts, [*counts[1:], counts[-1]], strict=True)]


def evenly(total: int, kept: int) -> Int[Tensor, "kept"]:
    """Indices of `kept` of `total`, ascending: the middles of equal parts.

    >>> evenly(8, 3)
    tensor([1, 4, 6])
    """
    return (2 * torch.arange(kept) + 1) * total // (2 * kept)


@functools.cache
def merged_fraction(keep: int | float, depth: int) -> float:
    """The fraction of tokens that each block outputs, so that the mean fraction of inputs over the blocks is `keep`.

    Raises:
        ValueError: less than what remains if every block halves its tokens.
    """
    least = sum(0.5**block for block in range(depth)) / depth
    if keep < least:
        raise ValueError(f"keep is {keep}; merging leaves at least {least:.3g} of the tokens of {depth} blocks")
    low, high = 0.5, 1.0
    for _ in range(50):  # halves the range down to a double's precision
        middle = (low + high) / 2
        if sum(middle**block for block in range(depth)) / depth < keep:
            low = middle
        else:
            high = middle
    return high


def merge_tokens(
    x: Float[Tensor, "clip token dim"],
    *,
    keys: Float[Tensor, "clip token key"],
    sizes: Float[Tensor, "clip token"] | None,
    count: int,
    fixed: int,
) -> tuple[Float[Tensor, "clip kept dim"], Float[Tensor, "clip kept"]]:
    """Merges the `count` tokens of each clip that are most similar to others, by bipartite soft matching.

    Every second token is matched to the other token with the most similar key (cosine); the most similar pairs are
    averaged, weighted by size. The rest keeps its order.

    Args:
        sizes: number of tokens that each one represents; None for one each.
        count: at most half of the tokens after the `fixed` ones.
        fixed: the first tokens, which are neither merged nor merged into.

    Source: Bolya et al. 2023, section 3.
    """
    clips, tokens, dim = x.shape
    if sizes is None:
        sizes = torch.ones(clips, tokens, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    keys = F.normalize(keys[:, fixed:], dim=-1)
    likeness, partner = (keys[:, 1::2] @ keys[:, ::2].mT).max(-1)
    order = likeness.argsort(dim=-1, descending=True, stable=True)
    seekers = torch.arange(fixed + 1, tokens, 2, device=x.device)
    others = torch.cat([torch.arange(fixed, device=x.device), torch.arange(fixed, tokens, 2, device=x.device)])
    merged = order[:, :count]
    kept = torch.cat([others.expand(clips, -1), seekers[order[:, count:]]], 1).sort(1).values

    # Rows of all clips in one table: whole rows are copied and added.
    first = tokens * torch.arange(clips, device=x.device)[:, None]
    gone = (first + seekers[merged]).flatten()
    into = (first + fixed + 2 * partner.gather(1, merged)).flatten()
    stay = (first + kept).flatten()
    before = sizes.flatten()
    after = before.index_add(0, into, before[gone])
    rows = x.flatten(0, 1)
    weights = (before / after)[:, None]  # 1 where nothing was merged into
    added = rows[gone] * (before[gone] / after[into])[:, None]
    means = (rows * weights).index_add(0, into, added)[stay].to(x.dtype)
    return means.view(clips, -1, dim), after[stay].view(clips, -1)
