"""A table (meta.csv, ...) in each folder of a split or of folds: train/meta.csv, test/meta.csv."""

from dataclasses import replace

from ossicle.data.columns import ReadOptions
from ossicle.data.layout import DataLayout, Folder, LayoutContents, labels_from, of_tables, refuse_other_columns
from ossicle.data.tables import read_table


class SplitTables(DataLayout):
    precedence = 20

    def detect(self, root: Folder, options: ReadOptions) -> list[Folder] | None:
        return root.parts if root.parts and all(part.table for part in root.parts) else None

    def read(self, root: Folder, found: list[Folder], options: ReadOptions) -> LayoutContents:
        tables = [read_table(part.table, options) for part in found if part.table]
        refuse_other_columns(tables, f"the tables under {root.path}")
        # The folder is the split, whatever the table says.
        tables = [
            replace(table, items=tuple(part.with_part(table.items))) for part, table in zip(found, tables, strict=True)
        ]
        names = ", ".join(f"{table.path.parent.name}/{table.path.name}" for table in tables)
        description = f"tables {names} ({labels_from(tables[0].columns)})"
        return of_tables(tables, options.modality, description=description, remarks=root.left_beside(found))


LAYOUT = SplitTables()
