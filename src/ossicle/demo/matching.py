"""Match predicted and true onsets, one to one within a tolerance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ossicle.inference import Row

ROUNDING = 1e-9  # seconds: 1.05 - 1.00 is a little more than 0.05 in binary, and still within 0.05


@dataclass(frozen=True, kw_only=True)
class OnsetMatches:
    """Number of predicted and of true events, and the matched pairs (found, true)."""

    found: int
    true: int
    pairs: tuple[tuple[Row, Row], ...]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN without predicted and true events."""
        events = self.found + self.true
        return 2 * len(self.pairs) / events if events else math.nan

    @property
    def named(self) -> int:
        """Pairs of the same label."""
        return sum(found.label == true.label for found, true in self.pairs)


def match_onsets(found: Sequence[Row], true: Sequence[Row], *, tolerance: float) -> OnsetMatches:
    """Finds the largest one-to-one matching of events whose starts lie within the tolerance, regardless of labels.

    As all tolerances are equal, matching each event to the earliest one within its tolerance is optimal.

    Args:
        tolerance: greatest distance of a pair in seconds, itself included.

    Source: Böck, Krebs and Schedl 2012, Evaluating the online capabilities of onset detection methods (the 50 ms
        window).
    """
    pairs = []
    left, right = (
        sorted(rows, key=lambda row: row.start, reverse=True) for rows in (found, true)
    )  # popped from the end
    while left and right:
        distance = left[-1].start - right[-1].start
        if abs(distance) <= tolerance + ROUNDING:
            pairs.append((left.pop(), right.pop()))
        else:
            (left if distance < 0 else right).pop()
    return OnsetMatches(found=len(found), true=len(true), pairs=tuple(pairs))
