"""What a longer recording costs a network: seconds and memory of one pass, from 5 s of audio to 160 s.

    python benchmarks/length.py [--rounds 3] [--threads 2] [--seconds 5 10 ...] [--models NAME ...]

About half an hour on two cores. Writes results/length.json, length.md and length.png, anew after every round.

Network only: batch 1, inference, float32, random features at the preset's frame rate. A PaSST sees everything in one
pass, with interpolated positions. Every model and length is measured in a process of its own, and the models take turns
at every length, so that a busy machine hurts all of them.

Seconds are the median over the passes of all rounds, fewer of them at long recordings. Memory is what the first pass
at this length holds at its peak beyond what the process held just before, weights and features included: VmHWM, set
back through /proc/self/clear_refs, less VmRSS, so Linux is needed; the median over the rounds. A pass over one second
goes before, so that what torch sets up once is not counted.

A case that runs out of memory, is killed, or grows beyond --max-gigabytes "did not fit"; the others go on.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import about_this_run, claim_table, write_result
from matplotlib.figure import Figure

from ossicle import create_model
from ossicle.models import find_preset, network_class

SECONDS = (5, 10, 20, 40, 80, 160)
SEGMENTED = "datar_tiny_segmented"
MODELS = ("passt_base_s16", "datar_tiny", SEGMENTED)
SLACK = 1.15  # by which a cost that grows with the length may exceed the multiple of the length
MEASURES = {"times": ("seconds", 1.0), "peaks": ("MB", 1e6)}
NO_FIT = "did not fit"

Case = dict[str, Any]  # model, seconds; times of passes and peaks in bytes, one or more; or why it failed


# --- one case, in a process of its own -------------------------------------------------------------------------------


def work(name: str, seconds: int) -> Case:
    """Peak memory of the first pass over so many seconds, and the time of each that follows."""
    preset = find_preset(name)
    options: dict[str, Any] = (
        {"interpolate_positions": True} if "interpolate_positions" in network_class(name).option_types() else {}
    )
    model = create_model(name, **options).eval()
    spec = torch.randn(1, model.config.mels, round(seconds / preset.frame_seconds))
    with torch.inference_mode():
        model(spec[..., : round(1 / preset.frame_seconds)])
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
        before = resident_bytes("self", "VmRSS")
        model(spec)
        peak = resident_bytes("self", "VmHWM") - before
        times = []
        for _ in range(max(1, min(5, 80 // seconds))):
            start = time.perf_counter()
            model(spec)
            times.append(time.perf_counter() - start)
    return {"times": times, "peaks": [peak]}


def resident_bytes(process: int | str, what: str) -> int:
    """VmRSS, what a process holds in memory, or VmHWM, the most that it held; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(what)), 0)


def answer(name: str, seconds: int) -> None:
    """Measures and prints a line of JSON."""
    try:
        case = work(name, seconds)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        case = {"failed": NO_FIT}
    print(json.dumps(case))


# --- the conductor ---------------------------------------------------------------------------------------------------


