"""One entry of a data set: a clip, an image or a text, with its labels and what ties it to others."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ossicle.data.members import Member, spooled


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One labeled clip: a recording, or a segment of one; or an image; or a row of a table of text.

    `start` and `end` are in seconds; `end` None is the end of the file. `split` is "train", "validation" or "test".
    `unknown` are the labels of which nobody said whether the clip has them; it does not have the others.
    Of a row, `file` is the table, `text` what it says and `row` the line that it begins on, counted from 1.
    `track` is the audio track to read, from 1, of a recording that has several; see `read_clip`.
    Of a file inside of a tar, `file` is the tar and `member` says where in it the bytes lie.
    """

    file: Path
    labels: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    start: float = 0.0
    end: float | None = None
    split: str | None = None
    fold: str | None = None
    group: str | None = None
    text: str | None = None
    row: int | None = None
    track: int | None = None
    member: Member | None = None

    @property
    def place(self) -> str:
        """What to call the item in a message: its file, with the line of a table or the name in a tar."""
        if self.member is not None:
            return self.member.place
        return str(self.file) if self.row is None else f"{self.file}:{self.row}"


@contextlib.contextmanager
def opened(item: Item) -> Iterator[Path]:
    """Yields a path with the bytes of an item's file, which may lie in a tar; all that read an item take it from here.

    Raises: AudioUnreadable where a tar cannot be read, or is damaged.
    """
    if item.member is None:
        yield item.file
        return
    with spooled(item.member) as file:
        yield file
