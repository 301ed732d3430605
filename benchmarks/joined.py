"""A real training in two processes that is killed three times: FSDD, ESC-50 and EmoDB as one multi-label set of tars.

    python benchmarks/joined.py [--epochs 5] [--clips 0] [--model passt_tiny_s16] [--work FOLDER]

About 25 minutes of the processor on two cores. Reads ../shared/data; writes results/joined.json and joined.md.

The three sets are joined by a table: what is spoken is `speech` besides its digit or emotion, and a clip of ESC-50 has
the label of its class. `ossicle data shard` packs them into tars, from which everything else reads. The test part is
the official one of FSDD, fold 1 of ESC-50 and two speakers of EmoDB; the validation part is cut from the rest.

Three trainings with the same settings, each by the command line: in two processes; in two processes that are killed
(SIGKILL) three times at moments drawn from a seed, once rank one, once rank zero, once both, and resumed each time;
in one process. Mixing is off, since two processes mix other partners than one. The network is small and the epochs are
few: the scores are of an engine and not of a model.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from common import about_this_run, claim_table, write_result

from ossicle.weights.tensors import load_weights

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
SETTINGS = (
    "window=2 batch_size=32 lr=1e-3 mixup=0 patchout_f=4 precision=float32 device=cpu average=ema validation=0.1 "
    "save_minutes=0.1 seed=0 kernels=onednn"
).split()
TESTED_SPEAKERS = ("15", "16")  # of EmoDB
TO = ("rank one", "rank zero", "both")


# --- the data ---------------------------------------------------------------------------------------------------------


def joined_rows() -> list[dict[str, str]]:
    """A row for each clip of the three sets."""
    rows = []
    for row in read_table("fsdd"):
        place = {"file": str(SHARED / "fsdd" / row["file"]), "group": f"fsdd {row['file']}"}
        rows.append({**place, "labels": f"speech;digit {row['label']}", "split": row["split"]})
    for row in read_table("esc50"):
        place = {"file": str(SHARED / "esc50" / "audio" / row["filename"]), "group": f"esc50 {row['src_file']}"}
        rows.append({**place, "labels": row["category"], "split": "test" if row["fold"] == "1" else "train"})
    for row in read_table("emodb"):
        place = {"file": str(SHARED / "emodb" / row["file"]), "group": f"emodb {row['speaker']}"}
        tested = row["speaker"] in TESTED_SPEAKERS
        rows.append({**place, "labels": f"speech;{row['label']}", "split": "test" if tested else "train"})
    return rows


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a set's `meta.csv`."""
    with open(SHARED / name / "meta.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, *, clips: int) -> int:
    """Writes the table of all clips, or of about so many evenly from all classes, and gives their number."""
    rows = joined_rows()
    if clips:
        every, alike = len(rows) / clips, Counter[tuple[str, str]]()
        kept = []
        for row in rows:
            seen = alike[(row["labels"], row["split"])]
            alike[(row["labels"], row["split"])] += 1
            if seen < 2 or int(seen / every) != int((seen - 1) / every):
                kept.append(row)
        rows = kept
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


# --- the trainings ----------------------------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    """A command line of ossicle."""
    return [sys.executable, "-m", "ossicle", *map(str, arguments)]


def carry_out(arguments: list[str], log: Path, *, kill: tuple[float, str] | None = None) -> tuple[int, float]:
    """Runs a command to its end, or kills it after so many seconds; gives its exit code and the seconds it took."""
    began = time.monotonic()
    with open(log, "a") as file:
        with subprocess.Popen(
            arguments,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        ) as process:
            try:
                process.wait(None if kill is None else kill[0])
            except subprocess.TimeoutExpired:
                assert kill is not None
                strike(process.pid, kill[1])
    return process.returncode, time.monotonic() - began


def strike(first: int, to: str) -> None:
    """Kills a process of a training, or all of them."""
    if to == "both":
        os.killpg(first, signal.SIGKILL)
        return
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True).stdout
    children = [int(pid) for pid in listed.split()]
    os.kill(children[0] if to == "rank one" and children else first, signal.SIGKILL)


def trained(data: Path, output: Path, *, processes: int, model: str, epochs: int) -> float:
    """Trains without a stop, and gives the seconds."""
    arguments = command("train", data, "--model", model, "--devices", processes, "-o", output)
    code, seconds = carry_out([*arguments, "--set", *SETTINGS, f"epochs={epochs}"], output.with_suffix(".log"))
    if code:
        raise SystemExit(output.with_suffix(".log").read_text()[-2000:])
    return seconds


def killed(data: Path, output: Path, *, seconds: float, model: str, epochs: int) -> list[dict[str, Any]]:
    """Trains in two processes, is killed three times, and ends; gives when, who, and the steps that were there."""
    rng, log = random.Random(0), output.with_suffix(".log")
    begin = command("train", data, "--model", model, "--devices", 2, "-o", output)
    begin += ["--set", *SETTINGS, f"epochs={epochs}"]
    kills: list[dict[str, Any]] = []
    for to in TO:
        after = rng.uniform(0.1, 0.3) * seconds
        arguments = command("train", data, "-o", output, "--resume") if kills else begin
        code, _ = carry_out(arguments, log, kill=(after, to))
        if not code:
            raise SystemExit(f"{output}: finished before it was killed; more --epochs or --clips are needed.")
        found = sorted((output / "checkpoints").glob("step-*"))
        kills.append({"to": to, "seconds": round(after, 1), "checkpoint": found[-1].name if found else "none"})
        print(kills[-1], flush=True)
    code, _ = carry_out(command("train", data, "-o", output, "--resume"), log)
    if code:
        raise SystemExit(log.read_text()[-2000:])
    return kills


