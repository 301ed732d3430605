"""A file as one or several recordings, each in a stretch of its bytes.

libsndfile reads the first of what lies one after the other in a file, for as long as its header says. Where that is not
all, or the header is wrong, the file is read through views: each shows one stretch as a file of its own, with other
bytes in place of the wrong ones.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MOST_PARTS = 10_000  # of one file
TAGS_AT_ONCE = 100
ZEROS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """A recording inside a file: bytes `begin` to `end`, behind those of `head`.

    `patches` are bytes that stand in place of others, by their place in the part.
    """

    begin: int
    end: int
    head: bytes = b""
    patches: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the headers of a file say of it.

    `parts` are what to read, one after the other; none where the file is to be read as it is. Of the last one
    `promised` bytes of sound should be there, and `there` are: 0 and more where the header says 0 and yet something
    follows, 1 and 1 where it does not say. `missing` bytes belong to the file by another account. `tracks` are how many
    recordings lie side by side. `refusal` says why it cannot be read whole, `remarks` what is odd about a file that is.
    `binding` tells that a decoder which takes the file as it is would lose some of it.
    """

    parts: tuple[Part, ...] = ()
    promised: int = 1
    there: int = 1
    missing: int = 0
    binding: bool = False
    tracks: int = 1
    refusal: str = ""
    remarks: tuple[str, ...] = ()


class View:
    """A part as a file of its own, for libsndfile's callbacks: nothing is ever raised in there.

    What went wrong is in `error`.
    """

    def __init__(self, file: Path, part: Part) -> None:
        self.file = open(file, "rb", buffering=0)
        self.part, self.at = part, 0
        self.size = len(part.head) + part.end - part.begin
        self.error: BaseException | None = None

    def __enter__(self) -> "View":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        self.at = min(max(0, base + offset), self.size)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer as far as the part goes."""
        try:
            data = self.bytes(self.at, min(self.at + len(buffer), self.size))
        except BaseException as error:  # also Ctrl-C, which C code would swallow
            self.error = error
            return 0
        buffer[0 : len(data)] = data
        self.at += len(data)
        return len(data)

    def bytes(self, first: int, last: int) -> bytes:
        """Bytes `first` to `last` of the part, or fewer where the file has become shorter."""
        head = self.part.head[first:last]
        self.file.seek(self.part.begin + max(0, first - len(self.part.head)))
        wanted, data = last - first, bytearray(head)
        while len(data) < wanted and (more := self.file.read(wanted - len(data))):
            data += more
        for place, patch in self.part.patches:
            for at, value in enumerate(patch, place - first):
                if 0 <= at < len(data):
                    data[at] = value
        return bytes(data)


def skip_tags(data: BinaryIO, at: int, *, size: int) -> int:
    """Where the tags end that begin here: ID3 of both kinds, APE, Lyrics3. `at` itself where there is none."""
    for _ in range(TAGS_AT_ONCE):
        data.seek(at)
        head = data.read(32)
        length = 0
        if head[:3] == b"ID3" and len(head) >= 10:
            length = 10 + seven_bits(head[6:10]) + (10 if head[5] & 0x10 else 0)
        elif head[:3] == b"TAG" and size - at >= 128:
            length = 227 if head[:4] == b"TAG+" else 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            length = int.from_bytes(head[12:16], "little") + (32 if head[23] & 0x20 else 0)  # with or without its head
        elif head[:11] == b"LYRICSBEGIN":
            length = find(data, b"LYRICS200", at, size=min(size, at + (1 << 20))) + 9 - at
        if length <= 0:
            return at
        at = min(at + length, size)
    return at


def seven_bits(data: bytes) -> int:
    """A number in seven bits of each byte, as ID3 has it."""
    return sum(part << 7 * place for place, part in enumerate(reversed(data)))


def skip_zeros(data: BinaryIO, at: int, *, size: int) -> int:
    """Where the first byte is that is not zero."""
    data.seek(at)
    while at < size and (piece := data.read(ZEROS_AT_ONCE)):
        left = piece.lstrip(b"\0")
        if left:
            return at + len(piece) - len(left)
        at += len(piece)
    return size


def find(data: BinaryIO, mark: bytes, at: int, *, size: int) -> int:
    """Where the bytes come next; the end of the file, where they do not."""
    held = b""
    while at < size:
        data.seek(at)
        piece = data.read(min(1 << 16, size - at))
        if not piece:
            break
        joined = held + piece
        if (found := joined.find(mark)) >= 0:
            return at - len(held) + found
        at += len(piece)
        held = joined[-len(mark) + 1 :]
    return size
