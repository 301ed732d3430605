"""What a header promises, so that a file that was cut is not taken for a shorter recording.

libsndfile and FFmpeg take the sound that is there for all there ever was. The containers below say in bytes how much
there should be; FLAC says it in samples, which libsndfile hands on. An MP3 often says it in its first frame, an OGG how
long its last page is; most media do not say it at all.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

# What programs that write to a pipe put in place of a length of 32 bits, besides 0: about the largest number, with or
# without a sign. A length of 64 bits is not known from here on.
UNKNOWN = (range(0x7F00_0000, 0x8000_0200), range(0xFFFF_FF00, 1 << 32))
LONGEST_64 = 1 << 62
OGG_PAGE = 27 + 255 + 255 * 255  # bytes at most: head, table, content
MAX_CHUNKS = 1_000

# First bytes: where the chunks begin, how name and length of one are packed, the name of the samples', and what lengths
# are rounded up to.
CONTAINERS = {
    b"RIFF": (12, "<4sI", b"data", 2),
    b"RIFX": (12, ">4sI", b"data", 2),
    b"RF64": (12, "<4sI", b"data", 2),
    b"FORM": (12, ">4sI", b"SSND", 2),
    b"caff": (8, ">4sq", b"data", 1),
    b"riff": (40, "<16sQ", b"data", 8),  # W64
}


def sound_bytes(file: Path) -> tuple[int, int]:
    """Gives the bytes of sound that a header promises and those that the file has.

    0 are promised where the header says so and yet something follows; 1 and 1 stand for a header that does not say it.
    """
    with open(file, "rb") as data:
        size = os.fstat(data.fileno()).st_size
        head = data.read(40)
        mark, begin, length = head[:4], size, 0
        if mark == b".snd" and len(head) >= 12:  # AU
            begin, length = struct.unpack(">II", head[4:12])
        elif mark in CONTAINERS:
            begin, length = find_sound(data, *CONTAINERS[mark], size=size)
    if mark == b"RF64" and length == 0xFFFF_FFFF:
        (length,) = struct.unpack("<Q", head[28:36])
    there = size - begin
    if there <= 0 or not known(length, wide=mark in (b"RF64", b"riff", b"caff")):
        return 1, 1
    return length, min(length, there) or there


def known(length: int, *, wide: bool) -> bool:
    """Whether a length is one, and not what stands for "not known"; 0 may be either."""
    return 0 <= length < LONGEST_64 if wide else not any(length in values for values in UNKNOWN)


def missing_bytes(file: Path) -> int:
    """Gives what the last page of an OGG, or an MP3, lacks by its own account; 0 where it is whole or does not say.

    Of an MP3 a hundredth may be missing: some programs count tags as sound.
    """
    with open(file, "rb") as data:
        size = os.fstat(data.fileno()).st_size
        head = data.read(10)
        if head[:4] == b"OggS":
            return max(0, ogg_bytes(data, size=size) - size)
        begin = 0
        if head[:3] == b"ID3" and len(head) == 10:  # a tag, its length in four times seven bits
            begin = 10 + sum(part << 7 * place for place, part in enumerate(reversed(head[6:])))
        promised = mp3_bytes(data, begin)
        missing = begin + promised - size
        return missing if promised and missing > promised // 100 else 0


def ogg_bytes(data: BinaryIO, *, size: int) -> int:
    """Where the last page ends, by its own head."""
    start = max(0, size - OGG_PAGE)
    data.seek(start)
    tail = data.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return size
    page = tail[at:]
    if len(page) < 27:
        return size + 1
    return start + at + 27 + page[26] + sum(page[27 : 27 + page[26]])


def mp3_bytes(data: BinaryIO, begin: int) -> int:
    """What the first frame says of all frames, in the tag that encoders of variable rates put there; else 0."""
    data.seek(begin)
    frame = data.read(64)
    mark = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:1] != b"\xff" or mark < 0:
        return 0
    flags = int.from_bytes(frame[mark + 4 : mark + 8])
    at = mark + 8 + 4 * (flags & 1)  # the number of frames goes before
    return int.from_bytes(frame[at : at + 4]) if flags & 2 else 0


def find_sound(data: BinaryIO, at: int, form: str, wanted: bytes, step: int, *, size: int) -> tuple[int, int]:
    """Gives where the samples' chunk begins and the bytes that it says it has; none where there is no such chunk."""
    for _ in range(MAX_CHUNKS):
        data.seek(min(at, size))
        head = data.read(struct.calcsize(form))
        if len(head) < struct.calcsize(form):
            break
        name, length = struct.unpack(form, head)
        if len(name) == 16:  # W64 counts the chunk's own head
            length -= len(head)
        if name[:4] == wanted:
            return at + len(head), length
        at += len(head) + max(0, length) + -length % step
    return size, 0
