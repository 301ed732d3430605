"""The public readers: a file or an array to mono float32 at one rate."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ossicle.audio.limits import DEFAULT_LIMITS, AudioLimits
from ossicle.audio.notes import Notes
from ossicle.audio.recording import check_shape, open_recording
from ossicle.audio.resample import aligned_frames, memory, resample, resampled
from ossicle.audio.source import AudioInfo, Source, to_float32
from ossicle.errors import AudioRefused, AudioUnreadable
from ossicle.types import Float, Float32

# Samples kept in memory while a recording is checked (40 MiB). A longer clip is decoded twice: once to check that it is
# finite and within the limits, once to return it; so a refused file never needs the memory of its samples.
HELD_SAMPLES = 10 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A recording or a part of one, ready for a model: mono, finite, float32, full scale at 1."""

    samples: Float32[np.ndarray, " time"]
    rate: int
    source_rate: int  # before resampling
    source_channels: int  # before averaging
    remarks: tuple[str, ...] = ()  # warnings, one sentence each

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_clip(
    path: str | os.PathLike[str],
    rate: int,
    *,
    start: float = 0.0,
    end: float | None = None,
    track: int | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Clip:
    """Reads a recording, or a segment of one, into memory as mono float32 at `rate`.

    A segment equals the same part of the whole recording, also after resampling: it is read with the context that the
    filter needs, by seeking where the format allows it. If the recording ends before `end`, so does the segment.

    Args:
        start: seconds.
        end: seconds; None reads to the end.
        track: number of the audio track, from 1; by default the track marked as default, or the first.
        name: of the recording in messages; by default its path.

    Raises:
        AudioUnreadable: the file is missing or cannot be decoded.
        AudioRefused: it lies outside `limits`, has a sample that is not finite, or nothing between `start` and `end`.
        ValueError: an argument is invalid.
    """
    check_rate(rate)
    if not (0 <= start < math.inf and (end is None or start < end)):
        raise ValueError(f"a segment needs 0 <= start < end, not {start} and {end}")

    held: list[np.ndarray] = []
    total = 0
    with open_recording(path, limits, track=track, name=name) as recording:
        for piece in segment(recording, rate, start=start, end=end, limits=limits):
            total += len(piece)
            check_seconds(recording.name, total / rate, limits)
            held.append(piece)
            if total > HELD_SAMPLES:
                held.clear()
        recording.notes.judge()
        if total == 0:
            raise AudioRefused(f"{recording.name}: {nothing_found(start, end)}; at least one sample is needed")

    samples = np.empty(total, np.float32)
    if total > HELD_SAMPLES:
        with open_recording(path, limits, track=track, name=name) as again:
            fill(samples, segment(again, rate, start=start, end=end, limits=limits), again.name)
    else:
        np.concatenate(held, out=samples)
    return Clip(
        samples=samples,
        rate=rate,
        source_rate=recording.rate,
        source_channels=recording.channels,
        remarks=tuple(recording.notes.sentences),
    )


def read_blocks(
    path: str | os.PathLike[str],
    rate: int,
    *,
    block_seconds: float = 10.0,
    track: int | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    info: AudioInfo | None = None,
) -> Iterator[Float32[np.ndarray, " time"]]:
    """Reads a recording of any length block by block, in memory that does not grow with it.

    The blocks, joined, are the samples of `read_clip`; all have `block_seconds`, only the last may be shorter.
    `limits.seconds` bounds the silence in gaps alone. Errors about the file come with the first block, or where
    decoding stops.

    Args:
        info: receives the recording's own rate before the first block, and counts frames as they are decoded

    Raises:
        AudioUnreadable, AudioRefused: as in `read_clip`.
        ValueError: an argument is invalid.
    """
    check_rate(rate)
    check_block_seconds(block_seconds)
    size = max(1, round(block_seconds * rate))

    def blocks() -> Iterator[Float32[np.ndarray, " time"]]:
        with open_recording(path, limits, track=track) as recording:
            recording = recording if info is None else info.counting(recording)
            empty = True
            for block in regrouped(segment(recording, rate, start=0.0, end=None, limits=limits), size):
                empty = False
                yield block
            recording.notes.judge()
            if empty:
                raise AudioRefused(f"{recording.name}: {nothing_found(0.0, None)}; at least one sample is needed")

    return blocks()


def measure_frames(
    path: str | os.PathLike[str],
    *,
    track: int | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> tuple[int, int]:
    """The frames of a recording and its own rate, by its header, or by decoding it where that says nothing.

    Of a compressed recording it may be an estimate. What is decoded is not kept.

    Raises: AudioUnreadable, AudioRefused: as in `read_clip`.
    """
    with open_recording(path, limits, track=track, name=name) as recording:
        frames = recording.frames or recording.about or sum(map(len, recording.blocks(0)))
        return frames, recording.rate


def as_clip(
    samples: Any,
    source_rate: int,
    *,
    rate: int,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> Clip:
    """Makes a clip of samples from Python: (time,) or (time, channel), floating point or scaled whole numbers.

    Floating point is taken as it is; uint8, int8, int16 and int32 are divided by their full scale into [-1, 1].

    Raises:
        AudioRefused: the samples lie outside `limits`, are not all finite, or there are none.
        ValueError: a shape or a type that is not audio.
    """
    check_rate(rate)
    values = np.asarray(samples)
    if values.ndim not in (1, 2):
        raise ValueError(f"samples have the shape {values.shape}; allowed are (time,) and (time, channel)")
    if values.ndim == 2 and values.shape[1] > limits.channels >= values.shape[0]:
        raise ValueError(f"samples have the shape {values.shape}; the time comes first: (time, channel)")
    values = to_float32(values[:, None] if values.ndim == 1 else values)
    name = "the array"
    check_shape(name, source_rate, values.shape[1], limits)
    check_seconds(name, len(values) / source_rate, limits)
    if values.size == 0:
        raise AudioRefused(f"{name} contains no samples; at least one is needed")
    check_finite(name, values, 0, source_rate, limits)
    notes = Notes(name)
    mean = to_mono(values)
    notes.weigh(values, mean)
    notes.judge()
    mono = resample(mean, source_rate, rate)
    if len(mono) == 0:
        raise AudioRefused(f"{name} is shorter than one sample at {rate} Hz; at least one is needed")
    return Clip(
        samples=mono,
        rate=rate,
        source_rate=source_rate,
        source_channels=values.shape[1],
        remarks=tuple(notes.sentences),
    )


# --- processing of blocks ---------------------------------------------------------------------------------------------


def segment(
    recording: Source, rate: int, *, start: float, end: float | None, limits: AudioLimits
) -> Iterator[Float32[np.ndarray, " _time"]]:
    """Yields the mono samples between `start` and `end` at `rate`, piece by piece."""
    first = round(start * rate)
    last = None if end is None or end == math.inf else round(end * rate)
    first_frame, drop = aligned_frames(first, recording.rate, rate)
    last_frame = None
    if last is not None:
        last_frame = math.ceil((last + memory(recording.rate, rate)) * recording.rate / rate)
    pieces = resampled(mono_blocks(recording, first_frame, last_frame, limits), recording.rate, rate)
    return between(pieces, drop, None if last is None else drop + last - first)


def mono_blocks(
    recording: Source, first: int, last: int | None, limits: AudioLimits
) -> Iterator[Float32[np.ndarray, " _time"]]:
    """Yields frames `first` to `last` of a recording, averaged over its channels, after checking each sample."""
    at = first
    for block in recording.blocks(first):
        if last is not None:
            block = block[: last - at]
        if len(block) == 0:
            return
        check_finite(recording.name, block, at, recording.rate, limits)
        mean = to_mono(block)
        recording.notes.weigh(block, mean)
        yield mean
        at += len(block)
    if last is None or at < last:
        check_whole(recording, at)


def between(
    pieces: Iterator[Float32[np.ndarray, " _time"]], first: int, last: int | None
) -> Iterator[Float32[np.ndarray, " _time"]]:
    """Yields samples `first` to `last` of joined pieces, without joining them."""
    at = 0
    for piece in pieces:
        cut = piece[max(0, first - at) : None if last is None else max(0, last - at)]
        at += len(piece)
        if len(cut):
            yield cut
        if last is not None and at >= last:
            return


def regrouped(pieces: Iterator[Float32[np.ndarray, " _time"]], size: int) -> Iterator[Float32[np.ndarray, " _time"]]:
    """Yields joined pieces cut into blocks of `size`; the last may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count < size:
            continue
        joined = np.concatenate(held)
        whole = count // size * size
        for at in range(0, whole, size):
            yield joined[at : at + size].copy()
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def fill(out: Float32[np.ndarray, " _time"], pieces: Iterator[Float32[np.ndarray, " _time"]], name: str) -> None:
    """Copies the pieces into `out`, whose length comes from an earlier pass over the same file."""
    at = 0
    for piece in pieces:
        room = out[at : at + len(piece)]
        at += len(piece)
        if at > len(out):
            break
        room[:] = piece
    if at != len(out):
        raise AudioUnreadable(f"{name}: the file changed while it was read")


def to_mono(block: Float32[np.ndarray, "time channel"]) -> Float32[np.ndarray, " time"]:
    """Averages over the channels."""
    return np.ascontiguousarray(block[:, 0]) if block.shape[1] == 1 else block.mean(axis=1)


# --- checks -----------------------------------------------------------------------------------------------------------


def check_rate(rate: int) -> None:
    if not DEFAULT_LIMITS.min_rate <= rate <= DEFAULT_LIMITS.max_rate:
        low, high = DEFAULT_LIMITS.min_rate, DEFAULT_LIMITS.max_rate
        raise ValueError(f"a clip's rate is {low} to {high} Hz, not {rate}")


def check_block_seconds(block_seconds: float) -> None:
    if not 0 < block_seconds < math.inf:
        raise ValueError(f"block_seconds must be positive, not {block_seconds}")


def check_seconds(name: str, seconds: float, limits: AudioLimits) -> None:
    if seconds > limits.seconds:
        raise AudioRefused(f"{name}: the recording is longer than {limits.seconds:g} s, the maximum")


def check_whole(recording: Source, frames: int) -> None:
    """Refuses a truncated file, which ends at `frames` although the header promises more.

    Up to a hundredth may be missing, between 0.01 and 0.1 s: some writers count their header or a last block as sound.
    """
    promised, found = recording.frames / recording.rate, frames / recording.rate
    if promised - found > min(max(promised / 100, 0.01), 0.1):
        raise AudioUnreadable(
            f"{recording.name}: the file is truncated: its header promises {promised:.2f} s of sound, and nothing "
            f"comes after {found:.2f} s; copy it again, or save the rest as a new file"
        )


def check_finite(name: str, block: Float[np.ndarray, "time channel"], at: int, rate: int, limits: AudioLimits) -> None:
    """Refuses NaN, infinity and magnitudes that would overflow further on."""
    with np.errstate(invalid="ignore"):
        if np.maximum(block.max(), -block.min()) <= limits.peak:  # false for NaN too
            return
        row, channel = np.argwhere(~(np.abs(block) <= limits.peak))[0]
    raise AudioRefused(
        f"{name}: the sample at {(at + row) / rate:.3f} s is {block[row, channel]:g}; "
        f"allowed are finite samples up to {limits.peak:g}"
    )


def nothing_found(start: float, end: float | None) -> str:
    if start == 0 and end is None:
        return "the recording contains no samples"
    return f"the recording has no samples between {start:g} s and {'its end' if end is None else f'{end:g} s'}"
