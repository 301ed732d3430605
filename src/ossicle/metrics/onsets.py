"""Events found against events that are there: onsets within a tolerance, one to one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ossicle.metrics.arrays import ratio

ROUNDING = 1e-9  # seconds: 1.05 - 1.00 is a little more than 0.05 in binary, and still within 0.05


@dataclass(frozen=True, kw_only=True)
class OnsetFigures:
    """Found and true onsets compared; NaN where a figure is not defined (no found onset: no precision).

    `pairs` holds (index in the found ones, index in the true ones) of every match, in the order of the true ones' time;
    `label_accuracy` is the share of them whose labels agree.
    """

    precision: float
    recall: float
    f1: float
    label_accuracy: float
    pairs: tuple[tuple[int, int], ...]


def onset_f1(
    estimated: Sequence[float],
    reference: Sequence[float],
    *,
    tolerance: float = 0.05,
    estimated_labels: Sequence[str] | None = None,
    reference_labels: Sequence[str] | None = None,
) -> OnsetFigures:
    """Matches found onsets to true ones, one to one: most pairs first, then most equal labels, then least distance.

    Args:
        estimated: seconds, in any order.
        reference: seconds, in any order.
        tolerance: greatest distance of a pair in seconds, itself included.

    Raises:
        ValueError: a time that is not finite, a negative tolerance, or labels for other than all the onsets.

    Source: Böck, Krebs and Schedl 2012, Evaluating the online capabilities of onset detection methods (the 50 ms
        window).
    """
    found, true = np.asarray(estimated, float).reshape(-1), np.asarray(reference, float).reshape(-1)
    if not (np.isfinite(found).all() and np.isfinite(true).all() and tolerance >= 0):
        raise ValueError(f"onsets are finite seconds and the tolerance at least 0; it is {tolerance}")
    if (estimated_labels is None) != (reference_labels is None):
        raise ValueError("labels are given for the found or for the true onsets only; both or neither")
    labelled = estimated_labels is not None and reference_labels is not None
    names_found = list(estimated_labels or [""] * len(found))
    names_true = list(reference_labels or [""] * len(true))
    if len(names_found) != len(found) or len(names_true) != len(true):
        raise ValueError(
            f"{len(names_found)} labels name {len(found)} found onsets, {len(names_true)} name {len(true)} true ones; "
            "each onset has one"
        )
    pairs: list[tuple[int, int]] = []
    for some_found, some_true in _knots(found, true, tolerance + ROUNDING):
        distance = np.abs(found[some_found][:, None] - true[some_true])
        agree = np.array([[names_found[i] == names_true[j] for j in some_true] for i in some_found])
        # Weights that no sum of the lesser ones reaches: a pair, then an agreement, then nearness.
        most = min(len(some_found), len(some_true)) + 1
        gain = most * (most + 1) + most * agree - distance / (tolerance + ROUNDING)
        gain[distance > tolerance + ROUNDING] = 0.0
        for row, column in _assign(gain):
            if gain[row, column] > 0:
                pairs.append((some_found[row], some_true[column]))
    pairs.sort(key=lambda pair: (true[pair[1]], pair[1]))
    right = sum(names_found[i] == names_true[j] for i, j in pairs)
    return OnsetFigures(
        precision=float(ratio(len(pairs), len(found))),
        recall=float(ratio(len(pairs), len(true))),
        f1=float(ratio(2 * len(pairs), len(found) + len(true))),
        label_accuracy=float(ratio(right, len(pairs))) if labelled else float("nan"),
        pairs=tuple(pairs),
    )


def _knots(
    found: Float[np.ndarray, " found"], true: Float[np.ndarray, " true"], reach: float
) -> list[tuple[list[int], list[int]]]:
    """Runs of onsets closer than `reach` to the next: no pair crosses from one to another, so each is matched alone."""
    times = np.concatenate([found, true])
    order = np.argsort(times, kind="stable")
    breaks = np.flatnonzero(np.diff(times[order]) > reach) + 1
    knots = [
        ([int(i) for i in run if i < len(found)], [int(i) - len(found) for i in run if i >= len(found)])
        for run in np.split(order, breaks)
    ]
    return [(some_found, some_true) for some_found, some_true in knots if some_found and some_true]


def _assign(gain: Float[np.ndarray, "row column"]) -> list[tuple[int, int]]:
    """The one-to-one assignment of greatest total gain, every row or every column used, whichever are fewer.

    Source: Kuhn 1955, The Hungarian method for the assignment problem; as shortest augmenting paths, cubic.
    """
    if gain.shape[0] > gain.shape[1]:
        return [(row, column) for column, row in _assign(gain.T)]
    cost = -gain
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1)  # the row that holds each column
    for new in range(rows):
        reached, came_from = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, bool)
        row, column = new, -1
        while True:
            slack = cost[row] - row_price[row] - column_price
            nearer = ~done & (slack < reached)
            reached[nearer], came_from[nearer] = slack[nearer], column
            nearest = int(np.argmin(np.where(done, np.inf, reached)))
            step = reached[nearest]
            row_price[new] += step
            row_price[owner[done]] += step
            column_price[done] -= step
            reached[~done] -= step
            done[nearest] = True
            column, row = nearest, int(owner[nearest])
            if row < 0:
                break
        while column >= 0:  # shift every owner along the path by one
            before = int(came_from[column])
            owner[column] = new if before < 0 else owner[before]
            column = before
    return [(int(owner[column]), column) for column in range(columns) if owner[column] >= 0]