# --- what came of them ------------------------------------------------------------------------------------------------


def same_weights(one: Path, other: Path) -> bool:
    """Whether all tensors of two runs have the same bits."""
    tensors, others = (load_weights(run / "model" / "model.safetensors") for run in (one, other))
    return tensors.keys() == others.keys() and all(
        torch.equal(tensor, others[name]) for name, tensor in tensors.items()
    )


def headline(run: Path) -> dict[str, float]:
    """The metrics of a run's test part."""
    found = json.loads((run / "metrics.json").read_text())["headline"]
    return {name: one["value"] for name, one in found.items() if one["value"] is not None}


def main() -> None:
    """Packs, trains, compares, prints and stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--clips", type=int, default=0, help="only so many; 0 is all")
    parser.add_argument("--model", default="passt_tiny_s16")
    parser.add_argument("--work", type=Path, help="folder for tars and runs; by default one that is removed")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = chosen.work or Path(place)
        work.mkdir(parents=True, exist_ok=True)
        result = study(work, clips=chosen.clips, model=chosen.model, epochs=chosen.epochs)
    lines = table(result)
    if chosen.dry:
        print("\n".join(lines))
    else:
        write_result("joined", {**about_this_run(), **result}, lines, title="A training that is killed three times")


def study(work: Path, *, clips: int, model: str, epochs: int) -> dict[str, Any]:
    """What the three trainings gave, and what they cost."""
    number = write_table(work / "joined.csv", clips=clips)
    carry_out(command("data", "shard", work / "joined.csv", "-o", work / "tars", "--shard-megabytes", 64), work / "log")
    tars = sorted((work / "tars").glob("*.tar"))
    if not tars:
        raise SystemExit((work / "log").read_text())
    how: dict[str, Any] = {"model": model, "epochs": epochs}
    whole, broken, alone = work / "whole", work / "broken", work / "alone"
    before = os.times()
    seconds = {"two": trained(work / "tars", whole, processes=2, **how)}
    kills = killed(work / "tars", broken, seconds=seconds["two"], **how)
    seconds["one"] = trained(work / "tars", alone, processes=1, **how)
    now = os.times()
    spent = now.children_user + now.children_system - before.children_user - before.children_system
    with open(whole / "predictions.csv", newline="") as file:
        tested = [row["file"] + row["start"] for row in csv.DictReader(file)]
    split = json.loads((whole / "split.json").read_text())
    steps = sorted((whole / "checkpoints").glob("step-*"))[-1].name
    return {
        "clips": number,
        "labels": len(json.loads((whole / "model" / "config.json").read_text())["labels"]),
        "parts": {part: len(split[part]) for part in ("train", "validation", "test")},
        "tars": len(tars),
        "tar_megabytes": round(sum(tar.stat().st_size for tar in tars) / 2**20, 1),
        "model": model,
        "epochs": epochs,
        "steps": int(re.sub(r"\D", "", steps)),
        "kills": kills,
        "same_weights": same_weights(whole, broken),
        "same_predictions": (whole / "predictions.csv").read_bytes() == (broken / "predictions.csv").read_bytes(),
        "scored_once": len(tested) == len(set(tested)) == len(split["test"]),
        "two": headline(whole),
        "one": headline(alone),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "processor_minutes": round(spent / 60, 1),
    }


def table(result: dict[str, Any]) -> list[str]:
    """The result as lines of Markdown."""
    parts = ", ".join(f"{number:,} {part}" for part, number in result["parts"].items())
    about = (
        f"{result['clips']:,} clips, {result['labels']} labels, in {result['tars']} tars of "
        f"{result['tar_megabytes']:g} MiB: {parts}. {result['model']}, "
        f"{result['epochs']} epochs, {result['steps']:,} steps."
    )
    kills = "; ".join(f"{one['to']} after {one['seconds']:g} s, at {one['checkpoint']}" for one in result["kills"])
    claims = [
        ("kills", kills, "3", len(result["kills"]) == 3),
        (
            "weights of the killed run",
            "bit-identical" if result["same_weights"] else "others",
            "bit-identical",
            result["same_weights"],
        ),
        (
            "its predictions",
            "the same bytes" if result["same_predictions"] else "others",
            "the same bytes",
            result["same_predictions"],
        ),
        (
            "test clips",
            "each scored once" if result["scored_once"] else "not each once",
            "each once",
            result["scored_once"],
        ),
        *(
            (f"{name.replace('_', ' ')}, two processes and one", f"{value:.4f} and {result['one'][name]:.4f}", "", None)
            for name, value in result["two"].items()
            if name in result["one"]
        ),
        (
            "seconds of a run, two processes and one",
            f"{result['seconds']['two']:g} and {result['seconds']['one']:g}",
            "",
            None,
        ),
        ("processor time of all runs", f"{result['processor_minutes']:g} minutes", "", None),
    ]
    return [about, "", *claim_table(claims)]


if __name__ == "__main__":
    main()
