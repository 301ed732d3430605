"""`ossicle data`: check what a folder or a table holds, before anything is trained on it, and pack it into tars."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import FileColumn, Fold, Group, Label, Track
from ossicle.cli.outcome import SOME_FAILED, Sentences

app = typer.Typer(
    cls=Sentences,
    help="Check data before training, and pack them into tars.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


Data = Annotated[
    Path, typer.Argument(help="Folder per class, a folder with meta.csv, a CSV/TSV/JSONL table, ESC-50, or tars.")
]


def modalities() -> list[str]:
    """The names that `--modality` takes."""
    from ossicle.data import MODALITIES

    return list(MODALITIES)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    data: Data,
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


@app.command()
def shard(
    data: Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the tars; a new one, or one to go on with.")
    ],
    file: FileColumn = None,
    label: Label = None,
    group: Group = None,
    fold: Fold = None,
    track: Track = None,
    shard_megabytes: Annotated[
        float, typer.Option("--shard-megabytes", help="Recordings in a tar, in MiB.", min=0.001)
    ] = 1024,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out clips that cannot be decoded.")] = False,
) -> None:
    """Pack recordings into tars that train, tune, evaluate and check read like the folder, and webdataset too."""
    from ossicle.data import read_dataset, write_shards
    from ossicle.jobs.progress import counting

    shard_bytes = shard_megabytes * 2**20
    if not math.isfinite(shard_bytes):
        raise typer.BadParameter("it must be a finite number of MiB.", param_hint="--shard-megabytes")
    dataset = read_dataset(data, file=file, label=label, group=group, fold=fold, track=track)
    print(dataset.layout)
    with counting("Packing") as progress:
        shards = write_shards(dataset, output, shard_bytes=int(shard_bytes), skip_bad=skip_bad, progress=progress)
    for failure in shards.failures:
        print(f"left out: {failure}")
    print(f"{shards.files} recordings in {len(shards.tars)} tars, {shards.bytes / 2**20:.1f} MiB: {output}")
    if shards.failures:
        raise typer.Exit(SOME_FAILED)
