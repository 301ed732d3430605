"""FFmpeg, the decoder for formats that libsndfile does not read: M4A, WebM, videos. Needs the extra `media`.

Demuxers that open other files or addresses (playlists) are not among the accepted ones. A recording is decoded from its
start also for a segment: the time stamps of most containers are too coarse to seek to a sample.
"""

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ossicle.audio.limits import AudioLimits
from ossicle.audio.notes import Notes
from ossicle.audio.source import Block, Failure, Source, changed, stopped, to_float32
from ossicle.errors import AudioError, AudioRefused, AudioUnreadable

DEMUXERS = ",".join(
    "aac ac3 aiff amr ape asf avi caf eac3 flac flv matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3 mpeg mpegts "
    "ogg tta w64 wav wv".split()
)
# Containers with real time stamps; for others FFmpeg counts samples or bytes.
TIMED = frozenset("asf avi flv matroska webm mov mp4 mpeg mpegts ogg".split())
BROADCAST, WRAP_SECONDS = frozenset(["mpeg", "mpegts"]), Fraction(1 << 33, 90_000)
# AAC begins with up to 2112 samples that were not in the recording, with high frequencies rebuilt twice as many.
SLACK_SECONDS, SLACK_FRAMES = 0.05, 2_112
BACK_SECONDS = 1.0  # that a stamp may lag behind the samples before a new clock is assumed
SILENCE_FRAMES = 1 << 14  # at a time


def import_av() -> ModuleType | None:
    """The PyAV module with its log silenced, or None if it is absent or does not work on this machine."""
    try:
        import av
        import av.logging

        av.logging.set_level(None)
    except Exception:  # installed but broken counts as absent: a missing library raises OSError, a wrong build anything
        return None
    return av


def open_with_media(
    av: Any,
    file: Path,
    *,
    name: str,
    notes: Notes,
    track: int | None,
    limits: AudioLimits,
    stack: contextlib.ExitStack,
) -> Source | Failure:
    """Opens one audio stream of a file with FFmpeg, or gives the reason for failure; `av` comes from `import_av`.

    Args:
        track: see `open_recording`
        limits: `seconds` limits the silence that fills gaps between time stamps
    """
    try:
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
        container = stack.enter_context(av.open(str(file), options=options, metadata_errors="replace"))
        if not container.streams.audio:
            others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise AudioUnreadable(f"{name}: the file contains no audio stream (only {others}); one is expected")
        stream = chosen(av, container.streams.audio, track, name=name, notes=notes)
        frames = container.decode(stream)
        opening = next(frames, None)
    except AudioError:
        raise
    except (av.error.FFmpegError, ValueError, RuntimeError, IndexError) as error:
        return Failure(reason_of(error))
    if opening is None:
        raise AudioRefused(f"{name}: the recording contains no samples; at least one is needed")
    rate, channels = opening.sample_rate, opening.layout.nb_channels
    formats = set(container.format.name.split(","))
    clock = Clock(
        name,
        rate,
        zero=container.start_time,
        timed=bool(TIMED & formats),
        wraps=bool(BROADCAST & formats),
        longest=limits.seconds,
    )

    def blocks(first: int) -> Iterator[Block]:
        frame, skip = opening, first
        while frame is not None:
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise changed(name, (rate, channels), (frame.sample_rate, frame.layout.nb_channels))
            try:
                samples = frame.to_ndarray()
                block = to_float32(samples.T if frame.format.is_planar else samples.reshape(-1, channels))
                begins = stamp(frame)
                frame = next(frames, None)
            except (av.error.FFmpegError, ValueError, RuntimeError, IndexError) as error:
                raise stopped(name, reason_of(error)) from error
            silence = clock.silence_before(begins, len(block), following=None if frame is None else stamp(frame))
            dropped = min(skip, silence)
            silence, skip = silence - dropped, skip - dropped
            for at in range(0, silence, SILENCE_FRAMES):
                yield np.zeros((min(SILENCE_FRAMES, silence - at), channels), np.float32)
            if len(block) > skip:
                yield block[skip:]
            skip = max(0, skip - len(block))

    # Most durations are estimates. CAF's is exact, and libsndfile does not open a truncated CAF, so it comes here.
    about = 0 if stream.duration is None else round(stream.duration * stream.time_base * rate)
    promised = about if container.format.name == "caf" else 0
    return Source(name=name, rate=rate, channels=channels, blocks=blocks, frames=promised, about=about, notes=notes)


