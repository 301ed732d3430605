"""Damages recordings of every format and reads them: what escapes as no error of ours, the slowest, the most memory.

The recordings, the damage and the promises are those of tests/hostile/audio. Every case has a number of its own and can
be made again by `--first NUMBER --cases 1`.
"""

import argparse
import logging
import runpy
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import about_this_run, claim_table, write_result

TESTS = Path(__file__).parents[1] / "tests"
SHOWN = 20  # escapes with their error


def module(path: Path) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(path)))


def attack(first: int, cases: int) -> dict[str, Any]:
    """Reads the damaged recordings from number `first` on; a failure is kept and stops nothing."""
    damage, sounds = module(TESTS / "hostile" / "audio" / "damage.py"), module(TESTS / "audio" / "sounds.py")
    escapes: list[dict[str, Any]] = []
    clips, seconds, most, began = 0, np.zeros(cases), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        seeds = damage.make_seeds(Path(place), sounds)
        damage.decode(Path(place) / "phone.m4a")  # what is loaded once is no case's memory
        before = damage.peak_bytes()
        for number in range(first, first + cases):
            path, in_blocks = damage.write_case(Path(place), seeds, number)
            try:
                outcome = damage.decode(path, in_blocks=in_blocks)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                escapes.append({"case": number, "file": path.name, "error": f"{type(error).__name__}: {error}"[:300]})
                continue
            clips += outcome.clip is not None
            seconds[number - first], most = outcome.seconds, max(most, outcome.bytes)
            if (number - first + 1) % 5_000 == 0:
                print(f"{number - first + 1} cases, {len(escapes)} escapes, {seconds.max():.2f} s", flush=True)
    return {
        "first": first,
        "cases": cases,
        "seeds": len(seeds),
        "clips": clips,
        "errors": cases - clips - len(escapes),
        "escapes": len(escapes),
        "first_escapes": escapes[:SHOWN],
        "slowest_seconds": round(float(seconds.max()), 3),
        "slowest_case": first + int(seconds.argmax()),
        "median_seconds": round(float(np.median(seconds)), 5),
        "most_mebibytes_by_one": round(most / 2**20, 1),
        "peak_mebibytes_above_start": round((damage.peak_bytes() - before) / 2**20, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def main() -> None:
    """Attacks, prints and stores what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    arguments = parser.parse_args()
    logging.disable()  # remarks on what is read all the same
    about = about_this_run()
    found = attack(arguments.first, arguments.cases)
    claims = [
        ("damaged files", f"{found['cases']:,} of {found['seeds']} formats", "100,000", found["cases"] >= 100_000),
        ("became a clip, or one error of ours", f"{found['clips']:,} and {found['errors']:,}", "", None),
        ("escapes", f"{found['escapes']}", "0", found["escapes"] == 0),
        ("slowest, seconds of the process", f"{found['slowest_seconds']:.2f}", "2", found["slowest_seconds"] < 2),
        (
            "most memory that one file took",
            f"{found['most_mebibytes_by_one']:g} MiB",
            "64 MiB",
            found["most_mebibytes_by_one"] < 64,
        ),
        ("peak memory above that of the start", f"{found['peak_mebibytes_above_start']:g} MiB", "", None),
        ("time", f"{found['minutes']:g} minutes", "", None),
    ]
    lines = claim_table(claims) + [""] + [f"- {escape}" for escape in found["first_escapes"]]
    if arguments.dry:
        print("\n".join(lines))
    else:
        write_result("mutations", {**about, **found}, lines, title="Damaged recordings")


if __name__ == "__main__":
    main()
