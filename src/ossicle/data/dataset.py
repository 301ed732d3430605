"""A data set as it was read: its items, labels, groups and official parts."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from ossicle.data.arrays import PIECE, ItemArrays, arrays_of
from ossicle.data.items import Item
from ossicle.data.labels import KnownRows, LabelRows
from ossicle.data.modalities import modality_of
from ossicle.files import legible
from ossicle.types import Task


@dataclass(frozen=True, kw_only=True, repr=False)
class Dataset:
    """Labeled items, as `read_dataset` finds them; `len` and iteration are over `items`.

    `root` is the folder that names are relative to, `table` the table where one was named; `labels` are the columns of
    `targets()`; `layout` is a sentence for the user that says what was detected;
    `group_name` and `fold_name` are the columns that groups and official folds came from; `labeled_by` is the model
    whose labels these are, where no person gave any.
    """

    root: Path
    items: Sequence[Item]
    labels: tuple[str, ...]
    task: Task
    layout: str
    group_name: str | None = None
    fold_name: str | None = None
    modality: str = "sound"
    table: Path | None = None
    labeled_by: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} {self.noun}s, {len(self.labels)} classes, {self.task})"

    @property
    def path(self) -> Path:
        """What was read, the folder or the table."""
        return self.table or self.root

    @property
    def noun(self) -> str:
        """What one item is called: a clip, a text or an image."""
        return modality_of(self.modality).noun

    @cached_property
    def arrays(self) -> ItemArrays:
        """What all items have in common, without a loop over them."""
        return arrays_of(self.items)

    @property
    def folds(self) -> tuple[str, ...]:
        """The official folds, in order of number or of alphabet; empty when there are none."""
        return sorted_names(name for name in self.arrays.folds.present if name is not None)

    def targets(self) -> Bool[np.ndarray, "item label"]:
        """The labels of every item as a table of yes and no; of very many items `label_rows` is smaller."""
        return self.label_rows[:]

    @cached_property
    def label_rows(self) -> LabelRows:
        """The labels of every item as positions of those that it has."""
        rows, names = self.arrays.labels
        return rows.renumbered(names, self.labels)

    def known(self) -> Bool[np.ndarray, "item label"] | None:
        """Of which labels it is known whether an item has them; None where all are, as in most data."""
        return None if self.known_rows is None else self.known_rows[:]

    @cached_property
    def known_rows(self) -> KnownRows | None:
        """The same, where a table would be large."""
        unknown = self.arrays.rare["unknown"]
        if not unknown:
            return None
        own = set(self.labels)
        rows = ([name for name in unknown.get(position, ()) if name in own] for position in range(len(self)))
        return KnownRows(unknown=LabelRows.of(rows, self.labels))

    def names(self) -> list[str]:
        """What `relative` gives for each item."""
        return self.arrays.names(self.relative)

    @cached_property
    def name_ranks(self) -> Int64[np.ndarray, "item"]:
        """The place of each item's name among all, by their order; that of equal names is the same."""
        names = self.names()
        if all(name < other for name, other in itertools.pairwise(names)):
            return np.arange(len(names))
        order = sorted(range(len(names)), key=names.__getitem__)
        greater = [names[one] != names[other] for one, other in itertools.pairwise(order)]
        ranks = np.empty(len(names), np.int64)
        ranks[order] = np.cumsum([0, *greater][: len(names)])
        return ranks

    def relative(self, item: Item) -> str:
        """An item's file as seen from the root, with forward slashes: the same name on every machine.

        A row of a table is its table and its line: `test.csv:12`. Bytes that are no text become `\\udc..`. A file of a
        tar has the name that it had before it was packed.
        """
        if item.member is not None:
            return item.member.name
        try:
            name = Path(os.path.relpath(item.file, self.root)).as_posix()
        except ValueError:  # Windows: another drive has no relative path.
            name = item.file.as_posix()
        return legible(name if item.row is None else f"{name}:{item.row}")

    def fingerprint(self) -> str:
        """SHA-256 over names, labels, segments, splits, groups and file sizes, or texts; no recording is read."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.task, self.labels]).encode())
        facts = self._facts()
        while lines := "".join(itertools.islice(facts, 4096)):
            digest.update(lines.encode())
        return digest.hexdigest()

    def _facts(self) -> Iterator[str]:
        """What the fingerprint knows of each item: a list in JSON, which is put together as encoding a million takes
        long."""
        arrays, quoted = self.arrays, json.encoder.encode_basestring_ascii
        rows, names = arrays.labels
        labels = [quoted(name) for name in names]
        named = [(one.codes, [*map(quoted, one.names), "null"]) for one in (arrays.splits, arrays.folds, arrays.groups)]
        more: dict[int, str] = {}
        for fact in ("track", "unknown"):
            for position, value in arrays.rare[fact].items():
                more[position] = more.get(position, "") + f"{json.dumps({fact: value})}, "
        each = zip(self.names(), arrays.extents(), strict=True)
        for first in range(0, len(self), PIECE):
            piece = slice(first, first + PIECE)
            borders = rows.starts[first : first + PIECE + 1]
            columns = rows.columns[borders[0] : borders[-1]].tolist()
            places = itertools.pairwise((borders - borders[0]).tolist())
            times = zip(arrays.starts[piece].tolist(), arrays.ends[piece].tolist(), strict=True)
            texts = zip(*([texts[code] for code in codes[piece].tolist()] for codes, texts in named), strict=True)
            for position, (begin, end), (start, stop), (split, fold, group) in zip(
                itertools.count(first), places, times, texts, strict=False
            ):
                name, extent = next(each)
                own = ", ".join([labels[column] for column in columns[begin:end]])
                until = "null" if stop != stop else repr(stop)
                size = extent if isinstance(extent, int) else json.dumps(extent)
                rest = f"{split}, {fold}, {group}, {more.get(position, '')}{size}"
                yield f"[{quoted(name)}, [{own}], {start!r}, {until}, {rest}]"


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, as numbers when all of them are ("2" before "10"), else by alphabet."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))
