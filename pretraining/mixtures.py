"""Clips without limit: two to four clips of the corpus at random levels and places, drawn from a seed and a number.

`Mixer.clip(number)` is a function of the seed and the number alone: workers may take numbers in any order, a run that
stops goes on with the next, and a teacher's answers can be stored under the number. A number is one clip in itself with
a chance of `single`, so that the encoder also hears clean sounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ossicle.types import Float32
from pretraining.clips import PEAK, RATE
from pretraining.manifest import Row, read_rows


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A clip made of clips."""

    samples: Float32[np.ndarray, " time"]
    rows: tuple[int, ...]  # of the manifest, the loudest first
    decibels: tuple[float, ...]  # of each, against its level in the corpus


class Mixer:
    """Makes clip after clip from the training part of a corpus.

    Args:
        seconds: of every clip
        single: the chance that a clip is one sound alone
        spread: decibels; every further sound is 0 to this much quieter than the first
        balance: the power of the size of a kind (speech, music, ...) that its chance follows: 1 draws every clip
            equally often, 0 every kind
    """

    def __init__(
        self,
        corpus: Path,
        *,
        seed: int,
        seconds: float = 5.0,
        single: float = 0.25,
        spread: float = 18.0,
        balance: float = 0.5,
        rows: Sequence[Row] | None = None,
    ) -> None:
        self.corpus, self.seed, self.single, self.spread = corpus, seed, single, spread
        self.size = round(seconds * RATE)
        self.rows = [
            row for row in (rows or read_rows(corpus / "manifest.jsonl")) if row.part == "train" or rows is not None
        ]
        kinds, of = np.unique([row.kind for row in self.rows], return_inverse=True)
        counts = np.bincount(of, minlength=len(kinds)).astype(np.float64)
        weights = (counts**balance / counts)[of]
        self.edges = np.cumsum(weights / weights.sum())

    def clip(self, number: int) -> Mixture:
        """The clip of this number."""
        draw = np.random.default_rng([self.seed, number])
        count = 1 if draw.random() < self.single else int(draw.integers(2, 5))
        chosen = np.minimum(np.searchsorted(self.edges, draw.random(count), side="right"), len(self.rows) - 1)
        decibels = np.concatenate([[0.0], -np.sort(draw.uniform(0, self.spread, count - 1))])
        samples = np.zeros(self.size, np.float32)
        for index, level in zip(chosen, decibels, strict=True):
            place(samples, self.read(int(index)), np.float32(10 ** (level / 20)), draw)
        samples *= np.float32(min(1.0, PEAK / max(float(np.abs(samples).max()), 1e-9)))
        return Mixture(samples=samples, rows=tuple(map(int, chosen)), decibels=tuple(map(float, decibels)))

    def read(self, index: int) -> Float32[np.ndarray, " time"]:
        return soundfile.read(self.corpus / self.rows[index].file, dtype="float32")[0]


def place(
    into: Float32[np.ndarray, " time"],
    sound: Float32[np.ndarray, " time"],
    factor: np.float32,
    draw: np.random.Generator,
) -> None:
    """Adds a sound: a longer one by a random stretch of it, a shorter one at a random place."""
    room = len(into) - len(sound)
    at = int(draw.integers(0, abs(room) + 1))
    if room < 0:
        into += factor * sound[at : at + len(into)]
    else:
        into[at : at + len(sound)] += factor * sound
