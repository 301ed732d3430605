"""Labels of many items as positions and not as a table: two million clips of 527 labels are 40 MB, and a table 1 GB."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ossicle.types import Int64


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelRows:
    """Which labels each item has: those of item i are `columns[starts[i] : starts[i + 1]]`.

    What a table of yes and no gives to `rows[positions]`, `sum(0)`, `any(0)` and `any(1)`, this gives too.
    """

    starts: Int64[np.ndarray, " border"]
    columns: Int64[np.ndarray, " entry"]
    number: int  # of labels

    @classmethod
    def of(cls, rows: Iterable[Sequence[str]], labels: Sequence[str]) -> "LabelRows":
        """The labels of items by name."""
        place = {label: column for column, label in enumerate(labels)}
        lengths, columns = [0], list[int]()
        for row in rows:
            columns += [place[label] for label in row]
            lengths.append(len(columns))
        return cls(starts=np.array(lengths, np.int64), columns=np.array(columns, np.int64), number=len(labels))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.starts) - 1, self.number

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, positions: Any) -> np.ndarray:
        """A table of yes and no of these items."""
        chosen = np.arange(len(self))[positions]
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        table = np.zeros((len(chosen), self.number), dtype=bool)
        table[np.repeat(np.arange(len(chosen)), lengths), self._entries(chosen, lengths)] = True
        return table

    def only(self, positions: Any) -> "LabelRows":
        """The rows of these items."""
        chosen = np.arange(len(self))[positions]
        lengths = self.starts[chosen + 1] - self.starts[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return LabelRows(starts=starts, columns=self._entries(chosen, lengths), number=self.number)

    def _entries(self, chosen: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The columns of some rows, one behind the other."""
        ahead = np.cumsum(lengths) - lengths
        return self.columns[np.arange(lengths.sum()) + np.repeat(self.starts[chosen] - ahead, lengths)]

    def sum(self, axis: int) -> np.ndarray:
        """How many items have each label (0), or how many labels each item has (1)."""
        return np.diff(self.starts) if axis == 1 else np.bincount(self.columns, minlength=self.number)

    def any(self, axis: int) -> np.ndarray:
        """Which labels some item has (0), or which items have a label (1)."""
        return self.sum(axis) > 0
