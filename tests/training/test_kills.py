"""`kill -9` at any moment of a training of one process or of two, and a new start: the very same run; and signals.

OSSICLE_KILLS=100 makes the nightly run of this file; OSSICLE_KILLS_LOG names a file for a line on each kill.
"""

import csv
import os
import random
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ossicle

forked = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("forked.py"))))
KILLS = int(os.environ.get("OSSICLE_KILLS", "10"))
LOG = os.environ.get("OSSICLE_KILLS_LOG")
# Everything that has a state: averages, drawn numbers, a schedule, a best epoch; a checkpoint every few steps.
SETTINGS = (
    "depth=1 window=0.4 epochs=4 batch_size=5 precision=float32 device=cpu average=ema mixup=0.3 patchout_f=2 "
    "drop_path=0.1 validation=0.25 save_minutes=0.001"
).split()
SAME = ("config.yaml", "split.json", "environment.json", "predictions.csv", "metrics.json", "test_scores.safetensors")
COLUMNS = ("epoch", "step", "lr", "train_loss", "val_loss", "val_score")


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Trainings that start at once; the nightly ones draw their pictures too."""
    source, cache = str(Path(ossicle.__file__).parents[1]), str(tmp_path_factory.mktemp("cache"))
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": source, "OSSICLE_KERNELS": "onednn", "OSSICLE_CACHE": cache}
    started = forked.Forks(*(["--drawn"] if KILLS > 10 else []), environment={**os.environ, **own})
    yield started
    started.close()


def train(forks: Any, data: Path, output: Path, *, processes: int = 1, **strike: Any) -> SimpleNamespace:
    """Begins a run, or goes on with it."""
    more = ["--resume"] if (output / "config.yaml").exists() else ["--devices", processes, "--set", *SETTINGS]
    return forks.run("train", data, "-o", output, *more, **strike)


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


def note(line: str) -> None:
    if LOG:
        with open(LOG, "a") as file:
            print(line, file=file)
