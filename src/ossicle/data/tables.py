"""CSV, TSV and JSONL tables of clips: `file,label[s][,start,end,split,fold,group]`, and the columns' other names.

A table of images has the same columns but for the times; one of text says `text,label[s][,split,fold,group]`. The
labels of one recording may lie in a text file beside it, as Audacity (without column names) and Raven write them.
Reading is strict, as a wrong label costs more than a stopped program: every refusal names the file, the line and what
is allowed, and what was understood but not said in so many words becomes a remark.
"""

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from ossicle.audio import AUDIO_SUFFIXES
from ossicle.audio.find import find_files
from ossicle.data.images import IMAGE_SUFFIXES
from ossicle.data.items import PLURALS, Item, Modality
from ossicle.data.names import SPLIT_NAMES, is_missing, listed_labels, split_of, squeezed
from ossicle.data.times import TimeColumns, choose_times
from ossicle.errors import DataRefused

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TRACK_SUFFIX = ".txt"  # of the label tracks of Audacity and the selection tables of Raven
# In any case, and with or without spaces and signs.
FILE_COLUMNS = (
    *("file", "filename", "file_name", "path", "audio", "file_path", "audio_file", "audio_path", "audio_filepath"),
    *("slice_file_name", "Begin Path", "Begin File", "YTID"),
)
TEXT_COLUMNS = ("text", "sentence", "content")
SOURCE_COLUMNS: Mapping[Modality, tuple[str, ...]] = {
    "sound": FILE_COLUMNS,
    "text": TEXT_COLUMNS,
    "image": (*FILE_COLUMNS[:4], "file_path", "image"),
}
MANY_LABELS = ("labels", "positive_labels")  # a cell may be empty
LABEL_COLUMNS = ("label", "labels", "category", "class", "event_label", "annotation", "positive_labels", "Common name")
GROUP_COLUMNS = ("group", "speaker", "actor", "src_file", "fsID")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")  # the last three where every row names a split
# UrbanSound8K's columns, also where somebody has renamed some: its times are those of other recordings.
SLICED = frozenset(("fsid", "salience", "classid"))

# The folder beside a table where its files may lie, and what they are called there.
FOLDERS: Mapping[Modality, str] = {"sound": "audio", "image": "images"}
SUFFIXES: Mapping[Modality, frozenset[str]] = {
    "sound": AUDIO_SUFFIXES,
    "text": frozenset(),
    "image": IMAGE_SUFFIXES,
}

# Of files that a table names without one.
USUAL_SUFFIXES: Mapping[Modality, tuple[str, ...]] = {
    "sound": (".wav", ".flac", ".ogg", ".mp3"),
    "text": (),
    "image": (".png", ".jpg"),
}

