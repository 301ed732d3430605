"""libsndfile, the first decoder.

Properties of the libraries that explain this file:
- libsndfile 1.2.2 cannot seek in the last page of an OGG, whose length is cut to the recording's: it lands elsewhere.
  soundfile's `read` seeks after each call, so `SequentialFile` hides the ability: one seek at most, right after
  opening, to before the last page, then only reads. That also stops soundfile from trusting the header's length.
- libsndfile opens headerless files by their suffix, and decodes noise; such a result is refused.
- mpg123, inside libsndfile, writes warnings about an MP3's stray bytes to standard error: `HUSH`.
- A path, where the file can be read as it is: from a Python file object a damaged file makes soundfile print tracebacks
  from its C callbacks. The views of `parts` raise nothing in there.
- libsndfile reads only the length that it found when it opened the file, an estimate for an MPEG file without a tag:
  see `mpeg`, `flac`, `chunks`.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from ossicle.audio.chunks import LONGEST_64
from ossicle.audio.hush import HUSH
from ossicle.audio.notes import Notes
from ossicle.audio.parts import Contents, Part, View
from ossicle.audio.source import Block, Failure, Source, changed, stopped
from ossicle.errors import AudioUnreadable

BLOCK_VALUES = 1 << 18  # samples of all channels decoded at a time: 1 MiB

# The containers taken from libsndfile. The rest of its list is rare, matched by a few weak bytes, and unsafe to guess.
FORMATS = frozenset(["WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "NIST", "VOC"])
# An OGG page holds at most 255 packets, and a packet at most this many frames (Vorbis' largest block).
OGG_PAGE_FRAMES = 255 * 8_192
# A frame of MPEG audio may begin up to 511 bytes earlier, in frames that are as short as 24; libsndfile goes 4 back.
MPEG_RESERVOIR_FRAMES = 32 * 1_152


class SequentialFile(soundfile.SoundFile):
    """A sound file that is only read forward; see the top of this file."""

    def seekable(self) -> bool:
        return False


def open_with_soundfile(
    file: Path, contents: Contents, *, name: str, notes: Notes, stack: contextlib.ExitStack
) -> Source | Failure:
    """Opens a recording with libsndfile, or gives the reason for failure; later parts are opened on first use."""
    opened = Opened(file, contents.parts[0] if contents.parts else None, name=name)
    stack.callback(lambda: opened.close())
    try:
        handle = opened.open()
    except OSError as error:
        raise AudioUnreadable(f"{name}: it cannot be opened ({error.strerror}); name a readable file") from error
    except soundfile.SoundFileError as error:
        return Failure(reason_of(error))
    except TypeError:  # soundfile needs the rate and shape of a .raw file, which are unknown
        return Failure("a headerless file")
    if not accepted(handle):
        return Failure(f"taken for {handle.format} {handle.subtype}, which is not accepted")
    rate, channels = handle.samplerate, handle.channels

    def blocks(first: int) -> Iterator[Block]:
        nonlocal opened
        # Only of what is one recording the frames before `first` are known without decoding them.
        skip = first if len(contents.parts) > 1 else opened.seek(first)
        for part in (None, *contents.parts[1:]):
            if part is not None:
                opened.close()
                opened = Opened(file, part, name=name)
                try:
                    handle = opened.open()
                except soundfile.SoundFileError as error:
                    raise stopped(name, f"in a later part, {reason_of(error)}") from error
                if (handle.samplerate, handle.channels) != (rate, channels):
                    raise changed(name, (rate, channels), (handle.samplerate, handle.channels))
                if not accepted(handle):
                    raise stopped(name, f"a later part is {handle.format} {handle.subtype}")
            for block in opened.blocks():
                if len(block) > skip:
                    yield block[skip:]
                skip = max(0, skip - len(block))

    # Of OGG and MPEG libsndfile makes an estimate, and of a FLAC that does not know its length the largest number.
    exact = handle.format != "OGG" and not handle.subtype.startswith("MPEG") and handle.frames < LONGEST_64
    about = handle.frames if handle.frames < LONGEST_64 and len(contents.parts) < 2 else 0
    frames = about if exact else 0
    return Source(name=name, rate=rate, channels=channels, blocks=blocks, frames=frames, about=about, notes=notes)


class Opened:
    """A file, or a part of it, opened by libsndfile."""

    def __init__(self, file: Path, part: Part | None, *, name: str) -> None:
        self.file, self.part, self.name = file, part, name
        self.view: View | None = None
        self.stack = contextlib.ExitStack()
        with open(file, "rb") as head:
            mark = head.read(3)
        # What libsndfile takes for MPEG: a tag, the mark of a frame, or else a name.
        mpeg = mark == b"ID3" or (mark[:1] == b"\xff" and mark[1:2] >= b"\xe0") or file.suffix.lower() == ".mp3"
        self.quiet = HUSH if mpeg else contextlib.nullcontext()

    def open(self) -> SequentialFile:
        # As bytes, so that names that are not valid Unicode work too.
        source: Any = str(self.file) if os.name == "nt" else os.fsencode(self.file)
        if self.part is not None:
            source = self.view = self.stack.enter_context(View(self.file, self.part))
        with self.quiet:
            self.handle = self.stack.enter_context(SequentialFile(source))
        self.check()
        return self.handle

    def check(self) -> None:
        """Raises the exception that a view has kept."""
        if self.view is not None and self.view.error is not None:
            error, self.view.error = self.view.error, None
            if isinstance(error, OSError):
                raise stopped(self.name, str(error.strerror)) from error
            raise error

    def blocks(self) -> Iterator[Block]:
        frames = BLOCK_VALUES // self.handle.channels
        while True:
            try:
                with self.quiet:
                    block = self.handle.read(frames, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise stopped(self.name, reason_of(error)) from error
            finally:
                self.check()
            if len(block) == 0:
                return
            yield block

    def seek(self, first: int) -> int:
        """Moves to frame `first`, once, before anything is read; gives the frames still to be dropped."""
        handle = self.handle
        if first == 0:
            return 0
        with self.quiet:
            if soundfile.SoundFile.seekable(handle) and first <= handle.frames:
                target = first
                if handle.format == "OGG":
                    target = min(first, handle.frames - OGG_PAGE_FRAMES)
                elif handle.subtype.startswith("MPEG"):
                    target = first - MPEG_RESERVOIR_FRAMES
                if target <= 0:
                    return first
                with contextlib.suppress(soundfile.SoundFileError):
                    if handle.seek(target) == target:
                        return first - target
            # Not a format to seek in, or the header is wrong: read from the start in a fresh handle.
            self.close()
            self.open()
        return first

    def close(self) -> None:
        self.stack.close()


def accepted(handle: soundfile.SoundFile) -> bool:
    """Whether the detected format is accepted: MPEG layer I is extinct, and UTF-16 text begins with its mark."""
    return handle.format in FORMATS and handle.subtype != "MPEG_LAYER_I"


def reason_of(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "no reason given"
