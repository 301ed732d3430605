"""Measures the variants of a network, each in a separate process.

A process loads only its variant, so that the peak memory is its own. The processes are started once and run their
passes alternately, so that other load on the machine affects all of them equally.

A pass is front end and network, from samples in memory to scores, without decoding and resampling.
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
from ossicle.bench.worker import open_model
from ossicle.devices import choose_device
from ossicle.errors import SettingRefused, first_line
from ossicle.export import export_recognizer, need_onnx, write_int8
from ossicle.recognizer import Recognizer

Files = dict[Engine, str | Exception]  # the exported file of an engine, or the error


def measure(
    work: Work,
    forms: Sequence[Variant],
    *,
    rounds: int = 7,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cost]:
    """Runs the variants alternately and returns the cost of each, in the same order.

    Args:
        progress: called with the number of passes done and the total

    Raises:
        SettingRefused: a clip length or a fraction of tokens that the network does not support
        OssicleError: as `ossicle.load`
    """
    recognizer = check(work, forms)
    total = len(forms) * (rounds + 1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ossicle-bench-")))
        files = export_files(recognizer, folder) if any(form.is_file for form in forms) else {}
        workers = [stack.enter_context(started()) for _ in forms]
        responses: list[list[dict[str, Any]]] = [[] for _ in forms]
        for number in range(rounds + 1):
            for place, (worker, form, of_variant) in enumerate(zip(workers, forms, responses, strict=True)):
                if not of_variant:
                    of_variant.append(prepare_variant(worker, work, form, files))
                elif "problem" not in of_variant[-1]:
                    of_variant.append(worker.request())
                progress(number * len(forms) + place + 1, total)
    return [summary(form, of_variant, batch=work.batch) for form, of_variant in zip(forms, responses, strict=True)]


def prepare_variant(worker: "Worker", work: Work, form: Variant, files: Files) -> dict[str, Any]:
    """Prepares a variant in its process."""
    file = files.get(form.engine)
    if isinstance(file, Exception):
        return {"problem": first_line(file)}
    return worker.request(work=dataclasses.asdict(work), form=dataclasses.asdict(form), file=file)


def export_files(recognizer: Recognizer, folder: Path) -> Files:
    """Writes the files of the engines without torch."""
    exact, small = folder / "model.onnx", folder / "model.int8.onnx"
    try:
        need_onnx()
        export_recognizer(recognizer, exact)
        write_int8(small, exact)
    # Exporters can raise any exception.
    except Exception as error:
        return {"ONNX": error, "ONNX int8": error}
    return {"ONNX": str(exact), "ONNX int8": str(small)}


def summary(form: Variant, responses: Sequence[dict[str, Any]], *, batch: int) -> Cost:
    """The median over the responses of a process after the first one."""
    if problem := responses[-1].get("problem"):
        return Cost(variant=form, problem=problem)
    return Cost(
        variant=form,
        clip_seconds=statistics.median(response["seconds"] for response in responses[1:]) / batch,
        peak_bytes=responses[-1]["peak_bytes"],
    )


def check(work: Work, forms: Sequence[Variant]) -> Recognizer:
    """Checks the workload before processes start, and returns the model for the exports."""
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
    """A process that runs one variant."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def request(self, **content: Any) -> dict[str, Any]:
        """The response to one request: the first prepares the variant, each other runs one pass."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(content), file=self.process.stdin, flush=True)
        response = self.process.stdout.readline()
        if not response:
            return {"problem": f"its process ended with code {self.process.wait()}, perhaps out of memory"}
        return json.loads(response)


@contextlib.contextmanager
def started() -> Iterator[Worker]:
    """Starts a process and ends it on exit."""
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
