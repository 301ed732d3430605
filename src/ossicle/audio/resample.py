"""One sample rate to another.

soxr's stream gives the same samples whatever the sizes of the pieces it is fed, so a clip read whole and
a recording read in blocks agree bit for bit, and both go through here.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from ossicle.types import Float32

QUALITY = "HQ"
# Length of the filter's memory in samples at the lower rate, so that a segment read alone equals the
# same part of the whole. Measured for ratios from 1:768 to 768:1: HQ's impulse response is below 1e-7 of its peak
# from 108 samples on.
MEMORY_SAMPLES = 256
PIECE_SAMPLES = 1 << 16


def resample(samples: Float32[np.ndarray, " time"], source_rate: int, rate: int) -> Float32[np.ndarray, " resampled"]:
    """Resamples a whole clip; `time` samples become `time * rate / source_rate`, rounded to the nearest.

    Raises:
        ValueError: a rate is not positive.
    """
    if source_rate < 1 or rate < 1:
        raise ValueError(f"rates are positive whole numbers of hertz, not {source_rate} and {rate}")
    pieces = (samples[at : at + PIECE_SAMPLES] for at in range(0, len(samples), PIECE_SAMPLES))
    return np.concatenate([np.empty(0, np.float32), *resampled(pieces, source_rate, rate)])


def resampled(
    blocks: Iterable[Float32[np.ndarray, " _time"]], source_rate: int, rate: int
) -> Iterator[Float32[np.ndarray, " _time"]]:
    """Resamples a recording that arrives in blocks; joined, the results equal `resample` of the joined blocks."""
    if source_rate == rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, rate, 1, dtype="float32", quality=QUALITY)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def aligned_frames(first: int, source_rate: int, rate: int) -> tuple[int, int]:
    """Finds where to begin reading so that resampling gives the same samples as resampling the whole recording.

    Returns the source frame to begin at and the resampled samples to drop, so that sample `first` of the resampled
    whole comes next. The begin lies before the filter's memory, on a frame that coincides with a resampled sample.
    """
    if source_rate == rate:
        return first, 0
    common = math.gcd(source_rate, rate)
    frames, samples = source_rate // common, rate // common  # the shortest length that is whole in both rates
    periods = max(0, first - memory(source_rate, rate)) // samples
    return periods * frames, first - periods * samples


def memory(source_rate: int, rate: int) -> int:
    """Resampled samples on either side that one resampled sample depends on; zero if the rates are equal."""
    return 0 if source_rate == rate else math.ceil(MEMORY_SAMPLES * rate / min(source_rate, rate))
