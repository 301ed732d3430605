"""What many items have in common, as arrays: questions about a million clips take no loop, and some megabytes.

`arrays_of` gives them for the items of any data set. Items of tars (`ossicle.data.shards`) are nothing but such arrays.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np

from ossicle.data.items import Item
from ossicle.data.labels import LabelRows
from ossicle.data.members import Member, Tar
from ossicle.types import Float64, Int, Int64

PIECE = 1 << 14  # items whose facts are made of arrays together


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Coded:
    """A name for each item, or none: item i has `names[codes[i]]`, where the code is not -1."""

    codes: Int[np.ndarray, " item"]
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[str | None]) -> "Coded":
        """Names and codes in the order in which they come first."""
        place: dict[str, int] = {}
        codes = [-1 if value is None else place.setdefault(value, len(place)) for value in values]
        return cls(codes=np.array(codes, np.int32), names=tuple(place))

    @property
    def present(self) -> set[str | None]:
        """What some item has, None among them where one has no name."""
        names = [None, *self.names]
        return {names[place] for place in np.flatnonzero(np.bincount(self.codes + 1)).tolist()}

    def at(self, position: int) -> str | None:
        """The name of an item."""
        code = self.codes[position]
        return self.names[code] if code >= 0 else None

    def equals(self, name: str | None) -> np.ndarray:
        """Which items have this name."""
        code = -1 if name is None else self.names.index(name) if name in self.names else -2
        return self.codes == code


class ItemArrays:
    """The facts of some items, by position; each is computed at its first use."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    @cached_property
    def files(self) -> Int[np.ndarray, " item"]:
        """A number for each file that an item is or lies in; of a row of a table for the row."""
        return Coded.of(item.place for item in self.items).codes

    @cached_property
    def groups(self) -> Coded:
        return Coded.of(item.group for item in self.items)

    @cached_property
    def folds(self) -> Coded:
        return Coded.of(item.fold for item in self.items)

    @cached_property
    def splits(self) -> Coded:
        return Coded.of(item.split for item in self.items)

    @cached_property
    def starts(self) -> Float64[np.ndarray, " item"]:
        """Seconds."""
        return np.array([item.start for item in self.items], np.float64)

    @cached_property
    def ends(self) -> Float64[np.ndarray, " item"]:
        """Seconds; not a number at the end of the file."""
        return np.array([math.nan if item.end is None else item.end for item in self.items], np.float64)

    @cached_property
    def labels(self) -> tuple[LabelRows, tuple[str, ...]]:
        """The labels of the items as numbers, and their names."""
        return LabelRows.coded(item.labels for item in self.items)

    @cached_property
    def rare(self) -> Mapping[str, Mapping[int, Any]]:
        """Tracks and unknown labels of the items that have some, by position."""
        found: dict[str, dict[int, Any]] = {"track": {}, "unknown": {}}
        for position, item in enumerate(self.items):
            if item.track is not None:
                found["track"][position] = item.track
            if item.unknown:
                found["unknown"][position] = item.unknown
        return found

    def names(self, name_of: Callable[[Item], str]) -> list[str]:
        """What to call each item's file; of a tar the name that it had before it was packed."""
        return list(map(name_of, self.items))

    def extents(self) -> Iterator[int | str | None]:
        """The text of each row of a table, and the bytes of each file; None for one that is not there."""
        for item in self.items:
            if item.text is not None or item.member is not None:
                yield item.text if item.member is None else item.member.size
                continue
            try:
                yield item.file.stat().st_size
            except (OSError, ValueError):
                yield None

    def label_counts(self) -> dict[str, int]:
        """How many items have each label that some have."""
        rows, names = self.labels
        return {name: count for name, count in zip(names, rows.sum(0).tolist(), strict=True) if count}


def arrays_of(items: Sequence[Item]) -> ItemArrays:
    """The facts of some items; those of a tar have them already."""
    return items if isinstance(items, ItemArrays) else ItemArrays(items)


