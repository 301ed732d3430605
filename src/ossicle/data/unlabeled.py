"""Recordings without labels, to be labeled by a model: a folder of any depth, a table, or a data set as published.

Labels, splits and folds that the data have are not read; groups are, since what belongs together must not lie on both
sides of a cut.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.layout import Folder, LayoutContents
from ossicle.data.layouts import LAYOUTS
from ossicle.data.layouts.class_folders import ClassFolders
from ossicle.data.layouts.table import OneTable
from ossicle.data.modalities import SOUND
from ossicle.data.records import read_rows
from ossicle.errors import DataRefused


def read_recordings(
    path: str | os.PathLike[str], *, file: str | None = None, group: str | None = None, track: int | None = None
) -> Dataset:
    """Reads the recordings of a folder or a table, without labels; they are not opened.

    Args:
        path: a folder with recordings at any depth, or what `read_dataset` reads.
        file, group: columns of the table to use instead of the usual ones.
        track: of recordings with several audio tracks, from 1; by default the one that each file marks, or the first.

    Raises: DataRefused where there are none, or for a table that cannot be read.
    """
    root = Path(os.path.abspath(path))
    found = _contents(Folder(root, SOUND), file=file, group=group)
    if not found.items:
        raise DataRefused(f"{root} holds no recordings: expected a folder with audio files at any depth, or a table.")
    items = [_bare(item, track=track) for item in found.items]
    groups = {item.group for item in items} - {None}
    column = found.columns.group if found.columns is not None and groups else None
    read = re.sub(r",? labels from `[^`]*`", "", found.description)
    together = f"{len(groups)} groups from `{column}`" if column else f"every {SOUND.alone} is its own group"
    return Dataset(
        root=root if root.is_dir() else root.parent,
        items=tuple(items),
        labels=(),
        task="multi-label",
        layout=f"{read}: {len(items)} {SOUND.noun}s, of which no labels are read; {together}.",
        group_name=column,
        table=None if root.is_dir() else root,
    )


def _contents(folder: Folder, *, file: str | None, group: str | None) -> LayoutContents:
    """What a folder or a table holds, as the layout that it has; as a plain folder where it has none."""
    for layout in LAYOUTS:
        options = ReadOptions(modality=SOUND, file=file, group=group)
        if isinstance(layout, ClassFolders) or layout.modality not in (None, SOUND):
            continue
        if (found := layout.detect(folder, options)) is None:
            continue
        if isinstance(layout, OneTable):  # a table needs a column of labels: that of the files will do
            source = file or SOUND.usual_column(read_rows(found)[0])
            options = replace(options, label=source)
        return layout.read(folder, found, options)
    if not folder.path.is_dir():
        raise DataRefused(f"{folder.path} does not exist: expected a folder of {SOUND.plural}, or a table of them.")
    if named := [f"--{name} {value}" for name, value in (("file", file), ("group", group)) if value is not None]:
        raise DataRefused(f"{named[0]} names a column, but {folder.path} holds no table.")
    items: Sequence[Item] = [Item(file=Path(os.path.abspath(path)), labels=()) for path in folder.files]
    return LayoutContents(items=tuple(items), description=f"folder of {SOUND.plural}")


def without_labels(dataset: Dataset) -> Dataset:
    """A data set that was read with labels, without them, its splits and its folds."""
    items = tuple(_bare(item) for item in dataset.items)
    return replace(dataset, items=items, labels=(), task="multi-label", fold_name=None)


def _bare(item: Item, *, track: int | None = None) -> Item:
    return replace(item, labels=(), unknown=(), split=None, fold=None, track=item.track if track is None else track)
