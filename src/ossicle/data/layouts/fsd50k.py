"""FSD50K as published (Fonseca et al. 2022): FSD50K.ground_truth/, FSD50K.dev_audio/ and FSD50K.eval_audio/.

Labels are joined by commas, files are named without a suffix, and the split into train, val and eval is its own.
"""

from dataclasses import replace
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.layout import DataLayout, Folder, LayoutContents, of_tables
from ossicle.data.modalities import SOUND
from ossicle.data.tables import read_table


class Fsd50k(DataLayout):
    modality = SOUND

    def detect(self, root: Folder, options: ReadOptions) -> list[Path] | None:
        folders = [root.path / f"FSD50K.{part}_audio" for part in ("dev", "eval")]
        return folders if all(folder.is_dir() for folder in folders) else None

    def read(self, root: Folder, found: list[Path], options: ReadOptions) -> LayoutContents:
        options = replace(options, file=options.file or "fname", commas=True)
        truth = root.path / "FSD50K.ground_truth"
        dev, test = (
            read_table(truth / f"{part}.csv", options, folders=[folder])
            for part, folder in zip(("dev", "eval"), found, strict=True)
        )
        test = replace(test, items=tuple(replace(item, split="test") for item in test.items))
        what = f"FSD50K as published (FSD50K.ground_truth/, labels from `{dev.columns.label}`)"
        return of_tables([dev, test], options.modality, description=what, whole=True)


LAYOUT = Fsd50k()
