"""A folder for each class: dog/1.wav, cat/garden/2.wav; also with train/ and test/, or fold1/, ..., above or below."""

import os
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.items import Item
from ossicle.data.layout import (
    MACOS_REMAINS,
    TABLE_NAMES,
    DataLayout,
    LayoutContents,
    files_in,
    folders_in,
    in_part,
    official_part,
    part_folders,
    remarks_beside,
    remarks_loose,
)
from ossicle.data.layouts.ag_news import numbered_tables
from ossicle.data.modalities import MODALITIES, Modality
from ossicle.data.records import TABLE_SUFFIXES
from ossicle.errors import DataRefused
from ossicle.files import legible


class ClassFolders(DataLayout):
    precedence = 90  # whatever no other layout is

    def detect(self, root: Path, options: ReadOptions) -> Path | None:
        return root if root.is_dir() else None

    def read(self, root: Path, found: Path, options: ReadOptions) -> LayoutContents:
        for option, name in options.named.items():
            raise DataRefused(
                f"--{option} {name} names a column, but {root} holds none of the tables {', '.join(TABLE_NAMES)}."
            )
        plural = options.modality.plural
        items, parts, remarks = read_parts(root, options.modality)
        if not items:
            raise DataRefused(why_nothing(root, options.modality))
        if not parts:
            items, more = self.parts_below(root, items)
            taken = [folder.name for folder in folders_in(root) if official_part(folder)]
            remarks += more + [
                f"{name}/ is taken for a class, as not only folders of a split hold {plural}" for name in taken
            ]
        above = " under " + ", ".join(f"{folder.name}/" for folder in parts) if parts else ""
        return LayoutContents(items=tuple(items), description=f"folder per class{above}", remarks=tuple(remarks))

    def parts_below(self, root: Path, items: list[Item]) -> tuple[list[Item], list[str]]:
        """The items with the splits or folds that lie below the classes (dog/train/1.wav), if all do."""
        folders = [root.joinpath(*item.file.relative_to(root).parts[:2]) for item in items]
        found = {folder.name: part for folder in folders if (part := official_part(folder))}
        if len(set(found.values())) < 2:
            return items, []
        names = ", ".join(f"{name}/" for name in sorted(found))
        if not all(map(official_part, folders)):
            return items, [f"{names} below the classes are no parts, as not all recordings lie in such folders"]
        return list(map(in_part, items, folders)), [f"parts from {names} below the classes"]


def read_parts(folder: Path, modality: Modality) -> tuple[list[Item], list[Path], list[str]]:
    """The items of class folders, the folders of splits and folds above them, which may lie in each other, and remarks.

    Raises: DataRefused for a folder that may be a class or a part, or whose name is no text.
    """
    parts = part_folders(folder, modality)
    if not parts:
        items, remarks = read_class_folders(folder, modality)
        return items, [], remarks
    items, remarks = [], []
    for part in parts:
        read, _, more = read_parts(part, modality)
        items += [in_part(item, part) for item in read]
        remarks += more
    return items, parts, remarks + remarks_beside(folder, parts, modality)


def read_class_folders(folder: Path, modality: Modality) -> tuple[list[Item], list[str]]:
    """The items of class folders, and what is left out."""
    loose, items = 0, list[Item]()
    empty = {entry.name for entry in folders_in(folder)}
    for file in files_in(folder, modality):
        label, *deeper = file.relative_to(folder).parts
        if label == MACOS_REMAINS:
            continue
        if not deeper:
            loose += 1
            continue
        if legible(label) != label:
            raise DataRefused(f"{legible(folder / label)}: a folder's name is a label, and this is no UTF-8 text.")
        empty.discard(label)
        items.append(Item(file=Path(os.path.abspath(file)), labels=(label,)))
    remarks = remarks_loose(folder, loose, modality)
    if empty and items:
        names = ", ".join(sorted(empty))
        remarks.append(f"folders without {modality.plural} in {folder.name}/ are left out: {names}")
    return items, remarks


def why_nothing(root: Path, modality: Modality) -> str:
    """Says what a folder without classes holds, and what would be read."""
    what, names = modality.plural, ", ".join(TABLE_NAMES)
    if numbered_tables(root):
        return f"{root} holds tables of texts, not of {what}: modality 'text' reads them."
    tables = [entry.name for entry in sorted(root.iterdir()) if entry.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        lacking = f"none of the tables {names}" if modality.in_rows else f"no class folders with {what}"
        return f"{root} holds {lacking}; to read its table, give the path {root / tables[0]}."
    expected = f"expected {'' if modality.in_rows else 'a folder per class, or '}one of the tables {names}"
    if loose := len(files_in(root, modality)):
        return f"{root} holds {loose} {what} but no labels: {expected}."
    for other in MODALITIES.values():
        if count := len(files_in(root, other)):
            return f"{root} holds no {what} but {other.plural} ({count}): modality {other.name!r} reads them."
    return f"{root} holds no {what}: {expected}."


LAYOUT = ClassFolders()
