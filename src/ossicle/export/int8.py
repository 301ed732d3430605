"""Eight bits for an exported graph: weights once, activations as they come (dynamic quantization by onnxruntime).

Products with weights alone are quantized, each output channel with a scale of its own. What stays in float32: the front
end, whose smallest numbers count as much as its largest; convolutions; the head, which is small and decides.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from ossicle.bundle import find_bundle
from ossicle.data.inputs import INPUT_ERRORS
from ossicle.errors import DataRefused
from ossicle.evaluation import choose_part
from ossicle.evaluation.parts import read_labeled
from ossicle.export.check import first_window, real_sounds
from ossicle.export.formats import Answer, metadata_text, quietly
from ossicle.files import printable
from ossicle.metrics import decide, mean_average_precision
from ossicle.recognizer import Recognizer
from ossicle.runtime import KEY


def write_int8(path: Path, source: Path) -> None:
    """Writes the quantized graph of the ONNX file `source`, with its metadata but a version of its own."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    # Shapes of a dynamic graph are symbols that the quantizer does not read.
    del model.graph.value_info[:]
    for entry in model.metadata_props:
        if entry.key == KEY:
            about = json.loads(entry.value)
            about["model"]["version"] = hashlib.sha256(f"{about['model']['version']} int8".encode()).hexdigest()[:12]
            entry.value = metadata_text(about)
    with quietly():
        quantize_dynamic(
            model,
            str(path),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept_in_float(model)),
        )


def kept_in_float(model: Any) -> Iterator[str]:
    """Names of products that lose more than they gain: of the front end, and of whole clips, which are the heads'."""
    for node in model.graph.node:
        if node.op_type == "MatMul" and any(name.startswith("frontend.") for name in node.input):
            yield node.name
        if node.op_type == "Gemm":
            yield f"{node.name}_MatMul"  # what the quantizer makes of it first


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """The first windows of labeled recordings."""

    windows: Sequence[Float32[np.ndarray, "_"]]
    targets: Bool[np.ndarray, "clip label"]
    protocol: str  # which recordings, in a sentence


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """What eight bits cost and gave."""

    path: Path
    agreement: float  # share of windows with the same best label
    clips: int  # that this was measured on
    figure: str  # of merit: accuracy, or mAP where several labels may be right
    values: tuple[float, float] | None  # of the figure in float32 and in int8; None without labels
    protocol: str
    seconds: tuple[float, float]  # that a window takes, float32 and int8

    def lines(self, float_megabytes: float) -> list[str]:
        """What there is to say."""
        size, (slow, fast) = megabytes(self.path), self.seconds
        said = [
            f"Wrote {printable(self.path)}: {size:.1f} MB, {float_megabytes / size:.1f} times smaller; "
            f"{fast:.4f} s a clip, {slow / fast:.2f} times faster"
        ]
        kept = ""
        if self.values is not None:
            kept = f"{self.figure} {self.values[0]:.4f} in float32, {self.values[1]:.4f} in int8; "
        return [*said, f"On {self.protocol}: {kept}the best label agrees in {100 * self.agreement:.1f} %"]


def read_sounds(recognizer: Recognizer, data: Path, *, model: str) -> Sounds:
    """Reads the part of labeled data that was not trained on, or all of it; the first window of each recording.

    Raises: DataRefused where no recording can be used.
    """
    folder = find_bundle(model)
    dataset, same = read_labeled(recognizer, data, folder=folder)
    chosen, protocol = choose_part(dataset, folder, part="auto", model=model, same=same)
    windows, used = [], []
    for index in chosen:
        try:
            window = first_window(recognizer, dataset.items[index])
        except INPUT_ERRORS:
            continue
        windows.append(np.pad(window, (0, max(0, recognizer.min_samples - len(window)))))
        used.append(index)
    if not windows:
        raise DataRefused(f"{data}: not one of {len(chosen)} recordings could be used.")
    return Sounds(windows=windows, targets=dataset.targets()[used], protocol=protocol)


def measure(path: Path, int8: Answer, float32: Answer, *, recognizer: Recognizer, sounds: Sounds | None) -> Reduced:
    """Compares the quantized file with its source, on labeled recordings or on the built-in ones."""
    window = recognizer.window_samples()[0]
    if sounds is None:
        windows = [np.resize(sound, window) for sound in real_sounds(recognizer, most=20)]
    else:
        windows = list(sounds.windows)
    logits = [np.concatenate([answer(window[None])["logits"] for window in windows]) for answer in (float32, int8)]
    values = None
    if sounds is not None:
        of_float32, of_int8 = (figure_of(recognizer, of_file, targets=sounds.targets) for of_file in logits)
        values = (of_float32, of_int8)
    slow, fast = take_turns([float32, int8], window)
    return Reduced(
        path=path,
        agreement=float((logits[0].argmax(1) == logits[1].argmax(1)).mean()),
        clips=len(windows),
        figure="accuracy" if recognizer.task == "single-label" else "mAP",
        values=values,
        protocol=f"{len(windows)} of the built-in recordings" if sounds is None else sounds.protocol,
        seconds=(slow, fast),
    )


def figure_of(
    recognizer: Recognizer, logits: Float32[np.ndarray, "clip label"], *, targets: Bool[np.ndarray, "clip label"]
) -> float:
    """Share of right decisions; of several labels the mAP, as most of them are absent from most clips."""
    scores = recognizer.activate(logits)
    if recognizer.task == "multi-label":
        return mean_average_precision(scores, targets)[0]
    return float((decide(scores, task="single-label") == targets).all(1).mean())


def take_turns(answers: Sequence[Answer], samples: int, *, rounds: int = 7) -> list[float]:
    """Median seconds of each for one window of so many samples; in turns, so that a busy machine hurts all of them."""
    window = np.random.default_rng(0).normal(scale=0.1, size=(1, samples)).astype(np.float32)
    times: list[list[float]] = [[] for _ in answers]
    for number in range(rounds + 1):
        for answer, of_answer in zip(answers, times, strict=True):
            began = time.perf_counter()
            answer(window)
            if number:  # the first warms up
                of_answer.append(time.perf_counter() - began)
    return [statistics.median(of_answer) for of_answer in times]


def megabytes(path: Path) -> float:
    """Size of a file, 10^6 bytes."""
    return path.stat().st_size / 1e6
