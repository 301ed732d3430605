"""From windows of samples to labelled times: needs numpy and a function that scores windows, and never torch."""

from ossicle.predict.events import Event, events_from_scores, onset_peaks
from ossicle.predict.rows import Row, rows_from_windows, select_labels
from ossicle.predict.windows import WindowScores, aggregate, cut_windows, score_blocks, summarise, window_starts
from ossicle.predict.writers import FORMATS, audacity_text, csv_text, table_lines, write_predictions

__all__ = [
    "FORMATS",
    "Event",
    "Row",
    "WindowScores",
    "aggregate",
    "audacity_text",
    "csv_text",
    "cut_windows",
    "events_from_scores",
    "onset_peaks",
    "rows_from_windows",
    "score_blocks",
    "select_labels",
    "summarise",
    "table_lines",
    "window_starts",
    "write_predictions",
]
