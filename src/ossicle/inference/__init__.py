"""Inference without torch: windows, events, rows and tables around any model that scores windows.

windows      samples cut into windows, their scores joined again
events       onset and offset from scores
rows         what is reported
reporting    the choices behind rows
formats      the output formats
writers      rows as tables
predictor    all of it around a model
ahead        decoding while the model computes

Names are loaded on first use: a command line asks for the output formats, and its help must not wait for numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ossicle.inference.events import Event, EventRules, stream_events
    from ossicle.inference.formats import (
        FILE_FORMATS,
        OUTPUT_FORMATS,
        OutputFormat,
        Provenance,
        check_formats,
        csv_line,
        seconds_text,
    )
    from ossicle.inference.predictor import (
        MAX_WINDOW_SECONDS,
        AudioInput,
        ModelInfo,
        Prediction,
        Predictor,
        probabilities,
    )
    from ossicle.inference.reporting import Reporting, label_indices, stream_rows
    from ossicle.inference.rows import Row, rows_from_windows, select_labels
    from ossicle.inference.windows import (
        Summary,
        WindowScores,
        aggregate,
        combine_overlaps,
        cut_windows,
        join_scores,
        split_hops,
        stream_scores,
        summarize,
        window_starts,
    )
    from ossicle.inference.writers import (
        decimals,
        places_of,
        stream_table,
        table_lines,
        table_paths,
        table_text,
        write_tables,
    )

__all__ = [
    "FILE_FORMATS",
    "MAX_WINDOW_SECONDS",
    "OUTPUT_FORMATS",
    "AudioInput",
    "Event",
    "EventRules",
    "ModelInfo",
    "OutputFormat",
    "Prediction",
    "Predictor",
    "Provenance",
    "Reporting",
    "Row",
    "Summary",
    "WindowScores",
    "aggregate",
    "check_formats",
    "combine_overlaps",
    "csv_line",
    "cut_windows",
    "decimals",
    "join_scores",
    "label_indices",
    "places_of",
    "probabilities",
    "rows_from_windows",
    "seconds_text",
    "select_labels",
    "split_hops",
    "stream_events",
    "stream_rows",
    "stream_scores",
    "stream_table",
    "summarize",
    "table_lines",
    "table_paths",
    "table_text",
    "window_starts",
    "write_tables",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("formats", "rows", "windows", "events", "reporting", "writers", "predictor"):
            found = vars(importlib.import_module(f"{__name__}.{module}"))
            if name in found:
                globals()[name] = found[name]
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