def connected(first: Int[np.ndarray, " item"], second: Int[np.ndarray, " item"]) -> Int64[np.ndarray, " item"]:
    """Numbers the connected sets of items, in the order in which they come first.

    Two items are connected when they share a number of `first`, or one of `second` that is not -1, also by way of
    others.
    """
    _, first = np.unique(first, return_inverse=True)
    tied = np.flatnonzero(second >= 0)
    _, of_tied = np.unique(second[tied], return_inverse=True)
    root = np.arange(len(first))  # of each item one that comes no later, in the end the first of its set
    while True:
        lowest = _lowest(root, first)[first]
        lowest[tied] = np.minimum(lowest[tied], _lowest(lowest[tied], of_tied)[of_tied])
        lowest = lowest[lowest]
        if np.array_equal(lowest, root):
            return np.unique(root, return_inverse=True)[1].astype(np.int64)
        root = lowest


def _lowest(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The lowest value in each group; groups are numbered without gaps."""
    found = np.full(groups.max(initial=-1) + 1, len(values) and values.max() + 1)
    np.minimum.at(found, groups, values)
    return found


class TarItems(ItemArrays, Sequence[Item]):
    """The files of some tars, and segments of them; an item is made when it is asked for.

    Args:
        of_tar: the number of each item's tar
        rows: the file of the item in its tar
    """

    def __init__(
        self,
        tars: Sequence[Tar],
        *,
        of_tar: Int[np.ndarray, " item"],
        rows: Int[np.ndarray, " item"],
        labels: tuple[LabelRows, tuple[str, ...]],
        groups: Coded,
        folds: Coded,
        splits: Coded,
        starts: Float64[np.ndarray, " item"],
        ends: Float64[np.ndarray, " item"],
        rare: Mapping[str, Mapping[int, Any]],
    ) -> None:
        self.tars, self.of_tar, self.rows = tuple(tars), of_tar, rows
        self.labels, self.groups, self.folds, self.splits = labels, groups, folds, splits
        self.starts, self.ends, self.rare = starts, ends, rare
        self.items = self

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, position: SupportsIndex | slice) -> Item | tuple[Item, ...]:
        if isinstance(position, slice):
            return tuple(self[one] for one in range(*position.indices(len(self))))
        place = range(len(self))[position]
        tar, row = self.tars[self.of_tar[place]], int(self.rows[place])
        rows, names = self.labels
        end = float(self.ends[place])
        return Item(
            file=tar.path,
            labels=tuple(names[column] for column in rows.columns[rows.starts[place] : rows.starts[place + 1]]),
            unknown=self.rare["unknown"].get(place, ()),
            start=float(self.starts[place]),
            end=None if math.isnan(end) else end,
            split=self.splits.at(place),
            fold=self.folds.at(place),
            group=self.groups.at(place),
            track=self.rare["track"].get(place),
            member=Member(tar, row),
        )

    @cached_property
    def files(self) -> Int[np.ndarray, " item"]:
        """A number for each file in the tars."""
        return np.cumsum([0, *(len(tar.offsets) for tar in self.tars)], dtype=np.int32)[self.of_tar] + self.rows

    def of_files(self, column: str) -> Int64[np.ndarray, " item"]:
        """A column of the index: of each item's file."""
        return np.concatenate([getattr(tar, column) for tar in self.tars])[self.files].astype(np.int64)

    def names(self, name_of: Callable[[Item], str]) -> list[str]:
        """Those of the index."""
        found = [""] * len(self)
        for number, tar in enumerate(self.tars):
            own, places = tar.names.all(), np.flatnonzero(self.of_tar == number)
            for place, row in zip(places.tolist(), self.rows[places].tolist(), strict=True):
                found[place] = own[row]
        return found

    def extents(self) -> Iterator[int | str | None]:
        """Those of the index."""
        return iter(self.of_files("sizes").tolist())

    def identity(self) -> bytes:
        """A hash of all that the content of the items depends on, wherever the tars lie; no file is looked at."""
        digest = hashlib.sha256(np.concatenate([np.frombuffer(tar.digests, "V16") for tar in self.tars])[self.files])
        for column in (self.of_files("sizes"), self.of_files("checks"), self.starts, self.ends):
            digest.update(column.tobytes())
        digest.update(json.dumps(sorted(self.rare["track"].items())).encode())
        return digest.digest()

    def digests(self) -> Iterator[str]:
        """What each file holds; see `Member.digest`."""
        every = np.concatenate([np.frombuffer(tar.digests, "V16") for tar in self.tars])
        for first in range(0, len(self), PIECE):
            text = every[self.files[first : first + PIECE]].tobytes().hex()
            yield from (text[place : place + 32] for place in range(0, len(text), 32))
