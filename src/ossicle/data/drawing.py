"""Drawing a stratified part from very many groups, in memory that grows with their labels alone.

The rules are those of `ossicle.data.splits`, which draws from fewer groups by a table.
"""

import numpy as np

from ossicle.data.labels import LabelRows


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
    entries = np.concatenate(
        [
            np.repeat(group_of, rows.sum(1)) * width + rows.columns,
            group_of[unlabeled] * width + rows.number,
            group_of * width + rows.number + 1,
        ]
    )
    entries, counts = np.unique(entries, return_counts=True)
    owner, stratum = entries // width, entries % width
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
    chosen = np.zeros(len(order), dtype=bool)
    chosen[_fill(starts, stratum, counts, total, target, scale, rng.permutation(np.flatnonzero(free)))] = True
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
) -> list[int]:
    """Takes groups in order that bring the sums closer to the target; the first rounds take only what fits everywhere.

    Lists and no arrays: a group has a few entries, of which Python is faster than numpy.
    """
    borders, columns, numbers = starts.tolist(), stratum.tolist(), counts.tolist()
    totals, targets, scales = total.tolist(), target.tolist(), scale.tolist()
    taken = [0] * len(totals)
    chosen: list[int] = []
    left = candidates.tolist()
    for slack in (0.0, 1.0, float("inf")):
        again = []
        for group in left:
            entries = range(borders[group], borders[group + 1])
            gain = 0.0
            for entry in entries:
                column = columns[entry]
                after = taken[column] + numbers[entry]
                if after >= totals[column] or after > targets[column] + slack:
                    break
                over, before = after - targets[column], taken[column] - targets[column]
                gain += scales[column] * (over * over - before * before)
            else:
                if gain < 0:
                    for entry in entries:
                        taken[columns[entry]] += numbers[entry]
                    chosen.append(group)
                    continue
            again.append(group)
        left = again
    return chosen
