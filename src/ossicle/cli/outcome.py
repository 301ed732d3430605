"""How a command ends: an error is said in one sentence and sets the exit code."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from ossicle.cli.progress import downloads_shown
from ossicle.errors import DONE, INTERRUPTED, SOME_FAILED, USER_ERROR, WRONG_USAGE, end, ending, log_shown

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
        except SystemExit as last:
            if isinstance(last.code, str):  # a sentence, which Python prints
                raise
            raise SystemExit(end(last.code or DONE, say=say)) from None

    def invoke(self, ctx: Any) -> Any:
        with _in_a_sentence(), log_shown(say), downloads_shown():
            return super().invoke(ctx)

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        with _in_a_sentence():  # help and version are printed here
            return super().make_context(*arguments, **settings)
