"""A table (meta.csv, ...) in each folder of a split or of folds: train/meta.csv, test/meta.csv."""

from dataclasses import replace
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.layout import (
    DataLayout,
    LayoutContents,
    in_part,
    labels_from,
    of_tables,
    part_folders,
    refuse_other_columns,
    remarks_beside,
    table_in,
)
from ossicle.data.tables import read_table


class SplitTables(DataLayout):
    precedence = 20

    def detect(self, root: Path, options: ReadOptions) -> list[Path] | None:
        folders = part_folders(root, options.modality) if root.is_dir() else []
        tables = [table for folder in folders if (table := table_in(folder))]
        return tables if tables and len(tables) == len(folders) else None

    def read(self, root: Path, found: list[Path], options: ReadOptions) -> LayoutContents:
        tables = [read_table(path, options) for path in found]
        refuse_other_columns(tables, f"the tables under {root}")
        # The folder is the split, whatever the table says.
        tables = [
            replace(table, items=tuple(in_part(item, table.path.parent) for item in table.items)) for table in tables
        ]
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in found)
        return of_tables(
            tables,
            options.modality,
            description=f"tables {names} ({labels_from(tables[0].columns)})",
            remarks=remarks_beside(root, [path.parent for path in found], options.modality),
        )


LAYOUT = SplitTables()
