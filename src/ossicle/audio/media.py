"""FFmpeg, the decoder for what libsndfile does not read: M4A, WebM, the sound of a video. Needs the extra `media`.

Demuxers that open other files or addresses (playlists) are not among the accepted ones. A recording is decoded from its
start also for a segment: the time stamps of most containers are too coarse to seek to a sample.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ossicle.audio.source import Block, Failure, Source, stopped, to_float32
from ossicle.errors import AudioError, AudioRefused, AudioUnreadable

DEMUXERS = ",".join(
    "aac ac3 aiff amr ape asf avi caf eac3 flac flv matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mp3 mpeg mpegts "
    "ogg tta w64 wav wv".split()
)


def import_av() -> ModuleType | None:
    """The PyAV module with its log silenced, or None if it is absent or does not work on this machine."""
    try:
        import av
        import av.logging

        av.logging.set_level(None)
    except Exception:  # installed but broken counts as absent: a missing library raises OSError, a wrong build anything
        return None
    return av


def open_with_media(av: Any, file: Path, *, name: str, stack: contextlib.ExitStack) -> Source | Failure:
    """Opens the first audio stream of a file with FFmpeg, or says why not; `av` comes from `import_av`."""
    try:
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
        container = stack.enter_context(av.open(str(file), options=options, metadata_errors="replace"))
        if not container.streams.audio:
            others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise AudioUnreadable(f"{name}: the file holds no sound (only {others}); a recording has an audio stream")
        stream = container.streams.audio[0]
        frames = container.decode(stream)
        opening = next(frames, None)
    except AudioError:
        raise
    except (av.error.FFmpegError, ValueError, RuntimeError, UnicodeError) as error:
        return Failure(reason_of(error))
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
                raise stopped(name, reason_of(error)) from error
            if len(block) > skip:
                yield block[skip:]
            skip = max(0, skip - len(block))

    # Most durations are estimates. CAF's is not, and libsndfile does not open one that was cut, so it comes here.
    told = container.format.name == "caf" and stream.duration is not None
    promised = round(stream.duration * stream.time_base * rate) if told else 0
    return Source(name=name, rate=rate, channels=channels, blocks=blocks, frames=promised)


def reason_of(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
