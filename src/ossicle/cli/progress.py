"""What moves in place at a terminal: the latest lines of live sound, a bar of a download."""

import contextlib
import sys
from collections.abc import Callable, Iterator


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


@contextlib.contextmanager
def downloads_shown() -> Iterator[None]:
    """Draws a bar for each download, for a person who watches; nothing in a pipe or a log."""
    from ossicle.catalog import download

    before, download.bar = download.bar, _bytes_bar
    try:
        yield
    finally:
        download.bar = before


@contextlib.contextmanager
def _bytes_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
    )
    with rich.Progress(*columns, rich.TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
