"""How a command ends: an error is said in one sentence and sets the exit code."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ossicle.errors import DONE, INTERRUPTED, SOME_FAILED, USER_ERROR, WRONG_USAGE, ending

__all__ = ["DONE", "INTERRUPTED", "SOME_FAILED", "USER_ERROR", "WRONG_USAGE", "Sentences", "say"]


def say(sentence: str) -> None:
    """Prints one sentence about what went wrong, on standard error."""
    print(f"ossicle: {sentence}", file=sys.stderr)


class Sentences(TyperGroup):
    """A command group that says an error in one sentence and sets the exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            if (how := ending(error)) is None:
                raise
            say(how[0])
            raise typer.Exit(how[1]) from error