LONGEST_TEXT = 131_072  # characters; also the most that Python's CSV reader takes in one cell


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a table is read as, and the columns that the caller names instead of the usual ones."""

    modality: Modality = "sound"
    file: str | None = None
    text: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None
    commas: bool = False
    """Commas join labels, always."""

    @property
    def named(self) -> dict[str, str]:
        """The options that name a column, with the column."""
        options = ("file", "text", "label", "group", "fold")
        return {f"--{option}": name for option in options if (name := getattr(self, option)) is not None}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what; None for what the table does not tell."""

    source: str | None
    """Of file names, or of texts; None where the table is named after its one recording."""
    label: str | None
    group: str | None = None
    fold: str | None = None
    split: str | None = None
    times: TimeColumns = field(default_factory=TimeColumns)
    commas: bool = False
    """Commas join labels, always."""

    @property
    def several(self) -> bool:
        """Whether the column of labels says by its name that a clip may have several, or none."""
        return self.label is not None and squeezed(self.label) in map(squeezed, MANY_LABELS)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The items of one table, with the columns they were read from and the folder that their files lie in."""

    path: Path
    items: tuple[Item, ...]
    columns: Columns
    folder: Path
    missing: int  # rows whose file does not exist
    listed: bool = False  # labels are entries of lists, and so whole
    remarks: tuple[str, ...] = ()


def read_table(path: Path, wanted: Wanted, *, folders: Sequence[Path] | None = None) -> Table:
    """Reads the items of a CSV, TSV or JSONL file, or of a text file with the labels of one recording.

    Args:
        folders: where the files may lie, best first; else beside the table or in `audio/` or `images/` below or beside
            its folder. Where none of them lies there, paths are relative to the folder the program was started in.

    Raises:
        DataRefused: the table is empty, damaged, lacks a column or contradicts itself.
    """
    header, rows = _read_rows(path)
    columns, remarks = _choose_columns(path, header, rows, wanted)
    if not rows:
        raise DataRefused(f"{path} holds no rows: expected one row per clip below the line of column names.")
    if wanted.modality == "text":
        return _texts(path, rows, columns, remarks)
    below = FOLDERS[wanted.modality]
    folders = (path.parent, path.parent / below, path.parent.parent / below) if folders is None else folders
    alone = None if columns.source else recording_of(path, wanted.modality)
    rows = _one_view(rows)
    read = [_read_file(f"line {line} of {path}", row, columns, alone=alone) for line, row in rows]
    _refuse_other_files(path, [str(item.file) for item in read], wanted.modality)
    spellings = _Spellings(columns, folders, wanted.modality)
    found, folder, missing = _find_files(
        path, [spellings.of(item, row) for item, (_, row) in zip(read, rows, strict=True)], folders
    )
    items = [(line, replace(item, file=file)) for (line, _), item, file in zip(rows, read, found, strict=True)]
    items, joined = _join_rows(path, items, columns)
    _refuse_missing_labels(path, items, rows, columns)
    return Table(
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


def read_texts(path: Path, *, text: str | None = None) -> tuple[Item, ...]:
    """The texts of a table whose labels nobody asks for; of any other file, its whole content as one text.

    Args:
        text: the column, if it has none of the usual names.

    Raises:
        DataRefused: the table is empty, damaged or has no such column, or the file is no text.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        columns = Columns(source="text", label=None)
        return (replace(_read_text_row(path, 1, {"text": _read_text(path)}, columns), row=None),)
    header, rows = _read_rows(path)
    columns, _ = _choose_columns(path, header, rows, Wanted(modality="text", text=text), labeled=False)
    return tuple(_read_text_row(path, line, row, columns) for line, row in rows)


def _texts(path: Path, rows: "Rows", columns: Columns, remarks: Sequence[str]) -> Table:
    items = [(line, _read_text_row(path, line, row, columns)) for line, row in rows]
    _refuse_missing_labels(path, items, rows, columns)
    return Table(
        path=path,
        items=tuple(item for _, item in items),
        columns=columns,
        folder=path.parent,
        missing=0,
        listed=_has_lists(rows, columns),
        remarks=(*remarks, *_written_nothing(rows, columns)),
    )


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
    ahead, sign, spaced = 0, None, False
    if named := re.match(r"sep=(.)\r?\n", text):  # a line for Excel
        text, ahead, sign = text[named.end() :], 1, named[1]
    elif named := re.match(r"(#[^\n]*\n)*?#\s*(?=YTID\b)", text):  # AudioSet's: comments, the last are the columns
        text, ahead, spaced = text[named.end() :], named[0].count("\n"), True
    sign = sign or _delimiter(path, text)
    # Not splitlines(): a text may hold the other characters that Unicode counts as line ends.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True, skipinitialspace=spaced)
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
    if path.suffix.lower() == TRACK_SUFFIX and (track := _read_track(path)):
        return ["start", "end", "label"], track
    return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path)


def _read_track(path: Path) -> "Rows":
    """The rows of Audacity's label track: start, end and label, by tabs; none where the file is none.

    Source: https://manual.audacityteam.org/man/importing_and_exporting_labels.html, also for the lines of frequencies.
    """
    rows: Rows = []
    for line, text in enumerate(_read_text(path).split("\n"), start=1):
        if not text.strip() or text.startswith("\\"):  # the frequencies of the label above
            continue
        match = re.fullmatch(r"([0-9]+(?:[.,][0-9]+)?)\t([0-9]+(?:[.,][0-9]+)?)(?:\t(.*))?", text.rstrip("\r"))
        if match is None:
            return []
        start, end = (value.replace(",", ".") for value in match.group(1, 2))
        rows.append((line, {"start": start, "end": end, "label": match[3] or ""}))
    return rows


def holds_labels(path: Path) -> bool:
    """Whether a text file holds labels of a recording: a label track, or a table with times and rows."""
    try:
        header, rows = _read_rows(path)
    except DataRefused:
        return False
    return bool(choose_times(header, [row for _, row in rows], taken=())[0].start)


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line for line in text.splitlines() if line.strip()), "")


