"""CSV, TSV and JSONL tables of clips: `file,label[s][,start,end,split,fold,group]`, and the columns' other names.

Reading is strict, as a wrong label costs more than a stopped program: every refusal names the file, the line and what
is allowed.
"""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ossicle.data.items import Item
from ossicle.errors import DataRefused

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_COLUMNS = ("file", "filename", "file_name", "path", "audio")
LABEL_COLUMNS = ("label", "labels", "category", "class")
GROUP_COLUMNS = ("group", "speaker", "actor", "src_file")

# What other people call the three parts; the keys are ours.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "development": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


def split_of(name: str) -> str | None:
    """Our name of a split ("val" is "development"), or None for a word that names none."""
    return _SPLIT_OF.get(name.strip().lower())


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what; None for what the table does not tell."""

    file: str
    label: str
    group: str | None
    fold: str | None
    split: str | None
    start: str | None
    end: str | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The clips of one table, with the columns they were read from and the folder that the sound lies in."""

    path: Path
    items: tuple[Item, ...]
    columns: Columns
    audio_folder: Path
    missing: int  # rows whose file does not exist


def read_table(
    path: Path,
    *,
    label: str | None = None,
    group: str | None = None,
    fold: str | None = None,
    folders: Sequence[Path] | None = None,
) -> Table:
    """Reads the clips of a CSV, TSV or JSONL file.

    Args:
        label, group, fold: names of the columns to use instead of the usual ones.
        folders: where the files may lie, best first; else beside the table and in its `audio/` subfolder.

    Raises:
        DataRefused: the table is empty, damaged, lacks a column or contradicts itself.
    """
    header, rows = _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)
    columns = _choose_columns(path, header, label=label, group=group, fold=fold)
    if not rows:
        raise DataRefused(f"{path} holds no rows: expected one row per clip below the line of column names.")
    items = []
    seen: dict[tuple[str, float, float | None], int] = {}
    for line, row in rows:
        item = _read_row(f"line {line} of {path}", row, columns)
        key = (str(item.file), item.start, item.end)
        if key in seen:
            raise DataRefused(
                f"line {line} of {path} repeats the clip of line {seen[key]} ({item.file}): each clip has one row, "
                "several labels are joined by ; or |."
            )
        seen[key] = line
        items.append((line, item))
    _refuse_missing_labels(path, items, columns)
    folders = (path.parent, path.parent / "audio") if folders is None else folders
    found, folder, missing = _find_files(path, [str(item.file) for _, item in items], folders)
    return Table(
        path=path,
        items=tuple(replace(item, file=file) for (_, item), file in zip(items, found, strict=True)),
        columns=columns,
        audio_folder=folder,
        missing=missing,
    )


# ---------------------------------------------------------------- bytes to rows

