"""`ossicle evaluate`: how good a model is on labeled audio."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ossicle.cli.options import MODEL, Device, EncoderPlace, FileColumn, Fold, Group, Keep, KeepBy, Label, Track
from ossicle.cli.outcome import SOME_FAILED, say


def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL)],
    data: Annotated[Path, typer.Argument(help="Labeled audio, in any layout that `ossicle train` reads.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for metrics.json, predictions.csv, plots, report.html."),
    ] = None,
    file: FileColumn = None,
    label: Label = None,
    group: Group = None,
    fold: Fold = None,
    text: Annotated[str | None, typer.Option(help="Column with the text, for a model of texts.")] = None,
    part: Annotated[
        Literal["auto", "test", "validation", "train", "all"],
        typer.Option(
            help="Clips to evaluate on. auto: the test part if the run was trained on this very data, else all of it."
        ),
    ] = "auto",
    track: Track = None,
    device: Device = "auto",
    encoder: EncoderPlace = None,
    keep: Keep = None,
    keep_by: KeepBy = None,
) -> None:
    """Evaluate a model on labeled audio: metrics with 95 % confidence intervals, and each class."""
    if keep_by is not None and keep is None:
        raise typer.BadParameter("This needs --keep as well.", param_hint="--keep-by")

    from ossicle import evaluation
    from ossicle.models.tokens import TokenReduction

    try:
        reduction = None if keep is None else TokenReduction(keep=keep, method=keep_by or "merge")
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--keep") from error
    found = evaluation.evaluate(
        model,
        data,
        output=output,
        part=part,
        columns={"file": file, "label": label, "group": group, "fold": fold, "text": text, "track": track},
        device=device,
        encoder=encoder,
        reduction=reduction,
        progress=True,
    )
    for sentence in found.failures:
        say(sentence)
    if found.failures:
        say(f"{len(found.failures)} recordings could not be used; the metrics are those of the others.")
        raise typer.Exit(SOME_FAILED)
