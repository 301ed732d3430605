"""Live audio: WAV or raw samples from a pipe, as blocks of samples.

The length in a WAV header is unknown in a pipe: writers put 0 or the largest number there, so the data last until the
pipe ends. Data after a smaller length are handled by their kind: chunks and tags end the audio, another WAV of the same
layout continues it, and samples that the header does not count are read too.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ossicle.audio.chunks import KNOWN, known
from ossicle.audio.clip import check_block_seconds, check_finite, check_rate, nothing_found, to_mono
from ossicle.audio.limits import DEFAULT_LIMITS, AudioLimits
from ossicle.audio.notes import JUDGED_SECONDS, Notes
from ossicle.audio.recording import check_shape
from ossicle.audio.resample import resampled
from ossicle.audio.source import AudioInfo, to_float32
from ossicle.errors import AudioRefused, AudioUnreadable
from ossicle.types import Float32

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
HEAD_BYTES = 12  # of a WAV, ahead of its chunks
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
MAX_CHUNK = 1 << 20  # bytes of a header's part before the samples


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes, such as standard input's buffer."""

    def read(self, count: int, /) -> bytes:
        """Up to `count` bytes; none at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of samples in a stream of bytes.

    Raises: ValueError for an encoding that is not one of `ENCODINGS`.
    """

    encoding: str
    rate: int
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding {self.encoding!r} is not available; available: {', '.join(ENCODINGS)}")

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
    remark: Callable[[str], None] | None = None,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Yields blocks from a pipe as mono float32 at `rate`; joined, they equal the result of `read_clip`.

    Args:
        file: read with `read1` if available, which returns data without waiting for more
        layout: of raw samples; without it a WAV header is expected
        block_seconds: maximum length of a block
        cut_off: called with a sentence when the stream ends early or in the middle of a sample, which is then dropped
        info: receives the stream's own rate before the first block, and counts frames as they arrive
        remark: called with each warning, a sentence; by default it is logged

    Raises:
        AudioUnreadable: no WAV header where one is expected, or an encoding that is not supported
        AudioRefused: as `read_clip`
        ValueError: an argument is invalid
    """
    check_rate(rate)
    check_block_seconds(block_seconds)
    length = None
    if layout is None:
        layout, length = read_wav_header(file)
    check_shape(NAME, layout.rate, layout.channels, limits)
    info = info or AudioInfo()
    info.rate = layout.rate
    notes = Notes(NAME, report=remark)

    def mono() -> Iterator[Float32[np.ndarray, " _"]]:
        for data in whole_frames(
            sound_of(file, layout, length, block_seconds=block_seconds, cut_off=cut_off, notes=notes), layout, cut_off
        ):
            block = to_float32(samples_of(data, layout.encoding).reshape(-1, layout.channels))
            check_finite(NAME, block, info.frames, layout.rate, limits)
            info.frames += len(block)
            mean = to_mono(block)
            notes.weigh(block, mean)
            if info.frames >= JUDGED_SECONDS * layout.rate:  # the end may be far
                notes.judge()
            yield mean
        notes.judge()

    empty = True
    for piece in resampled(mono(), layout.rate, rate):
        if len(piece):
            empty = False
            yield piece
    if empty:
        raise AudioRefused(f"{NAME}: {nothing_found(0.0, None)}; at least one is needed")


def whole_frames(pieces: Iterable[bytes], layout: Layout, cut_off: Callable[[str], None]) -> Iterator[bytes]:
    """Yields bytes in whole frames."""
    frame, held = layout.frame_bytes, b""
    for data in pieces:
        data = held + data
        whole = len(data) // frame * frame
        held = data[whole:]
        if whole:
            yield data[:whole]
    if held:
        cut_off(f"{NAME} ends in the middle of a sample; its {len(held)} of {frame} bytes are dropped")


def sound_of(
    file: Readable,
    layout: Layout,
    length: int | None,
    *,
    block_seconds: float,
    cut_off: Callable[[str], None],
    notes: Notes,
) -> Iterator[bytes]:
    """Yields the bytes of sound, waiting for no more than a block at a time.

    Args:
        length: that the header promises, if it does
    """
    wanted = max(1, round(block_seconds * layout.rate)) * layout.frame_bytes
    read = getattr(file, "read1", file.read)
    while True:
        left = length
        while (left is None or left > 0) and (data := read(wanted if left is None else min(wanted, left))):
            left = None if left is None else left - len(data)
            yield data
        if left and length:
            cut_off(f"{NAME} ends early: its header promises {length} bytes of sound, and {length - left} came")
        if left is None or left or length is None:
            return
        zeros, head, following = after_sound(file)
        if following is not None:
            other, next_length = following
            if other != layout:
                raise AudioUnreadable(
                    f"{NAME}: another WAV follows, of {other.rate} Hz and {other.channels} channels where the first "
                    f"has {layout.rate} Hz and {layout.channels}; expected one rate and number of channels"
                )
            notes.add("the stream contains several consecutive recordings; they are read as one")
            length = next_length
        elif head:
            notes.add(f"its header promises {length} bytes of sound, but more follow; all are read")
            for at in range(0, zeros, wanted):
                yield bytes(min(wanted, zeros - at))
            yield head
            length = None
        else:
            return


def after_sound(file: Readable) -> tuple[int, bytes, tuple[Layout, int | None] | None]:
    """Reads the data after the length in the header.

    Returns the number of zeros and the bytes after them that are audio beyond the header's length; or the header of
    another WAV; or nothing at the end of the audio.
    """
    zeros = 0
    while True:
        head = exactly(file, HEAD_BYTES)
        while head and not head.strip(b"\0"):  # what fills up a chunk or a disk, or silence ahead of more sound
            zeros += len(head)
            head = exactly(file, HEAD_BYTES)
        zeros += len(head) - len(head.lstrip(b"\0"))
        head = head.lstrip(b"\0")
        head += exactly(file, HEAD_BYTES - len(head))
        if len(head) < HEAD_BYTES or head.startswith(TAGS):
            return 0, b"", None
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            return 0, b"", read_wav_header(file, head)
        name, length = struct.unpack("<4sI", head[:8])
        if not (name in KNOWN or (length <= MAX_CHUNK and all(0x20 <= letter < 0x7F for letter in name))):
            return zeros, head, None
        over = length - (HEAD_BYTES - 8)  # bytes of the chunk still to come
        if over < 0:  # a chunk that is shorter than what was read of it
            file = Ahead(head[8 + length :], file)
        while over > 0 and (data := file.read(min(over, MAX_CHUNK))):
            over -= len(data)
        zeros = 0


class Ahead:
    """A stream with bytes put back that were already read."""

    def __init__(self, held: bytes, file: Readable) -> None:
        self.held, self.file = held, file

    def read(self, count: int, /) -> bytes:
        data, self.held = self.held[:count], self.held[count:]
        return data or self.file.read(count)


def samples_of(data: bytes, encoding: str) -> np.ndarray:
    """Converts bytes to numbers; three bytes become the upper ones of four."""
    if encoding == "s24le":
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.int32)
    values = np.frombuffer(data, dtype=ENCODINGS[encoding])
    return values.astype(values.dtype.newbyteorder("="))


def read_wav_header(file: Readable, head: bytes = b"") -> tuple[Layout, int | None]:
    """Reads up to the first sample; gives the layout, and the bytes of sound if the header has them.

    Args:
        head: the beginning, where it was read already

    Raises: AudioUnreadable for anything but a WAV of whole numbers or of floating point.
    """
    head = head or exactly(file, HEAD_BYTES)
    if len(head) < 12:
        raise AudioUnreadable(f"{NAME}: it ends after {len(head)} bytes, inside its header")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise AudioUnreadable(
            f"{NAME}: it begins with {head[:4]!r}, which is not WAV; send WAV, or raw samples with --pcm and --rate"
        )
    layout, long_size = None, 0
    while True:
        name, size = struct.unpack("<4sI", header_bytes(file, 8))
        if name == b"data":
            if layout is None:
                raise AudioUnreadable(f"{NAME}: the WAV has samples before their format")
            wide = head[:4] == b"RF64" and size == 0xFFFF_FFFF
            length = long_size if wide else size
            return layout, length if length and known(length, wide=wide) else None
        if size > MAX_CHUNK:
            raise AudioUnreadable(
                f"{NAME}: a chunk of the WAV's header has {size} bytes; at most {MAX_CHUNK} are allowed"
            )
        body = header_bytes(file, size + size % 2)
        if name == b"fmt ":
            layout = wav_layout(body)
        elif name == b"ds64" and size >= 16:
            long_size = int.from_bytes(body[8:16], "little")


def header_bytes(file: Readable, count: int) -> bytes:
    data = exactly(file, count)
    if len(data) < count:
        raise AudioUnreadable(f"{NAME}: the WAV ends inside its header")
    return data


def wav_layout(body: bytes) -> Layout:
    if len(body) < 16:
        raise AudioUnreadable(f"{NAME}: the WAV's format has {len(body)} bytes; at least 16 are needed")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == EXTENSIBLE and len(body) >= 26:
        (kind,) = struct.unpack("<H", body[24:26])
    if (kind, bits) not in _WAV:
        raise AudioUnreadable(
            f"{NAME}: the WAV has samples of kind {kind} with {bits} bits; expected integers of 8, 16, 24 or 32 bits, "
            "or floating point of 32 or 64"
        )
    if channels == 0:
        raise AudioUnreadable(f"{NAME}: the WAV has 0 channels; expected at least 1")
    return Layout(encoding=_WAV[kind, bits], rate=rate, channels=channels)


def exactly(file: Readable, count: int) -> bytes:
    """Exactly `count` bytes, or fewer at the end of the pipe."""
    data = b""
    while len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data
