"""Clips without limit: one to four clips of the corpus mixed, or a row of speech, changed, and heard by student and
teacher alike.

`Mixer.clip(*numbers)` is a function of the seed and the numbers alone, so a run that stops goes on with the same clips.
Powers of sounds add, so clips are mixed as mel power (their phases, taken as independent, cancel in the mean). What no
answer is stored for is also made faster or slower and moved over frequency, and a mix may get the response of another
room or microphone and a floor of noise: the teacher answers for what came out, so that every change is a new example.
"""

from dataclasses import dataclass

import numpy as np

from ossicle.frontend.filterbank import hertz_to_mel
from ossicle.frontend.mel import PASST_OFFSET
from ossicle.types import Float32
from pretraining.features import COLUMN, FRONTEND, MELS, Store, log_mel_of

FRAMES = 31 * COLUMN  # of every clip: 4.96 s
SINGLE = 0.3  # chance of one clip alone
ROW = 0.35  # chance of clips of speech one after another, where the speech encoder answers for nearly every column
SPREAD = 18.0  # dB; every further sound is up to this much quieter than the first
GAIN = (-12.0, 3.0)  # dB
PACES = 0.45  # octaves; a sound is played up to this much faster or slower
SHIFT = 6  # mel bins
RESPONSE = 4.0  # dB, deviation of a smooth response over frequency
NOISE = (-5.0, -2.0)  # its power, as a power of ten
RATES = (8_000, 11_025, 16_000, 22_050)  # Hz, of recordings and telephones that hear less


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """A clip made of clips."""

    mel: Float32[np.ndarray, "mel frame"]
    clips: tuple[int, ...]  # the loudest first
    speech: Float32[np.ndarray, "column value"]  # of a speech encoder, where `spoken`
    spoken: np.ndarray  # (column,) of bool


