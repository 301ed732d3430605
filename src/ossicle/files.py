"""Atomic writes: all files are written through this module.

A reader finds the old file or the new one, never a part of one, also after `kill -9` or a power failure: the bytes are
written to a temporary file, flushed to the device, and then renamed.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ossicle.errors import OssicleError, SettingRefused

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for a file, on the disk or by a limit
LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}  # options of NFS and of Lustre
MAX_NAME = 255  # bytes of a file's name
_NOTES: list[Callable[[Path, Path], object]] = []


@contextlib.contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling of `path`; at the end it is flushed and takes the name, or on an error is removed.

    Args:
        flush: False for a file whose reader detects truncation: a power failure may truncate it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: some writers choose their format by it. Long names are shortened.
    temporary = path.with_name(f".ossicle-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        if flush:
            with open(temporary, "r+b") as file:  # Windows flushes only files opened for writing
                os.fsync(file.fileno())
        for note in _NOTES:
            note(path, temporary)
        os.replace(temporary, path)
        if flush:
            sync_folder(path.parent)
    except OSError as error:
        # The temporary name would confuse; and of a full disk Python names no file.
        if error.filename == str(temporary) or error.filename is None and error.errno in FULL:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def noted(note: Callable[[Path, Path], object]) -> Iterator[None]:
    """Calls `note(path, temporary)` with each file that is whole, before it takes its name."""
    _NOTES.append(note)
    try:
        yield
    finally:
        _NOTES.remove(note)


def check_writable(path: Path) -> None:
    """Raises OSError if `path` cannot be written; call it before the work."""
    folder = next(parent for parent in Path(os.path.abspath(path)).parents if os.path.lexists(parent))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(path)
        raise


def existing_folder(path: Path) -> Path:
    """The path itself if it is a folder, or the closest one above that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def read_json(file: Path, *, refused: type[OssicleError]) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file.

    Raises: `refused` for a file that is not a JSON object.
    """
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise refused(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise refused(f"{file}: expected a JSON object, got a {type(value).__name__}.")
    return value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Locks a file, at most until the process ends; yields False if the system has no locks.

    Raises: BlockingIOError if another process has locked it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        honored = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            honored = False
        yield honored


def locks_are_local(path: Path, *, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether the file system of a path is mounted so that a lock on it holds on this machine alone.

    Args:
        mounts: Linux's list of them; elsewhere nothing is known
    """
    try:
        listed = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return False
    place = existing_folder(path).resolve()
    over = [fields for fields in listed if len(fields) > 3 and place.is_relative_to(fields[1].replace("\\040", " "))]
    options = max(over, key=lambda fields: len(fields[1]), default=["", "", "", ""])[3].split(",")
    return not LOCAL_LOCKS.isdisjoint(options)


def beside(path: Path, suffix: str) -> Path:
    """The path of a companion file: name and suffix, shortened to the length that file systems allow."""
    name = os.fsencode(path.name)
    if len(name) + len(suffix) <= MAX_NAME:
        return path.with_name(path.name + suffix)
    mark = _mark(name)  # two long names may share their beginning
    return path.with_name(name[: MAX_NAME - len(mark) - len(suffix)].decode(errors="ignore") + mark + suffix)


def without_slashes(name: str) -> str:
    """A name as that of a file: with - in place of slashes, and then a mark, as another name may have - there."""
    plain = re.sub(r"[/\\]", "-", name)
    return plain if plain == name else plain + _mark(name.encode(errors="surrogatepass"))


def _mark(name: bytes) -> str:
    """Tells a name that was changed from others that have become the same."""
    return "-" + hashlib.sha256(name).hexdigest()[:8]


def remove_abandoned(folder: Path, *, below: bool = False, unless_younger: float = 0.0) -> None:
    """Removes the temporary files that a killed process left in `folder`; no process may be writing there.

    Args:
        below: in the folders below it too
        unless_younger: seconds since their last change; for a folder in which others may be writing
    """
    for path in (folder.rglob if below else folder.glob)(".ossicle-*"):
        if re.fullmatch(r"\.ossicle-[0-9a-f]{8}(\..*)?", path.name, re.DOTALL) and path.is_file():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= unless_younger:
                    path.unlink()


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Writes bytes, text (UTF-8), or whatever `content(temporary_path)` saves, so that `path` is whole or unchanged."""
    with replacing(path) as temporary:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def legible(name: str | os.PathLike[str]) -> str:
    """A file name that UTF-8 can encode: bytes that are not text become `\\udc..`."""
    return os.fspath(name).encode(errors="backslashreplace").decode()


def printable(name: str | os.PathLike[str]) -> str:
    """A file name with characters escaped that would break a line or a terminal."""
    text = os.fspath(name)
    return text if text and text.isprintable() else ascii(text)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN, which JSON does not have, is refused."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename inside it survives a power cut."""
    if os.name == "nt":  # Windows cannot open folders; its rename is flushed by the file system.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder
            error.filename = str(folder)
            raise
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Where decoded samples and downloads are kept: `$OSSICLE_CACHE`, else `~/.cache/ossicle`."""
    try:
        return Path(os.environ.get("OSSICLE_CACHE") or Path.home() / ".cache" / "ossicle")
    except RuntimeError as error:
        raise SettingRefused(
            f"there is no home folder ({error}); name a folder in the variable OSSICLE_CACHE."
        ) from None


def refuse_unwritable(folder: Path, what: str) -> None:
    """Raises SettingRefused where a folder of the cache cannot be written: ahead of the work, not behind it."""
    try:
        check_writable(folder / "any")
    except OSError as error:
        raise SettingRefused(
            f"{folder}: the cache of {what} cannot be written there ({error.strerror}); name another folder in the "
            "variable OSSICLE_CACHE."
        ) from None
