"""A folder for each class: dog/1.wav, cat/garden/2.wav; also with train/ and test/, or fold1/, ..., above or below."""

import os
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.items import Item
from ossicle.data.layout import MACOS_REMAINS, TABLE_NAMES, DataLayout, Folder, LayoutContents
from ossicle.data.layouts.ag_news import numbered_tables
from ossicle.data.modalities import MODALITIES
from ossicle.data.records import TABLE_SUFFIXES
from ossicle.errors import DataRefused
from ossicle.files import legible


class ClassFolders(DataLayout):
    precedence = 90  # whatever no other layout is

    def detect(self, root: Folder, options: ReadOptions) -> bool | None:
        return root.path.is_dir() or None

    def read(self, root: Folder, found: bool, options: ReadOptions) -> LayoutContents:
        for option, name in options.named.items():
            raise DataRefused(
                f"--{option} {name} names a column, but {root.path} holds none of the tables {', '.join(TABLE_NAMES)}."
            )
        items, remarks = read_parts(root)
        if not items:
            raise DataRefused(why_nothing(root))
        if not root.parts:
            items, more = self.parts_below(root, items)
            taken = [folder.path.name for folder in root.folders if folder.part]
            why = f"as not only folders of a split hold {root.modality.plural}"
            remarks += more + [f"{name}/ is taken for a class, {why}" for name in taken]
        above = " under " + ", ".join(f"{part.path.name}/" for part in root.parts) if root.parts else ""
        return LayoutContents(items=tuple(items), description=f"folder per class{above}", remarks=tuple(remarks))

    def parts_below(self, root: Folder, items: list[Item]) -> tuple[list[Item], list[str]]:
        """The items with the splits or folds that lie below the classes (dog/train/1.wav), if all do."""
        folders = [
            Folder(root.path.joinpath(*item.file.relative_to(root.path).parts[:2]), root.modality) for item in items
        ]
        found = {folder.path.name: folder.part for folder in folders if folder.part}
        if len(set(found.values())) < 2:
            return items, []
        names = ", ".join(f"{name}/" for name in sorted(found))
        if not all(folder.part for folder in folders):
            return items, [f"{names} below the classes are no parts, as not all recordings lie in such folders"]
        items = [item for folder, one in zip(folders, items, strict=True) for item in folder.with_part([one])]
        return items, [f"parts from {names} below the classes"]


def read_parts(folder: Folder) -> tuple[list[Item], list[str]]:
    """The items of class folders, also below folders of splits and folds, which may lie in each other, and remarks.

    Raises: DataRefused for a folder that may be a class or a part, or whose name is no text.
    """
    if not folder.parts:
        return read_class_folders(folder)
    items, remarks = list[Item](), list[str]()
    for part in folder.parts:
        read, more = read_parts(part)
        items += part.with_part(read)
        remarks += more
    return items, remarks + folder.left_beside(folder.parts)


def read_class_folders(folder: Folder) -> tuple[list[Item], list[str]]:
    """The items of class folders, and what is left out."""
    loose, items = 0, list[Item]()
    empty = {inner.path.name for inner in folder.folders}
    for file in folder.files:
        label, *deeper = file.relative_to(folder.path).parts
        if label == MACOS_REMAINS:
            continue
        if not deeper:
            loose += 1
            continue
        if legible(label) != label:
            raise DataRefused(f"{legible(folder.path / label)}: a folder's name is a label, and this is no UTF-8 text.")
        empty.discard(label)
        items.append(Item(file=Path(os.path.abspath(file)), labels=(label,)))
    remarks = folder.left_loose(loose)
    if empty and items:
        names = ", ".join(sorted(empty))
        remarks.append(f"folders without {folder.modality.plural} in {folder.path.name}/ are left out: {names}")
    return items, remarks


def why_nothing(root: Folder) -> str:
    """Says what a folder without classes holds, and what would be read."""
    path, modality, names = root.path, root.modality, ", ".join(TABLE_NAMES)
    what = modality.plural
    if numbered_tables(path):
        return f"{path} holds tables of texts, not of {what}: modality 'text' reads them."
    tables = [entry.name for entry in sorted(path.iterdir()) if entry.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        lacking = f"none of the tables {names}" if modality.in_rows else f"no class folders with {what}"
        return f"{path} holds {lacking}; to read its table, give the path {path / tables[0]}."
    expected = f"expected {'' if modality.in_rows else 'a folder per class, or '}one of the tables {names}"
    if loose := len(root.files):
        return f"{path} holds {loose} {what} but no labels: {expected}."
    for other in MODALITIES.values():
        if count := len(Folder(path, other).files):
            return f"{path} holds no {what} but {other.plural} ({count}): modality {other.name!r} reads them."
    return f"{path} holds no {what}: {expected}."


LAYOUT = ClassFolders()
