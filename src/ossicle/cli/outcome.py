"""How a command ends: the exit codes, and an error said in one sentence."""

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ossicle.errors import OssicleError

DONE, USER_ERROR, WRONG_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

# What the machine refuses is the outside world too: no right to write here, a full disk, a file in place of a folder.
_REFUSED_BY_THE_MACHINE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def say(sentence: str) -> None:
    """Prints one sentence about what went wrong, on standard error."""
    print(f"ossicle: {sentence}", file=sys.stderr)


class Sentences(TyperGroup):
    """A command group that says an error in one sentence and sets the exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OssicleError as error:
            say(str(error))
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as error:
            # Whoever was interrupted may have said what is left on disk and how to go on.
            say(str(error) or "Interrupted.")
            raise typer.Exit(INTERRUPTED) from error
        except OSError as error:
            if error.errno not in _REFUSED_BY_THE_MACHINE:
                raise
            say(f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}.")
            raise typer.Exit(USER_ERROR) from error
