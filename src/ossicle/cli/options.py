"""Parameters that commands share: those of the table of options, and the columns of a table of data."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from typing import Annotated, Any, Literal

import typer

from ossicle.jobs.options import PREDICT, Option, PredictOptions, WrongUsage, table

FileColumn = Annotated[str | None, typer.Option("--file", help="Column with the file name.")]
Label = Annotated[str | None, typer.Option(help="Column with the label.")]
Group = Annotated[
    str | None, typer.Option(help="Column with what must stay together in a split (speaker, source file).")
]
Fold = Annotated[str | None, typer.Option(help="Column with the fold.")]

MODEL = "Bundle folder, run folder, published weights by name, or Hugging Face Hub id (user/name)."


def typer_option(row: Option) -> Any:
    """A row of the table as typer has it."""
    return typer.Option(*row.flags, help=row.text, metavar=row.metavar, rich_help_panel=row.group)


def shared(name: str) -> Any:
    """An option of `ossicle predict` for commands that are not in the table; its range is checked by typer."""
    row = next(row for row in table(PredictOptions, command=PREDICT) if row.name == name)
    return typer.Option(*row.flags, help=f"{row.help}.", min=row.least, max=row.most)


Device = Annotated[str, shared("device")]
Track = Annotated[int | None, shared("track")]
EncoderPlace = Annotated[str | None, shared("encoder")]
Keep = Annotated[float | None, shared("keep")]
KeepBy = Annotated[Literal["merge", "strided"] | None, shared("keep_by")]


def with_options(*holders: type, command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function that takes `**given` the parameters of a command in the table, for typer."""

    def parameter(row: Option) -> inspect.Parameter:
        kind: Any = Literal[row.choices] if row.choices else row.kind
        return inspect.Parameter(
            row.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if row.default is MISSING else row.default,
            annotation=Annotated[kind | None if row.default is None else kind, typer_option(row)],
        )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
        rows = [parameter(row) for row in table(*holders, command=command)]
        function.__signature__ = inspect.Signature([*own, *rows])  # type: ignore[attr-defined]
        return function

    return decorate


@contextlib.contextmanager
def wrong_usage() -> Iterator[None]:
    """Turns options that contradict each other into wrong usage of the command line."""
    try:
        yield
    except WrongUsage as error:
        raise typer.BadParameter(error.in_flags()) from error
