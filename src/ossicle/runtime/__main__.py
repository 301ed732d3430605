"""`ossicle-runtime MODEL.onnx INPUT...`: `ossicle predict` where there is no torch, with the same options."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ossicle.errors import DONE, SOME_FAILED, USER_ERROR, WRONG_USAGE, begin, end, ending, log_shown
from ossicle.jobs.command import run_command
from ossicle.jobs.options import INPUTS, RUNTIME, Option, PredictOptions, WrongUsage, table
from ossicle.runtime import OnnxPredictor, load


def parser() -> argparse.ArgumentParser:
    """The options of the table that have a meaning here, as argparse has them."""
    command = argparse.ArgumentParser("ossicle-runtime", description="Label recordings with an exported model.")
    command.add_argument(
        "model", type=Path, help="ONNX file of `ossicle export`, or general: the model in the package."
    )
    command.add_argument("inputs", type=Path, nargs="*", metavar="INPUT", help=f"{INPUTS}.")
    groups: dict[str | None, argparse._ActionsContainer] = {None: command}
    for row in table(PredictOptions, command=RUNTIME):
        if row.group not in groups:
            groups[row.group] = command.add_argument_group(row.group)
        add_option(groups[row.group], row)
    return command


def add_option(group: argparse._ActionsContainer, row: Option) -> None:
    """Adds a row of the table."""
    text = row.text if row.default in (None, False) else f"{row.text[:-1]}; by default {row.default}."
    if row.kind is bool:
        group.add_argument(*row.flags, dest=row.name, action="store_true", help=text)
    else:
        choices = row.choices or None
        group.add_argument(
            *row.flags,
            dest=row.name,
            type=row.kind,
            choices=choices,
            default=row.default,
            metavar=row.metavar,
            help=text,
        )


def open_model(path: Path, *, threads: int | None, among: int = 1) -> OnnxPredictor:
    """Opens the model in one of `among` processes, which share the cores unless `threads` says otherwise."""
    share = max(1, (os.cpu_count() or 1) // among) if among > 1 else None
    return load(path, threads=threads or share)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code: 0 done, 1 the user's error, 2 wrong usage, 3 some failed, 130."""
    begin()
    with log_shown(say):
        return end(run(arguments), say=say)


def run(arguments: Sequence[str] | None) -> int:
    """The command, except that what it has printed may not be written yet."""
    given = vars(parser().parse_intermixed_args(arguments))  # inputs after options too
    model, inputs = given.pop("model"), given.pop("inputs")
    try:
        options = PredictOptions(**given)
        opener = functools.partial(open_model, model, threads=options.threads)
        return SOME_FAILED if run_command(opener, inputs, options, say=say) else DONE
    except WrongUsage as error:
        say(error.in_flags())
        return WRONG_USAGE
    except BrokenPipeError:  # the reader of standard output has left
        return USER_ERROR
    except (Exception, KeyboardInterrupt) as error:
        if (how := ending(error)) is None:
            raise
        say(how[0])
        return how[1]


def say(sentence: str) -> None:
    """Prints one sentence about what went wrong, on standard error."""
    print(f"ossicle-runtime: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
