"""How a command ends: an error is said in one sentence and sets the exit code."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from ossicle.errors import DONE, INTERRUPTED, SOME_FAILED, USER_ERROR, WRONG_USAGE, ending
from ossicle.files import flush_printed

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
            # Unless it was something else that ended the command: that has been said.
            if (error := flush_printed()) is not None and end.code in (None, DONE, SOME_FAILED):
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
