"""Decoded samples of a whole dataset in one flat file, so that the second epoch opens no audio file.

The file holds float32 samples at the model's rate, item after item, and is read through a memory map: the operating
system keeps in memory what fits and the process itself stays small. Its name is a hash of everything the samples depend
on (paths, sizes, times, segments, rate), so that folds and later runs share it and an edited recording is decoded anew.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from ossicle.audio import read_clip
from ossicle.data.items import Item
from ossicle.errors import AudioError
from ossicle.files import replacing, write_json

MISSING = -1  # in `lengths`: the item could not be decoded
UNCACHED = -2  # in `lengths`: the budget was spent before this item, so it is decoded at every use


@dataclass(frozen=True, kw_only=True)
class SampleStore:
    """Samples of items at one rate, by position in `items`.

    `failures` maps the position of an item that cannot be decoded to the reason, a sentence that names the file.
    """

    items: tuple[Item, ...]
    rate: int
    samples: Float32[np.ndarray, "total"]
    offsets: Int64[np.ndarray, "item"]
    lengths: Int64[np.ndarray, "item"]
    failures: dict[int, str]

    def read(self, index: int) -> Float32[np.ndarray, "time"]:
        """All samples of one item, as a view of the cache or, where the budget did not reach it, decoded now."""
        if self.lengths[index] == UNCACHED:
            return decode(self.items[index], self.rate)
        start = self.offsets[index]
        return self.samples[start : start + self.lengths[index]]

    @property
    def usable(self) -> Int64[np.ndarray, "usable"]:
        """Positions of the items that decode."""
        return np.flatnonzero(self.lengths != MISSING)


def open_store(
    items: Sequence[Item],
    rate: int,
    *,
    folder: Path | None = None,
    budget_bytes: int = 16 << 30,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SampleStore:
    """Decodes every item once, or finds the samples of an earlier run.

    Args:
        rate: hertz of the stored samples.
        folder: where the cache lives; by default `$OSSICLE_CACHE`, else `~/.cache/ossicle`.
        budget_bytes: most bytes to store; items beyond it are decoded at every use.
        progress: called with (items done, items in all).
    """
    folder = (folder or cache_folder()) / "samples"
    key = _key(items, rate)
    data, index = folder / f"{key}.f32", folder / f"{key}.json"
    if not (data.exists() and index.exists()):
        _decode_all(items, rate, data=data, index=index, budget_bytes=budget_bytes, progress=progress)
    stored = json.loads(index.read_text())
    lengths = np.array(stored["lengths"], np.int64)
    kept = np.maximum(lengths, 0)
    # An empty file cannot be mapped.
    samples = np.memmap(data, np.float32, "r") if data.stat().st_size else np.zeros(0, np.float32)
    return SampleStore(
        items=tuple(items),
        rate=rate,
        samples=samples,
        offsets=np.cumsum(kept) - kept,
        lengths=lengths,
        failures={int(position): reason for position, reason in stored["failures"].items()},
    )


def decode(item: Item, rate: int) -> Float32[np.ndarray, "time"]:
    """The samples of one item, its segment only, at `rate` hertz."""
    return read_clip(item.file, rate, start=item.start, end=item.end).samples


def cache_folder() -> Path:
    """Where decoded samples and downloads are kept: `$OSSICLE_CACHE`, else `~/.cache/ossicle`."""
    return Path(os.environ.get("OSSICLE_CACHE", Path.home() / ".cache" / "ossicle"))


def _decode_all(
    items: Sequence[Item],
    rate: int,
    *,
    data: Path,
    index: Path,
    budget_bytes: int,
    progress: Callable[[int, int], None],
) -> None:
    lengths: list[int] = []
    failures: dict[int, str] = {}
    spent = 0

    def attempt(item: Item) -> Float32[np.ndarray, "time"] | str:
        try:
            return decode(item, rate)
        except AudioError as error:
            return str(error)

    with replacing(data) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), 64):  # a bounded number of clips in flight
            batch = items[start : start + 64]
            full = spent > budget_bytes
            for position, result in enumerate(map(lambda _: None, batch) if full else pool.map(attempt, batch), start):
                if result is None:
                    lengths.append(UNCACHED)
                elif isinstance(result, str):
                    lengths.append(MISSING)
                    failures[position] = result
                else:
                    lengths.append(len(result))
                    file.write(result.tobytes())
                    spent += result.nbytes
            progress(min(start + 64, len(items)), len(items))
    write_json(index, {"rate": rate, "lengths": lengths, "failures": failures})


def _key(items: Sequence[Item], rate: int) -> str:
    """A hash of all that the samples depend on."""
    digest = hashlib.sha256(f"1 {rate}".encode())
    for item in items:
        digest.update(b"\n" + identity(item))
    return digest.hexdigest()[:32]


def identity(item: Item) -> bytes:
    """All that an item's content depends on: a text itself, or a file's path, size and time, and the segment.

    A missing file has no size, so that it is looked for again.
    """
    if item.text is not None:
        return b"text\t" + item.text.encode(errors="surrogatepass")
    try:
        status = item.file.stat()
        state = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        state = "missing"
    return f"{item.file}\t{state}\t{item.start}\t{item.end}".encode(errors="surrogatepass")
