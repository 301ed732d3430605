"""`ossicle predict`: which labels are in these files, and when."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli.options import MODEL, with_options, wrong_usage
from ossicle.cli.outcome import SOME_FAILED, say
from ossicle.jobs.options import INPUTS, PREDICT, PredictOptions

if TYPE_CHECKING:
    from ossicle.jobs.folders import FileResults

INPUTS_HELP = f"{INPUTS}; or images. For a model of texts, tables with a column of texts, or text files."


@with_options(PredictOptions, command=PREDICT)
def predict(
    model: Annotated[str, typer.Argument(help=MODEL)],
    inputs: Annotated[list[Path] | None, typer.Argument(metavar="INPUT...", help=INPUTS_HELP)] = None,
    **given: Any,
) -> None:
    """Label recordings, window by window; a recording that cannot be used is named and the others are done."""
    from ossicle.cli.progress import latest_lines
    from ossicle.jobs.command import run_command
    from ossicle.jobs.predict import opener_of

    with wrong_usage():
        options = PredictOptions(**given)
        plot = plotted(options.track) if options.timeline else None
        opener = opener_of(model, options)
        failed = run_command(opener, inputs or [], options, say=say, lines=latest_lines, plot=plot)
    if failed:
        raise typer.Exit(SOME_FAILED)


def plotted(track: int | None) -> Any:
    """Plots the recordings of results beside their tables."""

    def plot(recognizer: Any, results: "FileResults") -> Sequence[Path]:
        from ossicle.jobs.store import Written
        from ossicle.timeline import draw_recordings, picture_paths

        folder, files = results.folder, results.files
        assert folder is not None
        Written(folder).claim(picture_paths(folder, files))
        return draw_recordings(folder, results, files=files, labels=recognizer.labels, track=track)

    return plot
