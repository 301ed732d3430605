"""Tables of other programs and published data sets, and what their columns mean beyond their names."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ossicle.audio.find import find_files
from ossicle.data.names import squeezed
from ossicle.data.records import Row

Spell = Callable[[str, Row], Iterable[str]]  # the names that a file may have on disk, by its name in a table


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One such kind of table."""

    files: tuple[str, ...] = ()
    """Its columns of file names, squeezed."""
    marks: frozenset[str] = frozenset()
    """Columns, squeezed, that only such a table has, also where somebody has renamed the one of files."""
    times_of: str = ""
    """What its times are those of, where they are not those of its files."""
    spell: Callable[[Sequence[Path], Collection[str]], Spell] = lambda folders, suffixes: lambda name, row: ()
    """Given the folders where files may lie, and their suffixes."""


def dialect_of(source: str | None, columns: Collection[str] = ()) -> Dialect:
    """The dialect of a table by its column of files or by its columns, squeezed; for others one that says nothing."""
    squeezed_source = squeezed(source or "")
    return next(
        (one for one in DIALECTS if squeezed_source in one.files or one.marks and one.marks <= set(columns)), Dialect()
    )


def _videos(folders: Sequence[Path], suffixes: Collection[str]) -> Spell:
    """AudioSet's segments by the eleven signs of their video: `ID.wav`, `YID.wav`, `ID_30.000.wav`, ..."""
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for file in find_files(folder, suffixes):
            if match := re.fullmatch(r"Y?([\w-]{11})(_.*)?", file.stem):
                found.setdefault(match[1], str(file))
    return lambda name, row: [found.get(name, name)]


def _in_fold(name: str, row: Row) -> list[str]:
    fold = next((row[column] for column in row if squeezed(column) == "fold"), "")
    return [f"fold{str(fold).strip()}/{name}"]


DIALECTS = (
    Dialect(
        files=("slicefilename",),
        marks=frozenset(("fsid", "salience", "classid")),
        times_of="another recording (UrbanSound8K)",
        spell=lambda folders, suffixes: _in_fold,
    ),
    Dialect(files=("ytid",), times_of="a video (AudioSet)", spell=_videos),
    # Raven's, which may have run elsewhere.
    Dialect(
        files=("beginpath", "beginfile"),
        spell=lambda folders, suffixes: lambda name, row: [PureWindowsPath(name).name],
    ),
)