def chosen(av: Any, streams: Sequence[Any], track: int | None, *, name: str, notes: Notes) -> Any:
    """The audio stream with this number; by default the one marked as default in the file, as in players."""
    check_track(name, track, len(streams))
    if track is not None:
        return streams[track - 1]
    marked = [at for at, stream in enumerate(streams) if stream.disposition & av.stream.Disposition.default]
    at = marked[0] if marked else 0
    if len(streams) > 1:
        what = "its default" if marked else "the first"
        notes.add(f"it has {len(streams)} audio tracks; track {at + 1}, {what}, is read (--track selects another)")
    return streams[at]


def check_track(name: str, track: int | None, tracks: int) -> None:
    """Refuses a track that the file does not have."""
    if track is not None and not 1 <= track <= tracks:
        raise AudioRefused(f"{name}: track {track} is not available; expected 1 to {tracks}")


class Clock:
    """Position of each frame of a recording by its time stamp.

    Coarse stamps and the delay of an encoder shift frames slightly, so frames are joined until a stamp is ahead of the
    samples by more than `SLACK_SECONDS` or `SLACK_FRAMES`. Then the gap is filled with silence. No sound is dropped
    where stamps overlap or go back. Where they go back permanently, as in joined broadcasts, the times continue from
    there.

    Args:
        zero: start of the recording in microseconds; by default the first stamp
        timed: whether its stamps are times
        wraps: whether they have 33 bits, as in broadcasts
        longest: maximum seconds of silence in total
    """

    def __init__(
        self, name: str, rate: int, *, zero: int | None, timed: bool, wraps: bool = False, longest: float
    ) -> None:
        self.name, self.rate, self.timed, self.wraps, self.longest = name, rate, timed, wraps, longest
        self.offset = None if zero is None else Fraction(zero, 1_000_000)
        self.before: Fraction | None = None  # the offset ahead of stamps that went back
        self.at = 0  # frames, silence included
        self.silence = 0
        self.slack = max(round(SLACK_SECONDS * rate), SLACK_FRAMES)

    def silence_before(self, begins: Fraction | None, length: int, *, following: Fraction | None) -> int:
        """Frames of silence to put ahead of a frame of `length` samples.

        Args:
            following: the stamp of the next frame; if it is before `begins`, this one is wrong

        Raises: AudioRefused for more silence than `longest`.
        """
        gap = 0
        if self.timed and begins is not None:
            if self.offset is None:
                self.offset = begins
            late = self.late(begins, self.offset)
            if self.before is not None and abs(self.late(begins, self.before)) <= self.slack < abs(late):
                self.offset, late = self.before, 0  # a single stamp was wrong
            self.before = None
            if late < -self.rate * BACK_SECONDS:
                self.before, self.offset = self.offset, begins - Fraction(self.at, self.rate)
            elif late > self.slack and (following is None or following >= begins):
                gap = late
        self.silence += gap
        if self.silence > self.longest * self.rate:
            raise AudioRefused(
                f"{self.name}: its time stamps have a gap of {gap / self.rate:.0f} s at "
                f"{self.at / self.rate:.2f} s; at most {self.longest:g} s are filled with silence: save the "
                "audio alone (ffmpeg -i IN OUT.flac)"
            )
        self.at += gap + length
        return gap

    def late(self, begins: Fraction, offset: Fraction) -> int:
        """Frames between the end of the samples so far and the position of a stamp."""
        seconds = begins - offset
        if self.wraps and seconds > WRAP_SECONDS / 2:  # FFmpeg takes stamps that go back for stamps that have wrapped
            seconds -= WRAP_SECONDS
        return round(seconds * self.rate) - self.at


def stamp(frame: Any) -> Fraction | None:
    """Start of a frame in seconds; None if unknown."""
    return frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None


def reason_of(error: Exception) -> str:
    if isinstance(error, IndexError):  # PyAV looks for a stream that was not there when the file was opened
        return "a track starts in the middle that the header does not list"
    return str(getattr(error, "strerror", None) or error)
