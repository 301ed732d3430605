"""The latest lines of live sound."""

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
