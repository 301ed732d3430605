"""`ossicle models convert`: a published checkpoint as a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def convert(
    file: Annotated[
        Path,
        typer.Argument(help="Checkpoint (.pt, .pth, .ckpt, .safetensors), or a folder of Hugging Face transformers."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels in the order of the outputs: one a line, or AudioSet's class_labels_indices.csv."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Architecture from `ossicle models list`; by default found from the shapes.")
    ] = None,
    frontend: Annotated[str | None, typer.Option(help="Front end; by default that of the architecture.")] = None,
    task: Annotated[
        Literal["single-label", "multi-label"] | None,
        typer.Option(help="Whether labels exclude each other; by default what the file says, if it does."),
    ] = None,
    average: Annotated[
        bool | None,
        typer.Option(
            "--average/--no-average", help="Of weights and their average in one file: which; by default the average."
        ),
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Blocks to keep, as PaSST-L keeps 7 of 12.")] = None,
    window: Annotated[
        float | None, typer.Option(help="Window of prediction in seconds; by default one pass of the network.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License of the weights, for the model card.")] = None,
) -> None:
    """Convert a published checkpoint into a bundle that every command takes. No code in the file is run."""
    from ossicle.bundle import convert_checkpoint, read_labels
    from ossicle.inference import MAX_WINDOW_SECONDS

    if window is not None and not 0 < window <= MAX_WINDOW_SECONDS:
        raise typer.BadParameter(f"expected more than 0 and at most {MAX_WINDOW_SECONDS:g} s", param_hint="--window")
    done = convert_checkpoint(
        file,
        output=output,
        labels=None if labels is None else read_labels(labels),
        model=model,
        frontend=frontend,
        task=task,
        average=average,
        depth=depth,
        window_seconds=window,
        weights_license=license,
        report=print,
    )
    print(f"{done.folder}: {done.model}, {len(done.labels)} labels, {done.tensors} tensors, in {done.seconds:.1f} s")
    if done.unused:
        print(f"{len(done.unused)} tensors are not in it: {', '.join(done.unused[:3])} ...")
    print(f"Use it: ossicle predict {done.folder} AUDIO")
