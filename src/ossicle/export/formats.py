"""Graphs as files: ONNX with onnxruntime, .pt2 with torch; both contain the weights and a JSON text under `ossicle`."""

import contextlib
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

from ossicle.errors import ExtraMissing
from ossicle.export.graph import Graph
from ossicle.kernels.operators import find
from ossicle.runtime import INPUT, KEY, open_session

Format = Literal["onnx", "pt2"]
FORMATS: tuple[Format, ...] = ("onnx", "pt2")
Session = Callable[[Float32[np.ndarray, "clip time"]], dict[str, np.ndarray]]

OPSET = 20  # the first with GELU as one operation


def need_onnx() -> None:
    """Raises ExtraMissing if a package of the extra is absent or broken."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except Exception as error:  # installed but broken counts as absent
        raise ExtraMissing(f"ONNX files need the extra `export` ({error}); pip install 'ossicle[export]'") from error


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """The exported graph with symbolic numbers of clips and samples."""
    clips = torch.export.Dim("clip", min=1)
    time = torch.export.Dim("time", min=graph.min_samples, max=graph.max_samples)
    # A length that no other number in the network equals.
    samples = (3 * graph.min_samples + graph.max_samples) // 4 + 7
    example = torch.zeros(3, samples)
    # Sizes of one must not be specialized: otherwise every axis of windows would be. The cache of fake tensors costs
    # more than it saves where sizes are symbols.
    with (
        torch.no_grad(),
        quietly(),
        torch.fx.experimental._config.patch(  # type: ignore[attr-defined]
            backed_size_oblivious=True
        ),
        torch._dynamo.config.patch(fake_tensor_cache_enabled=False),
    ):
        program = torch.export.export(
            graph,
            (example,),
            dynamic_shapes=({0: clips, 1: time},),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    drop_assertions(program)
    return program


def drop_assertions(program: torch.export.ExportedProgram) -> None:
    """Removes assertions about sizes of one, on which torch depends for the layout but not for the values.

    The ranges of the graph define its inputs, and the outputs at both ends are checked.
    """
    nodes, assertion = program.graph_module.graph, find("aten._assert_scalar")
    for node in list(nodes.nodes):
        if assertion is not None and node.target is getattr(assertion, "default", None):
            nodes.erase_node(node)
    nodes.eliminate_dead_code()
    program.graph_module.recompile()


def write_onnx(path: Path, program: torch.export.ExportedProgram, *, outputs: tuple[str, ...], about: str) -> None:
    """Writes one file with the weights inside.

    Args:
        about: the metadata, JSON.
    """
    with quietly():
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            verbose=False,
        )
    assert written is not None
    model = written.model
    axes = model.graph.inputs[0].shape
    assert axes is not None
    written.rename_axes({str(axis): name for axis, name in zip(axes, ("clip", "time"), strict=True)})
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # where in whose folders each was traced
    model.metadata_props[KEY] = about
    model.producer_name = KEY
    written.save(str(path), external_data=False)


def open_onnx(path: Path, *, threads: int | None = None) -> Session:
    """An ONNX file on the CPU.

    Args:
        threads: to compute with; by default as torch does.
    """
    session = open_session(path, threads=threads or torch.get_num_threads())
    names = [output.name for output in session.get_outputs()]
    return lambda waveform: dict(zip(names, session.run(names, {INPUT: waveform}), strict=True))


def write_pt2(path: Path, program: torch.export.ExportedProgram, *, about: str) -> None:
    """Writes a file for `torch.export.load`."""
    with quietly():
        torch.export.save(program, path, extra_files={KEY: about})


def open_pt2(path: Path, *, outputs: tuple[str, ...]) -> Session:
    """A .pt2 file on the CPU."""
    with quietly():
        module = torch.export.load(path).module()

    @torch.inference_mode()
    def session(waveform: Float32[np.ndarray, "clip time"]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, (value.numpy() for value in module(torch.from_numpy(waveform))), strict=True))

    return session


def is_export(path: Path) -> bool:
    """Whether a file is an ossicle export."""
    if path.suffix == ".pt2":
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"extra/{KEY}") for name in archive.namelist())
        return False
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # protobuf's errors have no common base class
        return False
    return any(entry.key == KEY for entry in model.metadata_props)


def metadata_text(values: Mapping[str, Any]) -> str:
    """JSON text; NaN and infinity are refused."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppresses messages of the exporters."""
    loggers = [logging.getLogger(name) for name in ("root", "torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
