"""The results of a job, a part for each file: on disk, which makes a job resumable, or in memory.

    FOLDER/.ossicle/written.json         the files of FOLDER that ossicle wrote: no other is ever replaced or removed
    FOLDER/.ossicle/settings.json        the model and the settings that every part was made with
    FOLDER/.ossicle/parts/ab/abcd.jsonl  the rows of one file, and in the last line what it was made from
    FOLDER/.ossicle/lock                 locked by the job that is writing

A part is there whole or not at all, and names the bytes of its file: size and time of change, and where these differ,
the digest of the content. So whatever moment a job dies at, the next one finds what is done, and what is not.
Parts are not flushed to the device, which would take a third of a job on short files; so that a power cut loses parts
but never leaves half of one unnoticed, a part names the bytes of its rows too.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ossicle.audio import AudioInfo
from ossicle.errors import RunRefused
from ossicle.files import locked, remove_abandoned, replacing, sha256, write_atomically, write_json
from ossicle.inference import Row

HIDDEN = ".ossicle"
LOCK, SETTINGS, PARTS = "lock", "settings.json", "parts"


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Which bytes a file was."""

    size: int
    changed: int  # nanoseconds, as the file system says
    digest: str  # SHA-256 of the content


NO_STAMP = Stamp(size=0, changed=0, digest="")


@dataclass(frozen=True, kw_only=True)
class PartInfo:
    """What the last line of a part says."""

    file: str
    stamp: Stamp
    info: AudioInfo
    rows: str  # SHA-256 of the lines before


def stamp_of(file: Path) -> Stamp:
    """Reads a file whole to say which bytes it is."""
    status = file.stat()
    return Stamp(size=status.st_size, changed=status.st_mtime_ns, digest=sha256(file))


class Written:
    """The files that ossicle wrote to a folder: the only ones there that it replaces or removes.

    They are listed before they are written, so that a killed job knows its own too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.list = folder, folder / HIDDEN / "written.json"
        here = Path(os.path.abspath(folder))
        try:
            names = json.loads(self.list.read_text(encoding="utf-8"))
            # The list may be forged: nothing outside the folder is ours.
            self.names = {name for name in names if here in Path(os.path.abspath(here / name)).parents}
        except (OSError, ValueError, TypeError, RecursionError):
            self.names = set()

    def begin(self, paths: Iterable[Path], *, overwrite: bool, stack: contextlib.ExitStack | None = None) -> None:
        """Makes the folder ready for new results.

        Args:
            paths: what may be written
            overwrite: remove the results that are there
            stack: keeps the folder locked; see `held`

        Raises: RunRefused where there are results and `overwrite` is False, or a file that ossicle did not write is in
            the way.
        """
        self.refuse_strangers(paths)
        if self.names and not overwrite:
            raise RunRefused(f"{self.folder}: there are predictions in it; choose another folder, or give --overwrite.")
        if stack is not None:
            stack.enter_context(held(self.folder))
        self.remove_abandoned()
        self.keep_only([])
        hidden = self.folder / HIDDEN
        (hidden / SETTINGS).unlink(missing_ok=True)
        shutil.rmtree(hidden / PARTS, ignore_errors=True)
        remove_abandoned(hidden)

    def refuse_strangers(self, paths: Iterable[Path]) -> None:
        """Raises RunRefused where something lies at one of the paths that was not written here."""
        for path in paths:
            if os.path.lexists(path) and self._name(path) not in self.names:
                raise RunRefused(
                    f"{path}: this exists already and ossicle did not write it; move it, or choose another folder."
                )

    def claim(self, paths: Sequence[Path]) -> None:
        """Lists files that are written next; raises RunRefused as `refuse_strangers`."""
        self.refuse_strangers(paths)
        self._save(self.names | {self._name(path) for path in paths})

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Removes the listed files that are not among the paths: they are out of date."""
        if old := self.names - {self._name(path) for path in paths}:
            for name in old:
                (self.folder / name).unlink(missing_ok=True)
            self._save(self.names - old)

    def remove_abandoned(self) -> None:
        """Removes what a killed job left beside its files."""
        for parent in {(self.folder / name).parent for name in self.names}:
            remove_abandoned(parent)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _save(self, names: set[str]) -> None:
        write_atomically(self.list, json.dumps(sorted(names)))
        self.names = names


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks a folder of results for one job, at most until the process ends.

    Raises: RunRefused while another job has it locked.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / HIDDEN / LOCK))
        except BlockingIOError as error:
            raise RunRefused(
                f"{folder}: another job is writing there; wait for it, or choose another folder."
            ) from error
        yield


