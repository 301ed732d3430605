"""Measures the forms of a network, each in a process of its own.

A process loads nothing but its form, so that the peak memory is its own. The processes are started once and are asked
for a pass in turns, so that a busy machine hurts all of them alike.

A pass is front end and network, from samples in memory to scores; decoding a file and resampling are not in it.
"""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ossicle.bench.forms import Cost, Engine, Variant, Work
from ossicle.bench.worker import open_model, reason
from ossicle.devices import choose_device
from ossicle.errors import SettingRefused
from ossicle.export import export_recognizer, need_onnx, write_int8
from ossicle.recognizer import Recognizer

Files = dict[Engine, str | Exception]  # the export that an engine runs, or why there is none


def measure(
    work: Work,
    forms: Sequence[Variant],
    *,
    rounds: int = 7,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cost]:
    """Runs the forms in turns and gives what each took, in the same order.

    Args:
        progress: called with how many of how many answers have come

    Raises:
        SettingRefused: a clip that the network does not take, or a fraction of tokens that it cannot keep
        OssicleError: as `ossicle.load` for a model that cannot be had
    """
    recognizer = check(work, forms)
    total = len(forms) * (rounds + 1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossicle-bench-")))
        files = export_files(recognizer, folder) if any(form.is_file for form in forms) else {}
        workers = [stack.enter_context(started()) for _ in forms]
        answers: list[list[dict[str, Any]]] = [[] for _ in forms]
        for number in range(rounds + 1):
            for place, (worker, form, of_form) in enumerate(zip(workers, forms, answers, strict=True)):
                if not of_form:
                    of_form.append(first_answer(worker, work, form, files))
                elif "problem" not in of_form[-1]:
                    of_form.append(worker.ask())
                progress(number * len(forms) + place + 1, total)
    return [summary(form, of_form, batch=work.batch) for form, of_form in zip(forms, answers, strict=True)]


def first_answer(worker: "Worker", work: Work, form: Variant, files: Files) -> dict[str, Any]:
    """Has a form prepared."""
    file = files.get(form.engine)
    if isinstance(file, Exception):
        return {"problem": reason(file)}
    return worker.ask(work=dataclasses.asdict(work), form=dataclasses.asdict(form), file=file)


def export_files(recognizer: Recognizer, folder: Path) -> Files:
    """Writes what the engines without torch run."""
    exact, small = folder / "model.onnx", folder / "model.int8.onnx"
    try:
        need_onnx()
        export_recognizer(recognizer, exact)
        write_int8(small, exact)
    # Exporters too fail in every way there is.
    except Exception as error:
        return {"ONNX": error, "ONNX int8": error}
    return {"ONNX": str(exact), "ONNX int8": str(small)}


def summary(form: Variant, answers: Sequence[dict[str, Any]], *, batch: int) -> Cost:
    """The median over what a process answered after its first answer, that it was ready."""
    if problem := answers[-1].get("problem"):
        return Cost(variant=form, problem=problem)
    return Cost(
        variant=form,
        clip_seconds=statistics.median(answer["seconds"] for answer in answers[1:]) / batch,
        peak_bytes=answers[-1]["peak_bytes"],
    )


def check(work: Work, forms: Sequence[Variant]) -> Recognizer:
    """Refuses in a sentence what no process would get to run, and gives the recognizer for the exports."""
    recognizer = open_model(dataclasses.replace(work, device="cpu"), Variant(name=""))
    try:
        recognizer.window_samples(window=work.seconds)
    except ValueError as error:
        raise SettingRefused(f"{work.model}: {error}.") from error
    choose_device(work.device)
    reduces = getattr(getattr(recognizer, "model", None), "reduces_tokens", False)
    if any(form.keep < 1 for form in forms) and not reduces:
        raise SettingRefused(
            f"{work.model}: does not support fewer tokens; `ossicle models show` tells which networks do."
        )
    return recognizer


class Worker:
    """The near end of a process that runs one form."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request: the first names what to prepare, each other wants one more pass."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            return {"problem": f"its process ended with code {self.process.wait()}, perhaps for want of memory"}
        return json.loads(answer)


@contextlib.contextmanager
def started() -> Iterator[Worker]:
    """Starts a process; it is gone afterwards, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ossicle.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.communicate()
