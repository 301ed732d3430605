"""Bars on standard error while something long runs, for a person who watches; nothing in a pipe or a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from ossicle.jobs.folders import Outcome, Progress, no_progress


@contextlib.contextmanager
def shown(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yields what to call after each file: the caller's own function, a bar for True, or nothing."""
    if progress is True:
        with files_bar() as show:
            yield show
    else:
        yield progress or no_progress


@contextlib.contextmanager
def files_bar() -> Iterator[Progress]:
    """Yields a function that moves a bar: it takes a file, how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:  # the small distribution has no rich
        yield no_progress
        return
    text = rich.TextColumn("{task.description}")
    columns = (rich.BarColumn(), rich.MofNCompleteColumn(), text, rich.TimeRemainingColumn())
    began, seconds = time.monotonic(), 0.0
    before: int | None = None
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(outcome: Outcome, done: int, total: int) -> None:
            nonlocal seconds, before
            if before is None:
                before = done - 1  # by an earlier job
            seconds += outcome.seconds
            took = max(time.monotonic() - began, 1e-9)
            rates = f"{(done - before) / took:.1f} files/s, {seconds / 60 / took:.1f} h of audio per minute"
            bar.update(task, completed=done, total=total, description=rates)

        yield show


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function that takes how many are done, and of how many."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
