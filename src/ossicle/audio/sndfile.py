"""libsndfile, the first decoder.

Found on the way, and the reason for the shape of this file:
- libsndfile 1.2.2 cannot seek in the last page of an OGG, whose length is cut to the recording's: it lands elsewhere.
  soundfile's `read` seeks after each call, so `SequentialFile` hides the ability: one seek at most, right after
  opening, to before the last page, then only reads. That also stops soundfile from trusting the header's length.
- libsndfile opens headerless files by their suffix, as if noise were sound; such a result is refused.
- mpg123, inside libsndfile, writes to standard error what it thinks of an MP3's stray bytes: `HUSH`.
- A path, never a Python file object: a damaged file makes soundfile print tracebacks from its C callbacks.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import soundfile

from ossicle.audio.header import LONGEST_64
from ossicle.audio.hush import HUSH
from ossicle.audio.source import Block, Failure, Source, stopped
from ossicle.errors import AudioUnreadable

BLOCK_VALUES = 1 << 18  # samples of all channels decoded at a time: 1 MiB

# The containers taken from libsndfile. The rest of its list is rare, matched by a few weak bytes, and unsafe to guess.
FORMATS = frozenset(["WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST", "VOC"])
# An OGG page holds at most 255 packets, and a packet at most this many frames (Vorbis' largest block).
OGG_PAGE_FRAMES = 255 * 8_192


class SequentialFile(soundfile.SoundFile):
    """A sound file that is only read forward; the top of this file tells why."""

    def seekable(self) -> bool:
        return False


def open_with_soundfile(file: Path, *, name: str, stack: contextlib.ExitStack) -> Source | Failure:
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
    if handle.format not in FORMATS or handle.subtype == "MPEG_LAYER_I":
        return Failure(f"taken for {handle.format} {handle.subtype}, which is not accepted")
    quiet = HUSH if handle.subtype.startswith("MPEG") else contextlib.nullcontext()

    def blocks(first: int) -> Iterator[Block]:
        frames = BLOCK_VALUES // handle.channels
        with quiet:
            source, skip = seek_once(handle, first, file=file, stack=stack)
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

    # Of OGG and MPEG libsndfile makes an estimate, and of a FLAC that does not know its length the largest number.
    told = handle.format != "OGG" and not handle.subtype.startswith("MPEG") and handle.frames < LONGEST_64
    frames = handle.frames if told else 0
    return Source(name=name, rate=handle.samplerate, channels=handle.channels, blocks=blocks, frames=frames)


def open_sequential(file: Path) -> SequentialFile:
    with open(file, "rb") as head:
        mark = head.read(3)
    # What libsndfile takes for MPEG: a tag, the mark of a frame, or else a name.
    mpeg = mark == b"ID3" or (mark[:1] == b"\xff" and mark[1:2] >= b"\xe0") or file.suffix.lower() == ".mp3"
    with HUSH if mpeg else contextlib.nullcontext():
        # As bytes, so that a name that is no valid Unicode works too.
        return SequentialFile(str(file) if os.name == "nt" else os.fsencode(file))


def seek_once(
    handle: SequentialFile, first: int, *, file: Path, stack: contextlib.ExitStack
) -> tuple[SequentialFile, int]:
    """Moves to frame `first` and returns the handle to read from and the frames still to be dropped."""
    if first == 0:
        return handle, 0
    if soundfile.SoundFile.seekable(handle) and first <= handle.frames:
        target = min(first, handle.frames - OGG_PAGE_FRAMES) if handle.format == "OGG" else first
        if target <= 0:
            return handle, first
        with contextlib.suppress(soundfile.SoundFileError):
            if handle.seek(target) == target:
                return handle, first - target
    # Not a format to seek in, or the header is wrong: read from the start in a fresh handle.
    return stack.enter_context(open_sequential(file)), first


def reason_of(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "no reason given"
