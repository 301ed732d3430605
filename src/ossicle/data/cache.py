"""Decoded samples of a whole dataset, so that the second epoch opens no audio file.

What fits into the budget is decoded once, before the training starts, into one flat file of float32 samples at the
model's rate, item after item. It is read through a memory map: the operating system keeps in memory what fits and the
process itself stays small. Its name is a hash of everything the samples depend on (paths, sizes, times, segments, rate,
the decoder's version), so that folds and later runs share it, and a recording that was edited, or is decoded otherwise
than by an older ossicle, is decoded anew.

What does not fit is streamed: nothing is decoded ahead, as headers and indexes know the lengths; clips are decoded at
their use, and kept as far as the budget goes.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int64

from ossicle.audio import DECODER, Clip, read_clip
from ossicle.data.arrays import TarItems
from ossicle.data.items import Item, opened
from ossicle.data.kept import KeptSamples
from ossicle.data.lengths import UNREADABLE, clip_lengths
from ossicle.data.threads import in_threads
from ossicle.errors import AudioError, DataRefused
from ossicle.files import cache_folder, refuse_unwritable, remove_abandoned, replacing, write_json

logger = logging.getLogger(__name__)
FILE_VERSION = 2
ABANDONED = 86_400.0  # seconds: nobody has written to such a file for a day
# Sound is hardly ever coded so many times smaller: what would still fit then is decoded without a look at its headers.
LEAST_CODED = 256
TOO_MANY = 500  # clips in a row that cannot be read: the data have gone, not some of them

Store = TypeVar("Store", bound="SampleStore")


@dataclass(frozen=True, kw_only=True)
class SampleStore:
    """Samples of items at one rate, by position in `items`.

    `failures` maps the position of an item that cannot be decoded to the reason, a sentence that names the file: those
    known at the start, which have no length, and those found since.
    """

    items: Sequence[Item]
    rate: int
    samples: Float32[np.ndarray, "total"]
    offsets: Int64[np.ndarray, "item"]
    lengths: Int64[np.ndarray, "item"]
    failures: dict[int, str]

    @classmethod
    def undecoded(cls: type[Store], items: Sequence[Item], rate: int, **known: Any) -> Store:
        """A store without samples of its own; `known` has the other fields."""
        offsets = np.zeros(len(items), np.int64)
        return cls(items=items, rate=rate, samples=np.zeros(0, np.float32), offsets=offsets, **known)

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        """All samples of one item, as a view of the cache or, of a stream, decoded now.

        Raises: AudioError for a clip of a stream that is lost; it is among the failures then.
        """
        start = self.offsets[index]
        return self.samples[start : start + self.lengths[index]]

    @property
    def usable(self) -> Int64[np.ndarray, "usable"]:
        """Positions of the items that could be decoded at the start, as far as that was known."""
        return np.flatnonzero(self.lengths != UNREADABLE)


@dataclass(frozen=True, kw_only=True)
class StreamedStore(SampleStore):
    """Samples that are decoded at their use and kept as far as the budget goes; nothing is decoded ahead.

    Draws of random order come back to a clip after about one epoch, when what was used last is of no more help than
    what was used first, and keeping the latest would drop most clips before they are used again: of a cache for half
    of the clips, an epoch would find 15 % there, and of one whose content stays 50 %. So what is kept stays, and clips
    that are drawn more often, as balanced sampling does, come to be kept earlier.

    `lengths` are those of the headers, which what is decoded may differ from by a little.
    """

    kept: KeptSamples
    lost: "Lost" = field(default_factory=lambda: Lost())

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        if (samples := self.kept.read(index)) is not None:
            return samples
        try:
            samples = decode(self.items[index], self.rate)
        except AudioError as error:
            self.lost.count(self.failures, index, str(error), among=len(self.usable))
            raise
        self.lost.in_a_row = 0
        self.kept.add(index, samples)
        return samples


class Lost:
    """Counts the clips of a stream that cannot be read; a clip is tried again at every use, as it may come back."""

    def __init__(self) -> None:
        self.lock, self.in_a_row = threading.Lock(), 0

    def count(self, failures: dict[int, str], index: int, reason: str, *, among: int) -> None:
        """Notes one.

        Raises: DataRefused where all of the last ones were lost.
        """
        with self.lock:
            if index not in failures:
                failures[index] = reason
                logger.info(f"left out, as clip number {len(failures)} that cannot be used: {reason}")
            self.in_a_row += 1
            if self.in_a_row >= min(TOO_MANY, among):
                raise DataRefused(
                    f"{self.in_a_row} clips one after the other cannot be read, the last one being {reason}; bring the "
                    "data back, and --resume goes on."
                )


def open_store(
    items: Sequence[Item],
    rate: int,
    *,
    folder: Path | None = None,
    budget_bytes: int = 16 << 30,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
    measuring: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> SampleStore:
    """Decodes every item once, or finds the samples of an earlier run; what exceeds the budget is streamed.

    What could not be decoded then is tried again: a decoder may have been installed, or a right been given.

    Args:
        rate: hertz of the stored samples.
        folder: where the cache lives; by default `$OSSICLE_CACHE`, else `~/.cache/ossicle`.
        budget_bytes: most bytes to store.
        progress: called with (items done, items in all, items that could not be decoded).
        measuring: called likewise while the headers of files are read.

    Raises: SettingRefused where something is to be stored and the cache cannot be written.
    """
    folder = (folder or cache_folder()) / "samples"
    key, size = _key(items, rate)
    data, index = folder / f"{key}.f32", folder / f"{key}.json"
    known = _known(data, index, items=len(items))
    if known is None and size * LEAST_CODED > budget_bytes:
        refuse_unwritable(folder, "decoded samples")
        lengths, failures = clip_lengths(items, rate, known=folder / f"{key}.lengths", progress=measuring)
        if np.maximum(lengths, 0).sum() * np.float32().nbytes > budget_bytes:
            kept = KeptSamples(folder / f"{key}.kept", items=len(items), budget_bytes=budget_bytes)
            return StreamedStore.undecoded(items, rate, lengths=lengths, failures=failures, kept=kept)
    if known is None or not _complete(known, items, rate):
        refuse_unwritable(folder, "decoded samples")
        remove_abandoned(folder, unless_younger=ABANDONED)
        _decode_all(items, rate, data=data, index=index, progress=progress)
        known = json.loads(index.read_text(encoding="utf-8"))
    lengths = np.array(known["lengths"], np.int64)
    stored = np.maximum(lengths, 0)
    # An empty file cannot be mapped.
    samples = np.memmap(data, np.float32, "r") if data.stat().st_size else np.zeros(0, np.float32)
    return SampleStore(
        items=items,
        rate=rate,
        samples=samples,
        offsets=np.cumsum(stored) - stored,
        lengths=lengths,
        failures={int(position): reason for position, reason in known["failures"].items()},
    )


def decode(item: Item, rate: int) -> Float32[np.ndarray, "time"]:
    """The samples of one item, its segment only, at `rate` hertz."""
    return clip_of(item, rate).samples


def clip_of(item: Item, rate: int) -> Clip:
    """The segment of one item at `rate` hertz."""
    with opened(item) as file:
        return read_clip(file, rate, name=item.place, start=item.start, end=item.end, track=item.track)


def _known(data: Path, index: Path, *, items: int) -> dict[str, Any] | None:
    """What an earlier run noted, if the samples are there too; None where it is damaged, and is made again."""
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        lengths, failures = known["lengths"], known["failures"]
        failed = {str(position) for position, length in enumerate(lengths) if length == UNREADABLE}
        whole = all(type(number) is int for number in lengths)
        whole = whole and len(lengths) == items and failures.keys() == failed
        if not whole or not all(isinstance(reason, str) for reason in failures.values()):
            return None
        samples = sum(max(length, 0) for length in lengths)
        return known if data.stat().st_size == samples * np.float32().nbytes else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _complete(known: dict[str, Any], items: Sequence[Item], rate: int) -> bool:
    """Whether decoding again would give nothing more."""
    return all(isinstance(_attempt(items[int(position)], rate), str) for position in known["failures"])


def _attempt(item: Item, rate: int) -> Float32[np.ndarray, "time"] | str:
    """The samples, or why there are none."""
    try:
        return decode(item, rate)
    except AudioError as error:
        return str(error)


def _decode_all(
    items: Sequence[Item],
    rate: int,
    *,
    data: Path,
    index: Path,
    progress: Callable[[int, int, int], None],
) -> None:
    lengths: list[int] = []
    failures: dict[int, str] = {}
    with replacing(data) as temporary, open(temporary, "wb") as file:
        decoded = in_threads(partial(_attempt, rate=rate), items, workers=os.cpu_count() or 1)
        for position, result in enumerate(decoded):
            if isinstance(result, str):
                lengths.append(UNREADABLE)
                failures[position] = result
            else:
                lengths.append(len(result))
                file.write(result.tobytes())
            progress(position + 1, len(items), len(failures))
    write_json(index, {"rate": rate, "lengths": lengths, "failures": failures})


def _key(items: Sequence[Item], rate: int) -> tuple[str, int]:
    """A hash of all that the samples depend on, and the bytes of the files."""
    digest = hashlib.sha256(f"{FILE_VERSION} {DECODER} {rate}".encode())
    if isinstance(items, TarItems):
        digest.update(items.identity())
        return digest.hexdigest()[:32], int(items.of_files("sizes").sum())
    total = 0
    for item in items:
        one, size = identity_and_bytes(item)
        digest.update(b"\n" + one)
        total += size
    return digest.hexdigest()[:32], total


def identity(item: Item) -> bytes:
    """All that an item's content depends on: a text itself, or a file's path, size and time, the segment and the track.

    Of a file in a tar it is the content itself, by the tar's index, so that a cache outlives a move of the tars.

    A missing file has no size, so that it is looked for again.
    """
    return identity_and_bytes(item)[0]


def identity_and_bytes(item: Item) -> tuple[bytes, int]:
    """Its identity, and the size of its file."""
    if item.text is not None:
        return b"text\t" + item.text.encode(errors="surrogatepass"), 0
    track = "" if item.track is None else f"\t{item.track}"
    if item.member is not None:
        return f"{item.member.identity}\t{item.start}\t{item.end}{track}".encode(), item.member.size
    size, state = 0, "missing"
    with contextlib.suppress(OSError):
        status = item.file.stat()
        size, state = status.st_size, f"{status.st_size} {status.st_mtime_ns}"
    return f"{item.file}\t{state}\t{item.start}\t{item.end}{track}".encode(errors="surrogatepass"), size