class MemoryStore:
    """The rows of files in memory."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}

    def stamp(self, file: Path) -> Stamp:
        """Nothing: what ends with the process is never resumed."""
        return NO_STAMP

    def write(self, file: str, rows: Iterable[Row], *, about: Mapping[str, Any]) -> None:
        """Keeps the rows of a file."""
        self._rows[file] = list(rows)

    def rows(self, file: str) -> Iterator[Row]:
        """The rows of a file that is done, in time."""
        return iter(self._rows[file])


class ResultStore:
    """The parts of a job in a folder.

    Args:
        outputs: the files that the job may write there
        stack: keeps the folder locked; see `held`

    Raises: RunRefused for a folder with results of another model or of other settings, for one with results without
        `resume` or `overwrite`, where a file that ossicle did not write is in the way, and while another job is writing
        there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, Any],
        outputs: Sequence[Path],
        resume: bool,
        overwrite: bool,
        stack: contextlib.ExitStack,
    ) -> None:
        self.folder = folder
        self.hidden = folder / HIDDEN
        self.written = Written(folder)
        known = self.hidden / SETTINGS
        if known.exists() and not overwrite:
            check_settings(folder, read_settings(known), settings)
            if not resume:
                raise RunRefused(
                    f"{folder}: there are predictions in it; --resume continues with them, --overwrite starts anew."
                )
            self.written.refuse_strangers(outputs)
            stack.enter_context(held(folder))
            self.written.remove_abandoned()
            remove_abandoned(self.hidden, below=True)
        else:
            self.written.begin(outputs, overwrite=overwrite, stack=stack)
        write_json(known, dict(settings))

    def stamp(self, file: Path) -> Stamp:
        """See `stamp_of`."""
        return stamp_of(file)

    def path(self, file: str) -> Path:
        name = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
        return self.hidden / PARTS / name[:2] / f"{name}.jsonl"

    def write(self, file: str, rows: Iterable[Row], *, about: Mapping[str, Any]) -> None:
        """Writes the part of a file while its rows come.

        Args:
            about: has `stamp` and `info` once the rows are over
        """
        digest = hashlib.sha256()
        with replacing(self.path(file), flush=False) as temporary, open(temporary, "wb") as part:
            for row in rows:
                values = [round(row.start, 6), round(row.end, 6), row.label, round(row.score, 4)]
                line = json.dumps(values).encode() + b"\n"
                digest.update(line)
                part.write(line)
            last = PartInfo(file=file, stamp=about["stamp"], info=about["info"], rows=digest.hexdigest())
            part.write(json.dumps(asdict(last)).encode() + b"\n")

    def done(self, file: str) -> PartInfo | None:
        """The part of a file, if there is one and the file has not changed since."""
        try:
            digest, line = hashlib.sha256(), b""
            with open(self.path(file), "rb") as part:
                for following in part:
                    digest.update(line)
                    line = following
            found = part_of(line)
            status = os.stat(file)
            if (found.file, found.rows, found.stamp.size) != (file, digest.hexdigest(), status.st_size):
                return None
            same = found.stamp.changed == status.st_mtime_ns or found.stamp.digest == sha256(Path(file))
        except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError):
            return None
        return found if same else None

    def rows(self, file: str) -> Iterator[Row]:
        """The rows of a file that is done, in time."""
        with open(self.path(file), encoding="utf-8") as part:
            for line in part:
                if not line.startswith("["):
                    return
                start, end, label, score = json.loads(line)
                yield Row(file=file, start=start, end=end, label=label, score=score)

    def info(self, file: str) -> AudioInfo:
        """Rate and length of a file that is done."""
        with open(self.path(file), "rb") as part:
            (line,) = deque(part, maxlen=1)
        return part_of(line).info


def kept_setting(folder: Path, name: str) -> Any:
    """A setting that the job in a folder was started with; None where there is no job, or no such setting."""
    path = folder / HIDDEN / SETTINGS
    return read_settings(path).get(name) if path.exists() else None


def part_of(line: bytes) -> PartInfo:
    """Reads the last line of a part; of one that is torn, or by an older version, it raises what `done` suppresses."""
    last = json.loads(line)
    return PartInfo(**{**last, "stamp": Stamp(**last["stamp"]), "info": AudioInfo(**last["info"])})


def read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(settings, dict):
            return settings
    except (OSError, ValueError, RecursionError) as error:
        raise RunRefused(f"{path}: it cannot be read ({error}); choose another folder, or give --overwrite.") from error
    raise RunRefused(f"{path}: it holds no settings; choose another folder, or give --overwrite.")


def check_settings(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses results that were made with other settings, and names each difference."""
    wanted = json.loads(json.dumps(wanted))
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        listed = ", ".join(f"{name} {found.get(name)!r} there and {wanted.get(name)!r} here" for name in names)
        raise RunRefused(
            f"{folder}: its predictions were made with other settings: {listed}; choose another folder, or give "
            "--overwrite."
        )
