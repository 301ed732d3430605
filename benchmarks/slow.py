"""Nightly work, too long for every change: mutated recordings, kills and load, each with what came of it.

    python benchmarks/slow.py                   # all of them
    python benchmarks/slow.py kills load        # some; what an earlier run found of the others stays in the table

Claims: of 100,000 mutated recordings none breaks the reader; after 100 kills, at any moment of a job, no byte of its
tables differs; nor beside three busy processes for each core; after 100 kills, at any moment of trainings of one
process and of two, no bit of what they leave does (results/slow_kills.txt has each). Wheels and sdists run in empty
environments.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import about_this_run, claim_table, read_result, write_result

ROOT = Path(__file__).resolve().parents[1]
PYTEST = (sys.executable, "-m", "pytest")
MUTATIONS = "benchmarks/mutations.py"  # says more than the tests do, where it is there
KILLS = ROOT / "benchmarks" / "results" / "slow_kills.txt"  # a line for each kill of a training
WORK: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "mutations": (
        "100,000 mutated recordings",
        {"OSSICLE_MUTATIONS": "100000"},
        (sys.executable, MUTATIONS)
        if (ROOT / MUTATIONS).exists()
        else (*PYTEST, "tests/hostile/audio/test_mutations.py"),
    ),
    "kills": ("100 kills of a job", {"OSSICLE_KILLS": "100"}, (*PYTEST, "tests/jobs/test_kill.py")),
    "trainings": (
        "100 kills of trainings, in one process and in two",
        {"OSSICLE_KILLS": "100", "OSSICLE_KILLS_LOG": str(KILLS)},
        (*PYTEST, "tests/training/test_kills.py"),
    ),
    "load": ("kills beside busy processes", {}, (*PYTEST, "-m", "slow", "tests")),
    "packages": ("wheels and sdists in empty environments", {}, (sys.executable, "scripts/make_packages.py")),
}


def carry_out(name: str) -> dict[str, Any]:
    """Runs one kind of work to its end."""
    _, environment, command = WORK[name]
    if name == "trainings":
        KILLS.unlink(missing_ok=True)
    began, spent = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    now = os.times()
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        print(said, flush=True)
    return {
        "passed": done.returncode == 0,
        "said": re.sub(r" in [0-9.]+s.*", "", said.splitlines()[-1]) if said else "",
        "minutes": round((time.perf_counter() - began) / 60, 2),
        "processor_minutes": round((now.children_user + now.children_system - spent[2] - spent[3]) / 60, 2),
        **{key: value for key, value in about_this_run().items() if key != "threads"},
    }


def main(names: list[str]) -> int:
    """Carries out what is named, or everything, and writes the table."""
    if unknown := set(names) - set(WORK):
        raise SystemExit(f"There is no {', '.join(sorted(unknown))}; available: {', '.join(WORK)}.")
    found = (read_result("slow") or {}).get("work", {})
    for name in names or WORK:
        found[name] = carry_out(name)
    claims = [
        (
            WORK[name][0],
            f"{one['said']}; {one['minutes']:.1f} min, {one['machine']}, {one['date']}, {one['commit']}",
            "all pass",
            one["passed"],
        )
        for name, one in found.items()
    ]
    write_result("slow", {**about_this_run(), "work": found}, claim_table(claims), title="Nightly work")
    return 0 if all(found[name]["passed"] for name in names or WORK) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
