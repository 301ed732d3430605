"""TAU Urban Acoustic Scenes as published, such as 2020 Mobile, task 1A of DCASE 2020 (Heittola, Mesaros, Virtanen).

meta.csv has a row for each recording: filename, scene_label, identifier (city and place) and source_label (the device).
evaluation_setup/ says which of them train and which are tested; the others, of devices in excess, are in no part.

Source: https://zenodo.org/records/3819968 and the task's page, https://dcase.community/challenge2020.
"""

import os
from dataclasses import replace
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.layout import DataLayout, Folder, LayoutContents, of_tables
from ossicle.data.modalities import SOUND
from ossicle.data.records import listed, read_rows
from ossicle.data.tables import read_table
from ossicle.errors import DataRefused

TABLE = "meta.csv"
LISTS = {"train": "evaluation_setup/fold1_train.csv", "test": "evaluation_setup/fold1_evaluate.csv"}


class TauScenes(DataLayout):
    modality = SOUND

    def detect(self, root: Folder, options: ReadOptions) -> Path | None:
        return root.path if all((root.path / name).is_file() for name in (TABLE, *LISTS.values())) else None

    def read(self, root: Folder, found: Path, options: ReadOptions) -> LayoutContents:
        header, rows = read_rows(found / TABLE)
        options = replace(
            options,
            file=options.file or "filename",
            label=options.label or "scene_label",
            group=options.group or ("identifier" if "identifier" in header else None),
        )
        table = read_table(found / TABLE, options, folders=[found])
        split = {at: part for part, name in LISTS.items() for at in listed_files(found, name)}
        if strange := sorted(split.keys() - {item.file for item in table.items}):
            raise DataRefused(
                f"{found / LISTS[split[strange[0]]]} names {strange[0].relative_to(found)}, which is not in {TABLE} "
                f"({len(strange)} such recordings)."
            )
        items = tuple(replace(item, split=split[item.file]) for item in table.items if item.file in split)
        remarks = [f"the split is that of {' and '.join(LISTS.values())}"]
        left_out = len(table.items) - len(items)
        remarks += [f"recordings in neither are left out ({left_out})"] if left_out else []
        if "source_label" in header:
            device = {place(found, row["filename"]): str(row["source_label"]) for _, row in rows}
            parts = (f"{listed(sorted({device[at] for at in split if split[at] == part}))} in {part}" for part in LISTS)
            remarks.append(f"devices from `source_label`: {'; '.join(parts)}")
        what = f"TAU Urban Acoustic Scenes as published ({TABLE} and audio/, labels from `{table.columns.label}`)"
        missing = sum(not item.file.is_file() for item in items)
        return of_tables([replace(table, items=items, missing=missing)], SOUND, description=what, remarks=remarks)


def listed_files(home: Path, name: str) -> list[Path]:
    """The recordings that a list of evaluation_setup/ names.

    Raises: DataRefused for a list of other columns.
    """
    header, rows = read_rows(home / name)
    if "filename" not in header:
        raise DataRefused(f"{home / name} has no column 'filename'; it has {listed(header)}.")
    return [place(home, row["filename"]) for _, row in rows]


def place(home: Path, name: object) -> Path:
    """Where a recording lies."""
    return Path(os.path.abspath(home / str(name)))


LAYOUT = TauScenes()
