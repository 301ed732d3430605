"""What a header promises, so that a file that was cut is not taken for a shorter recording.

libsndfile and FFmpeg take the sound that is there for all there ever was. The containers below say in bytes how much
there should be; FLAC says it in samples, which libsndfile hands on; OGG, MP3 and most media do not say it at all.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

# Bytes. From here on, and at 0, a length of 32 bits stands for "not known": programs that write to a pipe put it there.
LONGEST = 0x7F00_0000
LONGEST_64 = 1 << 62
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
    """Gives the bytes of sound that a header promises and those that the file has; 1 and 1 where it promises none."""
    with open(file, "rb") as data:
        size = os.fstat(data.fileno()).st_size
        head = data.read(40)
        mark, begin, length, longest = head[:4], size, 0, LONGEST
        if mark == b".snd" and len(head) >= 12:  # AU
            begin, length = struct.unpack(">II", head[4:12])
        elif mark in CONTAINERS:
            begin, length = find_sound(data, *CONTAINERS[mark], size=size)
    if mark == b"RF64" and length == 0xFFFF_FFFF:
        (length,) = struct.unpack("<Q", head[28:36])
    if mark in (b"RF64", b"riff", b"caff"):
        longest = LONGEST_64
    there = min(length, size - begin)
    return (length, there) if 0 < length < longest and there > 0 else (1, 1)


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
