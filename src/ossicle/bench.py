"""What a network costs on this machine, in each form that it can be run in, and which form fits a budget.

Every form lives in a process of its own, which loads nothing else, so that the peak memory is its own. The processes
are started once and are asked for a pass in turns, so that a busy machine hurts all of them alike.

A pass is front end and network, from samples in memory to scores; decoding a file and resampling are not in it.
"""

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle import __version__
from ossicle.bundle import Bundle, find_bundle, load_bundle
from ossicle.devices import Precision
from ossicle.errors import SettingRefused
from ossicle.frontend import create_frontend
from ossicle.models import create_model, find_preset, list_models
from ossicle.models.passt import Passt
from ossicle.models.tokens import Method, TokenReduction
from ossicle.recognizer import Recognizer

# Merging keeps of every token something, and comes first among forms of one share.
METHODS: tuple[Method, ...] = ("merge", "strided")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of a network."""

    name: str
    precision: Precision = "float32"
    compiled: bool = False
    reduction: TokenReduction | None = None


def variants(*, keep: Sequence[float] = ()) -> list[Variant]:
    """The forms that are measured, the most exact first.

    Args:
        keep: shares of the patch tokens with which to measure besides, by each method.

    Raises: SettingRefused for a share that is none.
    """
    if wrong := [share for share in keep if not 0 < share < 1]:
        raise SettingRefused(f"keep={wrong[0]:g}: a share above 0 and below 1 is allowed.")
    return [
        Variant(name="float32"),
        Variant(name="float32, compiled", compiled=True),
        Variant(name="bfloat16", precision="bfloat16"),
        *(
            Variant(name=f"{method}, keep {share:g}", reduction=TokenReduction(keep=share, method=method))
            for share in sorted(set(keep), reverse=True)
            for method in METHODS
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every form is given to do."""

    model: str  # bundle, run, Hub id or registry name
    seconds: float = 10.0  # length of a clip
    batch: int = 1  # clips in a pass
    threads: int | None = None  # by default as many as torch takes
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one form took: or in a sentence why it does not run here."""

    variant: Variant
    clip_seconds: float | None = None  # median over the rounds
    peak_bytes: int | None = None  # the most memory that its process held
    problem: str = ""


def measure(
    work: Work,
    forms: Sequence[Variant],
    *,
    rounds: int = 7,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cost]:
    """Runs the forms in turns and gives what each took, in the same order.

    Args:
        progress: told how many of how many answers have come

    Raises:
        SettingRefused: a clip that the network does not take, or a share of tokens that it cannot keep
        OssicleError: as `ossicle.load` for a model that cannot be had
    """
    check(work, forms)
    total = len(forms) * (rounds + 1)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(started()) for _ in forms]
        answers: list[list[dict[str, Any]]] = [[] for _ in forms]
        for number in range(rounds + 1):
            for place, (worker, form, of_form) in enumerate(zip(workers, forms, answers, strict=True)):
                if not of_form:
                    of_form.append(worker.ask(work=dataclasses.asdict(work), form=dataclasses.asdict(form)))
                elif "problem" not in of_form[-1]:
                    of_form.append(worker.ask())
                progress(number * len(forms) + place + 1, total)
    return [summary(form, of_form, batch=work.batch) for form, of_form in zip(forms, answers, strict=True)]


def summary(form: Variant, answers: Sequence[dict[str, Any]], *, batch: int) -> Cost:
    """The median over what a process answered after its first answer, that it was ready."""
    if problem := answers[-1].get("problem"):
        return Cost(variant=form, problem=problem)
    return Cost(
        variant=form,
        clip_seconds=statistics.median(answer["seconds"] for answer in answers[1:]) / batch,
        peak_bytes=answers[-1]["peak_bytes"],
    )


def fitting(costs: Sequence[Cost], *, budget_seconds: float) -> Cost | None:
    """The first, which is the most exact, that takes no longer for a clip; None where there is none."""
    return next((cost for cost in costs if cost.clip_seconds is not None and cost.clip_seconds <= budget_seconds), None)


def check(work: Work, forms: Sequence[Variant]) -> None:
    """Refuses in a sentence what no process would get to run."""
    recognizer = open_model(work.model, device=work.device)
    try:
        recognizer.window_samples(window=work.seconds)
    except ValueError as error:
        raise SettingRefused(f"{work.model}: {error}.") from error
    if any(form.reduction for form in forms) and not isinstance(recognizer.model, Passt):
        raise SettingRefused(f"{work.model}: is no PaSST, and only of a PaSST can a share of the tokens be kept.")


def open_model(
    model: str, *, device: str = "auto", precision: Precision = "float32", reduction: TokenReduction | None = None
) -> Recognizer:
    """The recogniser of a bundle, a run or a Hub id; of a registry name, one with random weights."""
    if is_registry_name(model):
        preset = find_preset(model)
        bundle = Bundle(
            model=create_model(model).eval(),
            frontend=create_frontend(preset.frontend).eval(),
            model_name=model,
            task="multi-label",
            labels=tuple(str(number) for number in range(preset.num_classes)),
            thresholds=None,
            temperature=1.0,
            window_seconds=10.0,
            hop_seconds=10.0,
            pad=False,
            weights_licence=None,
            library_version=__version__,
            version="random",
        )
    else:
        bundle = load_bundle(find_bundle(model))
    return Recognizer(bundle, device=device, precision=precision, reduction=reduction)


def is_registry_name(model: str) -> bool:
    """Whether this names an architecture, and nothing that lies here."""
    return model in list_models() and not Path(model).exists()


# --- one form, in a process of its own -------------------------------------------------------------------------------


class Worker:
    """The near end of such a process: one line of JSON for each request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one request: the first names work and form, each other wants one more pass."""
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
        [sys.executable, "-m", "ossicle.bench"],
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


def answer_requests() -> None:
    """The far end: prepares what the first line names, and makes a pass for each that follows."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=out, flush=True)

    task = json.loads(sys.stdin.readline())
    try:
        one_pass = prepare(Work(**task["work"]), variant_of(task["form"]))
        one_pass()
    # Compilers, drivers and kernels fail in every way there is; here that is a finding.
    except Exception as error:
        answer(problem=(str(error).strip() or type(error).__name__).splitlines()[0])
        return
    answer()
    for _ in sys.stdin:
        begun = time.perf_counter()
        one_pass()
        answer(seconds=time.perf_counter() - begun, peak_bytes=peak_bytes())


def variant_of(form: dict[str, Any]) -> Variant:
    """The inverse of `dataclasses.asdict`."""
    reduction = form["reduction"] and TokenReduction(**form["reduction"])
    return Variant(**(form | {"reduction": reduction}))


def prepare(work: Work, form: Variant) -> Callable[[], np.ndarray]:
    """A function that takes a batch of noise from samples to logits."""
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    recognizer = open_model(work.model, device=work.device, precision=form.precision, reduction=form.reduction)
    if form.compiled:
        model: Any = recognizer.model
        model.forward_features = torch.compile(model.forward_features)
    length, _ = recognizer.window_samples(window=work.seconds)
    samples = np.random.default_rng(0).normal(scale=0.1, size=(work.batch, length)).astype(np.float32)
    return lambda: recognizer.scores(samples)


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    answer_requests()
