"""A job that kills itself, as `kill -9` would, at a given step of a given kind: run by test_kill.py.

    victim.py FOLDER OUTPUT KIND NUMBER [careless | workers | stuck]

KIND is decode, score, write, merge or done; NUMBER counts its steps from 1, 0 lets the job finish. "careless" writes
files in place: the control. "workers" are two, with tables of two formats for each recording; "stuck" ones stop after
three recordings each, and the job sends Ctrl-C to all its processes, as a terminal does, and ends with 130.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ossicle import files
from ossicle.audio import find_audio
from ossicle.inference import ModelInfo, Predictor, formats, writers
from ossicle.jobs import folders, store
from ossicle.jobs.folders import InferenceConfig, Outcome, run_job
from ossicle.jobs.workers import Workers


class Loudness(Predictor):
    """Says how loud it is; needs no network."""

    rate, min_samples = 8000, 1  # type: ignore[assignment]
    bundle = ModelInfo(
        model_name="loudness",
        task="multi-label",
        labels=("loud", "quiet"),
        window_seconds=0.05,
        hop_seconds=0.05,
        library_version="0",
        version="0" * 12,
    )

    def scores(self, windows: np.ndarray) -> np.ndarray:
        step("score")
        level = np.log(np.sqrt((windows**2).mean(1)) / 0.1 + 1e-9)
        return np.stack([level, -level], 1).astype(np.float32)

    def features(self, windows: np.ndarray) -> np.ndarray:
        return self.scores(windows)


class Stuck(Loudness):
    """Never comes back from its fourth recording."""

    scored = 0

    def scores(self, windows: np.ndarray) -> np.ndarray:
        self.scored += 1
        if self.scored > 3:
            time.sleep(600)
        return super().scores(windows)


KIND, NUMBER, SIGNAL = "", 0, signal.SIGKILL
steps = 0


def step(kind: str) -> None:
    global steps
    steps += kind == KIND
    if kind == KIND and steps == NUMBER:
        if SIGNAL == signal.SIGINT:
            os.killpg(0, SIGNAL)
        else:
            os.kill(os.getpid(), SIGNAL)


def show(outcome: Outcome, done: int, total: int) -> None:
    step("done")


def main(folder: Path, output: Path, mode: str) -> None:
    read, line, put = folders.read_blocks, formats.Csv.line, store.json.dumps

    def reading(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        for block in read(*arguments, **options):
            step("decode")
            yield block

    def merging(*arguments: Any, **options: Any) -> str:
        step("merge")
        return line(*arguments, **options)

    class Json:
        loads = staticmethod(store.json.loads)

        @staticmethod
        def dumps(value: Any) -> str:
            if isinstance(value, list):
                step("write")
            return put(value)

    folders.read_blocks = reading  # type: ignore[assignment]
    formats.Csv.line = merging  # type: ignore[assignment, method-assign]
    store.json = Json  # type: ignore[assignment]
    if mode == "careless":
        for module in (files, store, writers):
            module.replacing = in_place  # type: ignore[attr-defined]
    several = mode in ("workers", "stuck")
    kind = Stuck if mode == "stuck" else Loudness
    run_job(
        output,
        find_audio(folder),
        Loudness(),
        config=InferenceConfig(),
        formats=("csv", "jsonl") if several else ("csv",),
        each=several,
        resume=True,
        pool=Workers(kind, number=2, config=InferenceConfig()) if several else None,
        progress=show,
    )


@contextlib.contextmanager
def in_place(path: Path, *, flush: bool = True) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path


if __name__ == "__main__":
    KIND, NUMBER = sys.argv[3], int(sys.argv[4])
    mode = "".join(sys.argv[5:])
    SIGNAL = signal.SIGINT if mode == "stuck" else signal.SIGKILL
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), mode)
    except KeyboardInterrupt:
        sys.exit(130)
