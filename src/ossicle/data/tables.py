"""CSV, TSV and JSONL tables of clips: `file,label[s][,start,end,split,fold,group]`, and the columns' other names.

A table of images has the same columns but for the times; one of text says `text,label[s][,split,fold,group]`.
Reading is strict, as a wrong label costs more than a stopped program: every refusal names the file, the line and what
is allowed.
"""

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ossicle.audio import AUDIO_SUFFIXES
from ossicle.data.images import IMAGE_SUFFIXES
from ossicle.data.items import PLURALS, Item, Modality
from ossicle.errors import DataRefused

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_COLUMNS = ("file", "filename", "file_name", "path", "audio")
TEXT_COLUMNS = ("text", "sentence", "content")
SOURCE_COLUMNS: Mapping[Modality, tuple[str, ...]] = {
    "sound": FILE_COLUMNS,
    "text": TEXT_COLUMNS,
    "image": (*FILE_COLUMNS[:-1], "image"),
}
LABEL_COLUMNS = ("label", "labels", "category", "class")
GROUP_COLUMNS = ("group", "speaker", "actor", "src_file")

# The folder beside a table where its files may lie, and what they are called there.
FOLDERS: Mapping[Modality, str] = {"sound": "audio", "image": "images"}
SUFFIXES: Mapping[Modality, frozenset[str]] = {
    "sound": AUDIO_SUFFIXES,
    "text": frozenset(),
    "image": IMAGE_SUFFIXES,
}

LONGEST_TEXT = 131_072  # characters; also the most that Python's CSV reader takes in one cell

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
class Wanted:
    """What a table is read as, and the columns that the caller names instead of the usual ones."""

    modality: Modality = "sound"
    text: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The options that name a column, with the column."""
        options = {"--text": self.text, "--label": self.label, "--group": self.group, "--fold": self.fold}
        return {option: name for option, name in options.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what; None for what the table does not tell."""

    source: str
    """Of file names, or of texts."""
    label: str | None
    group: str | None
    fold: str | None
    split: str | None
    start: str | None
    end: str | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The items of one table, with the columns they were read from and the folder that their files lie in."""

    path: Path
    items: tuple[Item, ...]
    columns: Columns
    folder: Path
    missing: int  # rows whose file does not exist


def read_table(path: Path, wanted: Wanted, *, folders: Sequence[Path] | None = None) -> Table:
    """Reads the items of a CSV, TSV or JSONL file.

    Args:
        folders: where the files may lie, best first; else beside the table and in its subfolder `audio/` or `images/`.

    Raises:
        DataRefused: the table is empty, damaged, lacks a column or contradicts itself.
    """
    header, rows = _read_rows(path)
    columns = _choose_columns(path, header, wanted)
    if not rows:
        raise DataRefused(f"{path} holds no rows: expected one row per clip below the line of column names.")
    if wanted.modality == "text":
        return _texts(path, rows, columns)
    items = []
    seen: dict[tuple[str, float, float | None], int] = {}
    for line, row in rows:
        item = _read_file(f"line {line} of {path}", row, columns)
        key = (str(item.file), item.start, item.end)
        if key in seen:
            raise DataRefused(
                f"line {line} of {path} repeats the clip of line {seen[key]} ({item.file}): each clip has one row, "
                "several labels are joined by ; or |."
            )
        seen[key] = line
        items.append((line, item))
    _refuse_missing_labels(path, items, columns)
    names = [str(item.file) for _, item in items]
    _refuse_other_files(path, names, wanted.modality)
    folders = (path.parent, path.parent / FOLDERS[wanted.modality]) if folders is None else folders
    found, folder, missing = _find_files(path, names, folders)
    return Table(
        path=path,
        items=tuple(replace(item, file=file) for (_, item), file in zip(items, found, strict=True)),
        columns=columns,
        folder=folder,
        missing=missing,
    )


def read_texts(path: Path, *, text: str | None = None) -> tuple[Item, ...]:
    """The texts of a table whose labels nobody asks for; of any other file, its whole content as one text.

    Args:
        text: the column, if it has none of the usual names.

    Raises:
        DataRefused: the table is empty, damaged or has no such column, or the file is no text.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        columns = Columns(source="text", label=None, group=None, fold=None, split=None, start=None, end=None)
        return (replace(_read_text_row(path, 1, {"text": _read_text(path)}, columns), row=None),)
    header, rows = _read_rows(path)
    columns = _choose_columns(path, header, Wanted(modality="text", text=text), labelled=False)
    return tuple(_read_text_row(path, line, row, columns) for line, row in rows)