def _read_csv(path: Path) -> tuple[list[str], Rows]:
    rows: Rows = []
    header: list[str] = []
    for line, cells in _records(path):
        if not header:
            header = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
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
    first = first_line(text)
    if path.suffix.lower() in (".tsv", TRACK_SUFFIX) and "\t" in first:
        return "\t"
    # Spreadsheets write semicolons where the comma is the decimal sign.
    return max(",;\t", key=first.count)


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
    path: Path, header: Sequence[str], rows: "Rows", wanted: Wanted, *, labeled: bool = True
) -> tuple[Columns, list[str]]:
    """What each column holds, and what a reader must know about that."""
    known = {squeezed(name): name for name in reversed(header)}
    cells = [row for _, row in rows]

    def usual(names: Sequence[str]) -> str | None:
        return next((known[squeezed(name)] for name in names if squeezed(name) in known), None)

    for option, name in wanted.named.items():
        if name not in header:
            raise DataRefused(f"{path} has no column {name!r} for {option}: its columns are {_listed(header)}.")

    source = (wanted.text if wanted.modality == "text" else wanted.file) or usual(SOURCE_COLUMNS[wanted.modality])
    timed = wanted.modality == "sound"
    if source is None and not (timed and choose_times(header, cells, taken=())[0].start and recording_of(path)):
        readable = {other: usual(names) for other, names in SOURCE_COLUMNS.items() if usual(names)}
        raise DataRefused(_why_no_source(path, header, wanted.modality, readable))
    label_column = wanted.label or usual(LABEL_COLUMNS) if labeled else None
    if labeled and label_column is None:
        raise DataRefused(
            f"{path} has no column of labels: allowed are {_listed(LABEL_COLUMNS)}, or name one of its columns "
            f"({_listed(header)}) with --label."
        )
    # A column that is the label cannot also be what keeps clips together: every class would be one group.
    candidates = [name for name in GROUP_COLUMNS if known.get(squeezed(name)) != label_column]
    fold_column = wanted.fold or usual(["fold"])
    split_column = usual([name for name in SPLIT_COLUMNS if name == "split" or _names_splits(cells, known.get(name))])
    columns = Columns(
        source=source,
        label=label_column,
        group=wanted.group or usual(candidates),
        fold=fold_column if fold_column != label_column else None,
        # Folds that the user names are the protocol the user wants.
        split=split_column if wanted.fold is None and split_column != label_column else None,
        commas=wanted.commas or squeezed(label_column or "") == "positivelabels",  # AudioSet's
    )
    if not timed:
        return columns, []
    taken = (columns.source, columns.label, columns.group, columns.fold, columns.split)
    times, remarks = choose_times(header, cells, taken=taken)
    if times.used and (elsewhere := _elsewhere(known, source)):
        return columns, [f"{' and '.join(f'`{name}`' for name in times.used)} {elsewhere}, and are not used"]
    return replace(columns, times=times), [*_predicted(known), *remarks]


def _names_splits(rows: Sequence[Mapping[str, Any]], column: str | None) -> bool:
    return column is not None and all(split_of(str(row.get(column))) for row in rows)


def _elsewhere(known: Mapping[str, str], source: str | None) -> str:
    """What the times of a table say where they are not those of its files."""
    if known.keys() >= SLICED or source is not None and squeezed(source) == "slicefilename":
        return "say where each clip was cut from another recording (UrbanSound8K)"
    if source is not None and squeezed(source) == "ytid":
        return "say where each clip was cut from a video (AudioSet)"
    return ""


def _predicted(known: Mapping[str, str]) -> list[str]:
    """A remark where a model has given scores to the rows, as in a table that `ossicle predict` wrote."""
    score = next((known[name] for name in ("score", "confidence") if name in known), None)
    return [f"each row counts as true, whatever its `{score}` says"] if score else []


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
    option = "--text" if modality == "text" else "--file"
    more = "; nor is there a recording beside it that it is named after" if path.suffix == TRACK_SUFFIX else ""
    return (
        f"{path} has no column of {kind}: allowed are {allowed}, or name one of its columns with {option}, found are "
        f"{_listed(header)}{more}."
    )


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


