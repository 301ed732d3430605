"""Recordings to clips: 32 kHz mono, one loudness for each recording, at most ten seconds each, without silent ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ossicle.audio import read_blocks, read_clip
from ossicle.errors import OssicleError
from ossicle.types import Float32

RATE = 32_000
SECONDS = 10.0  # of the longest clip
SHORTEST = 0.08  # seconds of a clip after trimming
LONG = 30.0  # seconds: of a longer recording only some stretches are taken
LOUDNESS = -23.0  # LUFS that a recording is brought to
PEAK = 0.9  # that no sample of a clip exceeds
LARGEST_GAIN = 30.0  # decibels: more would only raise noise
SILENT = 1e-3  # a recording that never exceeds it is empty
TRIM = 10 ** (-50 / 20)  # of the peak: what is below it at the ends is cut off
FADE = 0.005  # seconds, where a clip begins or ends inside a recording
BLOCK = 0.4  # seconds of a loudness block


def clips_of(
    path: Path, *, most: int, draw: np.random.Generator
) -> Iterator[tuple[float, Float32[np.ndarray, " time"]]]:
    """Yields the start in seconds and the samples of at most `most` clips of a recording.

    A recording of up to ten seconds is one clip; a longer one gives stretches of ten seconds, evenly over its length,
    each moved by chance within its own part.

    Raises: AudioUnreadable, AudioRefused.
    """
    pieces = list(stretches(path, most, draw))
    whole = np.concatenate([samples for _, samples in pieces])
    if np.abs(whole).max() < SILENT:
        return
    gain = gain_for(whole)
    for start, samples in pieces:
        first, last = sounding(samples)
        clip = samples[first:last] * gain
        if len(clip) >= SHORTEST * RATE:
            clip *= np.float32(min(1.0, PEAK / np.abs(clip).max()))
            yield start + first / RATE, faded(clip, cut_first=first == 0, cut_last=last == len(samples))


def stretches(path: Path, most: int, draw: np.random.Generator) -> Iterator[tuple[float, Float32[np.ndarray, " time"]]]:
    """Yields what is cut out of a recording: its whole, or `most` stretches of ten seconds and their starts."""
    size = round(SECONDS * RATE)
    head = read_clip(path, RATE, end=LONG).samples
    if len(head) <= size:
        yield 0.0, head
        return
    seconds = length_of(path, head)
    count = min(most, int(seconds // SECONDS) + (seconds % SECONDS >= 2))
    for number in range(count):
        part = seconds / count
        start = number * part + draw.uniform(0, max(0.0, part - SECONDS))
        if start + SECONDS <= len(head) / RATE or seconds <= LONG:
            yield start, head[round(start * RATE) :][:size]
        else:
            with contextlib.suppress(OssicleError):  # the header promised more than there is
                yield start, read_clip(path, RATE, start=start, end=start + SECONDS).samples


def length_of(path: Path, head: Float32[np.ndarray, " time"]) -> float:
    """Seconds of a recording: by its header where that is known, else by decoding it."""
    if len(head) < LONG * RATE - 1:
        return len(head) / RATE
    try:
        return soundfile.info(path).duration
    except soundfile.SoundFileError:
        return sum(len(block) for block in read_blocks(path, RATE)) / RATE


def sounding(samples: Float32[np.ndarray, " time"]) -> tuple[int, int]:
    """Where sound begins and ends."""
    loud = np.flatnonzero(np.abs(samples) > max(SILENT / 4, TRIM * np.abs(samples).max()))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 0)


def faded(clip: Float32[np.ndarray, " time"], *, cut_first: bool, cut_last: bool) -> Float32[np.ndarray, " time"]:
    """Fades the ends of a clip where it may have been cut inside a sound: over 5 ms, or a tenth of a short one."""
    count = min(round(FADE * RATE), len(clip) // 10)
    ramp = np.linspace(0, 1, count, dtype=np.float32)
    if cut_first and abs(clip[0]) > SILENT:
        clip[:count] *= ramp
    if cut_last and abs(clip[-1]) > SILENT:
        clip[len(clip) - count :] *= ramp[::-1]
    return clip


def gain_for(samples: Float32[np.ndarray, " time"]) -> np.float32:
    """The factor that brings samples to `LOUDNESS`."""
    return np.float32(10 ** (min(LOUDNESS - loudness(samples), LARGEST_GAIN) / 20))


def loudness(samples: Float32[np.ndarray, " time"]) -> float:
    """LUFS after ITU-R BS.1770, mono: K-weighted, blocks of 0.4 s, gated at -70 LUFS and at 10 below the mean.

    Deviation: blocks do not overlap, and a shorter sound is one block of its own length.
    """
    size = round(BLOCK * RATE)
    count = max(1, len(samples) // size)
    blocks = k_weighted(samples)[: count * size] if len(samples) >= size else k_weighted(samples)
    power = np.square(blocks, dtype=np.float64).reshape(count, -1).mean(axis=1)
    gated = power[power > 10 ** ((-70 + 0.691) / 10)]
    if len(gated):
        gated = gated[gated > gated.mean() / 10]
    return -0.691 + 10 * float(np.log10(gated.mean())) if len(gated) else -70.0


def k_weighted(samples: Float32[np.ndarray, " time"]) -> Float32[np.ndarray, " time"]:
    """Applies the K-weighting of BS.1770 (a shelf of 4 dB above 1.7 kHz, a high pass at 38 Hz) by its spectrum."""
    size = -(-(len(samples) + RATE // 10) // 4096) * 4096  # a number with small factors
    freq = np.arange(size // 2 + 1) * (RATE / size)
    return np.fft.irfft(np.fft.rfft(samples, size) * k_response(freq), size)[: len(samples)].astype(np.float32)


def k_response(freq: np.ndarray) -> np.ndarray:
    """Magnitude of the K-weighting at frequencies in hertz: the analogue prototypes of the two filters."""
    s = 1j * freq / 1681.97
    gain, q = 10 ** (3.99984 / 20), 0.70718
    shelf = (gain * s**2 + np.sqrt(gain) * s / q + 1) / (s**2 + s / q + 1)
    s = 1j * freq / 38.135
    high = s**2 / (s**2 + s / 0.50033 + 1)
    return np.abs(shelf * high).astype(np.float32)
