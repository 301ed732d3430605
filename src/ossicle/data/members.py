"""Files inside of tars: where their bytes lie, and how they are read as if they lay on disk."""

import contextlib
import mmap
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ossicle.errors import AudioUnreadable
from ossicle.files import printable
from ossicle.types import Int, Int64

# What a decoder knows by its first bytes; for anything else it asks for the suffix of a name.
MARKS = (
    b"RIFF",
    b"RF64",
    b"fLaC",
    b"OggS",
    b"FORM",
    b"caff",
    b"ID3",
    b"\xff\xf2",
    b"\xff\xf3",
    b"\xff\xfa",
    b"\xff\xfb",
)

MARKED = 2
MOST_MAPPED = 256  # tars

_of_thread = threading.local()


class Names:
    """Very many names in little memory, of a text with a zero byte behind each; `names[row]` is one of them."""

    def __init__(self, text: str) -> None:
        self.bytes = text.encode(errors="surrogatepass")
        self.ends = np.flatnonzero(np.frombuffer(self.bytes, np.uint8) == 0)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        first = self.ends[row - 1] + 1 if row else 0
        return self.bytes[first : self.ends[row]].decode(errors="surrogatepass")

    def all(self) -> list[str]:
        """Every name."""
        return self.bytes.decode(errors="surrogatepass").split("\0")[:-1]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tar:
    """A tar as its index describes it: arrays with a row for each file, so that a million files are some megabytes.

    Attributes:
        names: of the files as they lay in the data set that was packed
        frames, rates: length of each recording, in samples of its own rate (hertz)
        checks: CRC-32 of each file's bytes
        digests: what `ossicle.data.parts.contents_of` gives for each file, 16 bytes each
        checked: of each file whether this process has compared its bytes with its check, and found a mark (`MARKED`)
        mapped: the tar in the address space
    """

    path: Path
    names: Names
    offsets: Int64[np.ndarray, " file"]
    sizes: Int64[np.ndarray, " file"]
    frames: Int64[np.ndarray, " file"]
    rates: Int[np.ndarray, " file"]
    checks: Int64[np.ndarray, " file"]
    digests: bytes
    checked: bytearray
    mapped: "MappedTar"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar."""

    tar: Tar
    row: int

    @property
    def name(self) -> str:
        """Of the file in the data set that was packed."""
        return self.tar.names[self.row]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return int(self.tar.sizes[self.row])

    @property
    def digest(self) -> str:
        """What the file holds; the same as that of the file that was packed."""
        return self.tar.digests[16 * self.row : 16 * self.row + 16].hex()

    @property
    def place(self) -> str:
        """What to call the file in a message."""
        return f"{self.tar.path}:{self.name}"

    @property
    def identity(self) -> str:
        """What its samples depend on, wherever the tar lies; no file is looked at."""
        return f"{self.digest} {self.size} {self.tar.checks[self.row]}"

    @property
    def length(self) -> tuple[int, int]:
        """Frames of the whole recording, and its rate."""
        return int(self.tar.frames[self.row]), int(self.tar.rates[self.row])

    @property
    def lost(self) -> str:
        """The beginning of the sentence on a tar that cannot be read."""
        return f"{printable(self.place)}: the tar cannot be read"

    def mapped(self) -> memoryview | None:
        """The bytes of the file without a copy, for system calls alone: where a tar was cut, these fail, and any other
        look at them ends the process. None for a tar that is not mapped."""
        whole = self.tar.mapped.view(self.tar.path)
        first = int(self.tar.offsets[self.row])
        return None if whole is None else whole[first : first + self.size]

    def read(self) -> memoryview:
        """The bytes of the file, until this thread reads the next one.

        Raises: AudioUnreadable where the tar cannot be read, or holds other bytes than its index says.
        """
        name, remedy = printable(self.place), "pack the data again with `ossicle data shard`"
        held = getattr(_of_thread, "bytes", b"")  # used again and again: new memory would take longer than the copy
        if len(held) < self.size:
            held = _of_thread.bytes = bytearray(self.size)
        content = memoryview(held)[: self.size]
        try:
            with open(self.tar.path, "rb", buffering=0) as file:
                file.seek(int(self.tar.offsets[self.row]))
                done = 0
                while done < self.size and (more := file.readinto(content[done:])):
                    done += more
        except OSError as error:
            raise AudioUnreadable(f"{self.lost} ({error.strerror}); {remedy}") from error
        if done < self.size:
            raise AudioUnreadable(f"{name}: the tar ends before this file does; copy it again, or {remedy}")
        if not self.tar.checked[self.row]:
            if zlib.crc32(content) != self.tar.checks[self.row]:
                raise AudioUnreadable(
                    f"{name}: its bytes are not those that the index counts; copy it again, or {remedy}"
                )
            self.tar.checked[self.row] = True
        return content


class MappedTar:
    """A tar in the address space of this process from its first use on; not of very many tars, as each takes a handle.

    What was mapped stays what it was, also where another file takes its name.
    """

    number = 0  # that are mapped

    def __init__(self) -> None:
        self.whole: memoryview | None = None
        self.tried = False

    def __del__(self) -> None:
        MappedTar.number -= self.whole is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedTar, ()

    def view(self, path: Path) -> memoryview | None:
        """All of it, or None where it is not mapped."""
        if not self.tried:
            self.tried = True
            if MappedTar.number < MOST_MAPPED:
                with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
                    self.whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                    MappedTar.number += 1
        return self.whole


class MemoryFile:
    """A file that lies in no folder, written again and again: new pages would take longer than the copy."""

    def __init__(self) -> None:
        self.handle = os.memfd_create("ossicle")

    def __del__(self) -> None:
        os.close(self.handle)

    def holding(self, content: memoryview, *, stamp: int) -> Path:
        """A path of it, with these bytes, and a time that only they have, so that what was found in them is known."""
        os.ftruncate(self.handle, len(content))
        done = 0
        while done < len(content):  # one call writes 2 GiB at most
            done += os.pwrite(self.handle, content[done:], done)
        os.utime(self.handle, ns=(stamp, stamp))
        return Path(f"/proc/self/fd/{self.handle}")


@contextlib.contextmanager
def spooled(member: Member) -> Iterator[Path]:
    """Yields a path with the bytes of a file of a tar, for decoders that take paths.

    In memory where the system has such files and the decoder needs no suffix: they go with the process, also with one
    that is killed; one for each thread, so that another file must not be spooled before this one was read. Else a
    temporary file.

    Raises: AudioUnreadable as `Member.read` does.
    """
    checked, row = member.tar.checked, member.row
    content = member.mapped() if checked[row] == MARKED else None
    if content is None:
        content = member.read()
        if hasattr(os, "memfd_create") and bytes(content[:4]).startswith(MARKS):
            checked[row] = MARKED
    if checked[row] == MARKED:
        if not hasattr(_of_thread, "file"):
            _of_thread.file = MemoryFile()
        stamp = int.from_bytes(bytes.fromhex(member.digest)[:7])  # in nanoseconds two years at most: long ago
        try:
            file = _of_thread.file.holding(content, stamp=stamp)
        except OSError as error:
            raise AudioUnreadable(f"{member.lost} ({error.strerror})") from error
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="ossicle-") as folder:  # Windows opens no file twice that is open to write
        path = Path(folder, "file" + PurePosixPath(member.name).suffix)
        path.write_bytes(content)
        yield path