def _read_file(where: str, row: Mapping[str, Any], columns: Columns, *, alone: Path | None) -> Item:
    file = None if is_missing(row.get(columns.source or "")) else _text(where, row, columns.source)
    if file is None and alone is None:
        raise DataRefused(f"{where} names no file in the column {columns.source!r}.")
    start, end = columns.times.stretch(where, row)
    return Item(file=alone or Path(file or ""), start=start, end=end, **_common(where, row, columns))


def _common(where: str, row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """What rows of every kind tell."""
    fold = _name(where, row, columns.fold)
    if columns.fold is not None and fold is None:
        raise DataRefused(f"{where} names no fold in the column {columns.fold!r}: every row needs one.")
    return {
        "labels": _labels(where, row, columns),
        "split": _split(where, row, columns.split),
        "fold": fold,
        "group": _name(where, row, columns.group),
    }


def _text(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row.get(column)
    if value is None:
        return None
    if isinstance(value, (dict, list, bool)):
        raise DataRefused(f"{where} holds {value!r} in the column {column!r}: expected a text or a number.")
    return str(value).strip() or None


def _name(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    """A cell that may say that there is nothing."""
    text = _text(where, row, column)
    return None if is_missing(text) else text


def _labels(where: str, row: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    column = columns.label
    if column is None:
        return ()
    value = row.get(column)
    entries = value if isinstance(value, list) else listed_labels(str(value).strip())
    if entries is None:
        text = _name(where, row, column) or ""
        entries = [part.strip() for part in re.split(r"[;|,]" if columns.commas else r"[;|]", text)]
    labels = [_name(where, {column: entry}, column) for entry in entries]
    return tuple(dict.fromkeys(label for label in labels if label))


def _has_lists(rows: "Rows", columns: Columns) -> bool:
    values = [row.get(columns.label or "") for _, row in rows]
    return any(isinstance(value, list) or listed_labels(str(value).strip()) is not None for value in values)


def _split(where: str, row: Mapping[str, Any], column: str | None) -> str | None:
    if column is None:
        return None
    text = _text(where, row, column)
    split = split_of(text or "")
    if split is None:
        allowed = "; ".join(f"{' or '.join(names)}" for names in SPLIT_NAMES.values())
        raise DataRefused(f"{where} holds {text or ''!r} in the column {column!r}: allowed are {allowed}.")
    return split


# ---------------------------------------------------------------- rows that belong together


def _one_view(rows: "Rows") -> "Rows":
    """Each selection of a Raven table once: it writes a row for the waveform and one for the spectrogram."""
    if not rows or not {"selection", "view"} <= {squeezed(name) for name in rows[0][1]}:
        return rows
    once = {tuple(str(row[name]) for name in row if squeezed(name) != "view"): (line, row) for line, row in rows[::-1]}
    return list(once.values())[::-1]


def _join_rows(
    path: Path, items: Sequence[tuple[int, Item]], columns: Columns
) -> tuple[list[tuple[int, Item]], list[str]]:
    """Rows of one stretch with different labels as one clip that has them all, as tables of events mean it.

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


def _refuse_missing_labels(path: Path, items: Sequence[tuple[int, Item]], rows: "Rows", columns: Columns) -> None:
    """A clip with no label is a fact where clips have several, and a slip where each has one."""
    assert columns.label is not None
    if columns.several or any(len(item.labels) > 1 for _, item in items):
        return
    empty = [line for line, item in items if not item.labels]
    if empty:
        found = "".join(f"; {remark}" for remark in _written_nothing(rows, columns))
        raise DataRefused(
            f"line {empty[0]} of {path} has no label in the column {columns.label!r} ({len(empty)} such rows{found}): "
            "each clip needs one, unless the column is called 'labels'."
        )


def _written_nothing(rows: "Rows", columns: Columns) -> list[str]:
    """A remark on what was written where there is no label, which may have been meant as a class."""
    written: Counter[str] = Counter()
    for _, row in rows:
        value = row.get(columns.label or "")
        for entry in value if isinstance(value, list) else re.split(r"[;|]", str("" if value is None else value)):
            if is_missing(entry) and str(entry or "").strip():
                written[str(entry).strip()] += 1
    if not written:
        return []
    names = " or ".join(repr(name) for name in sorted(written))
    return [f"{names} says that there is no label ({sum(written.values())} times); a class needs another name"]


def _untimed(items: Sequence[tuple[int, Item]], columns: Columns) -> list[str]:
    """A remark on rows without times in a table that has them."""
    if not (columns.times.end or columns.times.length):
        return []
    count = sum(item.start == 0 and item.end is None for _, item in items)
    return [f"clips without times are whole recordings ({count})"] if count else []


def _overlaps(items: Sequence[tuple[int, Item]], columns: Columns) -> list[str]:
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


class _Spellings:
    """The names that a row's file may have on disk, best first."""

    def __init__(self, columns: Columns, folders: Sequence[Path], modality: Modality) -> None:
        self.modality = modality
        self.kind = squeezed(columns.source or "")
        self.videos = _videos(folders, SUFFIXES[modality]) if self.kind == "ytid" else {}

    def of(self, item: Item, row: Mapping[str, Any]) -> list[str]:
        name = str(item.file)
        names = [name]
        if "\\" in name:  # a table written on Windows
            names.append(name.replace("\\", "/"))
        if self.kind in ("beginpath", "beginfile"):  # Raven's, which may have run elsewhere
            names.append(PureWindowsPath(name).name)
        if self.kind == "slicefilename":
            fold = next((row[column] for column in row if squeezed(column) == "fold"), "")
            names.append(f"fold{str(fold).strip()}/{name}")
        if self.kind == "ytid":
            names.append(self.videos.get(name, name))
        if not item.file.suffix:
            names += [name + suffix for suffix in USUAL_SUFFIXES[self.modality]]
        return names


def _videos(folders: Sequence[Path], suffixes: frozenset[str]) -> dict[str, str]:
    """The files of AudioSet by their eleven signs: `ID.wav`, `YID.wav`, `ID_30.000.wav`, ..."""
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for file in find_files(folder, suffixes):
            if match := re.fullmatch(r"Y?([\w-]{11})(_.*)?", file.stem):
                found.setdefault(match[1], str(file))
    return found


def recording_of(table: Path, modality: Modality = "sound") -> Path | None:
    """The one recording beside a table that is named after it: `a.wav` of `a.txt`, `a.wav.txt`, `a.Table.1.txt`.

    Raises: DataRefused for several.
    """
    found = [
        file
        for file in (*table.parent.glob("*"), *(table.parent / FOLDERS[modality]).glob("*"))
        if file.suffix.lower() in SUFFIXES[modality] and table.name.startswith((f"{file.stem}.", f"{file.name}."))
    ]
    longest = max((len(file.stem) for file in found), default=0)
    found = [file for file in found if len(file.stem) == longest]
    found = [file for file in found if table.name.startswith(f"{file.name}.")] or found
    if len(found) > 1:
        names = " and ".join(sorted(file.name for file in found))
        raise DataRefused(f"{table} may be of {names}: name its recording in a column `file`.")
    return found[0] if found else None


def _find_files(table: Path, names: Sequence[Sequence[str]], folders: Sequence[Path]) -> tuple[list[Path], Path, int]:
    """Where each file lies, the folder of most of them, and how many lie nowhere; these are given that folder."""
    found: list[Path | None] = []
    for place in (folders, [Path.cwd()]):  # a table that `ossicle predict` wrote names files as they were given to it
        places: Counter[Path] = Counter()
        found = []
        for spelled in names:
            there = next(((at, folder) for folder in place for name in spelled if (at := _in(folder, name))), None)
            found.append(there and there[0])
            places.update([there[1]] if there else [])
        if places:
            break
    else:
        looked = " and ".join(str(folder) for folder in folders)
        raise DataRefused(
            f"none of the {len(names)} files of {table} exists: {names[0][0]} was looked for in {looked}; paths "
            "are relative to the table."
        )
    usual = places.most_common(1)[0][0]
    files = [Path(os.path.abspath(file or usual / name[-1])) for file, name in zip(found, names, strict=True)]
    return files, usual, found.count(None)


def _in(folder: Path, name: str) -> Path | None:
    """The file of that name, also where its accents are composed otherwise on disk than in the table."""
    if os.path.isfile(folder / name):
        return folder / name
    if name.isascii():
        return None
    path = folder
    for part in Path(name).parts:
        path = next(
            (at for form in ("NFC", "NFD") if os.path.exists(at := path / unicodedata.normalize(form, part))),
            path / part,
        )
    return path if os.path.isfile(path) else None
