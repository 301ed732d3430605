"""A data set as it was read: its items, labels, groups and official parts."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ossicle.data.items import Item
from ossicle.data.labels import LabelRows
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
    items: tuple[Item, ...]
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

    @property
    def folds(self) -> tuple[str, ...]:
        """The official folds, in order of number or of alphabet; empty when there are none."""
        return sorted_names(item.fold for item in self.items if item.fold is not None)

    def targets(self) -> Bool[np.ndarray, "item label"]:
        """The labels of every item as a table of yes and no."""
        return self.label_rows[:]

    @cached_property
    def label_rows(self) -> LabelRows:
        """The labels of every item, where a table of them would be large."""
        return LabelRows.of((item.labels for item in self.items), self.labels)

    def known(self) -> Bool[np.ndarray, "item label"] | None:
        """Of which labels it is known whether an item has them; None where all are, as in most data."""
        if not any(item.unknown for item in self.items):
            return None
        unknown = [set(item.unknown) for item in self.items]
        return np.array([[label not in names for label in self.labels] for names in unknown], dtype=bool)

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
        for item in self.items:
            facts: list[Any] = [
                self.relative(item),
                item.labels,
                item.start,
                item.end,
                item.split,
                item.fold,
                item.group,
            ]
            facts += [] if item.track is None else [{"track": item.track}]
            facts += [{"unknown": item.unknown}] if item.unknown else []
            digest.update(json.dumps([*facts, item.text if item.text is not None else _size(item)]).encode())
        return digest.hexdigest()


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, as numbers when all of them are ("2" before "10"), else by alphabet."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _size(item: Item) -> int | None:
    try:
        return item.file.stat().st_size if item.member is None else item.member.size
    except (OSError, ValueError):
        return None
