"""Tables of clips, `file,label[s][,start,end,split,fold,group]`: from rows to items.

A table of images has the same columns but for the times; one of text says `text,label[s][,split,fold,group]`. The
labels of one recording may lie in a text file beside it, as Audacity (without column names) and Raven write them.
Every refusal names the file, the line and what is allowed.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ossicle.data.columns import Columns, ReadOptions, choose_columns
from ossicle.data.items import Item
from ossicle.data.modalities import Modality, text_of
from ossicle.data.names import SPLIT_NAMES, is_missing, listed_labels, split_of, squeezed
from ossicle.data.paths import find_named, recording_of
from ossicle.data.records import TableRow, TableRows, cell_text, read_rows
from ossicle.errors import DataRefused

Numbered = list[tuple[int, Item]]  # each with its line


@dataclass(frozen=True, kw_only=True)
class TableContents:
    """The items of one table, with the columns they were read from and the folder that their files lie in."""

    path: Path
    items: tuple[Item, ...]
    columns: Columns
    folder: Path
    missing: int  # items whose file does not exist
    listed: bool = False  # labels are entries of lists, and so whole
    remarks: tuple[str, ...] = ()


def read_table(path: Path, options: ReadOptions, *, folders: Sequence[Path] | None = None) -> TableContents:
    """Reads the items of a CSV, TSV or JSONL file, or of a text file with the labels of one recording.

    Args:
        folders: where the files may lie; see `find_named`.

    Raises:
        DataRefused: the table is empty, damaged, lacks a column or contradicts itself.
    """
    header, rows = read_rows(path)
    columns, remarks = choose_columns(path, header, rows, options)
    if not rows:
        raise DataRefused(f"{path} holds no rows: expected one row per clip below the line of column names.")
    folder, missing, joined = path.parent, 0, list[str]()
    if options.modality.in_rows:
        items = [(line, _row_item(path, line, row, columns)) for line, row in rows]
    else:
        rows = _one_view(rows)
        items, folder, missing = _file_items(path, rows, columns, modality=options.modality, folders=folders)
        items, joined = _join_rows(path, items, columns)
    _refuse_missing_labels(path, items, rows, columns)
    return TableContents(
        path=path,
        items=tuple(item for _, item in items),
        columns=columns,
        folder=folder,
        missing=missing,
        listed=_has_lists(rows, columns),
        remarks=(
            *remarks,
            *joined,
            *_written_nothing(rows, columns),
            *_untimed(items, columns),
            *_overlaps(items, columns),
        ),
    )


# ---------------------------------------------------------------- rows to items


def _row_item(path: Path, line: int, row: TableRow, columns: Columns) -> Item:
    assert columns.source is not None
    text = text_of(path, line, row, columns.source)
    return Item(file=path, text=text, row=line, **_common(f"line {line} of {path}", row, columns))


def _file_items(
    path: Path, rows: TableRows, columns: Columns, *, modality: Modality, folders: Sequence[Path] | None
) -> tuple[Numbered, Path, int]:
    """The items with their files as they lie on disk, the folder of most, and how many lie nowhere."""
    alone = None if columns.source else recording_of(path, modality)
    names, facts = [], []
    for line, row in rows:
        where = f"line {line} of {path}"
        file = None if is_missing(row.get(columns.source or "")) else cell_text(where, row, columns.source)
        if file is None and alone is None:
            raise DataRefused(f"{where} names no file in the column {columns.source!r}.")
        start, end = columns.times.segment(where, row)
        names.append((str(alone or file), row))
        facts.append((line, {"start": start, "end": end, **_common(where, row, columns)}))
    files, folder, missing = find_named(path, names, source=columns.source, modality=modality, folders=folders)
    items = [(line, Item(file=at, **facts)) for at, (line, facts) in zip(files, facts, strict=True)]
    return items, folder, missing


def _common(where: str, row: TableRow, columns: Columns) -> dict[str, Any]:
    """What rows of every kind say."""
    fold = _name(where, row, columns.fold)
    if columns.fold is not None and fold is None:
        raise DataRefused(f"{where} names no fold in the column {columns.fold!r}: every row needs one.")
    return {
        "labels": _labels(where, row, columns),
        "split": _split(where, row, columns.split),
        "fold": fold,
        "group": _name(where, row, columns.group),
    }


def _name(where: str, row: TableRow, column: str | None) -> str | None:
    """A cell that may say that there is nothing."""
    if column is None:
        return None
    text = cell_text(where, row, column)
    return None if is_missing(text) else text


def _labels(where: str, row: TableRow, columns: Columns) -> tuple[str, ...]:
    column = columns.label
    value = row.get(column)
    entries = value if isinstance(value, list) else listed_labels(str(value).strip())
    if entries is None:
        return _joined_labels(_name(where, row, column) or "", columns.commas)
    labels = [_name(where, {column: entry}, column) for entry in entries]
    return tuple(dict.fromkeys(label for label in labels if label))


@lru_cache(maxsize=4096)
def _joined_labels(text: str, commas: bool) -> tuple[str, ...]:
    parts = [part.strip() for part in re.split(r"[;|,]" if commas else r"[;|]", text)]
    return tuple(dict.fromkeys(part for part in parts if not is_missing(part)))


def _has_lists(rows: TableRows, columns: Columns) -> bool:
    values = [row.get(columns.label) for _, row in rows]
    return any(isinstance(value, list) for value in values) or any(
        listed_labels(text.strip()) is not None for text in set(map(str, values))
    )


def _split(where: str, row: TableRow, column: str | None) -> str | None:
    if column is None:
        return None
    text = cell_text(where, row, column)
    split = split_of(text or "")
    if split is None:
        allowed = "; ".join(f"{' or '.join(names)}" for names in SPLIT_NAMES.values())
        raise DataRefused(f"{where} holds {text or ''!r} in the column {column!r}: allowed are {allowed}.")
    return split


# ---------------------------------------------------------------- rows that belong together


def _one_view(rows: TableRows) -> TableRows:
    """Each selection of a Raven table once: it writes a row for the waveform and one for the spectrogram."""
    if not rows or not {"selection", "view"} <= {squeezed(name) for name in rows[0][1]}:
        return rows
    once = {tuple(str(row[name]) for name in row if squeezed(name) != "view"): (line, row) for line, row in rows[::-1]}
    return list(once.values())[::-1]


def _join_rows(path: Path, items: Numbered, columns: Columns) -> tuple[Numbered, list[str]]:
    """Rows of one segment with different labels as one clip that has them all, as tables of events mean it.

    Raises: DataRefused for a row that repeats another one.
    """
    kept: dict[tuple[str, float, float | None], tuple[int, Item]] = {}
    joined = set()
    for line, item in items:
        key = (str(item.file), item.start, item.end)
        if key not in kept:
            kept[key] = line, item
            continue
        before, other = kept[key]
        same = (item.split, item.fold, item.group) == (other.split, other.fold, other.group)
        if not columns.times.used or not same or not set(item.labels) - set(other.labels):
            raise DataRefused(
                f"line {line} of {path} repeats the clip of line {before} ({item.file}): each clip has one row, "
                "several labels are joined by ; or |."
            )
        kept[key] = before, replace(other, labels=(*other.labels, *item.labels))
        joined.add(key)
    remark = f"a segment with several rows has the labels of all of them ({len(joined)})"
    return list(kept.values()), [remark] if joined else []


def _refuse_missing_labels(path: Path, items: Numbered, rows: TableRows, columns: Columns) -> None:
    """A clip with no label is a fact where clips have several, and a slip where each has one."""
    if columns.several or any(len(item.labels) > 1 for _, item in items):
        return
    empty = [line for line, item in items if not item.labels]
    if empty:
        found = "".join(f"; {remark}" for remark in _written_nothing(rows, columns))
        raise DataRefused(
            f"line {empty[0]} of {path} has no label in the column {columns.label!r} ({len(empty)} such rows{found}): "
            "each clip needs one, unless the column is called 'labels'."
        )


def _written_nothing(rows: TableRows, columns: Columns) -> list[str]:
    """A remark on what was written where there is no label, which may have been meant as a class."""
    cells: Counter[str] = Counter()
    for _, row in rows:
        value = row.get(columns.label)
        cells.update(str(cell) for cell in (value if isinstance(value, list) else [value]) if cell is not None)
    written: Counter[str] = Counter()
    for cell, count in cells.items():
        for entry in re.split(r"[;|]", cell):
            if is_missing(entry) and entry.strip():
                written[entry.strip()] += count
    if not written:
        return []
    names = " or ".join(repr(name) for name in sorted(written))
    return [f"{names} says that there is no label ({sum(written.values())} times); a class needs another name"]


def _untimed(items: Numbered, columns: Columns) -> list[str]:
    """A remark on rows without times in a table that has them."""
    if not (columns.times.end or columns.times.length):
        return []
    count = sum(item.start == 0 and item.end is None for _, item in items)
    return [f"clips without times are whole recordings ({count})"] if count else []


def _overlaps(items: Numbered, columns: Columns) -> list[str]:
    """A remark on clips that share sound with one of other labels, as overlapping events do."""
    if not columns.times.used:
        return []
    count, last = 0, None
    for item in sorted((item for _, item in items), key=lambda item: (str(item.file), item.start)):
        if last is None or last.file != item.file:
            last = item
            continue
        if (last.end is None or last.end > item.start) and set(last.labels) != set(item.labels):
            count += 1
        if last.end is not None and (item.end is None or item.end > last.end):
            last = item
    return [f"clips that overlap one with other labels have those of their own row alone ({count})"] if count else []