def ask(name: str, seconds: int, *, threads: int, max_bytes: float) -> Case:
    """What a new process says about one case; it is ended where it grows too large."""
    script = str(Path(__file__).resolve())
    command = [sys.executable, script, "--work", name, str(seconds), "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if resident_bytes(process.pid, "VmRSS") > max_bytes:
                    process.kill()
    finally:
        process.kill()
    if process.returncode == -signal.SIGKILL:  # by us or, out of memory, by the system
        return {"failed": NO_FIT}
    if process.returncode:
        return {"failed": f"failed with code {process.returncode}"}
    return json.loads(output.splitlines()[-1])


def measure_round(cases: list[Case], *, threads: int, max_bytes: float) -> None:
    """Adds one measurement to each case that has not failed, from the shortest to the longest."""
    for case in sorted(cases, key=lambda case: case["seconds"]):
        if case["failed"]:
            continue
        found = ask(case["model"], case["seconds"], threads=threads, max_bytes=max_bytes)
        case["failed"] = found.get("failed")
        for measure in MEASURES:
            case[measure] += found.get(measure, [])
        print(f"{case['model']}, {case['seconds']} s: {found}", file=sys.stderr, flush=True)


def cost(cases: list[Case], model: str, seconds: int, measure: str) -> float | None:
    """The median of a case, or None where it was never measured."""
    values = case_of(cases, model, seconds)[measure]
    return statistics.median(values) if values else None


def case_of(cases: list[Case], model: str, seconds: int) -> Case:
    """The case of this model and length."""
    return next(case for case in cases if (case["model"], case["seconds"]) == (model, seconds))


def claims(cases: list[Case], lengths: list[int]) -> list[dict[str, Any]]:
    """Whether the segmented preset's cost grows with the length and no faster."""
    rows: list[dict[str, Any]] = []
    short, long = lengths[0], lengths[-1]
    for measure, name in (("times", "seconds"), ("peaks", "memory")):
        if any(case["model"] == SEGMENTED for case in cases) and short < long:
            less, more = (cost(cases, SEGMENTED, seconds, measure) for seconds in (short, long))
            wanted = SLACK * long / short
            got = more / less if less and more else None
            rows.append(
                {
                    "what": f"{SEGMENTED}, {name} at {long} s / at {short} s",
                    "got": got,
                    "wanted": wanted,
                    "met": got is not None and got <= wanted,
                }
            )
    return rows


def table(cases: list[Case], models: list[str], lengths: list[int], found: list[dict[str, Any]]) -> list[str]:
    """The result as lines of Markdown."""
    wanted = f"at most {SLACK:g} x {lengths[-1] / lengths[0]:g} = "
    rows = [
        (
            claim["what"],
            "not measured" if claim["got"] is None else f"{claim['got']:.2f}",
            f"{wanted}{claim['wanted']:.1f}",
            claim["met"],
        )
        for claim in found
    ]
    lines = claim_table(rows) if rows else []
    for measure, (unit, scale) in MEASURES.items():
        title = f"{unit} (times its own at {lengths[0]} s)"
        lines += [
            *([""] if lines else []),
            f"| seconds of audio | {' | '.join(f'{model}, {title}' for model in models)} |",
        ]
        lines.append("|---" * (len(models) + 1) + "|")
        for seconds in lengths:
            cells = [cell(cases, model, seconds, measure, scale=scale, base=lengths[0]) for model in models]
            lines.append(f"| {seconds} | {' | '.join(cells)} |")
    return lines


def cell(cases: list[Case], model: str, seconds: int, measure: str, *, scale: float, base: int) -> str:
    """A cost and its multiple of the shortest length's, and what went wrong."""
    value, first = cost(cases, model, seconds, measure), cost(cases, model, base, measure)
    failed = case_of(cases, model, seconds)["failed"]
    if value is None:
        return failed or ""
    text = f"{value / scale:.4g}" + (f" ({value / first:.1f})" if first else "")
    return f"{text}; later {failed}" if failed else text


def growth_figure(cases: list[Case], models: list[str], lengths: list[int]) -> Figure:
    """Time and memory over the length, with a dashed line where each would be if it grew with the length alone."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (measure, (unit, scale)) in zip(figure.subplots(1, 2), MEASURES.items(), strict=True):
        for number, model in enumerate(models):
            known = [(s, value / scale) for s in lengths if (value := cost(cases, model, s, measure))]
            if not known:
                continue
            axes.loglog(*zip(*known, strict=True), "o-", color=f"C{number}", label=model, linewidth=1, markersize=4)
            first, value = known[0]
            linear = [value * seconds / first for seconds in lengths]
            axes.loglog(lengths, linear, "--", color=f"C{number}", linewidth=0.8, alpha=0.6)
        axes.plot([], [], "--", color="gray", linewidth=0.8, label="as the length")
        axes.set_xlabel("seconds of audio")
        axes.set_ylabel("seconds of computing" if measure == "times" else f"memory beyond the weights, {unit}")
        axes.set_xticks(lengths, [str(seconds) for seconds in lengths])
        axes.minorticks_off()
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    return figure


def report(cases: list[Case], models: list[str], lengths: list[int]) -> None:
    """Writes what is known so far."""
    found = claims(cases, lengths)
    write_result(
        "length",
        {**about_this_run(), "claims": found, "cases": cases},
        table(cases, models, lengths, found),
        figure=growth_figure(cases, models, lengths),
        title="Time and memory over the length of the audio",
    )


def main() -> None:
    """Measures in rounds and reports after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=SECONDS, help="of audio")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-gigabytes", type=float, default=12.0, help="that a process may hold")
    parser.add_argument("--work", nargs=2, metavar=("MODEL", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.work:
        answer(arguments.work[0], int(arguments.work[1]))
        return
    models, lengths = list(dict.fromkeys(arguments.models)), sorted(set(arguments.seconds))
    cases: list[Case] = [
        {"model": model, "seconds": seconds, "times": [], "peaks": [], "failed": None}
        for seconds in lengths
        for model in models
    ]
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    for _ in range(arguments.rounds):
        try:
            measure_round(cases, threads=arguments.threads, max_bytes=arguments.max_gigabytes * 1e9)
        finally:
            report(cases, models, lengths)


if __name__ == "__main__":
    main()
