"""Dynamic int8 quantization of an exported graph by onnxruntime.

Only products with weights are quantized, with one scale per output channel. The front end (large dynamic range),
convolutions and the head (small, sensitive) stay in float32.
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
from ossicle.data.modalities import SOUND
from ossicle.errors import DataRefused
from ossicle.evaluation import choose_part
from ossicle.evaluation.parts import read_labeled
from ossicle.export.check import first_window, real_sounds
from ossicle.export.formats import Session, metadata_text, quietly
from ossicle.files import printable
from ossicle.metrics import decide, mean_average_precision
from ossicle.recognizer import Recognizer
from ossicle.runtime import KEY


def write_int8(path: Path, source: Path) -> None:
    """Writes the quantized graph of the ONNX file `source`, with its metadata and a new version."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    # The quantizer does not read symbolic shapes.
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
    """Names of products to keep in float32: those of the front end, and those of whole clips, which are heads."""
    for node in model.graph.node:
        # Of an ensemble they begin with the member's name.
        if node.op_type == "MatMul" and any(".frontend." in f".{name}" for name in node.input):
            yield node.name
        if node.op_type == "Gemm":
            yield f"{node.name}_MatMul"  # its name after the quantizer's first step


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """The first windows of labeled recordings."""

    windows: Sequence[Float32[np.ndarray, "_"]]
    targets: Bool[np.ndarray, "clip label"]
    known: Bool[np.ndarray, "clip label"] | None = None  # of which labels it is known whether a clip has them
    protocol: str  # which recordings, in a sentence


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """Accuracy, size and speed of a quantized file."""

    path: Path
    agreement: float  # fraction of windows with the same best label
    clips: int  # of the measurement
    metric: str  # accuracy, or mAP for multi-label
    values: tuple[float, float] | None  # of the metric in float32 and in int8; None without labels
    protocol: str
    seconds: tuple[float, float]  # per window, float32 and int8

    def lines(self, float_megabytes: float) -> list[str]:
        """A summary in two lines."""
        size, (slow, fast) = megabytes(self.path), self.seconds
        lines = [
            f"Wrote {printable(self.path)}: {size:.1f} MB, {float_megabytes / size:.1f} times smaller; "
            f"{fast:.4f} s per clip, {slow / fast:.2f} times faster"
        ]
        kept = ""
        if self.values is not None:
            kept = f"{self.metric} {self.values[0]:.4f} in float32, {self.values[1]:.4f} in int8; "
        return [*lines, f"On {self.protocol}: {kept}the best label agrees in {100 * self.agreement:.1f} %"]


def read_sounds(recognizer: Recognizer, data: Path, *, model: str) -> Sounds:
    """Reads labeled data that were not trained on, or all of them; the first window of each recording.

    Raises: DataRefused if no recording is usable.
    """
    folder = find_bundle(model)
    dataset, same = read_labeled(recognizer, data, folder=folder)
    chosen, protocol = choose_part(dataset, folder, part="auto", model=model, same=same)
    windows, used = [], []
    for index in chosen:
        try:
            window = first_window(recognizer, dataset.items[index])
        except SOUND.errors:
            continue
        windows.append(np.pad(window, (0, max(0, recognizer.min_samples - len(window)))))
        used.append(index)
    if not windows:
        raise DataRefused(f"{data}: none of {len(chosen)} recordings is usable.")
    known = dataset.known_rows
    return Sounds(
        windows=windows,
        targets=dataset.label_rows[used],
        known=None if known is None else known[used],
        protocol=protocol,
    )


def measure(path: Path, int8: Session, float32: Session, *, recognizer: Recognizer, sounds: Sounds | None) -> Reduced:
    """Compares the quantized file with its source, on labeled recordings or on the built-in ones."""
    window = recognizer.window_samples()[0]
    if sounds is None:
        windows = [np.resize(sound, window) for sound in real_sounds(recognizer, most=20)]
    else:
        windows = list(sounds.windows)
    logits = [np.concatenate([session(window[None])["logits"] for window in windows]) for session in (float32, int8)]
    values = None
    if sounds is not None:
        of_float32, of_int8 = (metric_of(recognizer, of_file, sounds=sounds) for of_file in logits)
        values = (of_float32, of_int8)
    slow, fast = time_alternately([float32, int8], window)
    return Reduced(
        path=path,
        agreement=float((logits[0].argmax(1) == logits[1].argmax(1)).mean()),
        clips=len(windows),
        metric="accuracy" if recognizer.task == "single-label" else "mAP",
        values=values,
        protocol=f"{len(windows)} of the built-in recordings" if sounds is None else sounds.protocol,
        seconds=(slow, fast),
    )


def metric_of(recognizer: Recognizer, logits: Float32[np.ndarray, "clip label"], *, sounds: Sounds) -> float:
    """Accuracy, or for multi-label the mAP, as most labels are absent from most clips."""
    scores = recognizer.activate(logits)
    if recognizer.task == "multi-label":
        return mean_average_precision(scores, sounds.targets, sounds.known)[0]
    return float((decide(scores, task="single-label") == sounds.targets).all(1).mean())


def time_alternately(sessions: Sequence[Session], samples: int, *, rounds: int = 7) -> list[float]:
    """Median seconds of each for one window, run alternately so that other load affects all of them equally."""
    window = np.random.default_rng(0).normal(scale=0.1, size=(1, samples)).astype(np.float32)
    times: list[list[float]] = [[] for _ in sessions]
    for number in range(rounds + 1):
        for session, seconds in zip(sessions, times, strict=True):
            began = time.perf_counter()
            session(window)
            if number:  # the first warms up
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in times]


def megabytes(path: Path) -> float:
    """Size of a file, 10^6 bytes."""
    return path.stat().st_size / 1e6
