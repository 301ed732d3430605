"""Drawing a stratified part from very many groups, in memory that grows with their labels alone.

The rules are those of `ossicle.data.splits`, which draws from fewer groups by a table.
"""

import numpy as np

from ossicle.data.labels import LabelRows

CHUNK = 1 << 13  # groups looked at together


def draw_many(
    rows: LabelRows,
    groups: np.ndarray,
    order: np.ndarray,
    *,
    fraction: float,
    every_class: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Which groups are drawn, so that the part has about `fraction` of every label and of all items.

    Args:
        rows: labels of the items.
        groups: the group of each item.
        order: the groups in an order that does not depend on that of the items.
        every_class: a class too small for the fraction gives its smallest group.
    """
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    group_of = place[groups]
    unlabeled = np.flatnonzero(~rows.any(1))
    # One entry for each group and stratum: a label, the items without one, and all items.
    width = rows.number + 2
    if len(order) * width < 2**31:  # half the memory
        group_of = group_of.astype(np.int32)
    entries = np.concatenate(
        [
            np.repeat(group_of, rows.sum(1)) * width + rows.columns.astype(group_of.dtype),
            group_of[unlabeled] * width + rows.number,
            group_of * width + rows.number + 1,
        ]
    )
    entries, counts = np.unique(entries, return_counts=True)
    counts = counts.astype(entries.dtype)
    owner, stratum = np.divmod(entries, entries.dtype.type(width))
    del entries
    total = np.bincount(stratum, weights=counts, minlength=width)
    fixed = owner[counts >= total[stratum]]  # of groups that hold all of a label
    free = np.ones(len(order), dtype=bool)
    free[fixed] = False

    present = total > 0
    target = fraction * total
    weights = np.where(present, 1 / max(present.sum() - 1, 1), 0)
    weights[-1] = 1
    if every_class:
        weights[:] = present
        smallest = np.full(width, np.inf)
        np.minimum.at(smallest, stratum[free[owner]], counts[free[owner]])
        wanted = np.where(np.isfinite(smallest), np.maximum(target, smallest), target)
        target[-1] *= wanted[:-1].sum() / target[:-1].sum()
        target[:-1] = wanted[:-1]
    scale = weights / np.where(present, target, 1)
    starts = np.searchsorted(owner, np.arange(len(order) + 1))
    chosen = _fill(starts, stratum, counts, total, target, scale, rng.permutation(np.flatnonzero(free)))
    drawn = np.zeros(len(order), dtype=bool)
    drawn[order] = chosen
    return drawn


def _fill(
    starts: np.ndarray,
    stratum: np.ndarray,
    counts: np.ndarray,
    total: np.ndarray,
    target: np.ndarray,
    scale: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """Takes groups in order that bring the sums closer to the target; the first rounds take only what fits everywhere.

    Groups that hold a label of which the part has enough already are passed over by arrays, the others one by one, by
    lists: a group has a few entries, of which Python is faster than numpy.
    """
    targets, scales = target.tolist(), scale.tolist()
    taken = [0] * len(targets)
    chosen = np.zeros(len(starts) - 1, dtype=bool)
    for slack in (0.0, 1.0, float("inf")):
        most = np.minimum(target + slack, total - 1)  # one item of each label stays behind
        limits = most.tolist()
        left = candidates[~chosen[candidates]]
        for first in range(0, len(left), CHUNK):
            groups = left[first : first + CHUNK]
            groups = groups[~_any(np.array(taken) + 1 > most, starts, stratum, groups)]
            entries = _entries(starts, groups)
            columns, numbers = stratum[entries].tolist(), counts[entries].tolist()
            borders = [0, *np.cumsum(starts[groups + 1] - starts[groups]).tolist()]
            for group, begin, end in zip(groups.tolist(), borders, borders[1:], strict=False):
                gain = 0.0
                for entry in range(begin, end):
                    column = columns[entry]
                    after = taken[column] + numbers[entry]
                    if after > limits[column]:
                        break
                    over, before = after - targets[column], taken[column] - targets[column]
                    gain += scales[column] * (over * over - before * before)
                else:
                    if gain < 0:
                        for entry in range(begin, end):
                            taken[columns[entry]] += numbers[entry]
                        chosen[group] = True
    return chosen


def _entries(starts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The entries of some groups, one group behind the other."""
    lengths = starts[groups + 1] - starts[groups]
    return np.arange(lengths.sum()) + np.repeat(starts[groups] - np.cumsum(lengths) + lengths, lengths)


def _any(marked: np.ndarray, starts: np.ndarray, stratum: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which of the groups have an entry in a marked stratum; each has one entry at least."""
    ends = np.cumsum(starts[groups + 1] - starts[groups])
    found = np.concatenate([[0], np.cumsum(marked[stratum[_entries(starts, groups)]])])
    return np.diff(found[np.concatenate([[0], ends])]) > 0
