"""Rows as tables that other tools read, written while they come.

table     for a person at a terminal
csv       `file,start,end,label,score,model,model_version`, with a header even without rows
jsonl     the same names, an object a line
audacity  start, end, label, separated by tabs, no header: for File > Import > Labels
raven     a selection table, separated by tabs, with a header even without rows: for File > Open Selection Table

Scores have four decimals everywhere: further digits depend on the machine. Seconds have three decimals, and up to six
where three would not tell them: every row has a length. Times are those of the recording itself, but for `Begin Time`
and `End Time` of a Raven table of several: Raven lays sounds that are opened together end to end, so there the clock
goes on from one recording to the next, and `File Offset (s)` is the time in `Begin Path`.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, TextIO, runtime_checkable

from ossicle.files import beside, legible, printable, replacing
from ossicle.inference.rows import Row

CSV_COLUMNS = ("file", "start", "end", "label", "score", "model", "model_version")
RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Label",
    "Score",
    "Begin Path",
    "File Offset (s)",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What rows say of the model behind them."""

    model: str
    model_version: str
    hertz: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest frequency that the model is given."""


@runtime_checkable
class Reading(Protocol):
    """What a table asks of a recording whose rows come, such as an `AudioInfo`."""

    @property
    def rate(self) -> int:
        """The recording's own, hertz; known with its first row, and 0 where nobody knows."""

    @property
    def seconds(self) -> float:
        """Its length; known after its last row."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the recording of a row lies in its table."""

    rate: int = 0
    """The recording's own, hertz; 0 where nobody knows."""
    offset: float = 0.0
    """Seconds of the recordings before it."""


class Format:
    """One kind of table: what it begins with, and a row as text; both end their lines."""

    suffix = ""
    per_recording = False  # a row does not say which recording it is of
    header = ""

    def line(self, row: Row, number: int, *, source: Source, place: Place) -> str:
        """The row's line; rows are numbered from 1."""
        raise NotImplementedError


class Csv(Format):
    suffix, header = ".csv", ",".join(CSV_COLUMNS) + "\n"

    def line(self, row: Row, number: int, *, source: Source, place: Place) -> str:
        values = (seconds_text(row.start), seconds_text(row.end), row.label, f"{row.score:.4f}")
        return csv_line([legible(row.file), *values, source.model, source.model_version])


class Jsonl(Format):
    suffix = ".jsonl"

    def line(self, row: Row, number: int, *, source: Source, place: Place) -> str:
        values = (legible(row.file), round(row.start, 6), round(row.end, 6), row.label, round(row.score, 4))
        named = dict(zip(CSV_COLUMNS, (*values, source.model, source.model_version), strict=True))
        return json.dumps(named, ensure_ascii=False) + "\n"


class Audacity(Format):
    suffix, per_recording = ".txt", True

    def line(self, row: Row, number: int, *, source: Source, place: Place) -> str:
        return f"{row.start:.6f}\t{row.end:.6f}\t{flat(row.label)}\n"


class Raven(Format):
    suffix, header = ".selections.txt", "\t".join(RAVEN_COLUMNS) + "\n"

    def line(self, row: Row, number: int, *, source: Source, place: Place) -> str:
        low, high = source.hertz
        high = min(high, place.rate / 2) if place.rate else high
        # Rounded first, as kept results are: the same numbers, printed or from a folder.
        times = "\t".join(f"{place.offset + round(time, 6):.6f}" for time in (row.start, row.end))
        edges = f"{low if low < high else 0:g}\t{high:g}"
        where = f"{flat(legible(row.file))}\t{row.start:.6f}"
        return f"{number}\tSpectrogram 1\t1\t{times}\t{edges}\t{flat(row.label)}\t{row.score:.4f}\t{where}\n"


Recorded = tuple[Reading, Iterable[Row]]  # a recording and its rows, in time

TABLES: Mapping[str, Format] = {"csv": Csv(), "jsonl": Jsonl(), "audacity": Audacity(), "raven": Raven()}
FORMATS = ("table", *TABLES)


