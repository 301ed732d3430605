"""Opens a recording: checks the file, tries the decoders in order, and explains why none could read it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ossicle.audio.content import describe_content
from ossicle.audio.header import contents_of
from ossicle.audio.limits import AudioLimits
from ossicle.audio.media import check_track, import_av, open_with_media
from ossicle.audio.notes import Notes
from ossicle.audio.parts import Contents
from ossicle.audio.sndfile import open_with_soundfile
from ossicle.audio.source import Failure, Source
from ossicle.errors import AudioRefused, AudioUnreadable
from ossicle.files import printable

READABLE = "supported are WAV, FLAC, OGG, Opus, MP3, AIFF, CAF, W64, AU and, "
MEDIA = "M4A, MP4, WebM, WMA and other media"


@contextlib.contextmanager
def open_recording(
    path: str | os.PathLike[str], limits: AudioLimits, *, track: int | None = None, name: str | None = None
) -> Iterator[Source]:
    """Opens a recording with the first decoder that reads it; rate and channels lie within `limits`.

    Args:
        track: number of the audio track, from 1; by default the track marked as default
        name: of the recording in messages; by default its path

    Raises:
        AudioUnreadable: the file is missing or cannot be decoded.
        AudioRefused: its channels or rate are outside the limits, or it does not have the track.
    """
    name = printable(name or path)
    # Absolute: "-" would be standard input to libsndfile, and "a:b" an address to FFmpeg.
    file = Path(os.path.abspath(path))
    check_regular(file, name)
    try:
        contents = contents_of(file)
    except OSError as error:
        raise AudioUnreadable(f"{name}: it cannot be opened ({error.strerror}); name a readable file") from error
    if contents.refusal:
        raise AudioUnreadable(f"{name}: {contents.refusal}")
    notes = Notes(name)
    with contextlib.ExitStack() as stack:
        source = open_decoder(file, contents, name=name, notes=notes, track=track, limits=limits, stack=stack)
        check_shape(name, source.rate, source.channels, limits)
        if contents.missing:
            raise AudioUnreadable(
                f"{name}: the file is truncated: according to its header {contents.missing} bytes are missing; copy "
                "it again, or save the rest as a new file"
            )
        promised, there = contents.promised, contents.there
        if promised == 0 == source.frames and len(contents.parts) < 2:
            raise AudioUnreadable(
                f"{name}: its header promises no sound, but {there} bytes follow, as after a power failure; "
                "send it to standard input, which is read to its end, or repair the header"
            )
        for remark in contents.remarks:
            notes.add(remark)
        yield replace(source, frames=source.frames * promised // there)


def open_decoder(
    file: Path,
    contents: Contents,
    *,
    name: str,
    notes: Notes,
    track: int | None,
    limits: AudioLimits,
    stack: contextlib.ExitStack,
) -> Source:
    """Opens a file with libsndfile, which reads the first track only, or else with FFmpeg."""
    source: Source | Failure = Failure("several tracks")
    if contents.tracks == 1:
        source = open_with_soundfile(file, contents, name=name, notes=notes, stack=stack)
    if isinstance(source, Source):
        check_track(name, track, 1)
        return source
    reasons = {"libsndfile": source.reason}
    av = import_av()
    if av is None:
        raise unreadable(file, name, reasons, allowed=f"with pip install 'ossicle[media]', {MEDIA}")
    source = open_with_media(av, file, name=name, notes=notes, track=track, limits=limits, stack=stack)
    if isinstance(source, Failure):
        reasons["FFmpeg"] = source.reason
        raise unreadable(file, name, reasons, allowed=f"through PyAV, {MEDIA}")
    if contents.binding:  # FFmpeg would read only the length in the header
        raise AudioUnreadable(
            f"{name}: it contains more audio than its header counts, in a coding that needs a correct header "
            f"({reasons['libsndfile']}); repair the header, or save each recording as a separate file"
        )
    return source


def check_shape(name: str, rate: int, channels: int, limits: AudioLimits) -> None:
    """Refuses a rate or a number of channels outside the limits."""
    if not limits.min_rate <= rate <= limits.max_rate:
        raise AudioRefused(f"{name}: the rate is {rate} Hz; allowed are {limits.min_rate} to {limits.max_rate} Hz")
    if not 1 <= channels <= limits.channels:
        raise AudioRefused(f"{name}: there are {channels} channels; allowed are 1 to {limits.channels}")


def check_regular(file: Path, name: str) -> None:
    """Refuses a path that is missing, empty or not a regular file; opening a pipe or a device could block."""
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
        raise AudioUnreadable(f"{name}: the file is empty (0 bytes)")


def unreadable(file: Path, name: str, reasons: dict[str, str], *, allowed: str) -> AudioUnreadable:
    """The error for a file that no decoder reads: detected type, errors of the decoders, supported formats."""
    try:
        kind, promising = describe_content(file)
    except OSError as error:
        return AudioUnreadable(f"{name}: it cannot be opened ({error.strerror}); name a readable file")
    errors = ", ".join(
        f"{decoder}: {reason.splitlines()[0] if reason else 'no'}" for decoder, reason in reasons.items()
    )
    found = f"this is {kind} that cannot be decoded ({errors})" if promising else f"this is {kind}, not a recording"
    return AudioUnreadable(f"{name}: {found}; {READABLE}{allowed}")