def _texts(path: Path, rows: "Rows", columns: Columns) -> Table:
    items = [(line, _read_text_row(path, line, row, columns)) for line, row in rows]
    _refuse_missing_labels(path, items, columns)
    return Table(path=path, items=tuple(item for _, item in items), columns=columns, folder=path.parent, missing=0)


def read_numbered(path: Path, classes: Sequence[str], *, split: str | None) -> list[Item]:
    """Reads a CSV without column names: the number of a class, from 1, and the parts of a text, joined by spaces.

    Raises:
        DataRefused: the table is empty or damaged, or a row has no such number or no text.

    Source: Zhang, Zhao, LeCun 2015, https://arxiv.org/abs/1509.01626, whose eight sets (AG News, DBpedia, ...) are so.
    """
    label_of = {str(number): label for number, label in enumerate(classes, start=1)}
    items = []
    for line, (number, *parts) in _records(path):
        where = f"line {line} of {path}"
        label = label_of.get(number.strip())
        if label is None:
            raise DataRefused(
                f"{where} begins with {number[:40]!r}: expected the number of a class, 1 to {len(classes)} "
                "(those of classes.txt)."
            )
        text = " ".join(part.strip() for part in parts if part.strip())
        if not text:
            raise DataRefused(f"{where} holds no text behind the number of its class.")
        items.append(Item(file=path, labels=(label,), split=split, text=text, row=line))
    if not items:
        raise DataRefused(f"{path} is empty: expected one row per text.")
    return items


def read_names(path: Path) -> tuple[str, ...]:
    """Reads names, one to a line.

    Raises:
        DataRefused: there is none, or one of them twice.
    """
    names = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        found = f"the name {twice[0]!r} twice" if twice else "no name"
        raise DataRefused(f"{path} holds {found}: expected one name to a line, each its own.")
    return tuple(names)


