"""Export a model as one file for other runtimes, and check it against the model.

The file contains the front end and the weights: samples in, scores out. Its metadata have a JSON text under the key
`ossicle` with labels, thresholds and window of the bundle, so a program needs no other file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ossicle import __version__
from ossicle.errors import ExportRefused
from ossicle.export.check import Agreement, check, real_sounds
from ossicle.export.formats import (
    FORMATS,
    OPSET,
    Format,
    Session,
    is_export,
    metadata_text,
    need_onnx,
    open_onnx,
    open_pt2,
    trace,
    write_onnx,
    write_pt2,
)
from ossicle.export.graph import Graph, make_graph
from ossicle.export.int8 import Reduced, measure, megabytes, read_sounds, time_alternately, write_int8
from ossicle.files import check_writable, printable, replacing, write_atomically
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.runtime import SCHEMA_VERSION

__all__ = [
    "FORMATS",
    "Exported",
    "Written",
    "export_model",
    "export_recognizer",
    "metadata",
    "need_onnx",
    "write_int8",
]

ONE_FILE = 1.5  # GB of weights in an ONNX file; with more, torch writes a second file


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported and checked file, and its int8 version."""

    path: Path
    agreement: Agreement
    window_seconds: float
    seconds: float  # per window
    int8: Reduced | None

    def lines(self) -> list[str]:
        """A summary: one line for each file and one for the data."""
        what = f"{megabytes(self.path):.1f} MB" + (f", opset {OPSET}" if self.path.suffix == ".onnx" else "")
        found = self.agreement
        lines = [
            f"Wrote {printable(self.path)}: {what}; scores differ by at most {found.difference:.1e} over "
            f"{found.windows} windows; {self.seconds:.4f} s per clip of {self.window_seconds:g} s"
        ]
        return lines if self.int8 is None else lines + self.int8.lines(megabytes(self.path))


def export_model(
    model: str | Path,
    *,
    to: Format = "onnx",
    output: Path | None = None,
    int8: bool = False,
    data: Path | None = None,
    encoder: str | Path | None = None,
) -> Exported:
    """Exports a model as one file, if its outputs agree with the model's.

    Args:
        model: a bundle, a run or a Hub id, as for `ossicle.load`
        output: by default the model's name in the current folder
        int8: also write NAME.int8.onnx
        data: labeled audio for the check and for the accuracy of int8; by default the built-in drum recordings
        encoder: path of the frozen encoder of a tuned head, if it has moved

    Raises:
        ExportRefused: the model cannot be exported, the outputs differ, or the existing file is not an export
        ExtraMissing: ONNX without the extra `export`
        DataRefused: fewer than three usable recordings
        ValueError: an unknown format, or int8 with .pt2
    """
    if to not in FORMATS:
        raise ValueError(f"format {to!r} is not available; available: {', '.join(FORMATS)}")
    if int8 and to != "onnx":
        raise ValueError("int8 is available for ONNX only")
    if to == "onnx":
        need_onnx()
    path = default_path(model, to) if output is None else output
    small = path.with_suffix(".int8.onnx")
    for target in (path, small) if int8 else (path,):
        check_target(target, to)
        check_writable(target)
    recognizer = load(model, device="cpu", encoder=encoder)
    written = export_recognizer(recognizer, path, to=to, data=data)
    window = recognizer.window_samples()[0]
    reduced = None
    if int8:
        write_atomically(small, lambda temporary: write_int8(temporary, path))
        sounds = None if data is None else read_sounds(recognizer, data, model=str(model))
        reduced = measure(small, open_onnx(small), written.session, recognizer=recognizer, sounds=sounds)
    return Exported(
        path=path,
        agreement=written.agreement,
        window_seconds=window / recognizer.rate,
        seconds=time_alternately([written.session], window)[0],
        int8=reduced,
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exported and checked file, opened."""

    session: Session
    agreement: Agreement


def export_recognizer(recognizer: Recognizer, path: Path, *, to: Format = "onnx", data: Path | None = None) -> Written:
    """Exports a loaded model as one file; writes nothing if its outputs differ from the model's.

    Args:
        data: audio for the check; by default the built-in drum recordings

    Raises:
        ExportRefused: the model cannot be exported, or the outputs differ
        DataRefused: fewer than three usable recordings
    """
    graph = make_graph(recognizer)
    size = sum(p.numel() * p.element_size() for p in graph.parameters()) / 1e9
    if to == "onnx" and size > ONE_FILE:
        raise ExportRefused(f"{path}: {size:.1f} GB of weights exceed the {ONE_FILE:g} GB of an ONNX file; use .pt2.")
    sounds = real_sounds(recognizer, data)
    program = trace(graph)
    about = metadata_text(metadata(recognizer, graph))
    with replacing(path) as temporary:
        if to == "onnx":
            write_onnx(temporary, program, outputs=graph.outputs, about=about)
            session = open_onnx(temporary)
        else:
            write_pt2(temporary, program, about=about)
            session = open_pt2(temporary, outputs=graph.outputs)
        agreement = check(recognizer, session, graph=graph, sounds=sounds)
    return Written(session=session, agreement=agreement)


def default_path(model: str | Path, to: Format) -> Path:
    """The model's last name in the current folder."""
    return Path(f"{Path(model).resolve().name}.{to}")


def check_target(path: Path, to: Format) -> None:
    """Raises ExportRefused for an existing file that is not an export, or a wrong suffix."""
    if path.suffix != f".{to}":
        raise ExportRefused(f"{path}: the name of this export must end in .{to}.")
    if path.is_dir() or path.exists() and not is_export(path):
        raise ExportRefused(f"{path}: the file exists and is not an ossicle export; it is not overwritten.")


def metadata(recognizer: Recognizer, graph: Graph) -> dict[str, Any]:
    """Metadata of the graph: labels, thresholds and times."""
    bundle = recognizer.bundle
    return {
        "schema_version": SCHEMA_VERSION,
        "library_version": __version__,
        "model": {"name": bundle.model_name, "version": bundle.version},
        "task": bundle.task,
        "labels": list(bundle.labels),
        "thresholds": None if bundle.thresholds is None else [float(value) for value in bundle.thresholds],
        "temperature": bundle.temperature,
        "window": {"seconds": bundle.window_seconds, "hop_seconds": bundle.hop_seconds, "pad": bundle.pad},
        "rate": recognizer.rate,
        "min_samples": graph.min_samples,
        "max_samples": graph.max_samples,
        "hop_feature_seconds": recognizer.hop_feature_seconds,
        "frontend": graph.frontend_config.to_dict(),
        "weights_license": bundle.weights_license,
    }
