"""An open file as a stream of blocks: libsndfile first, FFmpeg (through PyAV) for what it cannot read.

Found on the way, and the reason for the shape of this file:
- soundfile's `read` seeks after each call. In libsndfile 1.2.2 a second seek in one OGG handle lands elsewhere
  (Opus and Vorbis), so `SequentialFile` hides the ability: one seek at most, right after opening, then only reads.
  That also stops soundfile from trusting the header's length.
- libsndfile opens headerless files by their suffix, as if noise were sound; such a result is refused.
- mpg123, inside libsndfile, writes to standard error what it thinks of an MP3's stray bytes: `Hush`.
- A path, never a Python file object: a damaged file makes soundfile print tracebacks from its C callbacks.
- FFmpeg demuxers that open other files or addresses (playlists) are not among the accepted ones.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float32, Shaped

from ossicle.audio.content import describe_content
from ossicle.audio.limits import AudioLimits
from ossicle.errors import AudioError, AudioRefused, AudioUnreadable

BLOCK_VALUES = 1 << 18  # samples of all channels decoded at a time: 1 MiB

# The containers taken from libsndfile. The rest of its list is rare, matched by a few weak bytes, and unsafe to guess.
SNDFILE_FORMATS = frozenset(["WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST", "VOC"])

MEDIA_FORMATS = ",".join(
    "aac ac3 aiff amr ape asf avi caf eac3 flac flv matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3 mpeg mpegts "
    "ogg tta w64 wav wv".split()
)

READABLE = "readable are WAV, FLAC, OGG, Opus, MP3, AIFF, CAF, W64, AU and, "
MEDIA = "M4A, MP4, WebM, WMA and other media"

# Whole-number samples: (offset of silence, full scale). Wider ones have no agreed full scale.
FULL_SCALES = {"uint8": (128, 2.0**7), "int8": (0, 2.0**7), "int16": (0, 2.0**15), "int32": (0, 2.0**31)}

Block = Float32[np.ndarray, "time channel"]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An open recording: what decoding showed of it, and its samples.

    `blocks(first)` yields the samples of all channels from frame `first` on; call it once.
    """

    name: str  # for messages
    rate: int
    channels: int
    blocks: Callable[[int], Iterator[Block]]


@contextlib.contextmanager
def open_recording(path: str | os.PathLike[str], limits: AudioLimits) -> Iterator[Recording]:
    """Opens a recording with the first decoder that reads it; rate and channels lie within `limits`.

    Raises:
        AudioUnreadable: there is no such file, or no decoder makes samples of it.
        AudioRefused: it has too many channels or a rate outside the limits.
    """
    name = printable(path)
    # Absolute: "-" would be standard input to libsndfile, and "a:b" an address to FFmpeg.
    file = Path(os.path.abspath(path))
    check_regular(file, name)
    with contextlib.ExitStack() as stack:
        recording = open_with_soundfile(file, name, stack)
        if isinstance(recording, Failure):
            recording = open_with_media(file, name, stack, recording)
        check_shape(recording.name, recording.rate, recording.channels, limits)
        yield recording


def check_shape(name: str, rate: int, channels: int, limits: AudioLimits) -> None:
    """Refuses a rate or a number of channels outside the limits."""
    if not limits.min_rate <= rate <= limits.max_rate:
        raise AudioRefused(f"{name}: the rate is {rate} Hz; allowed are {limits.min_rate} to {limits.max_rate} Hz")
    if not 1 <= channels <= limits.channels:
        raise AudioRefused(f"{name}: there are {channels} channels; allowed are 1 to {limits.channels}")


def printable(path: str | os.PathLike[str]) -> str:
    """The path as it was given, with anything that would break a line or a terminal escaped."""
    text = os.fspath(path)
    return text if text and text.isprintable() else ascii(text)


