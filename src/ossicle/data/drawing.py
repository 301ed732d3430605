"""Drawing and dealing very many groups, stratified by label, in memory that grows with their labels alone.

The rules are those of `ossicle.data.splits`, which takes a table for fewer groups.
"""

from dataclasses import dataclass

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
    found = Entries.of(rows, groups, order)
    total, stratum, counts = found.total, found.stratum, found.counts
    width = len(total)
    present = total > 0
    target = fraction * total
    weights = np.where(present, 1 / max(present.sum() - 1, 1), 0)
    weights[-1] = 1
    if every_class:
        weights[:] = present
        smallest = np.full(width, np.inf)
        free = np.repeat(found.movable, np.diff(found.starts))
        np.minimum.at(smallest, stratum[free], counts[free])
        wanted = np.where(np.isfinite(smallest), np.maximum(target, smallest), target)
        target[-1] *= wanted[:-1].sum() / target[:-1].sum()
        target[:-1] = wanted[:-1]
    scale = weights / np.where(present, target, 1)
    chosen = _fill(found, target, scale, rng.permutation(np.flatnonzero(found.movable)))
    drawn = np.zeros(len(order), dtype=bool)
    drawn[order] = chosen
    return drawn


def deal_many(
    rows: LabelRows, groups: np.ndarray, order: np.ndarray, *, folds: int, rng: np.random.Generator
) -> np.ndarray:
    """The fold that each group of `order` is dealt to, largest first; -1 for a group that must always train."""
    found = Entries.of(rows, groups, order)
    candidates = rng.permutation(np.flatnonzero(found.movable))
    sizes = found.counts[found.starts[1:] - 1]  # the last entry of a group counts all its items
    candidates = candidates[np.argsort(-sizes[candidates], kind="stable")]
    totals, goals = found.total.tolist(), (found.total / folds).tolist()
    held = [[0] * len(totals) for _ in range(folds)]
    fold_of = np.full(len(order), -1, np.int64)
    for group in candidates.tolist():
        entries = slice(found.starts[group], found.starts[group + 1])
        own = list(zip(found.stratum[entries].tolist(), found.counts[entries].tolist(), strict=True))
        best, least = -1, float("inf")
        for fold, has in enumerate(held):
            cost = 0.0
            for column, number in own:
                after = has[column] + number
                if after >= totals[column]:
                    break
                over, before = after - goals[column], has[column] - goals[column]
                cost += (over * over - before * before) / totals[column]
            else:
                if cost < least:
                    best, least = fold, cost
        if best >= 0:
            fold_of[group] = best
            for column, number in own:
                held[best][column] += number
    return fold_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """How many items of each stratum each group has, without those of which it has none.

    Strata are the labels, the items without one, and all items. Those of group i of the order are
    `stratum[starts[i] : starts[i + 1]]`, ascending, with their `counts`; `total` are those of all groups.
    """

    starts: np.ndarray
    stratum: np.ndarray
    counts: np.ndarray
    total: np.ndarray

    @classmethod
    def of(cls, rows: LabelRows, groups: np.ndarray, order: np.ndarray) -> "Entries":
        """Those of items, by the group of each and the order of the groups."""
        width = rows.number + 2
        # Half the memory, where that is enough.
        kind = np.int32 if len(order) * width < 2**31 else np.int64
        place = np.empty(len(order), kind)
        place[order] = np.arange(len(order), dtype=kind)
        group_of = place[groups]
        unlabeled = np.flatnonzero(~rows.any(1))
        entries, numbers = np.unique(
            np.concatenate(
                [
                    np.repeat(group_of, rows.sum(1)) * width + rows.columns.astype(kind),
                    group_of[unlabeled] * width + rows.number,
                    group_of * width + rows.number + 1,
                ]
            ),
            return_counts=True,
        )
        counts = numbers.astype(kind)
        owner, stratum = np.divmod(entries, kind(width))
        del entries, numbers
        starts = np.searchsorted(owner, np.arange(len(order) + 1))
        return cls(starts=starts, stratum=stratum, counts=counts, total=np.bincount(stratum, counts, minlength=width))

    @property
    def movable(self) -> np.ndarray:
        """The groups that may leave the training part: every class that they hold lies elsewhere too."""
        return np.add.reduceat(self.counts >= self.total[self.stratum], self.starts[:-1]) == 0


def _fill(found: Entries, target: np.ndarray, scale: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Takes groups in order that bring the sums closer to the target; the first rounds take only what fits everywhere.

    Groups that hold a label of which the part has enough already are passed over by arrays, the others one by one, by
    lists: a group has a few entries, of which Python is faster than numpy.
    """
    starts, stratum, counts = found.starts, found.stratum, found.counts
    targets, scales = target.tolist(), scale.tolist()
    taken = [0] * len(targets)
    chosen = np.zeros(len(starts) - 1, dtype=bool)
    for slack in (0.0, 1.0, float("inf")):
        most = np.minimum(target + slack, found.total - 1)  # one item of each label stays behind
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
