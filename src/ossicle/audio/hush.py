"""Suppresses the messages of C code that always writes to standard error."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator


class Hush:
    """Discards standard error while C code that always writes to it runs; threads may overlap.

    The descriptor belongs to the process: output of other threads is lost too, so use it around single calls only, and
    only for MPEG audio. A program whose messages must not be lost calls `speak_apart` first.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.kept: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.depth == 0:
                with contextlib.suppress(OSError):  # no standard error
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
        """Restores standard error meanwhile, also for other threads."""
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
        """Restores standard error and the lock in a process that was forked while messages were suppressed."""
        if self.kept is not None:
            os.dup2(self.kept, 2)
            os.close(self.kept)
        self.__init__()  # type: ignore[misc]


def speak_apart() -> None:
    """Gives Python's standard error a descriptor of its own, which is never suppressed; once, before threads start."""
    with contextlib.suppress(AttributeError, OSError):  # no standard error, or not a file
        if sys.stderr.fileno() == 2:
            own = os.dup(2)
            sys.stderr = open(own, "w", 1, sys.stderr.encoding, errors="backslashreplace", closefd=False)


HUSH = Hush()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HUSH.mend)
