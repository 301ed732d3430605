"""The `ossicle` command: one module per command. Exit codes:

    0    done
    1    the user's error: one sentence on standard error, never a traceback
    2    wrong usage of the command line
    3    finished, but some files failed (each is named on standard error)
    130  interrupted

Anything that is none of these is a mistake of ours and keeps its traceback.

The modules import typer and nothing heavy, so that `--help` answers without torch; the body of each command imports
what it needs.
"""

import gc
import sys
from typing import Annotated

import typer

from ossicle import __version__
from ossicle.allocator import keep_freed_memory
from ossicle.cli import bench, data, demo, distil, doctor, embed, evaluate, export, models, predict, train, tune
from ossicle.cli.outcome import DONE, INTERRUPTED, Sentences, say
from ossicle.errors import begin
from ossicle.waiting import wait_briefly

app = typer.Typer(
    cls=Sentences,
    help="Efficient audio transformers: from a folder of sounds to a trained model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("train", cls=train.ManySettings)(train.train)
app.command("distil", cls=train.ManySettings)(distil.distil)
app.command("tune", cls=train.ManySettings)(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


def _print_version(asked: bool | None) -> None:
    if asked:
        print(f"ossicle {__version__}")
        raise typer.Exit(DONE)


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = None,
) -> None:
    keep_freed_memory()
    wait_briefly()


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    begin()
    # What a command imports lives to its end, and the garbage collector would search all of it several times meanwhile.
    # The oldest generation is searched ten times less often; young garbage, such as samples, is still collected soon.
    gc.set_threshold(2000, 10, 100)
    try:
        app(prog_name="ossicle")
    except KeyboardInterrupt:  # before a command has begun
        say("Interrupted.")
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # otherwise the end of the process would search it once more
