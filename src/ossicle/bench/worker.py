"""Worker process for one variant: `python -m ossicle.bench.worker`, a line of JSON in and out for each request.

Torch is loaded only if the variant needs it, so that the memory of an exported file is that of a device without torch.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ossicle.allocator import peak_bytes
from ossicle.bench.forms import Variant, Work
from ossicle.errors import SettingRefused, first_line

if TYPE_CHECKING:
    from ossicle.bundle import Bundle
    from ossicle.inference import Predictor
    from ossicle.recognizer import Recognizer


def serve() -> None:
    """Prepares the variant of the first line, and runs a pass for each line after it."""
    out, sys.stdout = sys.stdout, sys.stderr  # output of libraries must not mix with responses

    def respond(**content: Any) -> None:
        print(json.dumps(content), file=out, flush=True)

    task = json.loads(sys.stdin.readline())
    try:
        one_pass = prepare(Work(**task["work"]), Variant(**task["form"]), file=task["file"])
        one_pass()
    # Compilers, drivers and kernels can raise any exception; it is reported as the problem.
    except Exception as error:
        respond(problem=first_line(error))
        return
    respond()
    for _ in sys.stdin:
        begun = time.perf_counter()
        one_pass()
        respond(seconds=time.perf_counter() - begun, peak_bytes=peak_bytes())


def prepare(work: Work, form: Variant, *, file: str | None = None) -> Callable[[], np.ndarray]:
    """A function that computes logits of a batch of noise.

    Args:
        file: the exported file, for variants that use one
    """
    predictor = open_file(file, work) if file is not None else open_eager(work, form)
    length, _ = predictor.window_samples(window=work.seconds)
    samples = np.random.default_rng(0).normal(scale=0.1, size=(work.batch, length)).astype(np.float32)
    return lambda: predictor.scores(samples)


def open_file(file: str, work: Work) -> "Predictor":
    """An exported network under onnxruntime."""
    from ossicle.runtime import load

    return load(file, threads=work.threads)


def open_eager(work: Work, form: Variant) -> "Predictor":
    """A network under torch, optionally compiled."""
    import torch

    from ossicle.allocator import keep_freed_memory

    keep_freed_memory()  # as in every command
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    recognizer = open_model(work, form)
    if form.engine == "compiled":
        model: Any = getattr(recognizer, "model", None)
        if model is None:
            raise SettingRefused("torch.compile is not supported for heads on frozen encoders and ensembles")
        model.forward_features = torch.compile(model.forward_features)
    return recognizer


def open_model(work: Work, form: Variant) -> "Recognizer":
    """The model of a bundle, a run or a Hub id; for an architecture, one with random weights."""
    from ossicle.loading import load
    from ossicle.models.tokens import TokenReduction
    from ossicle.recognizer import Recognizer

    reduction = TokenReduction(keep=form.keep, method=form.keep_by) if form.keep < 1 else None
    if is_registry_name(work.model):
        if work.encoder is not None:
            raise SettingRefused(f"encoder={work.encoder}: {work.model} is not a head on an encoder; remove encoder.")
        bundle = untrained(work.model)
        return Recognizer(bundle, device=work.device, precision=form.precision, reduction=reduction)
    return load(work.model, device=work.device, precision=form.precision, encoder=work.encoder, reduction=reduction)


def untrained(name: str) -> "Bundle":
    """The bundle of a network with random weights."""
    from ossicle import __version__
    from ossicle.bundle import Bundle
    from ossicle.frontend import create_frontend
    from ossicle.models import create_model, find_preset

    preset = find_preset(name)
    return Bundle(
        model=create_model(name).eval(),
        frontend=create_frontend(preset.frontend).eval(),
        model_name=name,
        task="multi-label",
        labels=tuple(str(number) for number in range(preset.num_classes)),
        window_seconds=10.0,
        hop_seconds=10.0,
        library_version=__version__,
        version="random",
    )


def is_registry_name(model: str) -> bool:
    """Whether this is the name of an architecture and not a local path."""
    from ossicle.models import list_models

    return model in list_models() and not Path(model).exists()


if __name__ == "__main__":
    serve()
