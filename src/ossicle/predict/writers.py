"""Rows as tables that other tools read.

table     for a person at a terminal
csv       `file,start,end,label,score,model,model_version`: one file for everything, with a header even without rows
audacity  start, end, label, separated by tabs, no header: one file per recording, for File > Import > Labels
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ossicle.files import write_atomically
from ossicle.predict.rows import Row

FORMATS = ("table", "csv", "audacity")
CSV_COLUMNS = ("file", "start", "end", "label", "score", "model", "model_version")


def csv_text(rows: Sequence[Row], *, model: str, model_version: str) -> str:
    """Gives the rows as CSV, seconds to the millisecond and scores with four decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow(
            [row.file, f"{row.start:.3f}", f"{row.end:.3f}", row.label, f"{row.score:.4f}", model, model_version]
        )
    return text.getvalue()


def audacity_text(rows: Sequence[Row]) -> str:
    """Gives one recording's rows as an Audacity label track."""
    # A tab or a line end inside a label would break the track.
    return "".join(f"{row.start:.6f}\t{row.end:.6f}\t{' '.join(row.label.split())}\n" for row in rows)


def table_lines(file: str, rows: Sequence[Row]) -> list[str]:
    """Gives one recording's rows as aligned lines below its name; what has no length has no times."""
    if not rows:
        return [file, "  nothing reached the thresholds"]
    width = max(len(row.label) for row in rows)
    times = max(len(f"{row.end:.2f}") for row in rows)

    def when(row: Row) -> str:
        return f"{row.start:{times}.2f} - {row.end:{times}.2f} s  " if row.end > row.start else ""

    return [file, *(f"  {when(row)}{row.label:<{width}}  {row.score:.4f}" for row in rows)]


def write_predictions(
    folder: Path,
    rows_of_file: Mapping[Path, Sequence[Row]],
    *,
    formats: Sequence[str],
    model: str,
    model_version: str,
) -> list[Path]:
    """Writes `predictions.csv` and, for each recording, an Audacity label track; gives the paths written.

    A track is named after its recording and lies as deep in `folder` as the recording does below the folder that all of
    them share, so that two recordings of one name in different folders keep a track each.
    """
    written = []
    if "csv" in formats:
        path = folder / "predictions.csv"
        everything = [row for rows in rows_of_file.values() for row in rows]
        write_atomically(path, csv_text(everything, model=model, model_version=model_version))
        written.append(path)
    if "audacity" in formats and rows_of_file:
        absolute = [Path(os.path.abspath(file)) for file in rows_of_file]
        shared = Path(os.path.commonpath([file.parent for file in absolute]))
        for file, rows in zip(absolute, rows_of_file.values(), strict=True):
            # The recording's own suffix stays: a.wav and a.flac may lie side by side.
            path = folder / file.relative_to(shared).parent / f"{file.name}.txt"
            write_atomically(path, audacity_text(rows))
            written.append(path)
    return written
