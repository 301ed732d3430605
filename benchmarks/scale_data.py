"""What data cost a training: tars against a folder, the start of a million clips, decoding by format.

    python benchmarks/scale_data.py [--rounds 5] [--clips 200] [--million 1000000] [--work FOLDER]

About ten minutes on two cores and 1 GB of disk. Writes results/scale_data.json and scale_data.md.

Speeds are those of one thread on synthetic clips of 5 s, stereo at 44.1 kHz as most recordings are, read as a
training at 32 kHz reads them when nothing is kept; the files are in the system's memory, so that a disk plays no
part. Folder and tars take turns in every round, in one random order of clips; a round goes before, in which the
checksums of the tars are compared, which a process does once. What a process remembers of the headers of the last 256
files, it remembers of both. Shares are of the time for a clip: decoding is the time
at the recording's own rate, resampling what 32 kHz takes beyond that, features the log-mel spectrogram of PaSST. Time
is that of the processor.

The million clips have 527 labels, one or two each; all are one second of noise at the same place of their tar, so
that the list is full-size and the disk is not. Measured in a process of its own: reading the list, cutting the parts,
writing split.json with the fingerprint, opening the store, and the first batch; the processor's time is what an idle
machine takes, without that of the imports. Memory is its peak, of which the imports are said.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from common import about_this_run, claim_table, in_turns, write_result

from ossicle.data import Item, read_dataset, split_dataset, write_shards
from ossicle.data.cache import clip_of, decode, open_store
from ossicle.data.parts import write_split
from ossicle.data.shards import write_index
from ossicle.frontend import create_frontend, frontend_config
from ossicle.training.loader import WaveBatches

RATE, SOURCE_RATE, SECONDS = 32_000, 44_100, 5.0
FORMATS = ("wav", "flac", "ogg", "mp3")
LABELS, CLIPS_IN_TAR = 527, 50_000


def write_folder(folder: Path, suffix: str, *, clips: int) -> Path:
    """A folder of two classes with noise of a falling spectrum, which no coding finds easy or hard."""
    rng = np.random.default_rng(0)
    for number in range(clips):
        path = folder / f"class {number % 2}" / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.cumsum(rng.normal(0, 0.01, (round(SECONDS * SOURCE_RATE), 2)), axis=0)
        noise -= np.linspace(0, 1, len(noise))[:, None] * noise[-1]
        soundfile.write(path, np.tanh(0.3 * noise), SOURCE_RATE)
    return folder


def read_all(items: list[Item], read: Callable[[Item], object]) -> None:
    """Reads items in an order drawn once."""
    for position in np.random.default_rng(1).permutation(len(items)).tolist():
        read(items[position])


def by_format(work: Path, *, clips: int, rounds: int) -> dict[str, dict[str, float]]:
    """Clips a second and the shares of decoding, resampling and features, for each format and for tars of it."""
    frontend = create_frontend(frontend_config("passt")).eval()
    found = {}
    for suffix in FORMATS:
        folder = write_folder(work / suffix, suffix, clips=clips)
        tars = work / f"{suffix}-tars"
        write_shards(read_dataset(folder), tars)
        items = {"folder": list(read_dataset(folder)), "tars": list(read_dataset(tars))}
        wave = torch.from_numpy(decode(items["folder"][0], RATE).copy())

        def features(_: Item, wave: torch.Tensor = wave) -> None:
            with torch.inference_mode():
                frontend(wave[None])

        seconds = in_turns(
            {
                **{place: partial(read_all, these, partial(decode, rate=RATE)) for place, these in items.items()},
                "decode": partial(read_all, items["folder"], partial(clip_of, rate=SOURCE_RATE)),
                "features": partial(read_all, items["folder"], features),
            },
            rounds=rounds,
            clock=time.process_time,
        )
        whole = seconds["folder"] + seconds["features"]
        found[suffix] = {
            "folder": clips / seconds["folder"],
            "tars": clips / seconds["tars"],
            "decode": seconds["decode"] / whole,
            "resample": (seconds["folder"] - seconds["decode"]) / whole,
            "features": seconds["features"] / whole,
            "with features": clips / whole,
        }
        print(suffix, {name: round(value, 3) for name, value in found[suffix].items()}, flush=True)
    return found


# --- a million clips -------------------------------------------------------------------------------------------------


def write_million(folder: Path, *, clips: int) -> Path:
    """Tars of very many clips that all have the same bytes, with indexes of full size."""
    folder.mkdir(parents=True)
    one = folder / "one.wav"
    rng = np.random.default_rng(0)
    soundfile.write(one, rng.normal(0, 0.1, RATE), RATE)
    content = one.read_bytes()
    one.unlink()
    frequency = np.arange(1, LABELS + 1) ** -0.8
    tars = -(-clips // CLIPS_IN_TAR)
    for number in range(tars):
        tar = folder / f"{number:06}.tar"
        tar.write_bytes(content)
        first, size = number * CLIPS_IN_TAR, min(CLIPS_IN_TAR, clips - number * CLIPS_IN_TAR)
        drawn = rng.choice(LABELS, (size, 2), p=frequency / frequency.sum())
        labels = [sorted(set(row)) for row in drawn.tolist()]
        files: dict[str, list[Any]] = {
            "name": [f"audio/{first + row:011}.wav" for row in range(size)],
            "digest": [hashlib.sha256(str(first + row).encode()).hexdigest()[:32] for row in range(size)],
            **{"offset": [0] * size, "size": [len(content)] * size, "check": [zlib.crc32(content)] * size},
            **{"frames": [RATE] * size, "rate": [RATE] * size},
        }
        clip_columns = {
            "position": list(range(first, first + size)),
            "file": list(range(size)),
            "label": [label for row in labels for label in row],
            "label_count": [len(row) for row in labels],
            "split": (rng.random(size) < 0.98).astype(int).tolist(),
            **{"group": [-1] * size, "fold": [-1] * size},
            "names": {"group": [], "fold": [], "split": ["test", "train"]},
        }
        head = {"set": "million", "shard": number, "shards": tars, "bytes": len(content), "failures": []}
        head |= {"labels": [f"/m/{label:05}" for label in range(LABELS)], "group_name": None, "fold_name": None}
        write_index(tar, head, files=files, clips=clip_columns)
    return folder


def start(folder: Path) -> None:
    """Everything from the list to the first batch; prints a line of JSON."""
    began, times = time.perf_counter(), {}
    imports, before = peak_bytes(), time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        times[name] = time.perf_counter() - began
        began = time.perf_counter()

    dataset = read_dataset(folder)
    lap("read")
    split = split_dataset(dataset)
    lap("split")
    write_split(folder / "split.json", dataset, split)
    lap("split.json with the fingerprint")
    store = open_store(dataset.items, RATE, folder=folder / "cache", budget_bytes=1 << 20)
    lap("store")
    batches = WaveBatches(store, split.train, dataset.label_rows, window=RATE, batch_size=64, seed=0)
    next(iter(batches))
    lap("first batch")
    about = {"clips": len(dataset), "processor": time.process_time() - before, "peak": peak_bytes(), "imports": imports}
    print(json.dumps({"times": times, **about}))


def peak_bytes() -> int:
    """The most memory that this process held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=200, help="in each format")
    parser.add_argument("--million", type=int, default=1_000_000, help="clips of the long list")
    parser.add_argument("--work", type=Path, help="folder for what is made; by default a temporary one")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.start:
        return start(args.start)
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        work = Path(name)
        million = write_million(work / "million", clips=args.million)
        command = [sys.executable, str(Path(__file__).resolve()), "--start", str(million)]
        long = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        print(long, flush=True)
        formats = by_format(work, clips=args.clips, rounds=args.rounds)
    result = {**about_this_run(), "formats": formats, "start": long}
    seconds = sum(long["times"].values())
    beyond = (long["peak"] - long["imports"]) / 1e6
    claims: list[tuple[str, str, str, bool | None]] = [
        (
            f"tars of {suffix}, beside a folder",
            f"{row['tars'] / row['folder']:.1%} of its speed",
            "at least 95 %",
            row["tars"] >= 0.95 * row["folder"],
        )
        for suffix, row in formats.items()
    ]
    laps = ", ".join(f"{name} {value:.1f} s" for name, value in long["times"].items())
    claims += [
        (
            f"start on {long['clips']:,} clips, until the first batch",
            f"{seconds:.1f} s ({laps})",
            "at most 10 s",
            seconds <= 10,
        ),
        ("time of the processor for it", f"{long['processor']:.1f} s", "", None),
        (
            "memory for it",
            f"{beyond:.0f} MB beyond the imports ({long['imports'] / 1e6:.0f} MB)",
            "at most 400 MB",
            beyond <= 400,
        ),
    ]
    lines = [*claim_table(claims), "", "Clips of 5 s a second on one core, and where the time goes:", ""]
    lines += [
        "| format | folder | tars | with features | decode | resample | features |",
        "|---|---|---|---|---|---|---|",
    ]
    for suffix, row in formats.items():
        speeds = " | ".join(f"{row[name]:.0f}" for name in ("folder", "tars", "with features"))
        shares = " | ".join(f"{row[name]:.0%}" for name in ("decode", "resample", "features"))
        lines.append(f"| {suffix} | {speeds} | {shares} |")
    write_result("scale_data", result, lines, title="Data: tars, a million clips, decoding")


if __name__ == "__main__":
    main()
