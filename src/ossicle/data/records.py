"""The rows of CSV, TSV and JSONL tables and of Audacity's label tracks, each with the line that it begins on.

Reading is strict, as a wrong label costs more than a stopped program: every refusal names the file, the line and what
is allowed.
"""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ossicle.errors import DataRefused

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
TRACK_SUFFIX = ".txt"  # of the label tracks of Audacity and the selection tables of Raven

TableRow = Mapping[str, Any]
TableRows = list[tuple[int, TableRow]]


def read_rows(path: Path) -> tuple[list[str], TableRows]:
    """The names of a table's columns, and each row with the line that it begins on.

    Raises: DataRefused for a table that is empty or damaged.
    """
    suffix = path.suffix.lower()
    if suffix == TRACK_SUFFIX and (track := _read_track(path)):
        return ["start", "end", "label"], track
    return _read_jsonl(path) if suffix == ".jsonl" else _read_csv(path)


def read_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the line that it begins on.

    Raises: DataRefused for a file that is no text or no CSV.
    """
    text = read_text(path)
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


def read_names(path: Path) -> tuple[str, ...]:
    """Reads names, one to a line.

    Raises: DataRefused where there is none, or one of them twice.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        found = f"the name {twice[0]!r} twice" if twice else "no name"
        raise DataRefused(f"{path} holds {found}: expected one name to a line, each its own.")
    return tuple(names)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises: DataRefused for a file that cannot be read or is not UTF-8.
    """
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


def cell_text(where: str, row: TableRow, column: str | None) -> str | None:
    """A cell as text; None for an empty one.

    Raises: DataRefused for a list, an object or a truth value.
    """
    value = None if column is None else row.get(column)
    if value is None:
        return None
    if isinstance(value, (dict, list, bool)):
        raise DataRefused(f"{where} holds {value!r} in the column {column!r}: expected a text or a number.")
    return str(value).strip() or None


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names) or "none"


def _read_track(path: Path) -> TableRows:
    """The rows of Audacity's label track: start, end and label, by tabs; none where the file is none.

    Source: https://manual.audacityteam.org/man/importing_and_exporting_labels.html, also for the lines of frequencies.
    """
    rows: TableRows = []
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip() or text.startswith("\\"):  # the frequencies of the label above
            continue
        match = re.fullmatch(r"([0-9]+(?:[.,][0-9]+)?)\t([0-9]+(?:[.,][0-9]+)?)(?:\t(.*))?", text.rstrip("\r"))
        if match is None:
            return []
        start, end = (value.replace(",", ".") for value in match.group(1, 2))
        rows.append((line, {"start": start, "end": end, "label": match[3] or ""}))
    return rows


def _read_csv(path: Path) -> tuple[list[str], TableRows]:
    rows: TableRows = []
    header: list[str] = []
    for line, cells in read_records(path):
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
    first = next((line for line in text.splitlines() if line.strip()), "")
    if path.suffix.lower() in (".tsv", TRACK_SUFFIX) and "\t" in first:
        return "\t"
    # Spreadsheets write semicolons where the comma is the decimal sign.
    return max(",;\t", key=first.count)


def _read_jsonl(path: Path) -> tuple[list[str], TableRows]:
    header: dict[str, None] = {}
    rows: TableRows = []
    # Not splitlines(): JSON strings may hold the other characters that Unicode counts as line ends.
    for line, text in enumerate(read_text(path).split("\n"), start=1):
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
