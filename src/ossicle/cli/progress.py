"""A bar on standard error while something long runs, for a person who watches; nothing in a pipe or a log."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function that takes how many are done, and of how many."""
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
