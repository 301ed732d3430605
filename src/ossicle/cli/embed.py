"""`ossicle embed`: what a model hears before it decides, as vectors."""

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import Device, EncoderPlace, Track
from ossicle.cli.outcome import SOME_FAILED, say


def embed(
    model: Annotated[str, typer.Argument(help="Bundle folder, run folder, or Hugging Face Hub id (user/name).")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Recordings, or folders with recordings.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write: .npz or .safetensors.")],
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="A vector for each window; otherwise one for each recording.")
    ] = False,
    layer: Annotated[
        int | None, typer.Option(min=1, help="Layer of the network; by default what its head is given.")
    ] = None,
    window: Annotated[float | None, typer.Option(help="Seconds heard at once; by default the model's.")] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds between windows; by default the model's, or all of --window."),
    ] = None,
    track: Track = None,
    device: Device = "auto",
    encoder: EncoderPlace = None,
) -> None:
    """Turn recordings into vectors, for search, clustering or a classifier of your own."""
    from ossicle.cli.progress import counting
    from ossicle.embedding import SUFFIXES, embed_files, refuse_stranger, save_embeddings
    from ossicle.files import check_writable, printable
    from ossicle.jobs.command import find_recordings
    from ossicle.loading import load

    if output.suffix not in SUFFIXES:
        raise typer.BadParameter(f"The file must end in {' or '.join(SUFFIXES)}.", param_hint="--output")
    refuse_stranger(output)
    check_writable(output)
    recognizer = load(model, device=device, encoder=encoder)
    if recognizer.modality != "sound":
        raise typer.BadParameter(f"{model} answers {recognizer.modality}s; `ossicle embed` is for sound.")
    try:
        samples = recognizer.window_samples(window=window, hop=hop)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--window / --hop") from error
    files, unlisted = find_recordings(inputs)
    for heard in unlisted:
        say(str(heard.error))
    failures: list[str] = []
    with counting("Embedding") as progress:
        found = embed_files(
            recognizer,
            files,
            layer=layer,
            timestamps=timestamps,
            window=window,
            hop=hop,
            track=track,
            failed=failures.append,
            progress=progress,
        )
    for sentence in failures:
        say(sentence)
    about = {
        "model": recognizer.bundle.model_name,
        "model_version": recognizer.bundle.version,
        "layer": layer,
        "window_seconds": samples[0] / recognizer.rate,
        "hop_seconds": samples[1] / recognizer.rate,
        "track": track,
    }
    save_embeddings(output, found, about=about)
    rows, dim = found.embeddings.shape
    print(f"Wrote {printable(output)}: {rows} vectors of {dim} numbers, of {len(found.files)} recordings")
    if failures or unlisted:
        say(f"{len(failures) + len(unlisted)} of {len(files) + len(unlisted)} recordings could not be used.")
        raise typer.Exit(SOME_FAILED)
