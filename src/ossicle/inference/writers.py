"""Rows written as tables, while they come. The formats are in `ossicle.inference.formats`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TextIO

from ossicle.audio import AudioInfo
from ossicle.files import beside, printable, replacing
from ossicle.inference.formats import FILE_FORMATS, OutputFormat, Provenance, RowContext
from ossicle.inference.rows import Row

Recorded = tuple[AudioInfo, Iterable[Row]]  # a recording and its rows, in time


def table_text(name: str, recordings: Iterable[Recorded], provenance: Provenance) -> Iterator[str]:
    """Yields a table of recordings piece by piece, its header first."""
    table = FILE_FORMATS[name]
    yield table.header
    number, offset = 0, 0.0
    for info, rows in recordings:
        for row in rows:
            number += 1
            # A recording's rate is known with its first row, its length after the last one.
            yield table.line(row, RowContext(number=number, provenance=provenance, rate=info.rate, offset=offset))
        offset += info.seconds


def table_lines(file: str, rows: Sequence[Row]) -> list[str]:
    """One recording's rows as aligned lines below its name; one of a text or an image has no times."""
    return list(stream_table(file, [rows], labels=[row.label for row in rows]))


def stream_table(file: str, parts: Iterable[Sequence[Row]], *, labels: Sequence[str]) -> Iterator[str]:
    """Yields one recording's rows as aligned lines below its name, as soon as they are known.

    Args:
        parts: its rows, in time; the columns of times widen where those of a part do not fit, and get more decimals
            where two would show a row without a length
        labels: all that may come
    """
    parts = iter(parts)
    first = next(parts, ())  # a recording that cannot be read is not named
    yield printable(file)
    width, times, digits, nothing = max((len(printable(label)) for label in labels), default=0), 0, 2, True
    for rows in chain([first], parts):
        nothing = nothing and not rows
        digits = decimals(rows, least=digits)
        times = max([times, *(len(f"{row.end:.{digits}f}") for row in rows)])
        for row in rows:
            when = f"{row.start:{times}.{digits}f} - {row.end:{times}.{digits}f} s  " if row.timed else ""
            yield f"  {when}{printable(row.label):<{width}}  {row.score:.4f}"
    if nothing:
        yield "  nothing reached the thresholds"


def decimals(rows: Iterable[Row], *, least: int = 2) -> int:
    """How many decimals, from `least` to six, tell the start of every row from its end."""
    shown = [(row.start, row.end) for row in rows if row.timed]
    return next((n for n in range(least, 6) if all(f"{start:.{n}f}" != f"{end:.{n}f}" for start, end in shown)), 6)


def places_of(files: Sequence[Path]) -> list[Path]:
    """The path of each recording in a folder of results: relative to the folder that all of them share."""
    absolute = [Path(os.path.abspath(file)) for file in files]
    shared = Path(os.path.commonpath([file.parent for file in absolute])) if files else Path()
    return [file.relative_to(shared) for file in absolute]


def write_tables(
    folder: Path,
    recordings: Iterable[Recorded],
    *,
    files: Sequence[Path],
    formats: Sequence[str],
    provenance: Provenance,
    each: bool = False,
) -> list[Path]:
    """Writes `predictions.*` of all recordings together, and a table for each recording; returns the paths written.

    Each file is there whole or not at all; rows are taken one at a time. A recording's table is named after it and lies
    at its path of `places_of`, so that two recordings of one name have a table each.

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
                    context = RowContext(number=number, provenance=provenance, rate=info.rate, offset=offset)
                    for table, file in begun:
                        file.write(table.line(row, context))
                    context = RowContext(number=own_number, provenance=provenance, rate=info.rate)
                    for table, file in own:
                        file.write(table.line(row, context))
            offset += info.seconds
    return [path for tables in (together, *apart) for _, path in tables]


def table_paths(folder: Path, files: Sequence[Path], *, formats: Sequence[str], each: bool = False) -> list[Path]:
    """The paths that `write_tables` writes."""
    together, apart = _planned(folder, files, formats=formats, each=each)
    return [path for tables in (together, *apart) for _, path in tables]


_Tables = list[tuple[OutputFormat, Path]]


def _planned(
    folder: Path, files: Sequence[Path], *, formats: Sequence[str], each: bool
) -> tuple[_Tables, list[_Tables]]:
    """The tables of all recordings together, and those of each."""
    tables = [FILE_FORMATS[name] for name in formats if name in FILE_FORMATS]
    together = [(table, folder / f"predictions{table.suffix}") for table in tables if not table.per_recording]
    own = [table for table in tables if table.per_recording or each]
    # The recording's own suffix stays: a.wav and a.flac may lie side by side.
    places = [folder / place for place in places_of(files)]
    return together, [[(table, beside(place, table.suffix)) for table in own] for place in places]


def _begin(tables: _Tables, stack: ExitStack) -> list[tuple[OutputFormat, TextIO]]:
    begun: list[tuple[OutputFormat, TextIO]] = []
    for table, path in tables:
        file = open(stack.enter_context(replacing(path)), "w", encoding="utf-8", newline="")
        # Closed, and so flushed, before `replacing` gives it its name.
        stack.callback(file.close)
        file.write(table.header)
        begun.append((table, file))
    return begun
