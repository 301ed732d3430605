"""What every benchmark writes beside its figures: machine, date, commit, command; and where it writes."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"


def about_this_run() -> dict[str, Any]:
    """Machine, threads, versions, date, commit and command."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_result(name: str) -> dict[str, Any] | None:
    """What an earlier run wrote to `results/NAME.json`."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def stored_runs(name: str) -> dict[str, Any]:
    """What is known of a study whose finished runs accumulate in `results/NAME.json`."""
    return read_result(name) or {"runs": []}


def write_result(
    name: str, result: dict[str, Any], lines: list[str], *, title: str, figure: Figure | None = None
) -> None:
    """Writes `results/NAME.json`, `.md` and, with a figure, `.png`, and prints the table."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    about = ", ".join(f"{key} {result[key]}" for key in ("machine", "threads", "torch", "date", "commit"))
    text = [f"# {title}", "", *lines, "", f"`{result['command']}`; {about}."]
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.png", dpi=120)
        text += ["", f"![]({name}.png)"]
    (RESULTS / f"{name}.md").write_text("\n".join(text) + "\n")
    print("\n".join(lines), flush=True)
