"""Sounds that are made here: instruments of a free sound font, and sentences of free voices.

A unit is one run of a program: eight instruments of the sound font, its drums, ensembles, or one voice. It gives
recordings with what they are called, as a package does.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from pretraining import midi, texts
from pretraining.debian import environment
from pretraining.sources import SOUNDFONT_PATH, VOICES, WORDS, Voice

SLOT = 5.0  # seconds of one instrument's clip, rest included
ENSEMBLE_SLOT = 10.0
REST = 0.8  # seconds of a slot for what dies away
CLIPS_PER_PROGRAM = 10
DRUM_CLIPS = 160
ENSEMBLES = 200
SENTENCES_PER_VOICE = 70
RATE = 32_000
GAIN = 0.5  # of fluidsynth: chords must not clip; loudness is set later

Music = Callable[[midi.Score, float, float, int], str]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One recording, with what was played or said."""

    path: str  # what stands in the manifest in place of a path
    label: str
    file: Path


# --- instruments ------------------------------------------------------------------------------------------------------


def instrument_units() -> dict[str, Callable[[Path, Path, np.random.Generator], Iterator[Sound]]]:
    """The runs of the synthesizer: name to function of (tools, folder, generator)."""
    units = {f"instruments-{first:03d}": family(first) for first in range(1, 129, 8)}
    return {**units, "instruments-drums": drums, "instruments-ensembles": ensembles}


def family(first: int) -> Callable[[Path, Path, np.random.Generator], Iterator[Sound]]:
    def render(root: Path, folder: Path, draw: np.random.Generator) -> Iterator[Sound]:
        programs = np.repeat(np.arange(first, first + 8), CLIPS_PER_PROGRAM)

        def play(score: midi.Score, at: float, seconds: float, number: int) -> str:
            program = int(programs[number])
            return f"program {program:03d}: {midi.solo(score, at, seconds, program - 1, draw)}"

        yield from slots(root, folder, count=len(programs), slot=SLOT, play=play)

    return render


def drums(root: Path, folder: Path, draw: np.random.Generator) -> Iterator[Sound]:
    def play(score: midi.Score, at: float, seconds: float, number: int) -> str:
        return f"percussion: {midi.percussion(score, at, seconds, draw)}"

    yield from slots(root, folder, count=DRUM_CLIPS, slot=SLOT, play=play)


def ensembles(root: Path, folder: Path, draw: np.random.Generator) -> Iterator[Sound]:
    def play(score: midi.Score, at: float, seconds: float, number: int) -> str:
        return midi.ensemble(score, at, seconds, draw)

    yield from slots(root, folder, count=ENSEMBLES, slot=ENSEMBLE_SLOT, play=play)


def slots(root: Path, folder: Path, *, count: int, slot: float, play: Music) -> Iterator[Sound]:
    """Plays `count` slots of a score in one run, and cuts the recording at them."""
    score = midi.Score()
    titles = [play(score, number * slot, slot - REST, number) for number in range(count)]
    (folder / "score.mid").write_bytes(score.to_bytes())
    whole = folder / "whole.wav"
    command = [root / "usr/bin/fluidsynth", "-n", "-i", "-q", "-g", GAIN, "-r", RATE, "-T", "wav", "-F", whole]
    run([*command, root / SOUNDFONT_PATH, folder / "score.mid"], root)
    with soundfile.SoundFile(whole) as recording:
        for number, title in enumerate(titles):
            recording.seek(min(round(number * slot * RATE), recording.frames))
            samples = recording.read(round(slot * RATE), dtype="int16", always_2d=True)
            file = folder / f"{number:04d}.wav"
            soundfile.write(file, samples, RATE)
            yield Sound(path=f"{title} ({number})", label=title.split(":")[0].split(" of ")[0], file=file)


# --- voices -----------------------------------------------------------------------------------------------------------


def voice_units() -> dict[str, Callable[[Path, Path, np.random.Generator], Iterator[Sound]]]:
    sentences = {unit_of(voice): speaker(voice) for voice in VOICES}
    return sentences | {unit_of(voice, words=True): speaker(voice, words=True) for voice in VOICES if voice.words}


