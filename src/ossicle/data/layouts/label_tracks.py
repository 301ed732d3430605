"""Label tracks beside their recordings, in one folder: a.txt of a.wav, Audacity's labels or Raven's selections."""

from pathlib import Path

from ossicle.data.columns import ReadOptions, holds_labels
from ossicle.data.layout import DataLayout, Folder, LayoutContents, labels_from, of_tables, refuse_other_columns
from ossicle.data.modalities import SOUND
from ossicle.data.paths import recording_of
from ossicle.data.records import TRACK_SUFFIX
from ossicle.data.tables import read_table


class LabelTracks(DataLayout):
    precedence = 30
    modality = SOUND

    def detect(self, root: Folder, options: ReadOptions) -> list[Path] | None:
        texts = sorted(file for file in root.path.glob("*") if file.suffix.lower() == TRACK_SUFFIX and file.is_file())
        tracks = [file for file in texts if holds_labels(file) and recording_of(file)]
        return tracks if tracks and not any(folder.files for folder in root.folders) else None

    def read(self, root: Folder, found: list[Path], options: ReadOptions) -> LayoutContents:
        tables = [read_table(track, options) for track in found]
        refuse_other_columns(tables, f"the label tracks in {root.path}")
        without = len(root.files) - len({item.file for table in tables for item in table.items})
        remarks = [f"recordings without a label track are left out ({without})"] if without else []
        description = f"label tracks beside their recordings ({labels_from(tables[0].columns)})"
        return of_tables(tables, SOUND, description=description, remarks=remarks)


LAYOUT = LabelTracks()
