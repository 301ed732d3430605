"""Speech Commands as published (Warden 2018): a folder per class, validation_list.txt and testing_list.txt."""

from dataclasses import replace

from ossicle.data.columns import ReadOptions
from ossicle.data.items import Item
from ossicle.data.layout import Folder
from ossicle.data.layouts.class_folders import ClassFolders
from ossicle.data.records import read_names

LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"  # its folder that is no class


class SpeechCommands(ClassFolders):
    precedence = 80

    def detect(self, root: Folder, options: ReadOptions) -> bool | None:
        return all((root.path / name).is_file() for name in LISTS.values()) or None

    def parts_below(self, root: Folder, items: list[Item]) -> tuple[list[Item], list[str]]:
        """The items with the split that the two lists say; what is in neither trains."""
        listed = {root.path / name: split for split, names in LISTS.items() for name in read_names(root.path / names)}
        kept = [item for item in items if item.labels != (NOISE,)]
        found = [replace(item, split=listed.get(item.file, "train")) for item in kept]
        left_out = len(items) - len(kept)
        remarks = [f"{NOISE}/ is no class and is left out ({left_out})"] if left_out else []
        return found, [f"the split is that of {' and '.join(LISTS.values())}", *remarks]


LAYOUT = SpeechCommands()
