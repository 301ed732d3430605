"""Recordings to damage, acts of damage, and what every damaged recording is held to.

Shared by test_mutations.py and by benchmarks/mutations.py, which damages 100,000.
"""

import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ossicle.audio import AudioLimits, Clip, read_blocks, read_clip
from ossicle.audio.mpeg import LENGTHS
from ossicle.errors import AudioError

SECONDS_ALLOWED = 2.0  # of this process: a busy machine is no fault of the decoder's
BYTES_ALLOWED = 64 << 20
LIMITS = AudioLimits(seconds=20.0, channels=8, min_rate=4_000, max_rate=200_000)
KINDS = ("flip", "header", "cut", "drop", "repeat", "run", "splice")


def make_seeds(folder: Path, sounds: SimpleNamespace) -> dict[str, bytes]:
    """A tenth of a second of sound in every format, and files that were joined, never finished, late or torn."""
    paths = sounds.write_zoo(folder, 0.1)
    seeds = {name: path.read_bytes() for name, path in paths.items()}
    for name in ("vorbis.ogg", "voice.opus", "layer3.mp3", "pcm16.wav", "apple.aiff", "sun.au", "core.caf", "sony.w64"):
        seeds[f"joined {name}"] = 2 * seeds[name]
    mp3, wav, flac = seeds["layer3.mp3"], bytearray(seeds["pcm16.wav"]), bytearray(seeds["lossless16.flac"])
    seeds["untold.mp3"] = mp3[LENGTHS[int.from_bytes(mp3[:4]) >> 9] :]  # without the frame that holds its tag
    seeds["tagged.mp3"] = 2 * (b"ID3\x04\0\0\0\0\x02\0" + bytes(256) + mp3 + b"TAG" + bytes(125))
    seeds["list.wav"] = bytes(wav) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    struct.pack_into("<I", wav, bytes(wav).index(b"data") + 4, 4_000)
    seeds["wav.counted"] = bytes(wav)  # by the container alone
    struct.pack_into("<I", wav, 4, 4_036)
    seeds["wav.stale"] = bytes(wav)
    flac[18:26] = (int.from_bytes(flac[18:26]) >> 36 << 36 | 1_000).to_bytes(8)
    seeds["flac.stale"] = bytes(flac)
    noise = sounds.chirp(48_000, 0.1)[:, 0]
    timed = {
        "late.mkv": ([[(0.5, noise)]], {"picture": 1.0}),
        "late.mp4": ([[(0.5, noise)]], {"picture": 1.0}),
        "gap.mkv": ([[(0.0, noise), (0.6, noise)]], {}),
        "gap.mp4": ([[(0.0, noise), (0.6, noise)]], {}),
        "gap.ts": ([[(0.0, noise), (0.6, noise)]], {}),
        "tracks.mkv": ([[(0.0, noise)], [(0.1, noise)]], {"marked": 1}),
    }
    for name, (tracks, options) in timed.items():
        seeds[name] = sounds.write_timed(folder / name, tracks, **options).read_bytes()
    return seeds


def damaged(content: bytes, other: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """One act of damage; headers are hit most, as they hold what a decoder believes."""
    data = bytearray(content)
    if not data:
        return other
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 1 + max(1, len(data) // 4)))
    match kind:
        case "flip":
            for place in rng.integers(len(data), size=rng.integers(1, 20)):
                data[place] = int(rng.integers(256))
        case "header":
            for place in rng.integers(min(96, len(data)), size=rng.integers(1, 6)):
                data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)]))
        case "cut":
            del data[at:]
        case "drop":
            del data[at : at + length]
        case "repeat":
            data[at:at] = data[at : at + length]
        case "run":
            data[at : at + length] = bytes([int(rng.choice([0, 0xFF]))]) * length
        case "splice":
            data[at:] = other[int(rng.integers(len(other))) :]
    return bytes(data)


def peak_bytes() -> int:
    """The most memory this process has ever held: what one case adds to it, that case took."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file: a clip or an error, in how many seconds and bytes."""

    clip: Clip | None
    seconds: float
    bytes: int


def decode(path: Path, *, in_blocks: bool = True) -> Outcome:
    """Reads a file as clip and as blocks, and holds what comes to the promise."""
    started, held = time.process_time(), peak_bytes()
    try:
        clip = read_clip(path, 32_000, limits=LIMITS)
    except AudioError as error:
        message = str(error)
        assert path.name in message
        assert "\n" not in message
        clip = None
    taken, more = time.process_time() - started, peak_bytes() - held
    assert taken < SECONDS_ALLOWED, f"{taken:.2f} s"
    assert more < BYTES_ALLOWED, f"{more >> 20} MiB"
    if clip is not None:
        assert clip.samples.dtype == np.float32 and clip.samples.ndim == 1
        assert np.isfinite(clip.samples).all()
        assert 0 < clip.seconds <= LIMITS.seconds
        assert LIMITS.min_rate <= clip.source_rate <= LIMITS.max_rate
        assert 1 <= clip.source_channels <= LIMITS.channels
        if in_blocks:
            joined = np.concatenate(list(read_blocks(path, 32_000, block_seconds=0.05, limits=LIMITS)))
            np.testing.assert_array_equal(joined, clip.samples)
    return Outcome(clip=clip, seconds=taken, bytes=more)


def write_case(folder: Path, seeds: dict[str, bytes], number: int) -> tuple[Path, bool]:
    """Damages one of the recordings, which and how the number says; and whether it is to be read in blocks too."""
    rng = np.random.default_rng(number)
    names = sorted(seeds)
    name, other = (names[int(rng.integers(len(names)))] for _ in range(2))
    content = seeds[name]
    for _ in range(int(rng.integers(1, 4))):
        content = damaged(content, seeds[other], KINDS[int(rng.integers(len(KINDS)))], rng)
    path = folder / name
    path.write_bytes(content)
    return path, number % 4 == 0
