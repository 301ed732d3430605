"""What a layout of data is: how it is detected below a path, and how it is read.

Each lies in a file of `layouts/` as the object `LAYOUT`, which is found there by itself. What several of them need is
here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ossicle.audio.find import find_files
from ossicle.data.arrays import ItemArrays, arrays_of
from ossicle.data.columns import Columns, ReadOptions
from ossicle.data.items import Item
from ossicle.data.modalities import SOUND, Modality
from ossicle.data.names import fold_of, split_of
from ossicle.data.records import TABLE_SUFFIXES
from ossicle.data.tables import TableContents, read_table
from ossicle.data.times import in_milliseconds
from ossicle.errors import DataRefused

TABLE_NAMES = tuple(stem + suffix for stem in ("meta", "metadata") for suffix in TABLE_SUFFIXES)
MACOS_REMAINS = "__MACOSX"  # what its archiver leaves beside the real folders


@dataclass(frozen=True, kw_only=True)
class LayoutContents:
    """What a layout yields before names are compared and items are counted."""

    items: Sequence[Item]
    description: str
    columns: Columns | None = None
    remarks: tuple[str, ...] = ()
    whole: bool = False  # labels are never joined by commas

    @cached_property
    def arrays(self) -> ItemArrays:
        """What the items have in common."""
        return arrays_of(self.items)


class Folder:
    """A folder, and what of a modality lies in it, each looked up once; a path that is no folder holds nothing."""

    def __init__(self, path: Path, modality: Modality) -> None:
        self.path, self.modality = path, modality

    @cached_property
    def folders(self) -> list["Folder"]:
        """The folders directly in it, by name, but for hidden ones."""
        if not self.path.is_dir():
            return []
        paths = sorted(path for path in self.path.iterdir() if path.is_dir() and path.name != MACOS_REMAINS)
        return [Folder(path, self.modality) for path in paths if not path.name.startswith(".")]

    @cached_property
    def files(self) -> list[Path]:
        """The files of the modality in it and below it."""
        return find_files(self.path, self.modality.suffixes) if self.path.is_dir() else []

    @cached_property
    def table(self) -> Path | None:
        """The table that describes it, in any case of its name."""
        present = {path.name.lower(): path for path in sorted(self.path.glob("*")) if path.is_file()}
        return next((present[name] for name in TABLE_NAMES if name in present), None)

    @property
    def part(self) -> tuple[str | None, str | None] | None:
        """The split, or the fold, that its name says; None for any other name."""
        part = split_of(self.path.name), fold_of(self.path.name)
        return part if any(part) else None

    def with_part(self, items: Iterable[Item]) -> list[Item]:
        """The items as those of the split or fold that its name says."""
        split, fold = self.part or (None, None)
        return [replace(item, split=split or item.split, fold=fold or item.fold) for item in items]

    @cached_property
    def parts(self) -> list["Folder"]:
        """The folders of a split (train/, val/, test/) or of folds in it; none where they are classes.

        One such folder beside others is a class of that name; two are parts of the data, whatever lies beside them.

        Raises: DataRefused where one may be either.
        """
        if not any(folder.part for folder in self.folders):
            return []
        holding = [folder for folder in self.folders if folder.table or folder.files]
        parts = [folder for folder in holding if folder.part]
        others = {folder.path.name for folder in holding if not folder.part}
        if not others or len({folder.part for folder in parts}) > 1:
            return parts
        for folder in parts:
            if both := sorted(others & {inner.path.name for inner in folder.folders}):
                raise DataRefused(
                    f"{folder.path} is a class or a part of the data: it holds folders that lie beside it too "
                    f"({both[0]}); move those beside it into a folder of their own, such as {self.path / 'train'}."
                )
        return []

    def left_beside(self, parts: Sequence["Folder"]) -> list[str]:
        """How many files beside the folders of parts are left out."""
        inside = {folder.path for folder in parts}
        beside = [file for file in self.files if inside.isdisjoint(file.parents)]
        loose = sum(file.parent == self.path for file in beside)
        remarks = self.left_loose(loose)
        if len(beside) > loose:
            names = ", ".join(f"{folder.path.name}/" for folder in parts)
            remarks.append(f"{self.modality.plural} beside {names} are left out ({len(beside) - loose})")
        return remarks

    def left_loose(self, count: int) -> list[str]:
        """How many files directly in a folder of class folders are left out."""
        where = f"directly in {self.path.name}/ lie in no class folder"
        return [f"{self.modality.plural} {where} and are left out ({count})"] if count else []


class DataLayout:
    """A way in which data lie on disk."""

    precedence: ClassVar[int] = 0  # lower is asked first; 0 are those as published, for which no others can be mistaken
    modality: ClassVar[Modality | None] = None  # the only one that it may hold

    def detect(self, root: Folder, options: ReadOptions) -> Any:
        """What of the layout is in a folder, or is a table, as `read` takes it; None for another layout."""
        raise NotImplementedError

    def read(self, root: Folder, found: Any, options: ReadOptions) -> LayoutContents:
        """Reads what was detected.

        Raises: DataRefused for data that are damaged or contradict themselves.
        """
        raise NotImplementedError


class PublishedTable(DataLayout):
    """A published data set of one table and one folder of recordings, given as its folder or as either of the two."""

    modality = SOUND

    def __init__(self, name: str, *, table: str, folder: str) -> None:
        self.name, self.table, self.folder = name, table, folder

    def detect(self, root: Folder, options: ReadOptions) -> Path | None:
        for home in (root.path, *root.path.parents[:2]):
            if root.path in (home, home / self.table, home / self.folder) and (home / self.table).is_file():
                return home
        return None

    def read(self, root: Folder, found: Path, options: ReadOptions) -> LayoutContents:
        table = read_table(found / self.table, options, folders=[found / self.folder])
        what = f"{self.name} as published ({self.table} and {self.folder}/, labels from `{table.columns.label}`)"
        return of_tables([table], options.modality, description=what)


# ---------------------------------------------------------------- tables


def of_table(table: TableContents, modality: Modality) -> LayoutContents:
    """The contents of one table."""
    where = "" if table.folder == table.path.parent else f" in {table.folder.name}/"
    source = f"{modality.option}s from `{table.columns.source}`{where}"
    if table.columns.source is None:
        source = f"labels of {table.items[0].file.name}"
    return of_tables([table], modality, description=f"table {table.path.name} ({source}, {labels_from(table.columns)})")


def of_tables(
    tables: Sequence[TableContents],
    modality: Modality,
    *,
    description: str,
    remarks: Iterable[str] = (),
    whole: bool = False,
) -> LayoutContents:
    """The contents of several tables of the same columns."""
    items = tuple(item for table in tables for item in table.items)
    missing = sum(table.missing for table in tables)
    return LayoutContents(
        items=items,
        description=description,
        columns=tables[0].columns,
        remarks=(
            *([f"{missing} of {len(items)} {modality.noun}s have no file"] if missing else []),
            *_remarks_of(tables),
            *remarks,
        ),
        whole=whole or any(table.listed for table in tables),
    )


def refuse_other_columns(tables: Sequence[TableContents], what: str) -> None:
    """Raises DataRefused where tables that are one data set differ in their columns."""
    if any(table.columns != tables[0].columns for table in tables):
        raise DataRefused(f"{what} differ in their columns: give all of them the same.")


def labels_from(columns: Columns) -> str:
    """Which columns hold the labels and the times, and in which unit these are where it is not the second."""
    used = [f"`{name}`{' in milliseconds' if in_milliseconds(name) else ''}" for name in columns.times.used]
    times = f", times from {', '.join(used[:-1])}{' and ' * (len(used) > 1)}{used[-1]}" if used else ""
    return f"labels from `{columns.label}`{times}"


def _remarks_of(tables: Sequence[TableContents]) -> list[str]:
    """The remarks of several tables, those of one with its name."""
    counts = Counter(remark for table in tables for remark in table.remarks)
    return [
        remark if counts[remark] == len(tables) else f"{table.path.parent.name}/{table.path.name}: {remark}"
        for table in tables
        for remark in table.remarks
        if counts[remark] < len(tables) or table is tables[0]
    ]
