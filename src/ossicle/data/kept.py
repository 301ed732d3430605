"""Decoded samples on disk in the order of their first use, up to a budget, for data that do not fit into it."""

import contextlib
import logging
import threading
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ossicle.files import locked, refuse_unwritable, write_atomically

logger = logging.getLogger(__name__)


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
