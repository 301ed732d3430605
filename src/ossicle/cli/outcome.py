"""How a command ends: an error is said in one sentence and sets the exit code."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from ossicle.errors import DONE, INTERRUPTED, SOME_FAILED, USER_ERROR, WRONG_USAGE, ending

__all__ = ["DONE", "INTERRUPTED", "SOME_FAILED", "USER_ERROR", "WRONG_USAGE", "Sentences", "say"]


def say(sentence: str) -> None:
    """Prints one sentence about what went wrong, on standard error."""
    print(f"ossicle: {sentence}", file=sys.stderr)


@contextlib.contextmanager
def _in_a_sentence() -> Iterator[None]:
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if (how := ending(error)) is None:
            raise
        say(how[0])
        raise typer.Exit(how[1]) from error


class Sentences(TyperGroup):
    """A command group that says an error in one sentence and sets the exit code."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        try:
            return super().main(*arguments, **settings)
        except SystemExit as end:
            try:
                sys.stdout.flush()  # here, and not when Python ends, whose exit code for it is 120
            except OSError as error:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
                if end.code in (None, DONE, SOME_FAILED):  # else there has been a sentence
                    if (how := ending(error)) is not None:
                        say(f"standard output: {how[0]}")
                    raise SystemExit(USER_ERROR) from None
            raise

    def invoke(self, ctx: Any) -> Any:
        with _in_a_sentence():
            return super().invoke(ctx)

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _in_a_sentence():  # help and version are printed here
            return super().make_context(*arguments, **settings)
