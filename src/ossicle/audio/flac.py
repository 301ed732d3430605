"""FLAC: detect samples beyond those that the header counts (RFC 9639).

libsndfile reads only the number of samples in the header. The actual number follows from the last frame.
"""

from typing import BinaryIO

from ossicle.audio.parts import Contents, Part

TAIL = 1 << 18  # bytes searched for the last frame, where the header has no maximum frame size
TOTAL_AT = 21  # position of the number of samples, after "fLaC" and the header of the first block: 4 bits and 4 bytes
BLOCKS = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 256 << code - 8 for code in range(8, 16)}}
CRC8_POLYNOMIAL, CRC16_POLYNOMIAL = 0x07, 0x8005


def table(polynomial: int, bits: int) -> tuple[int, ...]:
    """The remainders of each byte."""
    top, values = 1 << bits - 1, []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & ((1 << bits) - 1)
        values.append(value)
    return tuple(values)


CRC8, CRC16 = table(CRC8_POLYNOMIAL, 8), table(CRC16_POLYNOMIAL, 16)


def flac_contents(data: BinaryIO, begin: int, *, size: int) -> Contents:
    """Contents of the file, with a patched header if the last frame ends after the last sample of the header."""
    data.seek(begin)
    head = data.read(26)
    if len(head) < 26 or head[4] & 0x7F != 0:
        return Contents()
    total = int.from_bytes(head[18:26]) & (1 << 36) - 1
    largest, longest = int.from_bytes(head[10:12]), int.from_bytes(head[15:18])
    if total == 0:
        return Contents()
    found = last_sample(data, head[8:10] == head[10:12], largest, longest, total, size=size)
    if found <= total:
        return Contents()
    patch = (TOTAL_AT, bytes([head[TOTAL_AT] & 0xF0, 0, 0, 0, 0]))  # unknown
    remark = f"its header promises {total} samples, but the file contains {found}; all are read"
    return Contents(parts=(Part(begin=begin, end=size, patches=(patch,)),), remarks=(remark,))


def last_sample(data: BinaryIO, fixed: bool, largest: int, longest: int, total: int, *, size: int) -> int:
    """End of the last frame of the file in samples, if it is after `total`; else 0."""
    start = max(0, size - (2 * longest or TAIL))
    data.seek(start)
    tail = data.read(size - start)
    stop, at = len(tail), len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        end = frame_end(tail[at : at + 16], largest)
        if end is None or (fixed and tail[at + 1] & 1):
            continue
        if end <= total:
            return 0
        if checksum16(tail[at:stop]) == 0:  # of a frame, with its own at the end
            return end
        stop = at
    return 0


def frame_end(head: bytes, largest: int) -> int | None:
    """Number of the sample after a frame, by its header; None if there is no header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    code, length = head[2] >> 4, 5
    lead = 8 - (head[4] ^ 0xFF).bit_length()  # bytes of the number, as in UTF-8; 0 for one
    if lead == 1 or lead > 7 or code == 0:
        return None
    number = head[4] & 0xFF >> lead + 1 if lead else head[4]
    for byte in head[5 : 4 + max(1, lead)]:
        number, length = number << 6 | byte & 0x3F, length + 1
    block = BLOCKS.get(code, 0)
    if code in (6, 7):
        block = int.from_bytes(head[length : length + code - 5]) + 1
        length += code - 5
    length += {12: 1, 13: 2, 14: 2}.get(head[2] & 0xF, 0)
    if len(head) <= length or checksum8(head[: length + 1]) != 0:
        return None
    return (number if head[1] & 1 else number * largest) + block


def checksum8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = CRC8[value ^ byte]
    return value


def checksum16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = value << 8 & 0xFF00 ^ CRC16[value >> 8 ^ byte]
    return value
