"""Contents of a file by its headers, to detect files that are truncated, concatenated or unfinished.

libsndfile and FFmpeg do not report missing audio.
"""

import functools
import os
import time
from pathlib import Path

from ossicle.audio.boxes import media_contents
from ossicle.audio.chunks import FORMS, chunk_contents
from ossicle.audio.flac import flac_contents
from ossicle.audio.mpeg import LENGTHS, mpeg_contents
from ossicle.audio.ogg import ogg_contents
from ossicle.audio.parts import Contents, skip_tags

SETTLED_NANOSECONDS = 2_000_000_000


def contents_of(file: Path) -> Contents:
    """Determines the contents of a file; raises OSError if it cannot be read."""
    status = os.stat(file)
    # Within one tick of the file system's clock a file may change twice.
    settled = abs(time.time_ns() - status.st_mtime_ns) > SETTLED_NANOSECONDS
    look = _look if settled else _look.__wrapped__
    return look(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)  # many segments may be read of a recording
def _look(file: Path, size: int, changed: int) -> Contents:
    with open(file, "rb") as data:
        begin = skip_tags(data, 0, size=size)
        data.seek(begin)
        mark = data.read(4)
        if mark == b"OggS":
            return ogg_contents(data, begin, size=size)
        if mark == b"fLaC":
            return flac_contents(data, begin, size=size)
        if mark in FORMS or mark in (b".snd", b"NIST"):
            return chunk_contents(data, begin, size=size)
        if begin > 0 or int.from_bytes(mark) >> 9 in LENGTHS or file.suffix.lower() == ".mp3":
            return mpeg_contents(data, begin, size=size)
        return media_contents(data, begin, size=size)
