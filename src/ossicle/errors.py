"""Every error that ossicle raises about the outside world.

A caller's slip in Python (a wrong argument) is a `ValueError`. Everything that comes from files, folders, weights or
the machine is one of

    OssicleError
    ├── AudioError
    │   ├── AudioUnreadable     no decoder makes samples of these bytes, or the file is missing
    │   └── AudioRefused        readable, but outside the limits (too long, NaN, too many channels, ...)
    ├── ImageRefused            an image that does not decode, or lies outside the limits
    ├── DataRefused             a folder, table or split that cannot be learned from
    ├── ModelUnknown            a model, recipe or front end that no registry has
    ├── WeightsRefused          missing, unexpected, misshapen or damaged tensors
    ├── BundleRefused           a bundle's configuration is missing, damaged or of another schema
    ├── SettingRefused          a setting that does not exist or lies outside its range
    ├── RunRefused              a run folder that cannot be continued or overwritten
    ├── JobStopped              a job that could not go on: a full disk, a process that died
    ├── ExportRefused           a model that cannot be exported, or a file that gives other numbers than it
    └── ExtraMissing            an optional package is absent or does not work here

Each message is one sentence that says what was found and what is allowed, and names the file where there is one.
The command lines print it and exit with 1; no traceback. `ending` is their rule.
"""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

DONE, USER_ERROR, WRONG_USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes

# What the machine refuses is the outside world too, whatever its number: a full disk, no right, a file that is gone.
# These alone only a mistake of ours brings about; and of a pipe whose reader has left there is nothing to say.
_OURS = {errno.EBADF, errno.EFAULT, errno.EPIPE}


class OssicleError(Exception):
    """Root of every error about the outside world; catch this one to catch them all."""


class AudioError(OssicleError):
    """A recording that cannot be used."""


class AudioUnreadable(AudioError):
    """No decoder makes samples of these bytes, or there is no such file."""


class AudioRefused(AudioError):
    """The recording decodes, but lies outside the stated limits."""


class ImageRefused(OssicleError):
    """An image that is missing, does not decode, or lies outside the stated limits."""


class DataRefused(OssicleError):
    """A folder, table or split that cannot be learned from."""


class ModelUnknown(OssicleError):
    """A name that no registry holds; the message shows the nearest ones."""


class WeightsRefused(OssicleError):
    """Tensors that are missing, unexpected, misshapen or damaged."""


class BundleRefused(OssicleError):
    """A bundle whose configuration is missing, damaged or of a schema this version does not read."""


class SettingRefused(OssicleError):
    """A setting that does not exist, or whose value lies outside its range."""


class RunRefused(OssicleError):
    """A run folder that cannot be continued, or must not be overwritten."""


class JobStopped(OssicleError):
    """A job that could not go on: a disk was full, or a process that shared the files died; what was done is kept."""


class ExportRefused(OssicleError):
    """A model that cannot be exported, a file that gives other numbers than it, or one that must not be overwritten."""


class ExtraMissing(OssicleError):
    """An optional package is absent or broken; the message says what to install."""


class _Console(logging.Handler):
    """Prints what the library logs: how far it is on standard output; what is odd or went wrong goes to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.INFO:
            self.say(record.getMessage())
        else:
            print(record.getMessage(), flush=True)


@contextlib.contextmanager
def log_shown(say: Callable[[str], None]) -> Iterator[None]:
    """Shows what is logged under `ossicle`, as a command does.

    Args:
        say: called with each warning
    """
    logger = logging.getLogger("ossicle")
    if any(isinstance(handler, _Console) for handler in logger.handlers):  # a group of commands within a group
        yield
        return
    console, level = _Console(say), logger.level
    logger.addHandler(console)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(console)
        logger.setLevel(level)


def begin() -> None:
    """Makes what a program prints UTF-8 where no terminal reads it: on Windows a pipe takes the code page otherwise.

    What a terminal's own encoding does not have is escaped. A program that is told to end, as by a queue of jobs, ends
    as after Ctrl-C: it says what is kept.
    """
    signal.signal(signal.SIGTERM, interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if stream.isatty():
                stream.reconfigure(errors="backslashreplace")
            else:
                stream.reconfigure(encoding="utf-8")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handles a signal as Python handles Ctrl-C.

    Raises: KeyboardInterrupt
    """
    raise KeyboardInterrupt(f"Stopped by {signal.Signals(number).name}")


def end(code: int, *, say: Callable[[str], None]) -> int:
    """Writes what a program has printed, as its last act, and gives its exit code: another where that cannot be done.

    Python itself flushes later, and ends with 120 where it cannot.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        if code not in (DONE, SOME_FAILED):  # something else ended the program, and that has been said
            return code
        if (how := ending(error)) is not None:
            say(f"standard output: {how[0]}")
        return USER_ERROR
    return code


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def ending(error: BaseException) -> tuple[str, int] | None:
    """How a command ends with an error: its sentence and exit code; None for a mistake of ours, with its traceback."""
    if isinstance(error, OssicleError):
        return str(error), USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        # Whoever was interrupted may have said what is left on disk and how to go on.
        return f"{str(error).rstrip('.') or 'Interrupted'}.", INTERRUPTED
    if isinstance(error, OSError) and error.errno is not None and error.errno not in _OURS:
        return f"{error.strerror}: {error.filename}." if error.filename else f"{error.strerror}.", USER_ERROR
    return None
