"""A bar on standard error while something long runs, for a person who watches; nothing in a pipe or a log."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function that is told how many of how many are done."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextlib.contextmanager
def hours_of_sound() -> Iterator[Callable[[float, int, int], None]]:
    """Yields a function that is told the seconds of a recording just heard, how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield lambda seconds, done, total: None
        return
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    began, heard = time.monotonic(), 0.0
    before: int | None = None
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(seconds: float, done: int, total: int) -> None:
            nonlocal heard, before
            if before is None:
                before = done - 1  # by an earlier start
            heard += seconds
            took = max(time.monotonic() - began, 1e-9)
            rates = f"{(done - before) / took:.1f} files/s, {heard / 60 / took:.1f} h of sound a minute"
            progress.update(task, completed=done, total=total, description=rates)

        yield show


@contextlib.contextmanager
def latest_lines() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a line: the latest twelve refreshed in place at a terminal, one by one in a pipe."""
    if not sys.stdout.isatty():
        yield lambda line: print(line, flush=True)
        return
    from collections import deque

    from rich.live import Live
    from rich.text import Text

    lines: deque[str] = deque(maxlen=12)
    with Live(refresh_per_second=8) as live:

        def show(line: str) -> None:
            lines.append(line)
            live.update(Text("\n".join(lines)))

        yield show
