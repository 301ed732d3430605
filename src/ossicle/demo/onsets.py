"""Onset detection by spectral flux, from the samples alone.

A hit raises the energy in many bands at once. The spectral flux sums these rises over bands of equal pitch, frame by
frame; a frame is an onset if its flux is a local maximum and exceeds the local mean.

Source: Böck, Krebs and Schedl 2012, Evaluating the online capabilities of onset detection methods, sections 2.1 (bands,
logarithm, flux) and 2.4 (peaks); the flux itself is Dixon 2006, Onset detection revisited, section 2.1.

Deviations: the spectrum is scaled by its highest value, so that a gain changes nothing; windows are 32 ms, not 46, as
hits are short; one frame is compared with the frame one hop before it, whatever the overlap.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32, Float64

from ossicle.inference import Row

WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.005
LOWEST_HERTZ, HIGHEST_HERTZ = 30.0, 16_000.0
BANDS_PER_OCTAVE = 12
COMPRESSION = 1000.0  # log10(1 + COMPRESSION * spectrum): what lies 60 dB below the peak adds 0.3


def onset_strength(
    samples: Float32[np.ndarray, " time"], rate: int
) -> tuple[Float64[np.ndarray, " frame"], Float64[np.ndarray, " frame"]]:
    """Gives the spectral flux and the time of each frame in seconds, 5 ms apart.

    The flux is the mean over the bands of the rise of their logarithmic level; it does not change with the gain.
    """
    spectrum = _band_spectrum(samples, rate)
    peak = spectrum.max(initial=0.0)
    level = np.log10(1.0 + COMPRESSION * spectrum / peak) if peak > 0 else spectrum
    rise = np.diff(level, axis=0, prepend=0.0)  # before the recording there is silence
    centers = np.arange(len(spectrum)) * round(HOP_SECONDS * rate)
    # The end of a recording in the middle of a sound is not an onset, although it has energy in all bands.
    rise[1:][centers[1:] + round(WINDOW_SECONDS * rate) // 2 > len(samples)] = 0.0
    return np.maximum(rise, 0.0).mean(axis=1), centers / rate


def find_onsets(
    samples: Float32[np.ndarray, " time"],
    rate: int,
    *,
    threshold: float = 0.08,
    min_gap: float = 0.05,
) -> Float64[np.ndarray, " onset"]:
    """Gives the times of the onsets in seconds, ascending.

    Args:
        samples: one channel; silence has no onsets
        threshold: minimum difference of the flux to its local mean (100 ms before to 70 ms after)
        min_gap: minimum seconds between two onsets; of a closer pair the earlier one is kept
    """
    strength, times = onset_strength(samples, rate)
    frames = len(strength)
    onsets: list[float] = []
    for frame in np.flatnonzero(strength > 0):
        nearby = strength[max(0, frame - 6) : frame + 7]  # 30 ms either way
        around = strength[max(0, frame - 20) : min(frames, frame + 15)]
        stands_out = strength[frame] >= nearby.max() and strength[frame] >= around.mean() + threshold
        if stands_out and (not onsets or times[frame] - onsets[-1] >= min_gap):
            onsets.append(float(times[frame]))
    return np.array(onsets, dtype=np.float64)


def label_onsets(
    samples: Float32[np.ndarray, " time"],
    rate: int,
    score: Callable[[Float32[np.ndarray, " part"]], Float[np.ndarray, " label"]],
    *,
    labels: Sequence[str],
    longest: float,
    lead: float = 0.005,
    file: str = "",
) -> list[Row]:
    """Returns one row for each onset: an event up to the next onset, or `longest` seconds long.

    Args:
        score: scores a segment of samples at `rate`; the label with the highest score is the row's
        longest: maximum length of an event in seconds, such as the window of the model
        lead: seconds before the onset that the segment includes: an attack begins before its steepest rise
        file: name in the rows
    """
    times = find_onsets(samples, rate)
    rows = []
    for onset, following in zip(times, [*times[1:], np.inf], strict=True):
        end = min(following, onset + longest, len(samples) / rate)
        part = samples[max(0, round((onset - lead) * rate)) : max(0, round((end - lead) * rate))]
        if len(part):
            scores = score(part)
            best = int(np.argmax(scores))
            rows.append(
                Row(file=file, start=float(onset), end=float(end), label=labels[best], score=float(scores[best]))
            )
    return rows


def _band_spectrum(samples: Float32[np.ndarray, " time"], rate: int) -> Float[np.ndarray, "frame band"]:
    """Magnitudes in bands of a twelfth of an octave; frames are centered on their time."""
    size, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    bands = _bands(size, rate)
    padded = np.concatenate([np.zeros(size // 2), samples, np.zeros(size - size // 2)])
    starts = range(0, len(samples), hop)
    window = np.hanning(size)
    spectrum = np.empty((len(starts), len(bands)))
    # Blocks of frames: the spectrum of an hour would not fit in memory.
    for first in range(0, len(starts), 1000):
        part = starts[first : first + 1000]
        frames = np.stack([padded[start : start + size] for start in part])
        magnitude = np.abs(np.fft.rfft(frames * window))
        spectrum[first : first + len(part)] = np.add.reduceat(magnitude, bands, axis=1)[:, : len(bands)]
    return spectrum


def _bands(size: int, rate: int) -> np.ndarray:
    """First bin of each band; bands narrower than a bin are left out, and the last reaches half the rate."""
    highest = min(HIGHEST_HERTZ, rate / 2)
    count = max(1, int(BANDS_PER_OCTAVE * np.log2(highest / LOWEST_HERTZ)))
    edges = LOWEST_HERTZ * 2.0 ** (np.arange(count) / BANDS_PER_OCTAVE)
    return np.unique(np.maximum(1, np.round(edges * size / rate).astype(int)))
