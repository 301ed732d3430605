"""Ogg: pages of one or several streams, and chains of them, one recording after the other (RFC 3533, section 4).

A link of a chain begins with the first pages of its streams. libsndfile reads the first link alone.
"""

from itertools import pairwise
from typing import BinaryIO

from ossicle.audio.parts import MOST_PARTS, Contents, Part, find

HEAD = 27  # bytes of a page's head before its table
FIRST, LAST = 2, 4  # flags of a stream's first and last page
SOUND = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")


def ogg_contents(data: BinaryIO, at: int, *, size: int) -> Contents:
    """Links of a chain, missing pages, and bytes missing from the last page."""
    begins: list[int] = []
    opening, sounds = False, 0
    due: dict[int, int] = {}  # of each stream of this link, the number of the next page
    lost, ended, missing = 0, True, 0
    while at < size:
        data.seek(at)
        head = data.read(HEAD)
        if head[:4] != b"OggS":
            at = find(data, b"OggS", at + 1, size=size)
            continue
        table = data.read(head[26]) if len(head) == HEAD else b""
        length = HEAD + len(table) + sum(table)
        missing = max(1, at + length - size) if len(head) < HEAD else max(0, at + length - size)
        if len(head) < HEAD:
            break
        serial, number = int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
        if head[5] & FIRST:
            if not opening:
                begins.append(at)
                due, opening = {}, True
            if len(begins) == 1:
                sounds += data.read(8).startswith(SOUND)
        else:
            opening = False
        lost += 0 < number - due.get(serial, number)
        due[serial] = number + 1
        ended = bool(head[5] & LAST)
        at += length
    if len(begins) > MOST_PARTS:
        return Contents(refusal=f"the file contains more than {MOST_PARTS} consecutive recordings")
    remarks = []
    if lost:
        remarks.append(f"pages are missing at {lost} positions; later times are too early")
    if not ended and not missing:
        remarks.append("the last page is not marked as last; the recording may be truncated")
    parts = tuple(Part(begin=begin, end=end) for begin, end in pairwise([*begins, size]))
    return Contents(
        parts=parts if len(parts) > 1 else (), missing=missing, tracks=max(1, sounds), remarks=tuple(remarks)
    )
