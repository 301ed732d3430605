"""Demo, train and predict beside other programs: how many times the quiet time each takes.

    python benchmarks/beside.py [--rounds 3] [--others 1 2] [--slow] [--spin COUNT ...]

About half an hour on two cores for the three tasks. Writes results/beside.json and beside.md; --slow, which keeps to
float32 and AVX2 as an older processor would, results/beside_slow.*.

Each measurement is the real command in a process of its own, with the threads that a user has (as many as cores):

    demo     a round of the tour: its settings, a tenth of its epochs
    train    passt_tiny_s16 on the built-in recordings, a few epochs
    predict  passt_tiny_s16 with random weights on an hour of noise, windows of 10 s

The start of Python and torch, which no thread waits in, is not counted: demo and train by their own clock in
metrics.csv, predict by the difference of two lengths. Quiet, beside one busy process of low priority (nice 19), beside
one of the same priority, and beside one in a session of its own (a second terminal, which Linux gives half of a core
whatever its nice value) take turns in every round, medians over the rounds. With --spin every number of turns that
waiting threads spin is measured beside the command's own, `default` being that of the library. What else ran on the
machine meanwhile, as the mean number of busy cores that are neither ours nor the busy process's, stands beside the
times: above a tenth the quiet times are not quiet.
"""

import argparse
import contextlib
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from common import about_this_run, random_bundle, write_result

from ossicle.data.recordings import drums_folder
from ossicle.demo.tour import CONFIG

BUSY: dict[str, tuple[list[str], bool, int]] = {  # how it is started, whether in a session of its own, how many
    "quiet": ([], False, 0),
    "low priority": (["nice", "-n", "19"], False, 1),
    "same priority": ([], False, 1),
    "another session": ([], True, 1),
    "two of low priority": (["nice", "-n", "19"], False, 2),
    "two of the same": ([], False, 2),
}
TASKS = ("demo", "train", "predict")
GOAL = 2.5  # times the quiet time, beside one busy process
QUIET = 0.1  # cores that other work may take meanwhile
EPOCHS = {"demo": 6, "train": 3}
MINUTES = (2, 22)  # of noise that predict hears
TICK = os.sysconf("SC_CLK_TCK")
OWN = "ours"