def flat(text: str) -> str:
    """Text in which no tab or line end breaks a table; other spaces stay, for they are part of a file's name."""
    return re.sub(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", " ", text)


def seconds_text(seconds: float) -> str:
    """Seconds with three decimals, or as many more, up to six, as say something."""
    text = f"{seconds:.6f}"
    return text[:-3] + text[-3:].rstrip("0")


def csv_line(values: Iterable[object]) -> str:
    """One line of a CSV table. A value with any kind of line end stands in quotes, as readers expect it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # with another end, a lone \r would go without
    return text.getvalue().removesuffix("\r\n") + "\n"


def table_text(name: str, recordings: Iterable[Recorded], source: Source) -> Iterator[str]:
    """Yields a table of recordings piece by piece, its header first."""
    yield TABLES[name].header
    number, offset = 0, 0.0
    for info, rows in recordings:
        for row in rows:
            number += 1
            yield TABLES[name].line(row, number, source=source, place=Place(rate=info.rate, offset=offset))
        offset += info.seconds


def table_lines(file: str, rows: Sequence[Row]) -> list[str]:
    """Gives one recording's rows as aligned lines below its name; what has no length has no times."""
    return list(stream_table(file, [rows], labels=[row.label for row in rows]))


def stream_table(file: str, parts: Iterable[Sequence[Row]], *, labels: Sequence[str]) -> Iterator[str]:
    """Yields one recording's rows as aligned lines below its name, as soon as they come.

    Args:
        parts: its rows, in time; the columns of times widen where those of a part do not fit, and get more decimals
            where two would show a row without a length
        labels: all that may come
    """
    parts = iter(parts)
    first = next(parts, ())  # a recording that breaks off before is not named
    yield printable(file)
    width, times, digits, nothing = max((len(printable(label)) for label in labels), default=0), 0, 2, True
    for rows in chain([first], parts):
        nothing = nothing and not rows
        digits = decimals(rows, least=digits)
        times = max([times, *(len(f"{row.end:.{digits}f}") for row in rows)])
        for row in rows:
            when = f"{row.start:{times}.{digits}f} - {row.end:{times}.{digits}f} s  " if row.end > row.start else ""
            yield f"  {when}{printable(row.label):<{width}}  {row.score:.4f}"
    if nothing:
        yield "  nothing reached the thresholds"


def decimals(rows: Iterable[Row], *, least: int = 2) -> int:
    """How many decimals, from `least` to six, tell the start of every row from its end."""
    shown = [(row.start, row.end) for row in rows if row.end > row.start]
    return next((n for n in range(least, 6) if all(f"{start:.{n}f}" != f"{end:.{n}f}" for start, end in shown)), 6)


def places_of(files: Sequence[Path]) -> list[Path]:
    """Where what belongs to a recording lies in a folder of results: as deep as it does below the folder all share."""
    absolute = [Path(os.path.abspath(file)) for file in files]
    shared = Path(os.path.commonpath([file.parent for file in absolute])) if files else Path()
    return [file.relative_to(shared) for file in absolute]


def write_tables(
    folder: Path,
    recordings: Iterable[Recorded],
    *,
    files: Sequence[Path],
    formats: Sequence[str],
    source: Source,
    each: bool = False,
) -> list[Path]:
    """Writes `predictions.*` of all recordings together, and a table for each recording; gives the paths written.

    Each file is there whole or not at all; rows are taken one at a time. A recording's table is named after it and lies
    at its place of `places_of`, so that two of one name keep one each.

    Args:
        recordings: each with its rows, in time
        files: their paths, in the same order
        each: a table for each recording in every format; otherwise in the formats whose rows name no recording
    """
    together, apart = _planned(folder, files, formats=formats, each=each)
    with ExitStack() as stack:
        begun = _begin(together, stack)
        number, offset = 0, 0.0
        for (info, rows), tables in zip(recordings, apart, strict=True):
            with ExitStack() as inner:
                own = _begin(tables, inner)
                for own_number, row in enumerate(rows, 1):
                    number += 1
                    for table, file in begun:
                        place = Place(rate=info.rate, offset=offset)
                        file.write(table.line(row, number, source=source, place=place))
                    for table, file in own:
                        file.write(table.line(row, own_number, source=source, place=Place(rate=info.rate)))
            offset += info.seconds
    return [path for tables in (together, *apart) for _, path in tables]


def table_paths(folder: Path, files: Sequence[Path], *, formats: Sequence[str], each: bool = False) -> list[Path]:
    """The paths that `write_tables` writes."""
    together, apart = _planned(folder, files, formats=formats, each=each)
    return [path for tables in (together, *apart) for _, path in tables]


_Tables = list[tuple[Format, Path]]


def _planned(
    folder: Path, files: Sequence[Path], *, formats: Sequence[str], each: bool
) -> tuple[_Tables, list[_Tables]]:
    """The tables of all recordings together, and those of each."""
    tables = [TABLES[name] for name in formats if name in TABLES]
    together = [(table, folder / f"predictions{table.suffix}") for table in tables if not table.per_recording]
    own = [table for table in tables if table.per_recording or each]
    # The recording's own suffix stays: a.wav and a.flac may lie side by side.
    places = [folder / place for place in places_of(files)]
    return together, [[(table, beside(place, table.suffix)) for table in own] for place in places]


def _begin(tables: _Tables, stack: ExitStack) -> list[tuple[Format, TextIO]]:
    begun: list[tuple[Format, TextIO]] = []
    for table, path in tables:
        file = open(stack.enter_context(replacing(path)), "w", encoding="utf-8", newline="")
        # Closed, and so flushed, before `replacing` gives it its name.
        stack.callback(file.close)
        file.write(table.header)
        begun.append((table, file))
    return begun
