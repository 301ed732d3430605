"""A table: a CSV, TSV or JSONL file, a label track beside its recording, or a folder that meta.csv describes.

The files lie beside the table, or in audio/ or images/.
"""

from pathlib import Path

from ossicle.data.columns import ReadOptions, holds_labels
from ossicle.data.layout import DataLayout, Folder, LayoutContents, of_table
from ossicle.data.records import TABLE_SUFFIXES, TRACK_SUFFIX
from ossicle.data.tables import read_table


class OneTable(DataLayout):
    precedence = 10

    def detect(self, root: Folder, options: ReadOptions) -> Path | None:
        path, suffix = root.path, root.path.suffix.lower()
        if not path.is_file():
            return root.table
        track = options.modality.timed and suffix == TRACK_SUFFIX
        return path if suffix in TABLE_SUFFIXES or track and holds_labels(path) else None

    def read(self, root: Folder, found: Path, options: ReadOptions) -> LayoutContents:
        return of_table(read_table(found, options), options.modality)


LAYOUT = OneTable()
