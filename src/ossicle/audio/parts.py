"""A file as one or several recordings, each a range of its bytes.

libsndfile reads only the first of several consecutive recordings, with the length in its header. Where there are more,
or the header is wrong, the file is read through views: each presents one range as a separate file with a corrected
header.
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
    """A recording inside a file: `head`, followed by the bytes `begin` to `end`.

    `patches` are (position in the part, bytes that replace those there).
    """

    begin: int
    end: int
    head: bytes = b""
    patches: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a file according to its headers.

    Attributes:
        parts: recordings to read in order; empty if the file is read as it is
        promised, there: bytes of sound in the last part by its header, and in the file; 0 and more where the header has
            0 but data follow, 1 and 1 where the header does not have a length
        missing: bytes that the file lacks according to its structure
        tracks: number of parallel recordings
        refusal: reason why the file cannot be read completely, or ""
        remarks: warnings about a file that is read
        binding: whether a decoder that ignores `parts` would lose a part of the file
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
    """A part as a separate file for libsndfile's callbacks, which must not raise; an exception is kept in `error`."""

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
        """Fills the buffer, up to the end of the part."""
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
    """End of the tags that begin at `at`: ID3 of both versions, APE, Lyrics3; `at` itself if there are none."""
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
    """Position of the next nonzero byte."""
    data.seek(at)
    while at < size and (piece := data.read(ZEROS_AT_ONCE)):
        left = piece.lstrip(b"\0")
        if left:
            return at + len(piece) - len(left)
        at += len(piece)
    return size


def find(data: BinaryIO, mark: bytes, at: int, *, size: int) -> int:
    """Position of the next occurrence of `mark`; the end of the file if there is none."""
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
