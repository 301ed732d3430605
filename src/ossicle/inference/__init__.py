"""Inference without torch: windows, events, rows and tables around any model that scores windows.

windows      samples cut into windows, their scores joined again
events       onset and offset from scores
rows         what is reported
writers      tables: CSV, JSONL, Audacity, Raven
predictor    all of it around a model
"""

from ossicle.inference.events import Event, EventRules, stream_events
from ossicle.inference.predictor import MAX_WINDOW_SECONDS, ModelInfo, Prediction, Predictor, Recording, probabilities
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
    FORMATS,
    TABLES,
    Recorded,
    Source,
    csv_line,
    decimals,
    places_of,
    seconds_text,
    stream_table,
    table_lines,
    table_paths,
    table_text,
    write_tables,
)

__all__ = [
    "FORMATS",
    "MAX_WINDOW_SECONDS",
    "TABLES",
    "Event",
    "EventRules",
    "ModelInfo",
    "Prediction",
    "Predictor",
    "Recorded",
    "Recording",
    "Reporting",
    "Row",
    "Source",
    "Summary",
    "WindowScores",
    "aggregate",
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