class Page:
    """What a mixture is written on."""

    def __init__(self, values: int) -> None:
        self.clips: list[int] = []
        self.power = np.zeros((FRAMES, MELS), np.float32)
        self.speech = np.zeros((FRAMES // COLUMN, values), np.float32)
        self.spoken = np.zeros(len(self.speech), bool)

    def add(self, clip: int, sound: Float32[np.ndarray, "frame mel"], at: int, level: float) -> None:
        """Adds a sound from a frame on, louder by so many dB."""
        self.clips.append(clip)
        self.power[at : at + len(sound)] += sound * np.float32(10 ** (level / 10))

    def answer(self, at: int, found: np.ndarray) -> None:
        """Writes a speech encoder's columns from a frame on."""
        self.speech[at // COLUMN :][: len(found)], self.spoken[at // COLUMN :][: len(found)] = found, True


class Mixer:
    """Makes clip after clip.

    Args:
        clips: numbers of those to draw from
        groups: of every clip of the store; rare groups are drawn more often than their clips alone would be
        single: chance of a clip alone
        row: chance of a row of speech
        change: whether sounds and mixes are changed beyond their level; off where one measures
        balance: the power of the size of a group that its chance follows: 1 draws every clip equally often, 0 every
            group
    """

    def __init__(
        self,
        store: Store,
        clips: np.ndarray,
        groups: np.ndarray,
        *,
        seed: int,
        change: bool,
        single: float = SINGLE,
        row: float = ROW,
        balance: float = 0.5,
    ) -> None:
        self.store, self.clips, self.seed, self.change, self.single = store, clips, seed, change, single
        self.speech = clips[store.speech_lengths[clips] > 0]
        self.row = row if len(self.speech) else 0.0
        _, of = np.unique(groups[clips], return_inverse=True)
        counts = np.bincount(of).astype(np.float64)
        weights = (counts**balance / counts)[of]
        self.edges = np.cumsum(weights / weights.sum())
        self.values = 0 if store.speech is None else store.speech.shape[1]

    def clip(self, *numbers: int) -> Mixture:
        """The clip of these numbers."""
        draw = np.random.default_rng([self.seed, *numbers])
        page = Page(self.values)
        if self.row and draw.random() < self.row:
            self.speak(page, draw)
        else:
            self.mix(page, draw)
        power = self.changed(page.power, draw) if self.change else page.power
        return Mixture(mel=log_mel_of(power), clips=tuple(page.clips), speech=page.speech, spoken=page.spoken)

    def mix(self, page: "Page", draw: np.random.Generator) -> None:
        """One to four clips over each other; the loudest, where it is speech, has its answers."""
        count = 1 if draw.random() < self.single else int(draw.integers(2, 5))
        drawn = np.minimum(np.searchsorted(self.edges, draw.random(count), side="right"), len(self.clips) - 1)
        levels = np.concatenate([[0.0], -np.sort(draw.uniform(0, SPREAD, count - 1))]) + draw.uniform(*GAIN)
        for number, (clip, level) in enumerate(zip(self.clips[drawn].tolist(), levels, strict=True)):
            answered = number == 0 and self.store.speech_lengths[clip] > 0
            pace, shift = self.changes(draw) if self.change and not answered else (1.0, 0)
            length, span = self.store.length(clip), int(FRAMES * pace)
            start = COLUMN * int(draw.integers(0, max(0, length - span) // COLUMN + 1))
            sound = self.store.power(clip, start, min(length, start + span))
            sound = shifted(paced(sound, pace), shift)[:FRAMES]
            at = COLUMN * int(draw.integers(0, (FRAMES - len(sound)) // COLUMN + 1))
            page.add(clip, sound, at, level)
            if answered:
                page.answer(at, self.answers(clip, start, len(sound), at))

    def speak(self, page: "Page", draw: np.random.Generator) -> None:
        """Clips of speech one after another until the time is over, all with their answers."""
        at = 0
        while at < FRAMES:
            clip = int(draw.choice(self.speech))
            length = self.store.length(clip)
            start = COLUMN * int(draw.integers(0, max(0, length - FRAMES) // COLUMN + 1))
            sound = self.store.power(clip, start, min(length, start + FRAMES - at))
            page.add(clip, sound, at, draw.uniform(*GAIN))
            page.answer(at, self.answers(clip, start, len(sound), at))
            at += COLUMN * (-(-len(sound) // COLUMN) + int(draw.integers(0, 3)))

    def answers(self, clip: int, start: int, frames: int, at: int) -> np.ndarray:
        """The stored columns of a stretch of a clip of speech that is placed at a frame of the mixture."""
        assert self.store.speech is not None
        skipped = start // COLUMN
        columns = min(frames // COLUMN, FRAMES // COLUMN - at // COLUMN, self.store.speech_lengths[clip] - skipped)
        first = self.store.speech_starts[clip] + skipped
        return self.store.speech[first : first + max(0, columns)].astype(np.float32)

    def changes(self, draw: np.random.Generator) -> tuple[float, int]:
        """The pace of a sound and its shift over frequency; half of the sounds keep theirs."""
        chance, pace, shift = draw.random(3)
        if chance < 0.5:
            return 1.0, 0
        return float(2 ** (PACES * (2 * pace - 1))), round(SHIFT * (2 * shift - 1))

    def changed(self, power: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The mix through a smooth response in half of all cases, over a floor of noise in three of ten, and as at a
        lower rate in a quarter."""
        if draw.random() < 0.5:
            knots = np.linspace(0, MELS - 1, 6)
            response = np.interp(np.arange(MELS), knots, draw.normal(0, RESPONSE, len(knots)))
            power = power * (10 ** (response / 10)).astype(np.float32)
        if draw.random() < 0.3:
            tilt = np.linspace(1, 10 ** draw.uniform(-2, 0.5), MELS, dtype=np.float32)
            noise = draw.standard_exponential(power.shape, dtype=np.float32)
            power = power + np.float32(10 ** draw.uniform(*NOISE)) * tilt * noise
        if draw.random() < 0.25:
            power[:, bins_below(float(draw.choice(RATES)) / 2) :] = 0
        return power


def bins_below(hertz: float) -> int:
    """How many mel bins end below a frequency."""
    low, high, at = (hertz_to_mel(edge) for edge in (FRONTEND.min_hertz, FRONTEND.max_hertz, hertz))
    return int(MELS * (at - low) / (high - low))


def paced(power: Float32[np.ndarray, "frame mel"], pace: float) -> Float32[np.ndarray, "_ mel"]:
    """A sound so many times as fast, interpolated between frames."""
    if pace == 1.0:
        return power
    at = np.arange(max(1, int(len(power) / pace))) * pace
    before = np.minimum(at.astype(int), len(power) - 1)
    after, part = np.minimum(before + 1, len(power) - 1), (at - before).astype(np.float32)[:, None]
    return power[before] * (1 - part) + power[after] * part


def shifted(power: Float32[np.ndarray, "frame mel"], bins: int) -> Float32[np.ndarray, "frame mel"]:
    """A sound moved up by so many mel bins; what it leaves is nearly silent."""
    if bins == 0:
        return power
    moved = np.full_like(power, PASST_OFFSET / 10)
    if bins > 0:
        moved[:, bins:] = power[:, :-bins]
    else:
        moved[:, :bins] = power[:, -bins:]
    return moved
