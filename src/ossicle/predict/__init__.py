"""From windows of samples to labelled times: needs numpy and a function that scores windows, and never torch."""

from ossicle.predict.events import Event, EventRules, stream_events
from ossicle.predict.reporting import Reporting, label_indices, stream_rows
from ossicle.predict.rows import Row, rows_from_windows, select_labels
from ossicle.predict.windows import (
    Summary,
    WindowScores,
    aggregate,
    combine_overlaps,
    cut_windows,
    join_scores,
    split_hops,
    stream_scores,
    summarise,
    window_starts,
)
from ossicle.predict.writers import (
    FORMATS,
    TABLES,
    Source,
    places_of,
    stream_table,
    table_lines,
    table_paths,
    table_text,
    write_tables,
)

__all__ = [
    "FORMATS",
    "TABLES",
    "Event",
    "EventRules",
    "Reporting",
    "Row",
    "Source",
    "Summary",
    "WindowScores",
    "aggregate",
    "combine_overlaps",
    "cut_windows",
    "join_scores",
    "label_indices",
    "places_of",
    "rows_from_windows",
    "select_labels",
    "split_hops",
    "stream_events",
    "stream_rows",
    "stream_scores",
    "stream_table",
    "summarise",
    "table_lines",
    "table_paths",
    "table_text",
    "window_starts",
    "write_tables",
]
