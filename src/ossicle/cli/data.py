"""`ossicle data`: what a folder or a table of recordings holds, before anything is trained on it."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ossicle.cli.options import FileColumn, Fold, Group, Label, Track
from ossicle.cli.outcome import SOME_FAILED, Sentences
from ossicle.cli.progress import counting

app = typer.Typer(
    cls=Sentences, help="Look at data before training.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    data: Annotated[
        Path, typer.Argument(help="Folder per class, a folder with meta.csv, a CSV/TSV/JSONL table, or ESC-50.")
    ],
    file: FileColumn = None,
    label: Label = None,
    group: Group = None,
    fold: Fold = None,
    modality: Annotated[Literal["sound", "text", "image"], typer.Option(help="What the items are.")] = "sound",
    text: Annotated[str | None, typer.Option(help="Column with the text, for --modality text.")] = None,
    track: Track = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Decode every clip and print what was detected: counts, lengths, rates, problems and the split for training."""
    from ossicle.data import check_dataset, read_dataset

    if text is not None and modality != "text":
        raise typer.BadParameter("a column of texts goes with --modality text", param_hint="--text")
    dataset = read_dataset(
        data, file=file, label=label, group=group, fold=fold, modality=modality, text=text, track=track
    )
    with counting("Listening") as progress:
        report = check_dataset(dataset, progress=progress)
    print(json.dumps(report.to_json(), indent=2, ensure_ascii=False) if as_json else "\n".join(report.lines()))
    if report.failed:
        raise typer.Exit(SOME_FAILED)
