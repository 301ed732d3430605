"""Labels of many items as positions and not as a table: two million clips of 527 labels are 40 MB, and a table 1 GB."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ossicle.types import Int, Int64


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelRows:
    """Which labels each item has: those of item i are `columns[starts[i] : starts[i + 1]]`.

    What a table of yes and no gives to `rows[positions]`, `sum(0)`, `any(0)` and `any(1)`, this gives too.
    """

    starts: Int64[np.ndarray, " border"]
    columns: Int[np.ndarray, " entry"]
    number: int  # of labels

    @classmethod
    def of(cls, rows: Iterable[Sequence[str]], labels: Sequence[str]) -> "LabelRows":
        """The labels of items by name."""
        found, names = cls.coded(rows)
        return found.renumbered(names, labels)

    @classmethod
    def coded(cls, rows: Iterable[Sequence[str]]) -> tuple["LabelRows", tuple[str, ...]]:
        """The labels of items by number, and the names, in the order in which they come first."""
        place: dict[str, int] = {}
        lengths, columns = array("q", [0]), array("q")
        for row in rows:
            columns.extend([place.setdefault(label, len(place)) for label in row])
            lengths.append(len(columns))
        return cls(starts=np.array(lengths, np.int64), columns=np.array(columns, np.int32), number=len(place)), tuple(
            place
        )

    def renumbered(self, names: Sequence[str], labels: Sequence[str]) -> "LabelRows":
        """The same labels under the numbers of another list, which has all names that are used."""
        place = {label: column for column, label in enumerate(labels)}
        used = self.any(0).tolist()
        numbers = [place[name] if some else -1 for name, some in zip(names, used, strict=True)]
        columns = np.array(numbers, np.int32)[self.columns]
        return LabelRows(starts=self.starts, columns=columns, number=len(labels))

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

    @property
    def repeats(self) -> bool:
        """Whether an item has a label twice."""
        entries = np.sort(np.repeat(np.arange(len(self)), np.diff(self.starts)) * self.number + self.columns)
        return bool((entries[1:] == entries[:-1]).any())

    def _entries(self, chosen: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The columns of some rows, one behind the other."""
        ahead = np.cumsum(lengths) - lengths
        return self.columns[np.arange(lengths.sum()) + np.repeat(self.starts[chosen] - ahead, lengths)]

    def sum(self, axis: int) -> np.ndarray:
        """How many items have each label (0), or how many labels each item has (1)."""
        return np.diff(self.starts) if axis == 1 else np.bincount(self.columns, minlength=self.number)

    def weighed(self, of_label: np.ndarray) -> np.ndarray:
        """For each item the sum of what its labels weigh."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return np.bincount(owners, weights=of_label[self.columns], minlength=len(self)).astype(np.float64)

    def any(self, axis: int) -> np.ndarray:
        """Which labels some item has (0), or which items have a label (1)."""
        return self.sum(axis) > 0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KnownRows:
    """Of which labels it is known whether each item has them: of all but a few."""

    unknown: LabelRows

    @property
    def shape(self) -> tuple[int, int]:
        return self.unknown.shape

    def __len__(self) -> int:
        return len(self.unknown)

    def __getitem__(self, positions: Any) -> np.ndarray:
        """A table of yes and no of these items."""
        return ~self.unknown[positions]
