"""How long clips are before they are decoded: by the index of their tar, or by the header of their file.

The length of a compressed recording may be an estimate. What goes by it (where crops begin, how long they are) is then
the same in every epoch, process and resumed run, whatever has been decoded so far.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ossicle.audio import measure_frames
from ossicle.data.arrays import TarItems, arrays_of
from ossicle.data.items import Item, opened
from ossicle.data.threads import in_threads
from ossicle.errors import AudioError
from ossicle.files import write_atomically

UNREADABLE = -1  # in place of a length: the item cannot be decoded
Progress = Callable[[int, int, int], None]  # called with (done, in all, failed)


def clip_lengths(
    items: Sequence[Item],
    rate: int,
    *,
    known: Path | None = None,
    progress: Progress = lambda done, total, failed: None,
) -> tuple[Int64[np.ndarray, "item"], dict[int, str]]:
    """The samples of each item at a rate, and why others have none, by position.

    Args:
        known: file to keep what headers say, for a later start.
    """
    frames, rates, failures = in_tars(items) or in_files(items, known=known, progress=progress)
    arrays = arrays_of(items)
    whole = (2 * frames * rate + rates) // np.maximum(2 * rates, 1)  # what `resample` makes of them
    first = np.round(arrays.starts * rate).astype(np.int64)
    last = np.where(np.isnan(arrays.ends), whole, np.minimum(whole, np.round(np.nan_to_num(arrays.ends) * rate)))
    lengths = last.astype(np.int64) - first
    for position in np.flatnonzero((lengths <= 0) & (rates > 0)).tolist():
        item = items[position]
        failures[position] = f"{item.place}: the recording ends before {item.start:g} s"
    lengths[list(failures)] = UNREADABLE
    return lengths, failures


def in_tars(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray, dict[int, str]] | None:
    """Frames and rates by the indexes of tars, or None for other items."""
    if isinstance(items, TarItems):
        return items.of_files("frames"), items.of_files("rates"), {}
    return None


def in_files(
    items: Sequence[Item], *, known: Path | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Frames and rates by the headers of files, each opened once."""
    files = arrays_of(items).files
    _, first, file_of = np.unique(files, return_index=True, return_inverse=True)
    found = np.zeros((len(first), 2), np.int64) if known is None else read_known(known, files=len(first))
    missing = np.flatnonzero(found[:, 1] == 0)
    reasons: dict[int, str] = {}
    measured = in_threads(_measure, (items[first[file]] for file in missing.tolist()), workers=os.cpu_count() or 1)
    for done, (file, result) in enumerate(zip(missing.tolist(), measured, strict=True), start=1):
        if isinstance(result, str):
            reasons[file] = result
        else:
            found[file] = result
        progress(done, len(missing), len(reasons))
    if known is not None and len(missing) > len(reasons):
        content = found.tobytes()
        write_atomically(known, zlib.crc32(content).to_bytes(4) + content)
    frames, rates = found[file_of].T
    failures = {position: reasons[file] for position, file in enumerate(file_of.tolist()) if file in reasons}
    return frames, rates, failures


def read_known(known: Path, *, files: int) -> Int64[np.ndarray, "file 2"]:
    """Frames and rate of each file by an earlier run; zero where it knew none."""
    try:
        content = known.read_bytes()
    except OSError:
        content = b""
    check, content = content[:4], content[4:]
    if len(content) != files * 16 or check != zlib.crc32(content).to_bytes(4):
        return np.zeros((files, 2), np.int64)
    return np.frombuffer(content, np.int64).reshape(files, 2).copy()


def _measure(item: Item) -> tuple[int, int] | str:
    if item.member is not None:
        return item.member.length
    try:
        with opened(item) as file:
            return measure_frames(file, track=item.track, name=item.place)
    except AudioError as error:
        return str(error)
