"""`kill -9` at any moment, and a new start: nothing lost, nothing twice, the same bytes; and a control that fails.

OSSICLE_KILLS=100 makes the nightly run of this file.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

VICTIM = Path(__file__).with_name("victim.py")
FILES = 500
KILLS = int(os.environ.get("OSSICLE_KILLS", "20"))
PATIENCE = 1800  # seconds, of which only a job that hangs takes as much
KINDS = ("decode", "score", "write", "merge")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hundred short recordings, every hundredth of them broken."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for number in range(FILES):
        path = folder / f"{number % 7}" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        if number % 100 == 50:
            path.write_bytes(b"RIFF" + bytes(rng.integers(0, 255, 30, dtype=np.uint8)))
        else:
            samples = rng.normal(scale=rng.choice([0.02, 0.3]), size=rng.integers(300, 1200))
            soundfile.write(path, samples, 8000)
    return folder


def run(recordings: Path, output: Path, kind: str = "none", number: int = 0, *more: str) -> int:
    command = [sys.executable, str(VICTIM), str(recordings), str(output), kind, str(number), *more]
    # The pipe ends with the last of its processes: one that outlived the job would be waited for in vain.
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, start_new_session=True)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode


@pytest.fixture(scope="module")
def wanted(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a job without interruption leaves."""
    output = tmp_path_factory.mktemp("whole")
    assert run(recordings, output) == 0
    return tables(output)


def tables(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.rglob("[!.]*.*") if ".ossicle" not in path.parts}


def torn(output: Path, wanted: dict[str, bytes]) -> list[str]:
    """The tables and parts that are there and not whole."""
    found = [name for name, content in tables(output).items() if content != wanted[name]]
    for part in output.glob(".ossicle/parts/*/[!.]*"):
        last = part.read_text().splitlines()[-1:]
        if not last or not last[0].startswith("{") or "info" not in json.loads(last[0]):
            found.append(part.name)
    return found


def kill_twenty_times(seed: int, *, recordings: Path, wanted: dict[str, bytes], output: Path) -> None:
    rng = random.Random(seed)
    assert wanted["errors.csv"].count(b"\n") == 1 + FILES // 100
    for kind in sorted(5 * KINDS, key=KINDS.index):
        # A job goes on where the last one was, so each gets some further; tables are written anew each time.
        limit = 400 if kind == "merge" else 60
        code = run(recordings, output, kind, rng.randrange(1, limit))
        assert code == -signal.SIGKILL, f"{kind} did not happen so often"
        assert not torn(output, wanted)
    assert run(recordings, output) == 0
    assert tables(output) == wanted
    named = [row[0] for name in wanted for row in list(csv.reader(wanted[name].decode().splitlines()))[1:]]
    assert set(named) == {str(path) for path in recordings.rglob("*.wav")}
    assert not list(output.rglob(".ossicle-*"))


@pytest.mark.parametrize("seed", range(-(-KILLS // 20)))
def test_twenty_kills_change_no_byte(seed: int, recordings: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    kill_twenty_times(seed, recordings=recordings, wanted=wanted, output=tmp_path / "out")


@pytest.fixture
def busy_processes() -> Iterator[None]:
    """Three for each core, which never wait."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * (os.cpu_count() or 1))]
    yield
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_beside_busy_processes_kills_change_no_byte_and_workers_end(
    recordings: Path, wanted: dict[str, bytes], tmp_path: Path, busy_processes: None
) -> None:
    kill_twenty_times(1000, recordings=recordings, wanted=wanted, output=tmp_path / "out")
    test_workers_end_with_a_job_that_is_killed_and_the_next_one_leaves_every_table(recordings, tmp_path / "several")
    test_an_interrupted_job_waits_for_no_worker_and_none_complains(recordings, tmp_path / "stuck")


def test_without_the_atomic_rename_kills_are_seen(recordings: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run(recordings, output, "merge", 200, "careless") == -signal.SIGKILL
    assert "predictions.csv" in torn(output, wanted)
    assert run(recordings, tmp_path / "parts", "write", 30, "careless") == -signal.SIGKILL
    assert torn(tmp_path / "parts", wanted)


def test_workers_end_with_a_job_that_is_killed_and_the_next_one_leaves_every_table(
    recordings: Path, tmp_path: Path
) -> None:
    few, output = recordings / "3", tmp_path / "out"
    for kind, number in (("done", 4), ("done", 30), ("merge", 40)):
        assert run(few, output, kind, number, "workers") == -signal.SIGKILL
    assert run(few, output, "none", 0, "workers") == 0
    assert run(few, tmp_path / "whole", "none", 0, "workers") == 0
    found = tables(output)
    assert found == tables(tmp_path / "whole")
    bad = len(found["errors.csv"].splitlines()) - 1
    assert len(found) == 3 + 2 * (len(list(few.iterdir())) - bad)


def test_an_interrupted_job_waits_for_no_worker_and_none_complains(recordings: Path, tmp_path: Path) -> None:
    # Each worker hears three recordings, so of four that are done each had begun.
    assert run(recordings / "3", tmp_path / "out", "done", 4, "stuck") == 130
