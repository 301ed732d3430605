"""Decoding while the model computes: each recording is read by a thread of its own, a little before it is needed."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
WAITING = 4  # items of a recording that may wait
PATIENCE = 0.1  # seconds after which a full queue checks whether its reader has stopped


def read_ahead(openers: Iterable[Callable[[], Iterable[T]]], *, ahead: int = 2) -> Generator["Prefetch[T]"]:
    """Yields what each opener gives, item by item, while a thread works on it and on the next ones.

    Order and errors are those of plain iteration: an error comes where it happened, and the next recording is unharmed.
    At most `ahead` recordings are open besides the current one, each with a few items waiting.
    """
    waiting: deque[Prefetch[T]] = deque()
    following = iter(openers)
    try:
        while True:
            while len(waiting) <= ahead and (opener := next(following, None)) is not None:
                waiting.append(Prefetch(opener))
            if not waiting:
                return
            yield waiting[0]
            waiting.popleft().close()
    finally:
        for one in waiting:
            one.close()


class Prefetch(Generic[T]):
    """The items of an iterator that a thread takes from it; iterate once."""

    def __init__(self, opener: Callable[[], Iterable[T]]) -> None:
        self._opener = opener
        self._items: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(WAITING)
        self._closed = threading.Event()
        # A daemon: a decoder that hangs must not keep the program alive.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for item in self._opener():
                if not self._put((item, None, False)):
                    return
            self._put((None, None, True))
        except BaseException as error:
            self._put((None, error, True))

    def _put(self, entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not self._closed.is_set():
            try:
                self._items.put(entry, timeout=PATIENCE)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error, over = self._items.get()
            if error is not None:
                raise error
            if over:
                return
            yield item  # type: ignore[misc]

    def close(self) -> None:
        """Lets the thread end, whatever it has read."""
        self._closed.set()