def check_regular(file: Path, name: str) -> None:
    """Refuses what is missing, empty or no plain file; opening a pipe or a device could block for ever."""
    try:
        status = file.stat()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        found = "there is no such file" if isinstance(error, FileNotFoundError) else f"it cannot be opened ({reason})"
        raise AudioUnreadable(f"{name}: {found}; name a recording") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioUnreadable(f"{name}: this is a folder; name a recording")
    if not stat.S_ISREG(status.st_mode):
        raise AudioUnreadable(f"{name}: this is a pipe or a device; name a plain file")
    if status.st_size == 0:
        raise AudioUnreadable(f"{name}: the file is empty (0 bytes); a recording has samples")


def to_float32(values: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Casts floating point, and scales whole numbers, to float32 with full scale at 1.

    Raises:
        ValueError: the type has no agreed full scale.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite and is refused as such
            return values.astype(np.float32)
    if values.dtype.name in FULL_SCALES:
        silence, full_scale = FULL_SCALES[values.dtype.name]
        return (values.astype(np.float32) - np.float32(silence)) / np.float32(full_scale)
    raise ValueError(f"samples are {values.dtype}; allowed are floating point, {', '.join(FULL_SCALES)}")


# --- libsndfile -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Why libsndfile does not read a file, in its own words."""

    reason: str


class Hush:
    """Sends standard error nowhere while C code that cannot be told to be quiet runs; threads may overlap.

    The descriptor belongs to the process: what others write meanwhile is lost too, so hold it for single calls only,
    and only for MPEG audio.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.kept: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.depth == 0:
                with contextlib.suppress(OSError):  # no standard error, nothing to hush
                    self.kept = os.dup(2)
                    with open(os.devnull, "wb") as nowhere:
                        os.dup2(nowhere.fileno(), 2)
            self.depth += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0 and self.kept is not None:
                os.dup2(self.kept, 2)
                os.close(self.kept)
                self.kept = None

    def mend(self) -> None:
        """Gives a process that was forked in the middle of a hush its standard error, and a lock that nobody holds."""
        if self.kept is not None:
            os.dup2(self.kept, 2)
            os.close(self.kept)
        self.__init__()  # type: ignore[misc]


HUSH = Hush()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HUSH.mend)


class SequentialFile(soundfile.SoundFile):
    """A sound file that is only read forward; the top of this file tells why."""

    def seekable(self) -> bool:
        return False


def open_with_soundfile(file: Path, name: str, stack: contextlib.ExitStack) -> Recording | Failure:
    """Opens a recording with libsndfile, or says why not."""
    try:
        handle = stack.enter_context(open_sequential(file))
    except OSError as error:
        raise AudioUnreadable(f"{name}: it cannot be opened ({error.strerror}); name a readable file") from error
    except soundfile.SoundFileError as error:
        return Failure(reason_of(error))
    except TypeError:  # soundfile asks for the rate and shape of a .raw file, which nobody knows
        return Failure("a headerless file")
    # MPEG layer I is extinct, and its mark is also how UTF-16 text begins.
    if handle.format not in SNDFILE_FORMATS or handle.subtype == "MPEG_LAYER_I":
        return Failure(f"taken for {handle.format} {handle.subtype}, which is not accepted")
    quiet = HUSH if handle.subtype.startswith("MPEG") else contextlib.nullcontext()

    def blocks(first: int) -> Iterator[Block]:
        frames = BLOCK_VALUES // handle.channels
        with quiet:
            source, skip = seek_once(handle, file, first, stack)
        while True:
            try:
                with quiet:
                    block = source.read(frames, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise stopped(name, reason_of(error)) from error
            if len(block) == 0:
                return
            if len(block) > skip:
                yield block[skip:]
            skip = max(0, skip - len(block))

    return Recording(name=name, rate=handle.samplerate, channels=handle.channels, blocks=blocks)


def open_sequential(file: Path) -> SequentialFile:
    with open(file, "rb") as head:
        mark = head.read(3)
    mpeg = mark == b"ID3" or (mark[:1] == b"\xff" and mark[1:2] >= b"\xe0")
    with HUSH if mpeg else contextlib.nullcontext():
        # As bytes, so that a name that is no valid Unicode works too.
        return SequentialFile(str(file) if os.name == "nt" else os.fsencode(file))


def seek_once(
    handle: SequentialFile, file: Path, first: int, stack: contextlib.ExitStack
) -> tuple[SequentialFile, int]:
    """Moves to frame `first` and returns the handle to read from and the frames still to be dropped."""
    if first == 0:
        return handle, 0
    if soundfile.SoundFile.seekable(handle) and first <= handle.frames:
        with contextlib.suppress(soundfile.SoundFileError):
            if handle.seek(first) == first:
                return handle, 0
    # Not a format to seek in, or the header is wrong: read from the start in a fresh handle.
    return stack.enter_context(open_sequential(file)), first


def reason_of(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "no reason given"


# --- FFmpeg -----------------------------------------------------------------------------------------------------------


def import_av() -> ModuleType | None:
    """The PyAV module with its log silenced, or None if it is absent or does not work on this machine."""
    try:
        import av
        import av.logging

        av.logging.set_level(None)
    except Exception:  # installed but broken counts as absent: a missing library raises OSError, a wrong build anything
        return None
    return av


def open_with_media(file: Path, name: str, stack: contextlib.ExitStack, failure: Failure) -> Recording:
    """Opens a recording with FFmpeg, the last decoder in line.

    Media files are decoded from their start also for a segment: their time stamps are too coarse to seek by.
    """
    reasons = {"libsndfile": failure.reason}
    av: Any = import_av()
    if av is None:
        raise unreadable(file, name, reasons, allowed=f"with pip install 'ossicle[media]', {MEDIA}")
    try:
        options = {"format_whitelist": MEDIA_FORMATS, "protocol_whitelist": "file"}
        container = stack.enter_context(av.open(str(file), options=options, metadata_errors="replace"))
        if not container.streams.audio:
            others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise AudioUnreadable(f"{name}: the file holds no sound (only {others}); a recording has an audio stream")
        frames = container.decode(container.streams.audio[0])
        opening = next(frames, None)
    except AudioError:
        raise
    except (av.error.FFmpegError, ValueError, RuntimeError, UnicodeError) as error:
        reasons["FFmpeg"] = media_reason(error)
        raise unreadable(file, name, reasons, allowed=f"through PyAV, {MEDIA}") from error
    if opening is None:
        raise AudioRefused(f"{name}: the recording holds no samples; at least one is needed")
    rate, channels = opening.sample_rate, opening.layout.nb_channels

    def blocks(first: int) -> Iterator[Block]:
        frame, skip = opening, first
        while frame is not None:
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise AudioUnreadable(
                    f"{name}: the sound changes from {rate} Hz and {channels} channels to {frame.sample_rate} Hz and "
                    f"{frame.layout.nb_channels} in the middle; one rate and one layout are allowed"
                )
            try:
                samples = frame.to_ndarray()
                block = to_float32(samples.T if frame.format.is_planar else samples.reshape(-1, channels))
                frame = next(frames, None)
            except (av.error.FFmpegError, ValueError, RuntimeError) as error:
                raise stopped(name, media_reason(error)) from error
            if len(block) > skip:
                yield block[skip:]
            skip = max(0, skip - len(block))

    return Recording(name=name, rate=rate, channels=channels, blocks=blocks)


def media_reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def stopped(name: str, reason: str) -> AudioUnreadable:
    return AudioUnreadable(f"{name}: decoding stops with an error ({reason}); the whole recording must decode")


def unreadable(file: Path, name: str, reasons: dict[str, str], *, allowed: str) -> AudioUnreadable:
    """The error for a file that no decoder reads: what it looks like, what the decoders said, what would be read."""
    try:
        kind, promising = describe_content(file)
    except OSError as error:
        return AudioUnreadable(f"{name}: it cannot be opened ({error.strerror}); name a readable file")
    said = ", ".join(f"{decoder}: {reason.splitlines()[0] if reason else 'no'}" for decoder, reason in reasons.items())
    found = f"this is {kind}, and does not decode ({said})" if promising else f"this is {kind}, no recording"
    return AudioUnreadable(f"{name}: {found}; {READABLE}{allowed}")
