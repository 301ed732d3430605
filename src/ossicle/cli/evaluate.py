"""`ossicle evaluate`: how good a recogniser is on labelled sounds."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ossicle.cli.outcome import SOME_FAILED, say
from ossicle.cli.progress import counting


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle folder, run folder, or Hugging Face Hub id (user/name).")],
    data: Annotated[Path, typer.Argument(help="Labelled sounds, in any layout that `ossicle train` reads.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for metrics.json, predictions.csv, figures, report.html."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column with the label.")] = None,
    group: Annotated[str | None, typer.Option(help="Column with the group; intervals then draw whole groups.")] = None,
    fold: Annotated[str | None, typer.Option(help="Column with the fold.")] = None,
    part: Annotated[
        Literal["auto", "test", "development", "train", "all"],
        typer.Option(
            help="Clips to evaluate on. auto: the test part if the run was trained on this very data, else all of it."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
    encoder: Annotated[
        str | None, typer.Option(help="Where the frozen encoder of a tuned head is, if not where it was.")
    ] = None,
) -> None:
    """Measure a recogniser on labelled sounds: every figure with its 95 % interval, and each class."""
    from ossicle.evaluation import evaluate_model

    with counting("Clips") as progress:
        failures = evaluate_model(
            model,
            data,
            output=output,
            label=label,
            group=group,
            fold_column=fold,
            part=part,
            device=device,
            encoder=encoder,
            say=print,
            progress=progress,
        )
    for sentence in failures:
        say(sentence)
    if failures:
        say(f"{len(failures)} recordings could not be used; the figures are those of the others.")
        raise typer.Exit(SOME_FAILED)
