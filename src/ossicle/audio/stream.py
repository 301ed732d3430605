"""Sound that is still arriving: WAV or raw samples from a pipe, as blocks of what every decoder hands over.

A WAV in a pipe does not know its length: writers put 0 or the largest number there, so the data last until the pipe
ends, unless a smaller length is reached first.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ossicle.audio.clip import check_block_seconds, check_finite, check_rate, nothing_found, to_mono
from ossicle.audio.header import known
from ossicle.audio.limits import DEFAULT_LIMITS, AudioLimits
from ossicle.audio.recording import check_shape
from ossicle.audio.resample import resampled
from ossicle.audio.source import AudioInfo, to_float32
from ossicle.errors import AudioRefused, AudioUnreadable
from ossicle.shapes import Float32

NAME = "standard input"
# Names as FFmpeg has them: numpy's type of a sample; three bytes are taken apart by hand.
ENCODINGS = {
    "u8": "u1",
    "s16le": "<i2",
    "s16be": ">i2",
    "s24le": "<i3",
    "s32le": "<i4",
    "f32le": "<f4",
    "f64le": "<f8",
}
_WAV = {(1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le", (3, 32): "f32le", (3, 64): "f64le"}
EXTENSIBLE = 0xFFFE
MAX_CHUNK = 1 << 20  # bytes of a header's part before the samples


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes, such as standard input's buffer."""

    def read(self, count: int, /) -> bytes:
        """So many bytes, or fewer; none at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples lie in a stream of bytes.

    Raises: ValueError for an encoding that is not one of `ENCODINGS`.
    """

    encoding: str
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"samples are not {self.encoding!r} here; allowed are {', '.join(ENCODINGS)}")

    @property
    def frame_bytes(self) -> int:
        """Of one sample of every channel."""
        return int(ENCODINGS[self.encoding][-1]) * self.channels


def stream_blocks(
    file: Readable,
    rate: int,
    *,
    layout: Layout | None = None,
    block_seconds: float = 0.1,
    limits: AudioLimits = DEFAULT_LIMITS,
    cut_off: Callable[[str], None] = lambda sentence: None,
    info: AudioInfo | None = None,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Yields what a pipe brings as mono float32 at `rate`, as it comes; joined, they are what `read_clip` would give.

    Args:
        file: read by `read1` where it has that, which gives what is there without waiting for more
        layout: of raw samples; without it a WAV header is expected
        block_seconds: the most that is waited for
        cut_off: told, in a sentence, when the stream ends early or in the middle of a sample, which is then left out
        info: is told the stream's own rate before the first block, and its frames as they come

    Raises:
        AudioUnreadable: no WAV header where one is expected, or an encoding that is not read
        AudioRefused: as `read_clip`
        ValueError: an argument makes no sense
    """
    check_rate(rate)
    check_block_seconds(block_seconds)
    length = None
    if layout is None:
        layout, length = read_wav_header(file)
    check_shape(NAME, layout.rate, layout.channels, limits)
    info = info or AudioInfo()
    info.rate = layout.rate

    def mono() -> Iterator[Float32[np.ndarray, " _"]]:
        for data in whole_frames(file, layout, length, block_seconds=block_seconds, cut_off=cut_off):
            block = to_float32(samples_of(data, layout.encoding).reshape(-1, layout.channels))
            check_finite(NAME, block, info.frames, layout.rate, limits)
            info.frames += len(block)
            yield to_mono(block)

    empty = True
    for piece in resampled(mono(), layout.rate, rate):
        if len(piece):
            empty = False
            yield piece
    if empty:
        raise AudioRefused(f"{NAME}: {nothing_found(0.0, None)}; at least one is needed")


def whole_frames(
    file: Readable,
    layout: Layout,
    length: int | None,
    *,
    block_seconds: float,
    cut_off: Callable[[str], None],
) -> Iterator[bytes]:
    """Yields bytes in whole frames, waiting for no more than a block at a time."""
    frame = layout.frame_bytes
    wanted = max(1, round(block_seconds * layout.rate)) * frame
    left, held = length, b""
    read = getattr(file, "read1", file.read)
    while left is None or left > 0:
        data = read(wanted if left is None else min(wanted, left))
        if not data:
            break
        left = None if left is None else left - len(data)
        data = held + data
        whole = len(data) // frame * frame
        held = data[whole:]
        if whole:
            yield data[:whole]
    if left and length:
        cut_off(f"{NAME} ends early: its header promises {length} bytes of sound, and {length - left} came")
    if held:
        cut_off(f"{NAME} ends in the middle of a sample: {len(held)} of {frame} bytes are there, and are left out")


def samples_of(data: bytes, encoding: str) -> np.ndarray:
    """Bytes to numbers; three bytes become the upper ones of four, which is the same sound."""
    if encoding == "s24le":
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.int32)
    values = np.frombuffer(data, dtype=ENCODINGS[encoding])
    return values.astype(values.dtype.newbyteorder("="))


def read_wav_header(file: Readable) -> tuple[Layout, int | None]:
    """Reads up to the first sample; gives the layout, and the bytes of sound if the header knows them.

    Raises: AudioUnreadable for anything but a WAV of whole numbers or of floating point.
    """
    head = exactly(file, 12)
    if len(head) < 12:
        raise AudioUnreadable(f"{NAME}: it ends after {len(head)} bytes; a recording has samples")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioUnreadable(
            f"{NAME}: it begins with {head[:4]!r}, which is no WAV; send WAV, or raw samples with --pcm and --rate"
        )
    layout, long_size = None, 0
    while True:
        name, size = struct.unpack("<4sI", header_bytes(file, 8))
        if name == b"data":
            if layout is None:
                raise AudioUnreadable(f"{NAME}: the WAV has samples before it says what they are; send another")
            wide = head[:4] == b"RF64" and size == 0xFFFF_FFFF
            length = long_size if wide else size
            return layout, length if length and known(length, wide=wide) else None
        if size > MAX_CHUNK:
            raise AudioUnreadable(f"{NAME}: a part of the WAV's header claims {size} bytes; {MAX_CHUNK} are allowed")
        body = header_bytes(file, size + size % 2)
        if name == b"fmt ":
            layout = wav_layout(body)
        elif name == b"ds64" and size >= 16:
            long_size = int.from_bytes(body[8:16], "little")


def header_bytes(file: Readable, count: int) -> bytes:
    data = exactly(file, count)
    if len(data) < count:
        raise AudioUnreadable(f"{NAME}: the WAV ends inside its header; a recording has samples")
    return data


def wav_layout(body: bytes) -> Layout:
    if len(body) < 16:
        raise AudioUnreadable(f"{NAME}: the WAV's format has {len(body)} bytes; at least 16 are needed")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == EXTENSIBLE and len(body) >= 26:
        (kind,) = struct.unpack("<H", body[24:26])
    if (kind, bits) not in _WAV:
        raise AudioUnreadable(
            f"{NAME}: the WAV has samples of kind {kind} with {bits} bits; allowed are whole numbers of 8, 16, 24 and "
            "32 bits and floating point of 32 and 64"
        )
    if channels == 0:
        raise AudioUnreadable(f"{NAME}: the WAV has no channels; at least one is needed")
    return Layout(encoding=_WAV[kind, bits], rate=rate, channels=channels)


def exactly(file: Readable, count: int) -> bytes:
    """So many bytes, or fewer at the end: a pipe gives what it has."""
    data = b""
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data