def unit_of(voice: Voice, *, words: bool = False) -> str:
    return f"voice-{voice.engine}-{voice.name}" + ("-words" if words else "")


def speaker(voice: Voice, *, words: bool = False) -> Callable[[Path, Path, np.random.Generator], Iterator[Sound]]:
    """What renders sentences of a voice, or single words."""

    def render(root: Path, folder: Path, draw: np.random.Generator) -> Iterator[Sound]:
        if words:
            known = texts.read_words(root / WORDS)
            said = [texts.words(known, draw) for _ in range(voice.words)]
        else:
            said = [texts.sentence(voice.language, draw) for _ in range(SENTENCES_PER_VOICE)]
        files = [folder / f"{number:04d}.wav" for number in range(len(said))]
        hows = ENGINES[voice.engine](voice, root, said, files, draw)
        for text, file, how in zip(said, files, hows, strict=True):
            if file.exists() and file.stat().st_size > 1000:
                yield Sound(path=f"{voice.name}{how}: {text}", label=f"voice {voice.engine} {voice.name}", file=file)

    return render


def speak_espeak(voice: Voice, root: Path, said: list[str], files: list[Path], draw: np.random.Generator) -> list[str]:
    """Every sentence in another variant, rate and pitch."""
    variants = [f"+{name}" for name in "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 croak whisper klatt klatt2".split()]
    hows = []
    for text, file in zip(said, files, strict=True):
        variant = str(draw.choice(["", *variants]))
        rate, pitch = int(draw.integers(110, 240)), int(draw.integers(15, 90))
        data = next(root.glob("usr/lib/*/espeak-ng-data"))
        command = [root / "usr/bin/espeak-ng", f"--path={data.parent}", "-v", voice.name + variant]
        run([*command, "-s", rate, "-p", pitch, "-w", file, "--", text], root)
        hows.append(f"{variant} rate {rate} pitch {pitch}")
    return hows


def speak_flite(voice: Voice, root: Path, said: list[str], files: list[Path], draw: np.random.Generator) -> list[str]:
    """Every sentence at another rate and pitch."""
    hows = []
    for text, file in zip(said, files, strict=True):
        stretch, pitch = float(draw.uniform(0.75, 1.35)), int(draw.integers(85, 220))
        settings = ["--setf", f"duration_stretch={stretch:.2f}", "--setf", f"int_f0_target_mean={pitch}"]
        run([root / "usr/bin/flite", "-voice", voice.name, *settings, "-t", text, "-o", file], root)
        hows.append(f" stretch {stretch:.2f} pitch {pitch}")
    return hows


def speak_festival(
    voice: Voice, root: Path, said: list[str], files: list[Path], draw: np.random.Generator
) -> list[str]:
    """Every sentence at another rate, in a run of its own: some end the program by a fault, and are left out."""
    hows = []
    for text, file in zip(said, files, strict=True):
        stretch = float(draw.uniform(0.8, 1.3))
        quoted = text.replace("\\", " ").replace('"', " ")
        script = file.with_suffix(".scm")
        lines = (
            f"(voice_{voice.name})",
            f"(Parameter.set 'Duration_Stretch {stretch:.2f})",
            f'(utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{file}" \'riff)',
        )
        script.write_bytes("\n".join(lines).encode(voice.encoding, "ignore"))
        with contextlib.suppress(Fault):
            run([root / "usr/bin/festival", "--datadir", root / "usr/share/festival", "-b", script], root)
        hows.append(f" stretch {stretch:.2f}")
    return hows


ENGINES = {"espeak-ng": speak_espeak, "flite": speak_flite, "festival": speak_festival}


class Fault(SystemExit):
    """A program was ended by a signal."""


def run(command: list[object], root: Path) -> None:
    """Runs a program of the unpacked packages quietly; where it fails, says what it said.

    Raises: Fault for one that a signal ended.
    """
    done = subprocess.run([str(word) for word in command], env=environment(root), capture_output=True, check=False)
    if done.returncode < 0:
        raise Fault(f"{command[0]} was ended by signal {-done.returncode}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {said}")
