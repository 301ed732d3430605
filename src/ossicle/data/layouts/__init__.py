"""The layouts that are known, one in each file, in the order in which they are asked."""

import pkgutil
from importlib import import_module
from pathlib import Path

from ossicle.data.columns import ReadOptions
from ossicle.data.layout import DataLayout, Folder, LayoutContents
from ossicle.data.records import TABLE_SUFFIXES
from ossicle.errors import DataRefused


def find_layouts() -> tuple[DataLayout, ...]:
    """The `LAYOUT` of every file here, by precedence and then by name."""
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return tuple(sorted((file.LAYOUT for file in files), key=lambda layout: layout.precedence))


LAYOUTS = find_layouts()


def read_layout(path: Path, options: ReadOptions) -> LayoutContents:
    """Detects the layout of a folder or a table, and reads it.

    Raises: DataRefused where it is none of those known, or cannot be read as what it is.
    """
    root = Folder(path, options.modality)
    for layout in LAYOUTS:
        if layout.modality not in (None, options.modality):
            continue
        if (found := layout.detect(root, options)) is not None:
            return layout.read(root, found, options)
    if path.is_file():
        raise DataRefused(f"{path} is neither a folder nor a table: tables end in {', '.join(TABLE_SUFFIXES)}.")
    raise DataRefused(f"{path} does not exist: expected a folder of {options.modality.plural}, or a table of them.")
