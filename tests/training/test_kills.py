"""`kill -9` at any moment of a training of one process or of two, and a new start: the very same run; and signals.

OSSICLE_KILLS=100 makes the nightly run of this file; OSSICLE_KILLS_LOG names a file for a line on each kill.
"""

import csv
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

KILLS = int(os.environ.get("OSSICLE_KILLS", "10"))
LOG = os.environ.get("OSSICLE_KILLS_LOG")
# Everything that has a state: averages, drawn numbers, a schedule, a best epoch; a checkpoint every few steps.
SETTINGS = (
    "depth=1 window=0.4 epochs=4 batch_size=5 precision=float32 device=cpu average=ema mixup=0.3 patchout_f=2 "
    "drop_path=0.1 validation=0.25 save_minutes=0.001"
).split()
SAME = ("config.yaml", "split.json", "environment.json", "predictions.csv", "metrics.json", "test_scores.safetensors")
COLUMNS = ("epoch", "step", "lr", "train_loss", "val_loss", "val_score")


def train(forks: Any, data: Path, output: Path, *, processes: int = 1, **strike: Any) -> SimpleNamespace:
    """Begins a run, or goes on with it."""
    beginning = ["--init", "none", "--devices", processes, "--set", *SETTINGS]
    more = ["--resume"] if (output / "config.yaml").exists() else beginning
    run = forks.run("train", data, "-o", output, *more, **strike)
    assert not run.hung and "Traceback" not in run.err, run.err
    return run


def outcome(folder: Path) -> dict[str, Any]:
    """All of a run that is not the time that it took."""
    files = {name: (folder / name).read_bytes() for name in SAME}
    files |= {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    with open(folder / "metrics.csv") as table:
        return files | {"rows": [[row[name] for name in COLUMNS] for row in csv.DictReader(table)]}


def litter(folder: Path) -> list[Path]:
    """Hidden files and folders, but for the one of the lock: what a killed process has begun to write."""
    return [path for path in folder.rglob(".*") if path.name != ".ossicle"]


@pytest.mark.parametrize("processes", [1, 2])
def test_kills_at_any_moment_change_no_bit_of_a_run(processes: int, forks: Any, sounds: Path, tmp_path: Path) -> None:
    whole = train(forks, sounds, tmp_path / "whole", processes=processes)
    assert whole.code == 0 and not whole.err, whole.err
    wanted, rng = outcome(tmp_path / "whole"), random.Random(processes)
    kills = number = 0
    while kills < KILLS // 2:
        number += 1
        output, code = tmp_path / str(number), -1
        while code != 0:
            strike: dict[str, Any] = {"to": rng.choice([None, *range(processes)])} if processes > 1 else {}
            if rng.random() < 0.5:  # computing takes the time, and writing is where a file may be torn
                strike["seconds"] = rng.uniform(0, whole.seconds)
            else:
                strike["write"] = rng.randint(1, whole.writes)
            killed = train(forks, sounds, output, processes=processes, **(strike if kills < KILLS // 2 else {}))
            code = killed.code
            assert code == 0 or killed.struck, killed.err
            if code != 0:
                kills += 1
                note(f"{processes} processes, kill {kills}: {strike}; {killed.writes} writes, {killed.seconds:.2f} s")
        assert outcome(output) == wanted
        assert not litter(output)


@pytest.mark.parametrize(
    ("processes", "to", "name"), [(1, 0, "SIGINT"), (1, 0, "SIGTERM"), (2, 0, "SIGUSR1"), (2, 1, "SIGTERM")]
)
def test_a_signal_to_any_process_saves_after_the_step_and_ends_the_run_with_a_sentence(
    processes: int, to: int, name: str, forks: Any, sounds: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    strike = {"signal": signal.Signals[name], "to": to, "write": 1}
    # While the last checkpoint of the first epoch is written: the step under way is then the next.
    first = train(forks, sounds, folder, processes=processes, part=".step-00000004", **strike)
    assert (first.code, first.err) == (130, f"ossicle: Stopped after step 5; continue with --resume -o {folder}.\n")
    assert (folder / "checkpoints" / "step-00000005").is_dir()
    last = train(forks, sounds, folder, part=".step-00000016", **strike)  # no step comes after that
    assert (last.code, last.err) == (130, f"ossicle: Stopped after step 16; continue with --resume -o {folder}.\n")
    if processes == 1:
        tested = train(forks, sounds, folder, part="predictions.csv", **strike)
        how = "Interrupted" if name == "SIGINT" else f"Stopped by {name}"
        assert (tested.code, tested.err) == (130, f"ossicle: {how}; continue with --resume -o {folder}.\n")
    assert train(forks, sounds, folder).code == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 5


def note(line: str) -> None:
    if LOG:
        with open(LOG, "a") as file:
            print(line, file=file)
