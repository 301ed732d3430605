"""`ossicle export`: export a model as one file for other runtimes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ossicle.cli.options import MODEL, EncoderPlace


def export(
    model: Annotated[str, typer.Argument(help=MODEL)],
    to: Annotated[
        Literal["onnx", "pt2"], typer.Option("--to", help="onnx for onnxruntime and others, pt2 for torch.")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output file; by default the model's name in the current folder."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write NAME.int8.onnx, a quarter of the size and faster.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labeled audio for the check, instead of built-in clips; with --int8 also measures its accuracy."
        ),
    ] = None,
    encoder: EncoderPlace = None,
) -> None:
    """Export a model as one file, from samples to scores, and check it against the model."""
    if int8 and to != "onnx":
        raise typer.BadParameter("--int8 is available for ONNX only.", param_hint="--int8")

    from ossicle.export import export_model

    done = export_model(model, to=to, output=output, int8=int8, data=data, encoder=encoder)
    for line in done.lines():
        print(line)