Rows = list[tuple[int, Mapping[str, Any]]]


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataRefused(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataRefused(
            f"{path} is not UTF-8 text (byte 0x{content[error.start]:02x} in line {line}): save it as UTF-8."
        ) from error


def _read_csv(path: Path) -> tuple[list[str], Rows]:
    text = _read_text(path)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(path, text), strict=True)
    rows: Rows = []
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                twice = [name for name, count in Counter(header).items() if count > 1]
                if twice:
                    raise DataRefused(f"{path} has the column {twice[0]!r} twice: each column needs its own name.")
                continue
            if len(cells) != len(header):
                raise DataRefused(
                    f"line {reader.line_num} of {path} has {len(cells)} cells where the line of column names "
                    f"has {len(header)}."
                )
            rows.append((reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataRefused(f"line {reader.line_num} of {path} is no valid CSV: {error}.") from error
    if not header:
        raise DataRefused(f"{path} is empty: expected a line of column names and one row per clip.")
    return header, rows


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = next((line for line in text.splitlines() if line.strip()), "")
    # Spreadsheets write semicolons where the comma is the decimal sign.
    return next((sign for sign in ",;\t" if sign in first), ",")


def _read_jsonl(path: Path) -> tuple[list[str], Rows]:
    header: dict[str, None] = {}
    rows: Rows = []
    # Not splitlines(): JSON strings may hold the other characters that Unicode counts as line ends.
    for line, text in enumerate(_read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataRefused(f"line {line} of {path} is no valid JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataRefused(f'line {line} of {path} is no JSON object: expected {{"file": ..., "label": ...}}.')
        header.update(dict.fromkeys(row))
        rows.append((line, row))
    if not rows:
        raise DataRefused(f"{path} is empty: expected one JSON object per clip.")
    return list(header), rows


# ---------------------------------------------------------------- columns


def _choose_columns(
    path: Path, header: Sequence[str], *, label: str | None, group: str | None, fold: str | None
) -> Columns:
    known = {name.lower(): name for name in reversed(header)}

    def usual(names: Sequence[str]) -> str | None:
        return next((known[name] for name in names if name in known), None)

    def named(name: str, option: str) -> str:
        if name not in header:
            raise DataRefused(f"{path} has no column {name!r} for {option}: its columns are {_listed(header)}.")
        return name

    file_column = usual(FILE_COLUMNS)
    if file_column is None:
        raise DataRefused(
            f"{path} has no column of file names: allowed are {_listed(FILE_COLUMNS)}, found are {_listed(header)}."
        )
    label_column = named(label, "--label") if label is not None else usual(LABEL_COLUMNS)
    if label_column is None:
        raise DataRefused(
            f"{path} has no column of labels: allowed are {_listed(LABEL_COLUMNS)}, or name one of its columns "
            f"({_listed(header)}) with --label."
        )
    # A column that is the label cannot also be what keeps clips together: every class would be one group.
    candidates = [name for name in GROUP_COLUMNS if known.get(name) != label_column]
    fold_column = named(fold, "--fold") if fold is not None else usual(["fold"])
    split_column = usual(["split"])
    return Columns(
        file=file_column,
        label=label_column,
        group=named(group, "--group") if group is not None else usual(candidates),
        fold=fold_column if fold_column != label_column else None,
        # Folds that the user names are the protocol the user wants.
        split=split_column if fold is None and split_column != label_column else None,
        start=usual(["start"]),
        end=usual(["end"]),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


# ---------------------------------------------------------------- rows to items


def _read_row(where: str, row: Mapping[str, Any], columns: Columns) -> Item:
    file = _text(where, row, columns.file)
    if file is None:
        raise DataRefused(f"{where} names no file in the column {columns.file!r}.")
    start = _seconds(where, row, columns.start)
    end = _seconds(where, row, columns.end)
    if end is not None and end <= (start or 0.0):
        raise DataRefused(
            f"{where} starts at {start or 0.0:g} s and ends at {end:g} s: the end must come after the start."
        )
    fold = _text(where, row, columns.fold)
    if columns.fold is not None and fold is None:
        raise DataRefused(f"{where} names no fold in the column {columns.fold!r}: every row needs one.")
    return Item(
        file=Path(file),
        labels=_labels(where, row, columns.label),
        start=start or 0.0,
        end=end,
        split=_split(where, row, columns.split),
        fold=fold,
        group=_text(where, row, columns.group),
    )


def _text(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    if value is None:
        return None
    if isinstance(value, (dict, list, bool)):
        raise DataRefused(f"{where} holds {value!r} in the column {column!r}: expected a text or a number.")
    return str(value).strip() or None


def _labels(where: str, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = row.get(column)
    if isinstance(value, list):
        labels = [_text(where, {column: entry}, column) for entry in value]
    else:
        labels = [part.strip() for part in (_text(where, row, column) or "").replace("|", ";").split(";")]
    return tuple(dict.fromkeys(label for label in labels if label))


def _seconds(where: str, row: Mapping[str, Any], column: str | None) -> float | None:
    text = _text(where, row, column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataRefused(f"{where} holds {text!r} in the column {column!r}: expected seconds, 0 or more.")
    return value


def _split(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    if column is None:
        return None
    text = _text(where, row, column)
    split = split_of(text or "")
    if split is None:
        allowed = "; ".join(f"{' or '.join(names)}" for names in SPLIT_NAMES.values())
        raise DataRefused(f"{where} holds {text or ''!r} in the column {column!r}: allowed are {allowed}.")
    return split


def _refuse_missing_labels(path: Path, items: Sequence[tuple[int, Item]], columns: Columns) -> None:
    """A clip with no label is a fact where clips have several, and a slip where each has one."""
    if columns.label.lower() == "labels" or any(len(item.labels) > 1 for _, item in items):
        return
    empty = [line for line, item in items if not item.labels]
    if empty:
        raise DataRefused(
            f"line {empty[0]} of {path} has no label in the column {columns.label!r} ({len(empty)} such rows): each "
            "clip needs one, unless the column is called 'labels'."
        )


# ---------------------------------------------------------------- names to files


def _find_files(table: Path, names: Sequence[str], folders: Sequence[Path]) -> tuple[list[Path], Path, int]:
    """Where each file lies, the folder of most of them, and how many lie nowhere; these are given that folder."""
    found: list[Path | None] = []
    places: Counter[Path] = Counter()
    for name in names:
        # The second spelling is for tables written on Windows.
        for folder, spelling in product(folders, dict.fromkeys([name, name.replace("\\", "/")])):
            if os.path.isfile(folder / spelling):
                found.append(folder / spelling)
                places[folder] += 1
                break
        else:
            found.append(None)
    if not places:
        looked = " and ".join(str(folder) for folder in folders)
        raise DataRefused(
            f"none of the {len(names)} files of {table} exists: {names[0]} was looked for in {looked}; paths "
            "are relative to the table."
        )
    usual = places.most_common(1)[0][0]
    files = [Path(os.path.abspath(file or usual / name)) for file, name in zip(found, names, strict=True)]
    return files, usual, found.count(None)
