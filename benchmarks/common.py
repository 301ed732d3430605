"""What benchmarks share: functions timed in turns, random networks, tables of claims, what stands beside figures."""

import contextlib
import fcntl
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ossicle import create_model
from ossicle.bundle import save_bundle
from ossicle.files import write_atomically
from ossicle.frontend import frontend_config
from ossicle.kernels.measure import processor
from ossicle.models import find_preset

RESULTS = Path(__file__).parent / "results"


# --- measuring -------------------------------------------------------------------------------------------------------


def in_turns(
    functions: Mapping[Any, Callable[[], object]],
    *,
    rounds: int,
    warm: int = 1,
    before: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, float]:
    """Median seconds of each function: they take turns in every round, so that a busy machine hurts all of them.

    Args:
        warm: rounds that go before and do not count
        before: called ahead of every turn, outside its time
    """
    times: dict[Any, list[float]] = {name: [] for name in functions}
    for _ in range(warm + rounds):
        for name, function in functions.items():
            before()
            began = clock()
            function()
            times[name].append(clock() - began)
    return {name: statistics.median(values[warm:]) for name, values in times.items()}


def random_bundle(folder: Path, model: str, *, window: float) -> Path:
    """A network with random weights and 50 labels, saved in the folder; windows of so many seconds."""
    torch.manual_seed(0)
    save_bundle(
        folder,
        model=create_model(model, num_classes=50),
        model_name=model,
        frontend=frontend_config(find_preset(model).frontend),
        task="single-label",
        labels=[f"label {number}" for number in range(50)],
        window_seconds=window,
    )
    return folder


# --- reporting -------------------------------------------------------------------------------------------------------


def about_this_run() -> dict[str, Any]:
    """Machine, threads, versions, date, commit and command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    # The results change while a study runs.
    same = ["git", "diff", "--quiet", "HEAD", "--", ":(top,exclude)benchmarks/results"]
    changed = "-dirty" if subprocess.run(same, capture_output=True, check=False).returncode else ""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() + changed,
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def read_result(name: str) -> dict[str, Any] | None:
    """What an earlier run wrote to `results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def stored_runs(name: str) -> dict[str, Any]:
    """What is known of a study whose finished runs accumulate in `results/NAME.json`."""
    return read_result(name) or {"runs": []}


@contextlib.contextmanager
def runs_to_add_to(name: str) -> Iterator[dict[str, Any]]:
    """The same, while no other process adds to any study: those wait until the block ends."""
    RESULTS.mkdir(exist_ok=True)
    place = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield stored_runs(name)
    finally:
        os.close(place)


def claim_table(claims: Iterable[tuple[str, str, str, bool | None]]) -> list[str]:
    """Lines of Markdown: what was claimed, got, wanted, and whether it is met; None where nothing was wanted."""
    said = {None: "", True: "yes", False: "**no**"}
    rows = [f"| {what} | {got} | {wanted} | {said[met]} |" for what, got, wanted, met in claims]
    return ["| what | got | wanted | met |", "|---|---|---|---|", *rows]


def write_by_processor(
    name: str, result: dict[str, Any], table: Callable[[dict[str, Any]], list[str]], *, title: str
) -> None:
    """Writes `results/NAME.json` and `.md` with a table for each processor that it ran on, and prints this one's."""
    with runs_to_add_to(name) as known:
        machines = {**known.get("machines", {}), result["machine"]: result}
        write_atomically(RESULTS / f"{name}.json", json.dumps({"machines": machines}, indent=1) + "\n")
    text = [f"# {title}"]
    for machine, one in sorted(machines.items()):
        about = ", ".join(f"{key} {one[key]}" for key in ("threads", "torch", "date", "commit"))
        text += ["", f"## {machine}", "", *table(one), "", f"`{one['command']}`; {about}."]
    write_atomically(RESULTS / f"{name}.md", "\n".join(text) + "\n")
    print("\n".join(table(result)), flush=True)


def write_result(
    name: str, result: dict[str, Any], lines: list[str], *, title: str, figure: Figure | None = None
) -> None:
    """Writes `results/NAME.json`, `.md` and, with a figure, `.png`, and prints the table."""
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")
    about = ", ".join(f"{key} {result[key]}" for key in ("machine", "threads", "torch", "date", "commit"))
    text = [f"# {title}", "", *lines, "", f"`{result['command']}`; {about}."]
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.png", dpi=120)
        text += ["", f"![]({name}.png)"]
    write_atomically(RESULTS / f"{name}.md", "\n".join(text) + "\n")
    print("\n".join(lines), flush=True)
