"""MPEG audio: count its frames (ISO/IEC 11172-3 and 13818-3).

A file has no header. A tag in a silent first frame (Xing, Info, VBRI) may contain the number of frames. libsndfile
reads only that many; without a tag it estimates the number from the first frame, which truncates files of variable bit
rate. So the frames are counted here, and a file with no tag, or with more frames, is read with a correct tag in front.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO

from ossicle.audio.parts import MOST_PARTS, Contents, Part, skip_tags

KBITS = {  # by MPEG-1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
FRAME = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]")  # what a header may begin with
KIND = 0xFFFE_0C00  # the bits that all frames of a recording share: version, layer, rate
SIDE = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}  # bytes, by MPEG-1 and mono
LOOKED_AT = 64  # bytes of each frame: as far as a tag's numbers lie
FEW = 4  # difference from the tag's number of frames that is ignored: a tenth of a second
RESYNC = 1 << 16
DELAY = 529  # samples, of a decoder


def frame_bytes(head: int) -> int:
    """The length of a frame by the upper 23 bits of its header; 0 for an invalid header."""
    version, layer = head >> 10 & 3, 4 - (head >> 8 & 3)
    kbits, rate = head >> 3 & 15, head >> 1 & 3
    if head >> 12 != 0x7FF or version == 1 or layer == 4 or not 0 < kbits < 15 or rate == 3:
        return 0
    bits, hertz = 1_000 * KBITS[version == 3, layer][kbits - 1], RATES[version][rate]
    if layer == 1:
        return (12 * bits // hertz + (head & 1)) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + (head & 1)


LENGTHS = {head: length for head in range(0x7FF << 12, 0x800 << 12) if (length := frame_bytes(head))}


@dataclass(kw_only=True)
class Run:
    """Consecutive frames of one kind; `claimed` is their number by the tag before them, if there is one."""

    begin: int
    kind: int
    claimed: int | None = None
    claimed_bytes: int = 0
    frames: int = 0
    end: int = 0


def mpeg_contents(data: BinaryIO, begin: int, *, size: int) -> Contents:
    """The recordings in an MPEG file; empty for a file without two consecutive frames."""
    runs = [run for run in runs_of(data, begin, size=size) if run.frames > 0]
    if len(runs) > MOST_PARTS:
        return Contents(refusal=f"the file contains more than {MOST_PARTS} consecutive recordings")
    missing = 0
    for run in runs:
        there = (size if run is runs[-1] else run.end) - run.begin
        if run.claimed_bytes - there > run.claimed_bytes // 100:
            missing = run.claimed_bytes - there
    # A few frames beyond the tag's number are an error of the tag.
    runs = [run for run in runs if run.claimed is not None or run.frames > FEW or len(runs) == 1]
    whole = not runs or (len(runs) == 1 and runs[0].claimed is not None)
    return Contents(parts=() if whole else tuple(part_of(data, run) for run in runs), missing=missing)


def runs_of(data: BinaryIO, at: int, *, size: int) -> list[Run]:
    """Walks over the frames of a file, from tag to tag; at most a few more than `MOST_PARTS`."""
    runs: list[Run] = []
    run: Run | None = None
    while at < size and len(runs) <= MOST_PARTS:
        data.seek(at)
        frame = data.read(LOOKED_AT)
        head = int.from_bytes(frame[:4])
        length = LENGTHS.get(head >> 9, 0)
        if not length or (run is not None and (head ^ run.kind) & KIND and not follows(data, at + length, head)):
            tagged = skip_tags(data, at, size=size)
            run, at = (None, tagged) if tagged > at else (run, next_frame(data, at + 1, size=size))
            continue
        tag = tag_of(frame, head)
        if run is None or tag or (head ^ run.kind) & KIND or run.frames == run.claimed:
            run = Run(begin=at, kind=head)
            runs.append(run)
        if tag:
            run.claimed, run.claimed_bytes = tag
        else:
            run.frames += 1
        at += length
        run.end = min(at, size)
    return runs


def follows(data: BinaryIO, at: int, head: int) -> bool:
    """Whether a frame of the same kind as `head` begins there."""
    data.seek(at)
    other = int.from_bytes(data.read(4))
    return other >> 9 in LENGTHS and not (other ^ head) & KIND


def next_frame(data: BinaryIO, at: int, *, size: int) -> int:
    """Start of the next frame that is followed by another one, or by the end of the file."""
    while at < size:
        data.seek(at)
        piece = data.read(RESYNC)
        for found in FRAME.finditer(piece):
            head = int.from_bytes(piece[found.start() : found.start() + 4].ljust(4, b"\0"))
            length = LENGTHS.get(head >> 9, 0)
            behind = at + found.start() + length
            if length and (behind == size or follows(data, behind, head)):
                return at + found.start()
        at += max(1, len(piece) - 3)
    return size


def tag_of(frame: bytes, head: int) -> tuple[int | None, int] | None:
    """Number of frames and bytes by the tag in this frame; None and 0 where the tag has none."""
    if head >> 17 & 3 != 1:  # layer III alone
        return None
    side = 4 + SIDE[head >> 19 & 3 == 3, head >> 6 & 3 == 3]
    for at in (side, side + 2):  # after a checksum
        if frame[at : at + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(frame[at + 4 : at + 8])
            numbers = [int.from_bytes(frame[at + 8 + 4 * place : at + 12 + 4 * place]) for place in range(2)]
            frames = numbers.pop(0) if flags & 1 else None
            return frames, numbers[0] if flags & 2 else 0
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54]), int.from_bytes(frame[46:50])
    return None


def part_of(data: BinaryIO, run: Run) -> Part:
    """The frames as a separate file with the correct number of frames."""
    if run.claimed is not None or run.kind >> 17 & 3 != 1:  # layer II has no such tag, and in practice one rate
        return Part(begin=run.begin, end=run.end)
    return Part(begin=run.begin, end=run.end, head=tagged_frames(run.kind, run.frames))


def tagged_frames(head: int, frames: int) -> bytes:
    """Two silent frames of the same kind; the first has a tag with the number of frames that follow.

    libsndfile reads such a tag as LAME's and drops the decoder's delay. The tag makes it drop exactly the second frame,
    so that every sample of the others is kept.
    """
    side = SIDE[head >> 19 & 3 == 3, head >> 6 & 3 == 3]
    for kbits in range(1, 15):
        own = head & ~(0xF << 12) | kbits << 12 | 1 << 16  # that bitrate, no checksum
        if (length := LENGTHS[own >> 9]) >= 4 + side + 64:
            break
    skipped = (1_152 if head >> 19 & 3 == 3 else 576) - DELAY
    tag = b"Xing" + (1).to_bytes(4) + (frames + 1).to_bytes(4) + b"LAME".ljust(21, b"\0") + (skipped << 12).to_bytes(3)
    return (own.to_bytes(4) + bytes(side) + tag).ljust(length, b"\0") + own.to_bytes(4).ljust(length, b"\0")
