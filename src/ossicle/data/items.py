"""What a data set is: clips, texts or images with labels, and what ties them together."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ossicle.files import legible
from ossicle.types import Modality, Task

NOUNS: Mapping[Modality, str] = {"sound": "clip", "text": "text", "image": "image"}  # what one item is called
PLURALS: Mapping[Modality, str] = {"sound": "recordings", "text": "text", "image": "images"}  # what a folder holds


@dataclass(frozen=True, kw_only=True)
class Item:
    """One labeled clip: a recording, or a segment of one; or an image; or a row of a table of text.

    `start` and `end` are in seconds; `end` None is the end of the file. `split` is "train", "validation" or "test".
    Of a row, `file` is the table, `text` what it says and `row` the line that it begins on, counted from 1.
    `track` is the audio track to hear, of a recording that has several; see `read_clip`.
    """

    file: Path
    labels: tuple[str, ...]
    start: float = 0.0
    end: float | None = None
    split: str | None = None
    fold: str | None = None
    group: str | None = None
    text: str | None = None
    row: int | None = None
    track: int | None = None

    @property
    def place(self) -> str:
        """What to call the item in a message: its file, with the line where it is a row of a table."""
        return str(self.file) if self.row is None else f"{self.file}:{self.row}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labeled clips, as read from disk.

    `root` is the folder that names are relative to, `table` the table where one was named; `labels` are the columns of
    `targets()`; `layout` is a sentence for the user that says what was detected;
    `group_name` and `fold_name` are the columns that groups and official folds came from.
    """

    root: Path
    items: tuple[Item, ...]
    labels: tuple[str, ...]
    task: Task
    layout: str
    group_name: str | None = None
    fold_name: str | None = None
    modality: Modality = "sound"
    table: Path | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def path(self) -> Path:
        """What was read, the folder or the table."""
        return self.table or self.root

    @property
    def noun(self) -> str:
        """What one item is called: a clip, a text or an image."""
        return NOUNS[self.modality]

    @property
    def folds(self) -> tuple[str, ...]:
        """The official folds, in order of number or of alphabet; empty when there are none."""
        return sorted_names(item.fold for item in self.items if item.fold is not None)

    def targets(self) -> Bool[np.ndarray, "item label"]:
        """The labels of every item as a table of yes and no."""
        column = {label: index for index, label in enumerate(self.labels)}
        table = np.zeros((len(self.items), len(self.labels)), dtype=bool)
        for row, item in enumerate(self.items):
            for label in item.labels:
                table[row, column[label]] = True
        return table

    def relative(self, item: Item) -> str:
        """An item's file as seen from the root, with forward slashes: the same name on every machine.

        A row of a table is its table and its line: `test.csv:12`. Bytes that are no text become `\\udc..`.
        """
        try:
            name = Path(os.path.relpath(item.file, self.root)).as_posix()
        except ValueError:  # Windows: another drive has no relative path.
            name = item.file.as_posix()
        return legible(name if item.row is None else f"{name}:{item.row}")

    def fingerprint(self) -> str:
        """SHA-256 over names, labels, segments, splits, groups and file sizes, or texts; no recording is read."""
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
            digest.update(json.dumps([*facts, _size(item.file) if item.text is None else item.text]).encode())
        return digest.hexdigest()


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, as numbers when all of them are ("2" before "10"), else by alphabet."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return None