# --- one measurement -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy(kind: str) -> Iterator[list[int]]:
    """Other programs at work; gives their process ids."""
    start, session, number = BUSY[kind]
    command = [*start, sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(command, start_new_session=session) for _ in range(number)]
    try:
        yield [program.pid for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()


def seconds_of(task: str, folder: Path, *, environment: dict[str, str], slow: bool) -> float:
    """Seconds of a task, its start left out."""
    if task == "predict":
        short, long = (
            clock(["predict", str(folder / "bundle"), str(folder / f"{minutes}.wav")], environment)
            for minutes in MINUTES
        )
        return long - short
    settings = {"epochs": EPOCHS[task], "validation": 0.0, **({"precision": "float32"} if slow else {})}
    if task == "demo":
        names = "depth window balance batch_size lr warmup ema_decay label_smoothing patchout_t patchout_f gain mixup"
        settings |= {name: getattr(CONFIG, name) for name in names.split()}
    with tempfile.TemporaryDirectory() as output:
        given = [f"{name}={value}" for name, value in settings.items()]
        clock(["train", str(drums_folder()), "-o", f"{output}/run", "--folds", "1", "--set", *given], environment)
        with open(f"{output}/run/metrics.csv", newline="") as file:
            # The first epoch makes what the later ones find.
            times = [float(row["seconds"]) for row in csv.DictReader(file)]
    return times[-1] - times[0]


def clock(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ossicle", *arguments]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def environment_of(spin: str, *, slow: bool, cache: Path) -> dict[str, str]:
    """That of a user who has set nothing, or the number of turns that waiting threads spin."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    kept["OSSICLE_CACHE"] = str(cache)
    if spin == "default":
        kept["OMP_WAIT_POLICY"] = ""  # empty is unset to libgomp, and the user's to us
    elif spin != OWN:
        kept["GOMP_SPINCOUNT"] = spin
    return kept | ({"ONEDNN_MAX_CPU_ISA": "AVX2"} if slow else {})


def worked(pids: list[int] | None = None) -> float:
    """Processor seconds so far: of the machine, or of these processes."""
    if pids is None:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / TICK  # neither idle nor waiting for a disk
    words = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(word[11]) + int(word[12]) for word in words) / TICK


# --- the run ---------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measures every task beside every kind of other work, taking turns, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--beside", nargs="+", choices=BUSY, default=list(BUSY))
    parser.add_argument("--slow", action="store_true", help="float32 and AVX2 alone, as on an older processor")
    parser.add_argument("--spin", nargs="+", default=[], metavar="COUNT", help="also these, and `default`")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or what is busy would go on for ever
    spins = (OWN, *arguments.spin)
    times: dict[tuple[str, str, str], list[float]] = {}
    others: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_bundle(folder / "bundle", "passt_tiny_s16", window=10.0)
        for minutes in MINUTES:
            noise = np.random.default_rng(0).normal(scale=0.1, size=minutes * 60 * 32_000).astype(np.float32)
            soundfile.write(folder / f"{minutes}.wav", noise, 32_000, subtype="PCM_16")
        for number in range(arguments.rounds):
            for task in arguments.tasks:
                for kind in arguments.beside:
                    for spin in spins:
                        environment = environment_of(spin, slow=arguments.slow, cache=folder / "cache")
                        with busy(kind) as programs:
                            began, all_work, known = time.perf_counter(), worked(), own_work(programs)
                            found = seconds_of(task, folder, environment=environment, slow=arguments.slow)
                            foreign = worked() - all_work - (own_work(programs) - known)
                            others.append(max(foreign, 0.0) / (time.perf_counter() - began))
                        times.setdefault((task, kind, spin), []).append(found)
                        said = f"{task} {kind} {spin}: {found:.2f} s, others {others[-1]:.2f} cores"
                        print(f"round {number + 1}: {said}", file=sys.stderr, flush=True)
    result: dict[str, Any] = about_this_run() | {
        "threads": torch.get_num_threads(),
        "other_cores_busy": statistics.mean(others),
        "seconds": [
            {"task": task, "beside": kind, "spin": spin, "seconds": values}
            for (task, kind, spin), values in times.items()
        ],
    }
    write_result(
        "beside_slow" if arguments.slow else "beside", result, table(times, result), title="Beside other programs"
    )


def own_work(programs: list[int]) -> float:
    """Processor seconds of this process, of the commands that it has waited for, and of the busy programs."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system + worked(programs)


def table(times: dict[tuple[str, str, str], list[float]], result: dict[str, Any]) -> list[str]:
    """A row for each task and kind of other work, beside what was wanted."""
    quiet_machine = result["other_cores_busy"] < QUIET
    lines = ["| task | waiting threads spin | beside | seconds | times quiet | wanted |", "|---|---|---|---|---|---|"]
    for (task, kind, spin), values in times.items():
        seconds = statistics.median(values)
        quiet = times.get((task, "quiet", spin))
        ratio = seconds / statistics.median(quiet) if quiet else float("nan")
        wanted = ""
        if spin == OWN and BUSY[kind][2] == 1:
            met = "met" if ratio <= GOAL else "**missed**"
            wanted = f"at most {GOAL}: {met if quiet_machine else 'open'}"
        lines.append(f"| {task} | {spin} | {kind} | {seconds:.2f} | {ratio:.2f} | {wanted} |")
    said = "" if quiet_machine else ": this was no quiet machine, and the ratios decide nothing"
    return [*lines, "", f"Other work on the machine meanwhile: {result['other_cores_busy']:.2f} cores{said}."]


if __name__ == "__main__":
    main()
