"""Notes, chords and short phrases as MIDI files, drawn from a seed.

A file is a row of slots of equal length, each with one clip's music and a rest at its end, so that one run of a
synthesizer renders many clips, which are then cut at the slots.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

TICKS = 480  # a quarter note, which lasts half a second: the default tempo
SECOND = 2 * TICKS
DRUMS = 9  # the channel of percussion
HITS = (35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 49, 50, 51, 53, 54, 56, 57, 59, 60, 61, 62, 63, 64, 67, 68)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10))
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10), (0, 5, 7), (0, 7, 12))
BASSES, MELODIES, HARMONIES = (
    range(32, 40),
    (*range(40, 44), *range(56, 80)),
    (*range(0, 8), *range(16, 32), *range(48, 52)),
)


@dataclass
class Score:
    """Events of one MIDI file."""

    events: list[tuple[float, bytes]] = field(default_factory=list)  # seconds, message

    def program(self, at: float, channel: int, number: int) -> None:
        self.events.append((at, bytes([0xC0 | channel, number])))

    def note(self, at: float, channel: int, pitch: int, velocity: int, seconds: float) -> None:
        self.events.append((at, bytes([0x90 | channel, pitch, velocity])))
        self.events.append((at + seconds, bytes([0x80 | channel, pitch, 0])))

    def to_bytes(self) -> bytes:
        """A standard MIDI file of one track."""
        track, last = b"", 0
        for at, message in sorted(self.events, key=lambda event: event[0]):
            tick = round(at * SECOND)
            track += variable_length(tick - last) + message
            last = tick
        track += b"\0\xff\x2f\0"
        return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def variable_length(value: int) -> bytes:
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))


def solo(score: Score, at: float, seconds: float, program: int, draw: np.random.Generator) -> str:
    """One instrument: a note, a chord or a phrase; returns which."""
    score.program(at, 0, program)
    kind = ("note", "note", "chord", "phrase", "phrase")[int(draw.integers(5))]
    root = int(draw.integers(36, 85))
    velocity = int(draw.integers(40, 127))
    length = float(draw.uniform(0.15, seconds))
    if kind == "note":
        score.note(at, 0, root, velocity, length)
    elif kind == "chord":
        for step in CHORDS[int(draw.integers(len(CHORDS)))]:
            score.note(at, 0, min(root + step, 108), velocity, length)
    else:
        melody(score, at, seconds, 0, root, draw)
    return kind


def melody(score: Score, at: float, seconds: float, channel: int, root: int, draw: np.random.Generator) -> None:
    """A walk on a scale, in one tempo, with rests and repeated notes."""
    scale = SCALES[int(draw.integers(len(SCALES)))]
    beat = float(draw.uniform(0.12, 0.5))
    step, now = int(draw.integers(-2, 3)), 0.0
    while now < seconds - beat:
        length = beat * (1, 1, 2, 0.5)[int(draw.integers(4))]
        octave, degree = divmod(step, len(scale))
        pitch = int(np.clip(root + 12 * octave + scale[degree], 24, 108))
        if draw.random() > 0.1:
            sounding = min(length * float(draw.uniform(0.5, 1.1)), seconds - now)
            score.note(at + now, channel, pitch, int(draw.integers(50, 127)), sounding)
        step += int(draw.integers(-2, 3))
        now += length


def percussion(score: Score, at: float, seconds: float, draw: np.random.Generator) -> str:
    """One stroke on a drum, or a pattern; returns which."""
    score.program(at, DRUMS, int(draw.choice([0, 8, 16, 24, 25, 32, 40, 48])))
    if draw.random() < 0.4:
        score.note(at, DRUMS, int(draw.choice(HITS)), int(draw.integers(30, 127)), 0.1)
        return "stroke"
    pattern(score, at, seconds, draw)
    return "pattern"


def pattern(score: Score, at: float, seconds: float, draw: np.random.Generator) -> None:
    """A bar of sixteen steps for a few drums, repeated to the end."""
    step = float(draw.uniform(0.08, 0.18))
    drums = [36, 38, 42, *draw.choice(HITS, 2)]
    rows = draw.random((len(drums), 16)) < np.array([0.3, 0.2, 0.6, 0.15, 0.15])[:, None]
    for number in range(int(seconds / step)):
        for row, drum in enumerate(drums):
            if rows[row, number % 16]:
                score.note(at + number * step, DRUMS, int(drum), int(draw.integers(60, 127)), step / 2)


def ensemble(score: Score, at: float, seconds: float, draw: np.random.Generator) -> str:
    """Melody, chords and bass, with percussion in two of three; returns the programs."""
    parts = [int(draw.choice(list(group))) for group in (MELODIES, HARMONIES, BASSES)]
    for channel, program in enumerate(parts):
        score.program(at, channel, program)
    root = int(draw.integers(48, 60))
    melody(score, at, seconds, 0, root + 12, draw)
    bar = float(draw.choice([1.0, 1.5, 2.0]))
    for start in np.arange(0, seconds - bar / 2, bar):
        base = root + int(draw.choice([0, 5, 7, 9, -3]))
        length = min(bar * 0.95, seconds - float(start))
        for step in CHORDS[int(draw.integers(4))]:
            score.note(at + float(start), 1, base + step, int(draw.integers(40, 90)), length)
        score.note(at + float(start), 2, base - 12, int(draw.integers(60, 110)), length)
    if draw.random() < 0.67:
        pattern(score, at, seconds, draw)
    return "ensemble of programs " + " ".join(str(program + 1) for program in parts)
