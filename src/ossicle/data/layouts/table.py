"""A table: a CSV, TSV or JSONL file, a label track beside its recording, or a folder that meta.csv describes.

The files lie beside the table, or in audio/ or images/.
"""

from pathlib import Path

from ossicle.data.columns import ReadOptions, holds_labels
from ossicle.data.layout import DataLayout, LayoutContents, of_table, table_in
from ossicle.data.records import TABLE_SUFFIXES, TRACK_SUFFIX
from ossicle.data.tables import read_table


class OneTable(DataLayout):
    precedence = 10

    def detect(self, root: Path, options: ReadOptions) -> Path | None:
        if root.is_dir():
            return table_in(root)
        suffix = root.suffix.lower()
        track = options.modality.timed and suffix == TRACK_SUFFIX
        return root if root.is_file() and (suffix in TABLE_SUFFIXES or track and holds_labels(root)) else None

    def read(self, root: Path, found: Path, options: ReadOptions) -> LayoutContents:
        return of_table(read_table(found, options), options.modality)


LAYOUT = OneTable()
