"""Decoded samples of a whole dataset in one flat file, so that the second epoch opens no audio file.

The file holds float32 samples at the model's rate, item after item, and is read through a memory map: the operating
system keeps in memory what fits and the process itself stays small. Its name is a hash of everything the samples depend
on (paths, sizes, times, segments, rate, the decoder's version), so that folds and later runs share it, and a recording
that was edited, or is decoded otherwise than by an older ossicle, is decoded anew.

Tars that would exceed the budget are streamed: decoded at their use, and kept as far as the budget goes.
"""

import contextlib
import hashlib
import json
import logging
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int64

from ossicle.audio import DECODER, Clip, read_clip
from ossicle.data.items import Item
from ossicle.data.members import spooled
from ossicle.errors import AudioError
from ossicle.files import (
    cache_folder,
    locked,
    refuse_unwritable,
    remove_abandoned,
    replacing,
    write_atomically,
    write_json,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
FILE_VERSION = 2
UNREADABLE = -1  # in `lengths`: the item could not be decoded
ABANDONED = 86_400.0  # seconds: nobody has written to such a file for a day


@dataclass(frozen=True, kw_only=True)
class SampleStore:
    """Samples of items at one rate, by position in `items`.

    Those of the first `stored` items lie in `samples`, the others are decoded at every use; `lengths` are of all.
    `failures` maps the position of an item that cannot be decoded to the reason, a sentence that names the file.
    """

    items: tuple[Item, ...]
    rate: int
    samples: Float32[np.ndarray, "total"]
    offsets: Int64[np.ndarray, "item"]
    lengths: Int64[np.ndarray, "item"]
    stored: int
    failures: dict[int, str]

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        """All samples of one item, as a view of the cache or, where the budget did not reach it, decoded now."""
        if index >= self.stored:
            return decode(self.items[index], self.rate)
        start = self.offsets[index]
        return self.samples[start : start + self.lengths[index]]

    @property
    def usable(self) -> Int64[np.ndarray, "usable"]:
        """Positions of the items that decode."""
        return np.flatnonzero(self.lengths != UNREADABLE)


@dataclass(frozen=True, kw_only=True)
class StreamedStore(SampleStore):
    """Samples that are decoded at their use and kept as far as the budget goes; nothing is decoded ahead.

    Draws of random order come back to a clip after about one epoch, when what was used last is of no more help than
    what was used first, and keeping the latest would drop each clip before it is used again. So what is kept stays,
    and clips that are drawn more often, as balanced sampling does, come to be kept earlier.
    """

    kept: "KeptSamples"
    skip_bad: bool

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        if index in self.failures:
            return np.zeros(self.lengths[index], np.float32)
        if (samples := self.kept.read(index)) is not None:
            return samples
        try:
            samples = decode(self.items[index], self.rate)
        except AudioError as error:
            if not self.skip_bad:
                raise
            self.failures[index] = str(error)
            logger.info(f"taken for silence, as clip number {len(self.failures)} that cannot be used: {error}")
            return np.zeros(self.lengths[index], np.float32)
        self.kept.add(index, samples)
        return samples


class KeptSamples:
    """Samples on disk in the order of their first use, up to a budget; a later run finds them.

    Two files: samples, and a record of each item's place that is written behind its samples. One process adds to them,
    others read what was there when they began. A record with samples that a power failure lost does not pass its
    checksum, and its item is decoded again.
    """

    RECORD = np.dtype([("item", "<i8"), ("offset", "<i8"), ("length", "<i8"), ("check", "<i8")])

    def __init__(self, path: Path, *, items: int, budget_bytes: int) -> None:
        self.data, self.log = path.with_suffix(".kept.f32"), path.with_suffix(".kept.places")
        self.budget_bytes, self.end = budget_bytes, 0
        self.places = np.full((items, 3), -1, np.int64)  # offset and length in bytes, CRC-32
        self.lock, self.held = threading.Lock(), contextlib.ExitStack()
        refuse_unwritable(path.parent, "decoded samples")
        try:
            self.held.enter_context(locked(path.with_suffix(".kept.lock")))
            self.open = True
        except BlockingIOError:
            self.open = False
        self._find(items)

    def _find(self, items: int) -> None:
        """Takes over what an earlier run kept."""
        try:
            size, content = self.data.stat().st_size, self.log.read_bytes()
        except OSError:
            self.data.unlink(missing_ok=True) if self.open else None
            return
        records = np.frombuffer(content[: len(content) // self.RECORD.itemsize * self.RECORD.itemsize], self.RECORD)
        whole = (records["item"] >= 0) & (records["item"] < items) & (records["offset"] >= 0) & (records["length"] > 0)
        records = records[whole & (records["offset"] + records["length"] <= size)]
        self.places[records["item"]] = np.column_stack([records["offset"], records["length"], records["check"]])
        self.end = size
        if self.open and len(content) != len(records) * self.RECORD.itemsize:  # a killed process wrote a part of one
            write_atomically(self.log, records.tobytes())

    def read(self, index: int) -> Float32[np.ndarray, "time"] | None:
        """The samples of an item, if they are kept."""
        offset, length, check = self.places[index].tolist()
        if offset < 0:
            return None
        try:
            with open(self.data, "rb", buffering=0) as file:
                file.seek(offset)
                content = file.read(length)
        except OSError:  # the folder may be deleted at any time
            content = b""
        if zlib.crc32(content) != check or len(content) != length:
            self.places[index] = -1
            return None
        return np.frombuffer(content, np.float32)

    def add(self, index: int, samples: Float32[np.ndarray, "time"]) -> None:
        """Keeps the samples of an item while the budget lasts; a full disk ends that, and nothing else."""
        content = samples.tobytes()
        with self.lock:
            if not self.open or self.places[index, 0] >= 0 or self.end + len(content) > self.budget_bytes:
                return
            place = (self.end, len(content), zlib.crc32(content))
            try:
                with open(self.data, "r+b" if self.end else "wb") as file:
                    file.seek(self.end)
                    file.write(content)
                with open(self.log, "ab") as file:
                    file.write(np.array([(index, *place)], self.RECORD).tobytes())
            except OSError as error:
                self.open = False
                logger.info(f"{self.data}: no more decoded samples are kept ({error.strerror}).")
                return
            self.places[index] = place
            self.end += len(content)


def open_store(
    items: Sequence[Item],
    rate: int,
    *,
    folder: Path | None = None,
    budget_bytes: int = 16 << 30,
    skip_bad: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> SampleStore:
    """Decodes every item once, or finds the samples of an earlier run.

    What could not be decoded then is tried again: a decoder may have been installed, or a right been given. Of tars
    that exceed the budget nothing is decoded now, as their index knows the lengths: see `StreamedStore`.

    Args:
        rate: hertz of the stored samples.
        folder: where the cache lives; by default `$OSSICLE_CACHE`, else `~/.cache/ossicle`.
        budget_bytes: most bytes to store; from the first item that exceeds it on they are decoded at every use.
        skip_bad: what is decoded at its use and fails is silence from then on, and no error.
        progress: called with (items done, items in all, items that could not be decoded).

    Raises: SettingRefused where something is to be stored and the cache cannot be written.
    """
    folder = (folder or cache_folder()) / "samples"
    key = _key(items, rate)
    lengths = lengths_in_tars(items, rate)
    if lengths is not None and lengths.sum() * np.float32().nbytes > budget_bytes:
        outside = np.flatnonzero(lengths == 0).tolist()
        lengths[outside] = UNREADABLE
        return StreamedStore(
            items=tuple(items),
            rate=rate,
            samples=np.zeros(0, np.float32),
            offsets=np.zeros(len(items), np.int64),
            lengths=lengths,
            stored=0,
            failures={
                position: f"{items[position].place}: the recording ends before {items[position].start:g} s"
                for position in outside
            },
            kept=KeptSamples(folder / f"{key}.kept", items=len(items), budget_bytes=budget_bytes),
            skip_bad=skip_bad,
        )
    data, index = folder / f"{key}.f32", folder / f"{key}.json"
    known = _known(data, index, items=len(items))
    if known is None or not _complete(known, items, rate, budget_bytes=budget_bytes):
        refuse_unwritable(folder, "decoded samples")
        remove_abandoned(folder, unless_younger=ABANDONED)
        _decode_all(items, rate, data=data, index=index, budget_bytes=budget_bytes, progress=progress)
        known = json.loads(index.read_text(encoding="utf-8"))
    lengths = np.array(known["lengths"], np.int64)
    kept = np.maximum(lengths, 0)
    # An empty file cannot be mapped.
    samples = np.memmap(data, np.float32, "r") if data.stat().st_size else np.zeros(0, np.float32)
    return SampleStore(
        items=tuple(items),
        rate=rate,
        samples=samples,
        offsets=np.cumsum(kept) - kept,
        lengths=lengths,
        stored=known["stored"],
        failures={int(position): reason for position, reason in known["failures"].items()},
    )


def lengths_in_tars(items: Sequence[Item], rate: int) -> Int64[np.ndarray, "item"] | None:
    """The length of each item at a rate, by the indexes of their tars; None where some lie in none."""
    found = np.empty(len(items), np.int64)
    for position, item in enumerate(items):
        if item.member is None:
            return None
        length = item.member.samples(rate)
        last = length if item.end is None else min(length, round(item.end * rate))
        found[position] = max(last - round(item.start * rate), 0)
    return found


def decode(item: Item, rate: int) -> Float32[np.ndarray, "time"]:
    """The samples of one item, its segment only, at `rate` hertz."""
    return clip_of(item, rate).samples


def clip_of(item: Item, rate: int) -> Clip:
    """The segment of one item at `rate` hertz."""
    segment: Any = {"start": item.start, "end": item.end, "track": item.track}
    if item.member is None:
        return read_clip(item.file, rate, **segment)
    with spooled(item.member) as file:
        return read_clip(file, rate, name=item.place, **segment)


def _known(data: Path, index: Path, *, items: int) -> dict[str, Any] | None:
    """What an earlier run noted, if the samples are there too; None where it is damaged, and is made again."""
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
        lengths, stored, failures = known["lengths"], known["stored"], known["failures"]
        whole = all(type(number) is int for number in (*lengths, stored)) and type(known["budget"]) in (int, float)
        failed = {str(position) for position, length in enumerate(lengths) if length == UNREADABLE}
        whole = whole and len(lengths) == items and 0 <= stored <= items and failures.keys() == failed
        if not whole or not all(isinstance(reason, str) for reason in failures.values()):
            return None
        samples = sum(max(length, 0) for length in lengths[:stored])
        return known if data.stat().st_size == samples * np.float32().nbytes else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _complete(known: dict[str, Any], items: Sequence[Item], rate: int, *, budget_bytes: int) -> bool:
    """Whether decoding again would give nothing more."""
    if known["stored"] < len(items) and budget_bytes > known["budget"]:
        return False
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
    budget_bytes: int,
    progress: Callable[[int, int, int], None],
) -> None:
    lengths: list[int] = []
    failures: dict[int, str] = {}
    stored = spent = 0
    with replacing(data) as temporary, open(temporary, "wb") as file:
        decoded = in_threads(partial(_attempt, rate=rate), items, workers=os.cpu_count() or 1)
        for position, result in enumerate(decoded):
            if isinstance(result, str):
                lengths.append(UNREADABLE)
                failures[position] = result
            else:
                lengths.append(len(result))
                spent += result.nbytes
                if spent <= budget_bytes:
                    file.write(result.tobytes())
            if spent <= budget_bytes:
                stored += 1
            progress(position + 1, len(items), len(failures))
    known = {"rate": rate, "lengths": lengths, "stored": stored, "budget": budget_bytes, "failures": failures}
    write_json(index, known)


def in_threads(function: Callable[[T], R], values: Iterable[T], *, workers: int) -> Iterator[R]:
    """What the function makes of each value, in order; no more than two for each thread are begun and not yet taken."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for value in values:
            waiting.append(pool.submit(function, value))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _key(items: Sequence[Item], rate: int) -> str:
    """A hash of all that the samples depend on."""
    digest = hashlib.sha256(f"{FILE_VERSION} {DECODER} {rate}".encode())
    for item in items:
        digest.update(b"\n" + identity(item))
    return digest.hexdigest()[:32]


def identity(item: Item) -> bytes:
    """All that an item's content depends on: a text itself, or a file's path, size and time, the segment and the track.

    Of a file in a tar it is the content itself, by the tar's index, so that a cache outlives a move of the tars.

    A missing file has no size, so that it is looked for again.
    """
    if item.text is not None:
        return b"text\t" + item.text.encode(errors="surrogatepass")
    track = "" if item.track is None else f"\t{item.track}"
    if item.member is not None:
        return f"{item.member.identity}\t{item.start}\t{item.end}{track}".encode()
    try:
        status = item.file.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        state = "missing"
    return f"{item.file}\t{state}\t{item.start}\t{item.end}{track}".encode(errors="surrogatepass")
