"""`ossicle predict`: which sounds are in these files, and when."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ossicle.cli.outcome import SOME_FAILED, say

if TYPE_CHECKING:
    from ossicle.data import Item, Modality
    from ossicle.predict import Row


def predict(
    model: Annotated[str, typer.Argument(help="Bundle folder, run folder, or Hugging Face Hub id (user/name).")],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Recordings, or folders with recordings; or images. For a model of texts, tables with a column of "
            "texts, or text files.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for predictions.csv and Audacity label tracks.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="table,csv,audacity",
            help="One or several; by default a table, with -o also a CSV file. Without -o everything is printed.",
        ),
    ] = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once; by default the model's.")] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; by default the window.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Report labels from this score on, in place of the thresholds.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Report at most this many labels for each window.")] = None,
    text: Annotated[str | None, typer.Option(help="Column with the text, of tables for a model of texts.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")] = "auto",
    encoder: Annotated[
        str | None, typer.Option(help="Where the frozen encoder of a tuned head is, if not where it was.")
    ] = None,
) -> None:
    """Label recordings, window by window; a recording that cannot be used is named and the others are done."""
    from ossicle.data.inputs import INPUT_ERRORS
    from ossicle.loading import load
    from ossicle.predict import audacity_text, csv_text, table_lines, write_predictions

    wanted = _read_formats(formats, to_folder=output is not None)
    recognizer = load(model, device=device, encoder=encoder)
    sound = recognizer.modality == "sound"
    if sound:
        try:
            recognizer.window_samples(window=window, hop=hop)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.", param_hint="--window / --hop") from error
    elif window is not None or hop is not None or "audacity" in wanted:
        raise typer.BadParameter(f"{model} answers {recognizer.modality}s, which have no times.")

    items, failed = _find_items(inputs, recognizer.modality, text=text), 0
    if "audacity" in wanted and output is None and len(items) > 1:
        raise typer.BadParameter(
            "An Audacity label track belongs to one recording: give -o for several.", param_hint="--format"
        )
    rows_of_file: dict[Path, tuple[Row, ...]] = {}
    for item in items:
        try:
            prediction = recognizer.predict_item(item, window=window, hop=hop, top_k=top_k, min_score=min_score)
        except INPUT_ERRORS as error:
            say(str(error))
            failed += 1
            continue
        rows_of_file[Path(item.place)] = prediction.rows
        if "table" in wanted:
            for line in table_lines(item.place, prediction.rows):
                print(line)

    about = {"model": recognizer.bundle.model_name, "model_version": recognizer.bundle.version}
    if output is not None:
        written = write_predictions(output, rows_of_file, formats=wanted, **about)
        tracks = [path for path in written if path.suffix == ".txt"]
        for path in written[: len(written) - len(tracks)]:
            print(f"Wrote {path}")
        if tracks:
            print(f"Wrote {tracks[0]}" + (f" and {len(tracks) - 1} more label tracks" if len(tracks) > 1 else ""))
    else:
        everything = [row for rows in rows_of_file.values() for row in rows]
        if "csv" in wanted:
            print(csv_text(everything, **about), end="")
        if "audacity" in wanted:
            print(audacity_text(everything), end="")
    if failed:
        say(f"{failed} of {len(items)} {NOUNS[recognizer.modality]} could not be used.")
        raise typer.Exit(SOME_FAILED)


def _read_formats(text: str | None, *, to_folder: bool) -> tuple[str, ...]:
    from ossicle.predict import FORMATS

    if text is None:
        return ("table", "csv") if to_folder else ("table",)
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in FORMATS]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}.", param_hint="--format")
    return names


NOUNS = {"sound": "recordings", "text": "texts", "image": "images"}


def _find_items(inputs: list[Path], modality: "Modality", *, text: str | None) -> list["Item"]:
    """What the inputs name, each once, in order; a missing file stays in and fails later, by name."""
    from ossicle.data import find_items
    from ossicle.errors import DataRefused

    items: list[Item] = []
    for path in inputs:
        found = find_items(path, modality=modality, text=text)
        if not found:
            raise DataRefused(f"{path}: there is no {NOUNS[modality].removesuffix('s')} in this folder or below it.")
        items += found
    return list(dict.fromkeys(items))
