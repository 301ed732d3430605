"""`ossicle data`: check what a folder or a table holds, before anything is trained on it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import FileColumn, Fold, Group, Label, Track
from ossicle.cli.outcome import SOME_FAILED, Sentences

app = typer.Typer(
    cls=Sentences, help="Check data before training.", no_args_is_help=True, pretty_exceptions_enable=False
)


def modalities() -> list[str]:
    """The names that `--modality` takes."""
    from ossicle.data import MODALITIES

    return list(MODALITIES)


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
    modality: Annotated[
        str, typer.Option(help="What the items are: sound, text or image.", autocompletion=modalities)
    ] = "sound",
    text: Annotated[str | None, typer.Option(help="Column with the text, for --modality text.")] = None,
    track: Track = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Decode every clip and print what was detected: counts, lengths, rates, problems and the split for training."""
    from ossicle.data import MODALITIES, check_dataset, read_dataset

    if modality not in MODALITIES:
        raise typer.BadParameter(f"{modality!r} is not one of {', '.join(MODALITIES)}", param_hint="--modality")
    for option, column in (("file", file), ("text", text)):
        if column is not None and option != MODALITIES[modality].option:
            goes_with = " or ".join(name for name, one in MODALITIES.items() if one.option == option)
            raise typer.BadParameter(f"this column goes with --modality {goes_with}", param_hint=f"--{option}")
    dataset = read_dataset(
        data, file=file, label=label, group=group, fold=fold, modality=modality, text=text, track=track
    )
    from ossicle.jobs.progress import counting

    with counting("Checking") as progress:
        report = check_dataset(dataset, progress=progress)
    print(json.dumps(report.to_json(), indent=2, ensure_ascii=False) if as_json else report)
    if report.failed:
        raise typer.Exit(SOME_FAILED)
