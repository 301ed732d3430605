"""Log-mel features of a whole corpus, in one file each: a training step mixes and changes them, and decodes nothing.

    python -m pretraining.features CORPUS -o STORE [--speech WHISPER]

`STORE/frames.f16` holds the `passt` log-mel of every clip of the manifest one after another, (frame, mel) in float16
(whose rounding is a twentieth of the quietest difference that a network hears), and `STORE/clips.npz` where each clip
begins, with its part and topic. With the folder of a speech encoder, `STORE/speech.f16` holds the outputs of two of its
blocks for every clip of speech, averaged over 160 ms, a column of the student's patches.

A file is written whole; a run that was killed begins with the first that is missing. 22 hours of sound take three
minutes on a core, the speech in it ten.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from ossicle.encoders import Encoder, load_encoder
from ossicle.files import write_atomically
from ossicle.frontend import frontend_config, log_mel
from ossicle.frontend.mel import PASST_OFFSET
from ossicle.types import Float32
from pretraining.manifest import Row, read_rows

FRONTEND = frontend_config("passt")
MELS = FRONTEND.mels
COLUMN = 16  # frames of a column of patches
SHORTEST = 0.2  # seconds; a shorter clip is followed by silence
SPEECH = ("speech", "voice")  # the kinds with speech alone
BLOCKS = (1, 3)  # of the speech encoder, from 0: sounds of speech, and how it is said


def main() -> None:
    """Writes what is missing of a store."""
    parser = argparse.ArgumentParser(description="Stores the log-mel of a corpus, and a speech encoder's outputs.")
    parser.add_argument("corpus", type=Path, help="folder with manifest.jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--speech", type=Path, help="folder of a frozen speech encoder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    rows = read_rows(given.corpus / "manifest.jsonl")
    if not (given.output / "clips.npz").exists():
        store_frames(given.output, given.corpus, rows)
    if given.speech and not (given.output / "speech.npz").exists():
        store_speech(given.output, given.corpus, rows, load_encoder(str(given.speech), crop=True))


def store_frames(store: Path, corpus: Path, rows: list[Row]) -> None:
    """Writes the log-mel of every clip; the index last, as it says that they are whole."""
    starts = [0]
    with open(store / "frames.part", "wb") as file:
        for row in rows:
            mel = log_mel(torch.from_numpy(read(corpus, row))[None], FRONTEND)[0].T.half().numpy()
            file.write(np.ascontiguousarray(mel).tobytes())
            starts.append(starts[-1] + len(mel))
    (store / "frames.part").replace(store / "frames.f16")
    about = {name: np.array([getattr(row, name) for row in rows]) for name in ("topic", "part")}
    save(store / "clips.npz", starts=np.array(starts), **about)


def store_speech(store: Path, corpus: Path, rows: list[Row], encoder: Encoder) -> None:
    """Writes the outputs of two blocks of the encoder for every clip of speech."""
    starts, lengths, count = np.full(len(rows), -1), np.zeros(len(rows), int), 0
    with open(store / "speech.part", "wb") as file:
        for number, row in enumerate(rows):
            if row.kind in SPEECH:
                columns = speech_columns(encoder, read(corpus, row))
                file.write(columns.tobytes())
                starts[number], lengths[number], count = count, len(columns), count + len(columns)
    (store / "speech.part").replace(store / "speech.f16")
    save(store / "speech.npz", starts=starts, lengths=lengths)


def speech_columns(encoder: Encoder, samples: Float32[np.ndarray, " time"]) -> np.ndarray:
    """(column, value) in float16 for the whole columns of a clip."""
    rate = encoder.rate
    assert rate is not None
    wave = soxr.resample(samples, FRONTEND.rate, rate).astype(np.float32)
    with torch.inference_mode():
        states = encoder.encode(encoder.prepare([np.pad(wave, (0, max(0, rate // 2 - len(wave))))])).features[0]
    joined = torch.cat([states[block] for block in BLOCKS], dim=-1)  # (time, value)
    times = round(COLUMN * FRONTEND.hop_samples / FRONTEND.rate * 50)  # the encoder has 50 a second
    whole = len(joined) // times
    return joined[: whole * times].unflatten(0, (whole, times)).mean(1).half().numpy()


def read(corpus: Path, row: Row) -> Float32[np.ndarray, " time"]:
    samples, _ = soundfile.read(corpus / row.file, dtype="float32")
    return np.pad(samples, (0, max(0, round(SHORTEST * FRONTEND.rate) - len(samples))))


def save(path: Path, **arrays: np.ndarray) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


@dataclass(frozen=True, kw_only=True, eq=False)
class Store:
    """The features of a corpus, read as they are needed."""

    frames: np.ndarray  # (frame, mel), float16
    starts: np.ndarray  # (clip + 1,)
    part: np.ndarray
    topic: np.ndarray
    speech: np.ndarray | None  # (column, value), float16
    speech_starts: np.ndarray  # (clip,)
    speech_lengths: np.ndarray  # (clip,), in columns; 0 where a clip has none

    @classmethod
    def open(cls, folder: Path) -> "Store":
        clips = np.load(folder / "clips.npz")
        frames = np.memmap(folder / "frames.f16", np.float16, "r").reshape(-1, MELS)
        nothing = np.zeros(len(clips["part"]), int)
        speech, index = None, {"starts": nothing, "lengths": nothing}
        if (folder / "speech.npz").exists():
            index = dict(np.load(folder / "speech.npz"))
            speech = np.memmap(folder / "speech.f16", np.float16, "r").reshape(int(index["lengths"].sum()), -1)
        return cls(
            frames=frames,
            starts=clips["starts"],
            part=clips["part"],
            topic=clips["topic"],
            speech=speech,
            speech_starts=index["starts"],
            speech_lengths=index["lengths"],
        )

    def __len__(self) -> int:
        return len(self.part)

    def length(self, clip: int) -> int:
        """Frames of a clip."""
        return int(self.starts[clip + 1] - self.starts[clip])

    def power(self, clip: int, start: int, stop: int) -> Float32[np.ndarray, "frame mel"]:
        """Mel power of some frames of a clip."""
        stored = self.frames[self.starts[clip] + start : self.starts[clip] + stop].astype(np.float32)
        return np.exp(stored * (2 * FRONTEND.deviation) + FRONTEND.mean)


def log_mel_of(power: Float32[np.ndarray, "frame mel"]) -> Float32[np.ndarray, "mel frame"]:
    """The features of mel power, as the front end has them."""
    return ((np.log(power + np.float32(PASST_OFFSET)) - FRONTEND.mean) / (2 * FRONTEND.deviation)).T.astype(np.float32)


if __name__ == "__main__":
    main()
