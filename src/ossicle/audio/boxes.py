"""Media that FFmpeg reads: detect truncated and concatenated files by their outermost boxes.

FFmpeg does not report missing audio, and stops at the end of the first MP4, FLV or TTA.
"""

from typing import BinaryIO

from ossicle.audio.parts import Contents, skip_tags

MOST_BOXES = 1_000_000
MATROSKA, SEGMENT = b"\x1aE\xdf\xa3", 0x18538067
MP4 = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
JOINED = (
    "the file contains another recording after the first one, which cannot be decoded; save each as a separate file"
)


def media_contents(data: BinaryIO, begin: int, *, size: int) -> Contents:
    """Contents of an MP4, Matroska, FLV or TTA file; empty for any other file."""
    data.seek(begin)
    head = data.read(12)
    if head[4:8] in MP4:
        return mp4_contents(data, begin, size=size)
    if head[:4] == MATROSKA:
        return matroska_contents(data, begin, size=size)
    if head[:4] == b"FLV\x01":
        end = flv_end(data, begin, size=size)
        data.seek(end)
        return Contents(refusal=JOINED if data.read(4) == b"FLV\x01" else "")
    if head[:4] == b"TTA1":
        data.seek(skip_tags(data, tta_end(data, begin), size=size))
        return Contents(refusal=JOINED if data.read(4) in (b"TTA1", b"ID3\x03", b"ID3\x04") else "")
    return Contents()


def mp4_contents(data: BinaryIO, at: int, *, size: int) -> Contents:
    """Boxes: a length of 32 bits, or 64 after the name, and a name (ISO/IEC 14496-12, 4.2)."""
    films = 0
    for _ in range(MOST_BOXES):
        data.seek(at)
        head = data.read(16)
        length, name = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16])
        films += name == b"moov"
        if films > 1:
            return Contents(refusal=JOINED)
        if length < 8:  # 0 is to the end
            break
        if at + length > size:
            return Contents(missing=at + length - size if name == b"mdat" else 0)
        at += length
    return Contents()


def matroska_contents(data: BinaryIO, at: int, *, size: int) -> Contents:
    """A header, and a segment whose length may be unknown (RFC 8794, section 4)."""
    for _ in range(2):
        data.seek(at)
        head = data.read(12)
        kind, used = number(head, marked=True)
        length, more = number(head[used:], marked=False)
        if not used or not more or length == (1 << 7 * more) - 1:  # all ones are unknown
            break
        at += used + more + length
        if kind == SEGMENT:
            return Contents(missing=max(0, at - size))
    return Contents()


def number(data: bytes, *, marked: bool) -> tuple[int, int]:
    """A number whose first byte encodes its length, with or without that mark; and its length in bytes, or 0."""
    length = 9 - data[0].bit_length() if data else 0
    if not 0 < length <= min(8, len(data)):
        return 0, 0
    value = int.from_bytes(data[:length])
    return (value if marked else value & (1 << 7 * length) - 1), length


def flv_end(data: BinaryIO, at: int, *, size: int) -> int:
    """End of the tags of an FLV: each has a header of 11 bytes and is followed by its length."""
    at += 13
    while at < size:
        data.seek(at)
        head = data.read(11)
        length = 11 + int.from_bytes(head[1:4])
        data.seek(at + length)
        if len(head) < 11 or int.from_bytes(data.read(4)) != length:
            break
        at += length + 4
    return at


def tta_end(data: BinaryIO, at: int) -> int:
    """End of the frames of a TTA, whose lengths follow its header."""
    data.seek(at)
    head = data.read(22)
    rate, samples = int.from_bytes(head[10:14], "little"), int.from_bytes(head[14:18], "little")
    frames = -(-samples // max(1, 256 * rate // 245))
    table = data.read(min(4 * frames, 1 << 24))
    lengths = (int.from_bytes(table[place : place + 4], "little") for place in range(0, len(table), 4))
    return at + 22 + 4 * frames + 4 + sum(lengths)