def first_record(path: Path) -> list[str]:
    """The cells of a CSV file's first line that is not blank; none where there is no such line."""
    return next((cells for _, cells in _records(path)), [])


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


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the line that it begins on."""
    text = _read_text(path)
    ahead = 0
    if named := re.match(r"sep=(.)\r?\n", text):  # a line for Excel
        text, ahead = text[named.end() :], 1
    sign = named[1] if named else _delimiter(path, text)
    # Not splitlines(): a text may hold the other characters that Unicode counts as line ends.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
    line = 1 + ahead
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1 + ahead
    except csv.Error as error:
        raise DataRefused(f"line {reader.line_num + ahead} of {path} is no valid CSV: {error}.") from error


def _read_rows(path: Path) -> tuple[list[str], "Rows"]:
    """The names of the columns, and each row with the line that it begins on."""
    return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)


def _read_csv(path: Path) -> tuple[list[str], Rows]:
    rows: Rows = []
    header: list[str] = []
    for line, cells in _records(path):
        if not header:
            header = [cell.strip() for cell in cells]
            twice = [name for name, count in Counter(header).items() if name and count > 1]
            if twice:
                raise DataRefused(f"{path} has the column {twice[0]!r} twice: each column needs its own name.")
            continue
        if len(cells) != len(header):
            raise DataRefused(
                f"line {line} of {path} has {len(cells)} cells where the line of column names has {len(header)}."
            )
        rows.append((line, dict(zip(header, cells, strict=True))))
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


def _choose_columns(path: Path, header: Sequence[str], wanted: Wanted, *, labelled: bool = True) -> Columns:
    known = {name.lower(): name for name in reversed(header)}

    def usual(names: Sequence[str]) -> str | None:
        return next((known[name] for name in names if name in known), None)

    for option, name in wanted.named.items():
        if name not in header:
            raise DataRefused(f"{path} has no column {name!r} for {option}: its columns are {_listed(header)}.")

    source = wanted.text or usual(SOURCE_COLUMNS[wanted.modality])
    if source is None:
        readable = {other: usual(names) for other, names in SOURCE_COLUMNS.items() if usual(names)}
        raise DataRefused(_why_no_source(path, header, wanted.modality, readable))
    label_column = wanted.label or usual(LABEL_COLUMNS) if labelled else None
    if labelled and label_column is None:
        raise DataRefused(
            f"{path} has no column of labels: allowed are {_listed(LABEL_COLUMNS)}, or name one of its columns "
            f"({_listed(header)}) with --label."
        )
    # A column that is the label cannot also be what keeps clips together: every class would be one group.
    candidates = [name for name in GROUP_COLUMNS if known.get(name) != label_column]
    fold_column = wanted.fold or usual(["fold"])
    split_column = usual(["split"])
    timed = wanted.modality == "sound"
    return Columns(
        source=source,
        label=label_column,
        group=wanted.group or usual(candidates),
        fold=fold_column if fold_column != label_column else None,
        # Folds that the user names are the protocol the user wants.
        split=split_column if wanted.fold is None and split_column != label_column else None,
        start=usual(["start"]) if timed else None,
        end=usual(["end"]) if timed else None,
    )


def _why_no_source(path: Path, header: Sequence[str], modality: Modality, readable: Mapping[Modality, Any]) -> str:
    """Says what else the table is, or what was looked for; `readable` are the modalities that have a column here."""
    what = PLURALS[modality]
    if readable:
        others = " or ".join(PLURALS[other] for other in readable)
        column = next(iter(readable.values()))
        modalities = " or ".join(repr(other) for other in readable)
        return f"{path} holds a table of {others} (column {column!r}), not of {what}: modality {modalities} reads it."
    kind = "texts" if modality == "text" else "file names"
    allowed = _listed(SOURCE_COLUMNS[modality])
    more = ", or name one of its columns with --text" if modality == "text" else ""
    return f"{path} has no column of {kind}: allowed are {allowed}{more}, found are {_listed(header)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


# ---------------------------------------------------------------- rows to items


def _read_text_row(path: Path, line: int, row: Mapping[str, Any], columns: Columns) -> Item:
    where = f"line {line} of {path}"
    text = _text(where, row, columns.source)
    if text is None:
        raise DataRefused(f"{where} holds no text in the column {columns.source!r}.")
    if len(text) > LONGEST_TEXT:
        raise DataRefused(f"{where} holds a text of {len(text):,} characters: allowed are {LONGEST_TEXT:,}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell what UTF-8 cannot
        raise DataRefused(f"{where} holds half of a surrogate pair, which is no valid Unicode.") from error
    return Item(file=path, text=text, row=line, **_common(where, row, columns))


def _read_file(where: str, row: Mapping[str, Any], columns: Columns) -> Item:
    file = _text(where, row, columns.source)
    if file is None:
        raise DataRefused(f"{where} names no file in the column {columns.source!r}.")
    start = _seconds(where, row, columns.start)
    end = _seconds(where, row, columns.end)
    if end is not None and end <= (start or 0.0):
        raise DataRefused(
            f"{where} starts at {start or 0.0:g} s and ends at {end:g} s: the end must come after the start."
        )
    return Item(file=Path(file), start=start or 0.0, end=end, **_common(where, row, columns))


def _common(where: str, row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """What rows of every kind tell."""
    fold = _text(where, row, columns.fold)
    if columns.fold is not None and fold is None:
        raise DataRefused(f"{where} names no fold in the column {columns.fold!r}: every row needs one.")
    return {
        "labels": _labels(where, row, columns.label),
        "split": _split(where, row, columns.split),
        "fold": fold,
        "group": _text(where, row, columns.group),
    }


def _text(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    if value is None:
        return None
    if isinstance(value, (dict, list, bool)):
        raise DataRefused(f"{where} holds {value!r} in the column {column!r}: expected a text or a number.")
    return str(value).strip() or None


def _labels(where: str, row: Mapping[str, Any], column: str | None) -> tuple[str, ...]:
    if column is None:
        return ()
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
    assert columns.label is not None
    if columns.label.lower() == "labels" or any(len(item.labels) > 1 for _, item in items):
        return
    empty = [line for line, item in items if not item.labels]
    if empty:
        raise DataRefused(
            f"line {empty[0]} of {path} has no label in the column {columns.label!r} ({len(empty)} such rows): each "
            "clip needs one, unless the column is called 'labels'."
        )


# ---------------------------------------------------------------- names to files


def _refuse_other_files(table: Path, names: Sequence[str], modality: Modality) -> None:
    """A table of file names does not say what the files are; their suffixes do where all of them agree."""
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    for other, known in SUFFIXES.items():
        if other != modality and suffixes <= known:
            raise DataRefused(
                f"{table} holds a table of {PLURALS[other]} ({names[0]}), not of {PLURALS[modality]}: "
                f"modality {other!r} reads it."
            )


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
