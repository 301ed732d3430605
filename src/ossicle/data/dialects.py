"""Tables of other programs and published data sets, and what their columns mean beyond their names."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ossicle.audio.find import find_files
from ossicle.data.names import squeezed
from ossicle.data.records import TableRow

Spell = Callable[[str, TableRow], Iterable[str]]  # the names that a file may have on disk, by its name in a table


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One such kind of table, known by its column of files or by columns that only it has; all squeezed."""

    files: tuple[str, ...] = ()
    columns: frozenset[str] = frozenset()
    times_of: str = ""  # what its times are those of, where they are not those of its files
    # Given the folders where files may lie, and their suffixes.
    spell: Callable[[Sequence[Path], Collection[str]], Spell] = lambda folders, suffixes: lambda name, row: ()


def dialect_of(source: str | None, header: Sequence[str] = ()) -> Dialect:
    """The dialect of a table by its column of files or by all its columns; for others one that says nothing."""
    name, names = squeezed(source or ""), {squeezed(name) for name in header}
    return next((one for one in DIALECTS if name in one.files or one.columns and one.columns <= names), PLAIN)


def _videos(folders: Sequence[Path], suffixes: Collection[str]) -> Spell:
    """AudioSet's segments by the eleven signs of their video: `ID.wav`, `YID.wav`, `ID_30.000.wav`, ..."""
    found: dict[str, str] = {}
    for folder in filter(Path.is_dir, folders):
        for file in find_files(folder, suffixes):
            if match := re.fullmatch(r"Y?([\w-]{11})(_.*)?", file.stem):
                found.setdefault(match[1], str(file))
    return lambda name, row: [found.get(name, name)]


def _in_fold(name: str, row: TableRow) -> list[str]:
    """UrbanSound8K's slices lie in folders of their folds."""
    fold = next((row[column] for column in row if squeezed(column) == "fold"), "")
    return [f"fold{str(fold).strip()}/{name}"]


def _last_part(name: str, row: TableRow) -> list[str]:
    """Raven may have run elsewhere."""
    return [PureWindowsPath(name).name]


PLAIN = Dialect()
URBANSOUND8K = Dialect(
    files=("slicefilename",),
    columns=frozenset(("fsid", "salience", "classid")),
    times_of="another recording (UrbanSound8K)",
    spell=lambda folders, suffixes: _in_fold,
)
AUDIOSET = Dialect(files=("ytid",), times_of="a video (AudioSet)", spell=_videos)
RAVEN = Dialect(files=("beginpath", "beginfile"), spell=lambda folders, suffixes: _last_part)
DIALECTS = (URBANSOUND8K, AUDIOSET, RAVEN)
