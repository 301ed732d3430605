"""Events found against events that are there: onsets within a tolerance, one to one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ossicle.inference import Row

ROUNDING = 1e-9  # seconds: 1.05 - 1.00 is a little more than 0.05 in binary, and still within 0.05


@dataclass(frozen=True, kw_only=True)
class OnsetFigures:
    """How many events were found, how many are there, and the pairs of one of each: (found, true)."""

    found: int
    true: int
    pairs: tuple[tuple[Row, Row], ...]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where nothing was found and nothing is there."""
        events = self.found + self.true
        return 2 * len(self.pairs) / events if events else math.nan

    @property
    def named(self) -> int:
        """Pairs of the same label."""
        return sum(found.label == true.label for found, true in self.pairs)


def match_onsets(found: Sequence[Row], true: Sequence[Row], *, tolerance: float) -> OnsetFigures:
    """Pairs events whose starts lie within the tolerance, one to one, as many as can be; labels play no part.

    As all windows are equally wide, the earliest event may always be given to the earliest within its reach: whoever
    comes later reaches whatever it would have reached.

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
    return OnsetFigures(found=len(found), true=len(true), pairs=tuple(pairs))
