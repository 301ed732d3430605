"""Where the files lie that a table names, however their names are spelled on disk."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ossicle.data.dialects import dialect_of
from ossicle.data.modalities import MODALITIES, SOUND, Modality
from ossicle.data.records import TableRow
from ossicle.errors import DataRefused


def recording_of(table: Path, modality: Modality = SOUND) -> Path | None:
    """The one recording beside a table that is named after it: `a.wav` of `a.txt`, `a.wav.txt`, `a.Table.1.txt`.

    Raises: DataRefused for several.
    """
    found = [
        file
        for file in (*table.parent.glob("*"), *(table.parent / modality.folder).glob("*"))
        if file.suffix.lower() in modality.suffixes and table.name.startswith((f"{file.stem}.", f"{file.name}."))
    ]
    longest = max((len(file.stem) for file in found), default=0)
    found = [file for file in found if len(file.stem) == longest]
    found = [file for file in found if table.name.startswith(f"{file.name}.")] or found
    if len(found) > 1:
        names = " and ".join(sorted(file.name for file in found))
        raise DataRefused(f"{table} may be of {names}: name its recording in a column `file`.")
    return found[0] if found else None


def find_named(
    table: Path,
    names: Sequence[tuple[str, TableRow]],
    *,
    source: str | None,
    modality: Modality,
    folders: Sequence[Path] | None = None,
) -> tuple[list[Path], Path, int]:
    """Where each file lies, the folder of most of them, and how many lie nowhere; these are given that folder.

    Args:
        names: each with the row that it stands in
        source: the column of the names
        folders: where the files may lie, best first; by default beside the table, or in `audio/` or `images/` below or
            beside its folder. Where none of them lies there, names are relative to the folder the program was started
            in.

    Raises: DataRefused where no file exists, and for names of files of another modality.
    """
    _refuse_other_files(table, [name for name, _ in names], modality)
    below = modality.folder
    folders = (table.parent, table.parent / below, table.parent.parent / below) if folders is None else folders
    spell = dialect_of(source).spell(folders, modality.suffixes)
    spelled = []
    for name, row in names:
        spellings = [name, *([name.replace("\\", "/")] if "\\" in name else []), *spell(name, row)]  # from Windows
        bare = not os.path.splitext(name)[1].strip(".")
        spelled.append(spellings + [name + suffix for suffix in modality.usual_suffixes if bare])
    found: list[str | None] = []
    # A table that `ossicle predict` wrote names files as they were given to it. A Path takes longer to make, and to
    # join, than its file to find.
    for place in (tuple(map(str, folders)), (str(Path.cwd()),)):
        places: Counter[str] = Counter()
        found = []
        for spellings in spelled:
            there = next(((at, folder) for folder in place for one in spellings if (at := _in(folder, one))), None)
            found.append(there and there[0])
            places.update([there[1]] if there else [])
        if places:
            break
    else:
        looked = " and ".join(str(folder) for folder in folders)
        raise DataRefused(
            f"none of the {len(names)} files of {table} exists: {names[0][0]} was looked for in {looked}; paths "
            "are relative to the table."
        )
    usual = places.most_common(1)[0][0]
    files = [
        Path(os.path.abspath(file or os.path.join(usual, name[-1]))) for file, name in zip(found, spelled, strict=True)
    ]
    return files, Path(usual), found.count(None)


def _refuse_other_files(table: Path, names: Sequence[str], modality: Modality) -> None:
    """A table of file names does not say what the files are; their suffixes do where all of them agree."""
    suffixes = {os.path.splitext(name)[1].lower() for name in names}
    for other in MODALITIES.values():
        if other is not modality and suffixes <= other.suffixes:
            raise DataRefused(
                f"{table} holds a table of {other.plural} ({names[0]}), not of {modality.plural}: modality "
                f"{other.name!r} reads it."
            )


def _in(folder: str, name: str) -> str | None:
    """The file of that name, also where its accents are composed otherwise on disk than in the table."""
    joined = os.path.join(folder, name)
    if os.path.isfile(joined):
        return joined
    if name.isascii():
        return None
    path = Path(folder)
    for part in Path(name).parts:
        path = next(
            (at for form in ("NFC", "NFD") if os.path.exists(at := path / unicodedata.normalize(form, part))),
            path / part,
        )
    return str(path) if os.path.isfile(path) else None
