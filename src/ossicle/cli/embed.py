"""`ossicle embed`: embeddings of recordings, in one file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli.options import MODEL, with_options, wrong_usage
from ossicle.cli.outcome import SOME_FAILED, say
from ossicle.jobs.options import EMBED, EmbedOptions, PredictOptions


@with_options(EmbedOptions, PredictOptions, command=EMBED)
def embed(
    model: Annotated[str, typer.Argument(help=MODEL)],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Audio files, or folders with audio files.")],
    **given: Any,
) -> None:
    """Turn recordings into vectors, for search, clustering or a classifier of your own."""
    from ossicle.embedding import check_output, embed_files
    from ossicle.files import printable
    from ossicle.jobs.progress import files_bar

    output = given.pop("output")
    with wrong_usage():
        EmbedOptions(output=output, timestamps=given["timestamps"], layer=given["layer"])
        check_output(output)
        with files_bar() as show:
            found = embed_files(model, inputs, progress=show, **given)
    for outcome in found.failed:
        say(str(outcome.error))
    found.save(output)
    rows, dim = found.embeddings.shape
    print(f"Wrote {printable(output)}: {rows} vectors of {dim} numbers, of {len(found.files)} recordings")
    if found.failed:
        say(f"{len(found.failed)} of {len(found.files) + len(found.failed)} recordings could not be used.")
        raise typer.Exit(SOME_FAILED)
