"""AG News and its kin as published (Zhang et al. 2015): train.csv, test.csv without column names, classes.txt."""

from collections.abc import Sequence
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.items import Item
from ossicle.data.layout import DataLayout, Folder, LayoutContents
from ossicle.data.modalities import TEXT
from ossicle.data.names import split_of
from ossicle.data.records import read_names, read_records
from ossicle.errors import DataRefused

TABLES, CLASSES = ("train.csv", "test.csv"), "classes.txt"


class AgNews(DataLayout):
    def detect(self, root: Folder, options: ReadOptions) -> list[Path] | None:
        if root.path.is_file():
            return [root.path] if is_numbered(root.path) else None
        tables = numbered_tables(root.path) if options.modality is TEXT else []
        return None if not tables or root.table or any(part.table for part in root.parts) else tables

    def read(self, root: Folder, found: list[Path], options: ReadOptions) -> LayoutContents:
        if options.modality is not TEXT:
            raise DataRefused(
                f"{found[0]} holds a table of texts, not of {options.modality.plural}: modality 'text' reads it."
            )
        for option, name in options.named.items():
            raise DataRefused(f"--{option} {name} names a column, but {found[0]} has no line of column names.")
        classes = read_names(found[0].parent / CLASSES)
        items: list[Item] = []
        for table in found:
            # One table alone is no split: there is nothing on the other side.
            items += read_numbered(table, classes, split=split_of(table.stem) if len(found) > 1 else None)
        names = " and ".join(table.name for table in found)
        what = f"the layout of AG News ({names} without column names, {CLASSES})"
        return LayoutContents(items=tuple(items), description=what)


def numbered_tables(folder: Path) -> list[Path]:
    """The tables of a folder that are published so."""
    return [folder / name for name in TABLES if is_numbered(folder / name)]


def is_numbered(table: Path) -> bool:
    """Whether names of classes lie beside a table, and a number stands where others name their columns."""
    if table.name not in TABLES or not table.is_file() or not (table.parent / CLASSES).is_file():
        return False
    _, cells = next(read_records(table), (0, list[str]()))
    return "".join(cells[:1]).strip().isdecimal()


def read_numbered(path: Path, classes: Sequence[str], *, split: str | None) -> list[Item]:
    """Reads a CSV without column names: the number of a class, from 1, and the parts of a text, joined by spaces.

    Raises:
        DataRefused: the table is empty or damaged, or a row has no such number or no text.

    Source: Zhang, Zhao, LeCun 2015, https://arxiv.org/abs/1509.01626, whose eight sets (AG News, DBpedia, ...) are so.
    """
    label_of = {str(number): label for number, label in enumerate(classes, start=1)}
    items = []
    for line, (number, *parts) in read_records(path):
        where = f"line {line} of {path}"
        label = label_of.get(number.strip())
        if label is None:
            raise DataRefused(
                f"{where} begins with {number[:40]!r}: expected the number of a class, 1 to {len(classes)} "
                f"(those of {CLASSES})."
            )
        text = " ".join(part.strip() for part in parts if part.strip())
        if not text:
            raise DataRefused(f"{where} holds no text behind the number of its class.")
        items.append(Item(file=path, labels=(label,), split=split, text=text, row=line))
    return items


LAYOUT = AgNews()
