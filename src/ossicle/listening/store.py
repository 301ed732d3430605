"""The results of a job on disk, a part for each recording: what makes a job resumable.

    FOLDER/.ossicle/settings.json        the model and the settings that every part was made with
    FOLDER/.ossicle/parts/ab/abcd.jsonl  the rows of one recording, and in the last line what it was made from

A part is there whole or not at all, and names the bytes of its recording: size and time of change, and where these
differ, the digest of the content. So whatever moment a job dies at, the next one finds what is done, and what is not.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ossicle.errors import RunRefused
from ossicle.files import remove_abandoned, replacing, sha256, write_json
from ossicle.predict import Row

HIDDEN = ".ossicle"
TAIL = 1 << 16  # bytes that surely hold the last line of a part


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Which bytes a recording was."""

    size: int
    changed: int  # nanoseconds, as the file system says
    digest: str  # SHA-256 of the content


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the last line of a part says."""

    file: str
    stamp: Stamp
    seconds: float


def stamp_of(file: Path) -> Stamp:
    """Reads a file whole to say which bytes it is."""
    status = file.stat()
    return Stamp(size=status.st_size, changed=status.st_mtime_ns, digest=sha256(file))


class Store:
    """The parts of a job in a folder.

    Raises: RunRefused for a folder with results of another model or of other settings, and for one with results when
        neither `resume` nor `overwrite` is asked for.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        self.folder = folder
        self.hidden = folder / HIDDEN
        known = self.hidden / "settings.json"
        if overwrite:
            shutil.rmtree(self.hidden, ignore_errors=True)
        elif known.exists():
            check_settings(folder, read_settings(known), settings)
            if not resume:
                raise RunRefused(
                    f"{folder}: there are predictions in it; --resume goes on with them, --overwrite starts anew."
                )
        elif there := next(folder.glob("predictions.*"), None):
            raise RunRefused(f"{there}: this file would be overwritten; choose another folder, or give --overwrite.")
        remove_abandoned(folder)
        write_json(known, dict(settings))

    def path(self, file: str) -> Path:
        name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
        return self.hidden / "parts" / name[:2] / f"{name}.jsonl"

    def write(self, file: str, rows: Iterable[Row], *, about: Mapping[str, Any]) -> None:
        """Writes the part of a recording while its rows come.

        Args:
            about: where `stamp` and `seconds` are to be found once the rows are over
        """
        with replacing(self.path(file)) as temporary, open(temporary, "w", encoding="utf-8") as part:
            for row in rows:
                part.write(json.dumps([round(row.start, 6), round(row.end, 6), row.label, round(row.score, 4)]) + "\n")
            last = Part(file=file, stamp=about["stamp"], seconds=about["seconds"])
            part.write(json.dumps(asdict(last)) + "\n")

    def done(self, file: str) -> Part | None:
        """The part of a recording, if there is one and the recording still is what it was."""
        try:
            with open(self.path(file), "rb") as part:
                part.seek(max(0, part.seek(0, os.SEEK_END) - TAIL))
                last = json.loads(part.read().splitlines()[-1])
            found = Part(**{**last, "stamp": Stamp(**last["stamp"])})
            status = os.stat(file)
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None
        if found.file != file or found.stamp.size != status.st_size:
            return None
        same = found.stamp.changed == status.st_mtime_ns or found.stamp.digest == sha256(Path(file))
        return found if same else None

    def rows(self, file: str) -> Iterator[Row]:
        """The rows of a recording that is done, in time."""
        with open(self.path(file), encoding="utf-8") as part:
            for line in part:
                if not line.startswith("["):
                    return
                start, end, label, score = json.loads(line)
                yield Row(file=file, start=start, end=end, label=label, score=score)

    def recordings(self, files: Iterable[Path]) -> Iterator[tuple[Path, Iterator[Row]]]:
        """Recordings that are done, each with its rows."""
        return ((file, self.rows(str(file))) for file in files)


def read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(settings, dict):
            return settings
    except (OSError, ValueError) as error:
        raise RunRefused(f"{path}: it cannot be read ({error}); choose another folder, or give --overwrite.") from error
    raise RunRefused(f"{path}: it holds no settings; choose another folder, or give --overwrite.")


def check_settings(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses results that were made otherwise, and names each difference."""
    wanted = json.loads(json.dumps(wanted))
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        listed = ", ".join(f"{name} {found.get(name)!r} there and {wanted.get(name)!r} here" for name in names)
        raise RunRefused(
            f"{folder}: its predictions were made otherwise: {listed}; choose another folder, or give --overwrite."
        )
