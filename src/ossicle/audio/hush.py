"""Silence for C code that writes to standard error and cannot be told not to."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator


class Hush:
    """Sends standard error nowhere while C code that cannot be told to be quiet runs; threads may overlap.

    The descriptor belongs to the process: what others write meanwhile is lost too, so hold it for single calls only,
    and only for MPEG audio. A program whose sentences must not be lost calls `speak_apart` first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.kept: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.depth == 0:
                with contextlib.suppress(OSError):  # no standard error, nothing to hush
                    self.kept = os.dup(2)
                    with open(os.devnull, "wb") as nowhere:
                        os.dup2(nowhere.fileno(), 2)
            self.depth += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0 and self.kept is not None:
                os.dup2(self.kept, 2)
                os.close(self.kept)
                self.kept = None

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Lets what is written meanwhile through, also while other threads are hushed."""
        with self.lock:
            if self.kept is None:
                yield
                return
            os.dup2(self.kept, 2)
            try:
                yield
            finally:
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)

    def mend(self) -> None:
        """Gives a process that was forked in the middle of a hush its standard error, and a lock that nobody holds."""
        if self.kept is not None:
            os.dup2(self.kept, 2)
            os.close(self.kept)
        self.__init__()  # type: ignore[misc]


def speak_apart() -> None:
    """Gives Python's standard error a descriptor of its own, which no hush silences; once, before threads start."""
    with contextlib.suppress(AttributeError, OSError):  # no standard error, or one that is no file
        if sys.stderr.fileno() == 2:
            own = os.dup(2)
            sys.stderr = open(own, "w", 1, sys.stderr.encoding, errors="backslashreplace", closefd=False)


HUSH = Hush()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HUSH.mend)
