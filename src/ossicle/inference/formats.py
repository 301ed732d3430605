"""Output formats: the one registry, from which help, refusals and tables are made. It needs no numpy.

To add a format, write a class here and put it into `OUTPUT_FORMATS`.

Scores have four decimals everywhere: further digits depend on the machine. Seconds have three decimals, and up to six
where three would not tell them apart: every row of a recording has a length, and one of a text or an image no times.
Times are those of the recording itself, except for `Begin Time` and `End Time` of a Raven table of several: Raven puts
sounds that are opened together end to end, so its clock goes on from one recording to the next, and `File Offset (s)`
is the time in `Begin Path`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ossicle.files import legible

if TYPE_CHECKING:
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
class Provenance:
    """The model that rows come from."""

    model: str
    model_version: str
    hertz: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest frequency of the model's input."""


@dataclass(frozen=True, kw_only=True)
class RowContext:
    """What a line of a table needs to know besides its row."""

    number: int  # of the row in its table, from 1
    provenance: Provenance
    rate: int = 0  # of the recording, hertz; 0 where it is unknown
    offset: float = 0.0  # seconds of the recordings before it in the table


class OutputFormat:
    """One kind of table: what it begins with, and a row as text; both end their lines."""

    name: str
    about: str
    """A line for help and documents."""
    suffix = ""
    """Of its files; a format without one is only printed."""
    per_recording = False
    """A row does not name its recording, so each recording has a table of its own."""
    timed = False
    """Rows without times say nothing in it."""
    header = ""

    def line(self, row: "Row", context: RowContext) -> str:
        """The row's line."""
        raise NotImplementedError


class Table(OutputFormat):
    name, about = "table", "aligned lines on the screen"


class Csv(OutputFormat):
    name, about = "csv", f"{','.join(CSV_COLUMNS)}, with a header even without rows"
    suffix, header = ".csv", ",".join(CSV_COLUMNS) + "\n"

    def line(self, row: "Row", context: RowContext) -> str:
        times = (seconds_text(row.start), seconds_text(row.end)) if row.timed else ("", "")
        source = context.provenance
        return csv_line([legible(row.file), *times, row.label, f"{row.score:.4f}", source.model, source.model_version])


class Jsonl(OutputFormat):
    name, about = "jsonl", "the same names as csv, one JSON object per line"
    suffix = ".jsonl"

    def line(self, row: "Row", context: RowContext) -> str:
        times = (round(row.start, 6), round(row.end, 6)) if row.timed else (None, None)
        values = (legible(row.file), *times, row.label, round(row.score, 4))
        model = (context.provenance.model, context.provenance.model_version)
        return json.dumps(dict(zip(CSV_COLUMNS, (*values, *model), strict=True)), ensure_ascii=False) + "\n"


class Audacity(OutputFormat):
    name, about = "audacity", "a label track per recording, for File > Import > Labels"
    suffix, per_recording, timed = ".txt", True, True

    def line(self, row: "Row", context: RowContext) -> str:
        return f"{row.start:.6f}\t{row.end:.6f}\t{flat(row.label)}\n"


class Raven(OutputFormat):
    name, about = "raven", "a selection table, for File > Open Selection Table"
    suffix, header, timed = ".selections.txt", "\t".join(RAVEN_COLUMNS) + "\n", True

    def line(self, row: "Row", context: RowContext) -> str:
        low, high = context.provenance.hertz
        high = min(high, context.rate / 2) if context.rate else high
        # Rounded first, as stored results are: the same numbers, printed or from a folder.
        times = "\t".join(f"{context.offset + round(time, 6):.6f}" for time in (row.start, row.end))
        edges = f"{low if low < high else 0:g}\t{high:g}"
        where = f"{flat(legible(row.file))}\t{row.start:.6f}"
        return f"{context.number}\tSpectrogram 1\t1\t{times}\t{edges}\t{flat(row.label)}\t{row.score:.4f}\t{where}\n"


OUTPUT_FORMATS: Mapping[str, OutputFormat] = {one.name: one for one in (Table(), Csv(), Jsonl(), Audacity(), Raven())}
FILE_FORMATS: Mapping[str, OutputFormat] = {name: one for name, one in OUTPUT_FORMATS.items() if one.suffix}


def check_formats(names: Iterable[str], *, files: bool = False) -> tuple[str, ...]:
    """The names of output formats, each once.

    Args:
        files: allow only formats that have files

    Raises: ValueError for a name that is not available.
    """
    available = FILE_FORMATS if files else OUTPUT_FORMATS
    names = tuple(dict.fromkeys(names))
    if unknown := [name for name in names if name not in available]:
        raise ValueError(f"output format {unknown[0]!r} is not available; available: {', '.join(available)}")
    return names


def flat(text: str) -> str:
    """Text in which no tab or line end breaks a table; other spaces stay, since they are part of a file's name."""
    return re.sub(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", " ", text)


def seconds_text(seconds: float) -> str:
    """Seconds with three decimals, or up to six where three would lose something."""
    text = f"{seconds:.6f}"
    return text[:-3] + text[-3:].rstrip("0")


def csv_line(values: Iterable[object]) -> str:
    """One line of a CSV table. A value with any kind of line end is quoted, as readers expect it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # with another end, a lone \r would not be quoted
    return text.getvalue().removesuffix("\r\n") + "\n"
