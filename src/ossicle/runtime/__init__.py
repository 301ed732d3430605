"""Recognizers without torch: one ONNX file, onnxruntime, numpy, soundfile and soxr.

    from ossicle.runtime import load
    load("model.onnx").predict("recording.wav").top

The file comes from `ossicle export`. Everything around the network, from decoding to tables, is the same code that
`ossicle predict` runs, so scores are the same to the file's own difference, which the check of an export bounds. On a
device without torch, `pip install ossicle-runtime` brings this part of the package alone.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ossicle.errors import BundleRefused, ExtraMissing
from ossicle.inference import ModelInfo, Predictor
from ossicle.types import Float32, Task

KEY = "ossicle"  # of the metadata
SCHEMA_VERSION = 2
INPUT = "waveform"
MODELS = Path(__file__).with_name("models")  # that ossicle-runtime carries

__all__ = ["OnnxPredictor", "load"]


def load(path: str | os.PathLike[str], *, threads: int | None = None) -> "OnnxPredictor":
    """Opens an exported recognizer.

    Args:
        path: of `ossicle export`, or the name of the model that ossicle-runtime carries: general
        threads: to compute with; by default one per core

    Raises:
        ExtraMissing: onnxruntime is absent or broken
        BundleRefused: no ONNX file of ours, or of another schema
    """
    return OnnxPredictor(model_file(Path(path)), threads=threads)


def model_file(path: Path) -> Path:
    """The file, or the model in the package of which this is the name: ARCHITECTURE.TAG_vVERSION, or the tag alone."""
    if path.is_file():
        return path
    names = {name: file for file in MODELS.glob("*.onnx") for name in (file.stem, re.split(r"[.]|_v", file.stem)[1])}
    return names.get(str(path), path)


class OnnxPredictor(Predictor):
    """A recognizer in an ONNX file. Made by `load`."""

    rate = min_samples = 0  # of the file
    hop_feature_seconds: float | None = None

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.path = path
        self._session = open_session(path, threads=threads)
        about = read_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        try:
            self.bundle = info_of(about)
            self.rate, self.min_samples = int(about["rate"]), int(about["min_samples"])
            self._hertz = float(about["frontend"]["min_hertz"]), float(about["frontend"]["max_hertz"])
            self._max_samples = int(about["max_samples"])
            hop = about["hop_feature_seconds"]
            self.hop_feature_seconds = None if hop is None else float(hop)
            self._check()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleRefused(f"{path}: its metadata are damaged ({type(error).__name__}: {error}).") from error

    @property
    def hertz(self) -> tuple[float, float]:
        """Lowest and highest frequency of the frontend in the file."""
        return self._hertz

    @property
    def max_window_seconds(self) -> float:
        """Longest window that the file was exported for."""
        return min(super().max_window_seconds, self._max_samples / self.rate)

    def __repr__(self) -> str:
        return f"OnnxPredictor({self.path}, {self.bundle.model_name}, {len(self.labels)} labels, {self.rate} Hz)"

    def scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window label"]:
        """Gives the logits of windows of one length at `rate`."""
        return self._run("logits", windows)

    def features(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window dim"]:
        """Gives the features before the head of windows of one length at `rate`."""
        return self._run("features", windows)

    def outputs(
        self, windows: Float32[np.ndarray, "window time"]
    ) -> tuple[Float32[np.ndarray, "window label"], Float32[np.ndarray, "window dim"]]:
        """Gives the logits and the features before the head of windows of one length at `rate`, in one pass."""
        logits, features = self._run_all(["logits", "features"], windows)
        return logits, features

    def hop_scores(self, windows: Float32[np.ndarray, "window time"]) -> Float32[np.ndarray, "window hop label"]:
        """Gives the logits of every hop of windows of one length at `rate`."""
        return self._run("hop_logits", windows)

    def _check(self) -> None:
        """Raises ValueError where the metadata do not fit the graph."""
        if self.rate < 1 or not 1 <= self.min_samples <= self._max_samples:
            raise ValueError(
                f"rate {self.rate}, min_samples {self.min_samples} and max_samples {self._max_samples} are no input"
            )
        self.window_samples()
        if self.task not in get_args(Task) or not 0 < self.bundle.temperature < math.inf:
            raise ValueError(f"task {self.task!r} and temperature {self.bundle.temperature} are none")
        if len(set(self.labels)) != len(self.labels) or not all(isinstance(label, str) for label in self.labels):
            raise ValueError("labels are texts that differ from each other")
        if self.thresholds is not None and not np.isfinite(self.thresholds).all():
            raise ValueError("thresholds are finite numbers")
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        wanted = {"logits", "features"} | ({"hop_logits"} if self.hop_feature_seconds is not None else set())
        if missing := wanted - outputs.keys():
            raise ValueError(f"the graph has no output {min(missing)}")
        for name, given in (("labels", self.labels), ("thresholds", self.thresholds)):
            if given is not None and len(given) != outputs["logits"][-1]:
                raise ValueError(f"{len(given)} {name} for {outputs['logits'][-1]} logits")

    def _run(self, output: str, windows: Float32[np.ndarray, "window time"]) -> np.ndarray:
        (values,) = self._run_all([output], windows)
        return values

    def _run_all(self, outputs: list[str], windows: Float32[np.ndarray, "window time"]) -> list[np.ndarray]:
        values: list[np.ndarray] = self._session.run(outputs, {INPUT: np.ascontiguousarray(windows, dtype=np.float32)})
        return values


def open_session(path: Path, *, threads: int | None) -> Any:
    """An onnxruntime session on the CPU."""
    try:
        import onnxruntime
    except Exception as error:  # installed but broken counts as absent
        raise ExtraMissing(
            f"ONNX files need onnxruntime, which does not work here ({error}): pip install onnxruntime"
        ) from error
    if not path.is_file():
        raise BundleRefused(
            f"{path}: there is no such file; `ossicle export {path if not path.suffix else 'MODEL'}` writes one."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0  # 0: one for each core
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors have no common root
        reason = str(error).splitlines()[0]
        raise BundleRefused(f"{path}: this is no ONNX file that onnxruntime reads ({reason}).") from error


def read_metadata(path: Path, entries: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a file.

    Raises: BundleRefused for a file that was not exported by ossicle, or by one with another schema.
    """
    try:
        about = json.loads(entries[KEY])
        version = about["schema_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleRefused(f"{path}: this ONNX file was not written by `ossicle export`.") from error
    if version != SCHEMA_VERSION:
        raise BundleRefused(
            f"{path}: it has schema {version!r}; this version of ossicle reads {SCHEMA_VERSION}. Export it again."
        )
    return about


def info_of(about: Mapping[str, Any]) -> ModelInfo:
    """How the file's logits become scores.

    Raises: KeyError, TypeError or ValueError for damaged metadata.
    """
    thresholds, window = about["thresholds"], about["window"]
    return ModelInfo(
        model_name=about["model"]["name"],
        task=about["task"],
        labels=tuple(about["labels"]),
        thresholds=None if thresholds is None else np.asarray(thresholds, dtype=np.float64),
        temperature=float(about["temperature"]),
        window_seconds=float(window["seconds"]),
        hop_seconds=float(window["hop_seconds"]),
        pad=bool(window["pad"]),
        weights_license=about["weights_license"],
        library_version=about["library_version"],
        version=about["model"]["version"],
    )
