"""Columns of times, under the names that other programs give them, and the segment of a recording that a row means.

OpenSoundscape writes `start_time,end_time`, DCASE `onset,offset`, Raven `Begin Time (s)`, BirdNET `Start (s)`, AudioSet
`start_seconds`, Kaleidoscope `OFFSET,DURATION`. A row of such a table labels a segment: to take the whole recording
for it would be wrong without a word, so a column that looks like a time is used, or named as one that is not.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ossicle.data.names import is_missing, squeezed
from ossicle.data.records import TableRow, cell_text
from ossicle.errors import DataRefused

# Without case, spaces, signs and unit. The first pair that is there counts.
PAIRS = (
    ("start", "end"),
    ("starttime", "endtime"),
    ("begintime", "endtime"),
    ("onset", "offset"),
    ("start", "stop"),
    ("begin", "end"),
    ("starttime", "stoptime"),
    ("onsettime", "offsettime"),
    ("eventonset", "eventoffset"),
    ("timestart", "timeend"),
    ("tstart", "tend"),
    ("tmin", "tmax"),
    ("mint", "maxt"),
    ("segmentstart", "segmentend"),
    ("eventstart", "eventend"),
    ("clipstart", "clipend"),
    ("startoffset", "endoffset"),
)
LENGTHS = ("duration", "dur", "length", "deltatime", "segmentduration", "eventduration", "clipduration")
OFFSET = "offset"  # an end beside an onset, a start beside a duration, and nothing alone
FILE_OFFSET = "fileoffset"  # Raven: where in its file a selection begins, whose times run over all files
STARTS = tuple(dict.fromkeys(start for start, _ in PAIRS))
ENDS = tuple(dict.fromkeys(end for _, end in PAIRS if end != OFFSET))
WORDS = frozenset((*STARTS, *ENDS, *LENGTHS, OFFSET, FILE_OFFSET))

# How many of a unit are a second; None for what depends on the recording, or may mean something else.
UNITS: Mapping[str, float | None] = {
    "": 1,
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1000),
    **dict.fromkeys(("sample", "samples", "frame", "frames", "min", "minutes", "hours", "hz"), None),
}
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]+)?)")
_TIMELY = frozenset("start begin onset offset stop end duration time timestamp seconds secs msec ms".split())


@dataclass(frozen=True, kw_only=True)
class TimeColumns:
    """The columns that say which segment of its recording a row means; None for what the table does not say."""

    start: str | None = None
    end: str | None = None
    length: str | None = None
    """Of the segment, where no column says its end."""
    offset: str | None = None
    """Where `start` lies in the file, where `start` and `end` count from elsewhere."""

    @property
    def used(self) -> list[str]:
        return [name for name in (self.start, self.end, self.length, self.offset) if name is not None]

    def segment(self, where: str, row: TableRow) -> tuple[float, float | None]:
        """Start and end in seconds; None is the end of the file.

        Raises: DataRefused for what is no time, and for an end that does not come after its start.
        """
        if not self.used:
            return 0.0, None
        start, end = seconds(where, row, self.start) or 0.0, seconds(where, row, self.end)
        length = seconds(where, row, self.length)
        if length is not None:
            end = round(start + length, 9)
        if end is not None and end <= start:
            raise DataRefused(
                f"{where} starts at {start:g} s and ends at {end:g} s: the end must come after the start; an empty "
                "cell is the end of the file."
            )
        offset = seconds(where, row, self.offset)
        if offset is not None:
            start, end = offset, None if end is None else round(offset + end - start, 9)
        return start, end


def choose_times(
    header: Sequence[str], rows: Sequence[TableRow], *, taken: Collection[str | None]
) -> tuple[TimeColumns, list[str]]:
    """The columns of times among those that are not taken, and what a reader must know about them and the others."""
    free = [name for name in header if name and name not in taken]
    there: dict[str, str] = {}
    remarks = []
    for name in sorted(free, key=lambda name: UNITS[base_and_unit(name)[1]] != 1):  # seconds before milliseconds
        base, unit = base_and_unit(name)
        if base not in WORDS or UNITS[unit] is None:
            continue
        if name.lower() in PAIRS[0] or _holds_times(rows, name):
            there.setdefault(base, name)
        elif example := next((row[name] for row in rows if not is_missing(row.get(name))), None):
            remarks.append(f"`{name}` holds no seconds (such as {str(example)[:40]!r}) and is not used")
    times = _chosen(there)
    if times.start and not (times.end or times.length):
        remarks.append(f"no column says where a clip ends: each runs from its `{times.start}` to the end of its file")
    if times.end and not times.start:
        remarks.append(f"no column says where a clip starts: each runs from the start of its file to its `{times.end}`")
    unused = [name for name in free if name not in times.used and _is_unused(name, rows, times)]
    if unused:
        names = " and ".join(f"`{name}`" for name in unused)
        look = "look like times and are" if len(unused) > 1 else "looks like a time and is"
        remarks.append(f"{names} {look} not used")
    return times, remarks


def seconds(where: str, row: TableRow, column: str | None) -> float | None:
    """A cell as seconds, or None for an empty one.

    Raises: DataRefused for anything that is no time of 0 or more.
    """
    text = cell_text(where, row, column)
    if column is None or text is None:
        return None
    found = _time(text)
    if found is None:
        unit = "milliseconds" if in_milliseconds(column) else "seconds"
        raise DataRefused(
            f"{where} holds {text!r} in the column {column!r}: expected {unit}, 0 or more, with a point for the "
            "decimals, or minutes and seconds as 1:23.4; an empty cell is the start or the end of the file."
        )
    return found / 1000 if in_milliseconds(column) and ":" not in text else found


def in_milliseconds(column: str) -> bool:
    """Whether a column of times says so by its name."""
    return UNITS[base_and_unit(column)[1]] == 1000


@lru_cache(maxsize=1024)
def base_and_unit(column: str) -> tuple[str, str]:
    """What a column's name says without its unit, and the unit: "Begin Time (ms)" is "begintime" and "ms"."""
    name = squeezed(column)
    for unit in sorted(UNITS, key=len):
        if unit == "" and name in WORDS or unit and name.endswith(unit) and name[: -len(unit)] in WORDS:
            return name[: len(name) - len(unit)], unit
    return name, ""


def _chosen(there: Mapping[str, str]) -> TimeColumns:
    """Of the columns that are there, by what their names say."""
    length = next((there[name] for name in LENGTHS if name in there), None)
    pair = next(((there[start], there[end]) for start, end in PAIRS if start in there and end in there), None)
    start = next((there[name] for name in STARTS if name in there), None)
    end = next((there[name] for name in ENDS if name in there), None)
    if pair or start and end:
        start, end = pair or (start, end)
        return TimeColumns(start=start, end=end, offset=there.get(FILE_OFFSET))
    if length is not None:
        if start is not None:
            return TimeColumns(start=start, length=length, offset=there.get(FILE_OFFSET))
        start = there.get(FILE_OFFSET) or there.get(OFFSET)
        return TimeColumns(start=start, length=length) if start else TimeColumns(end=end)
    return TimeColumns(start=start or there.get(FILE_OFFSET), end=end)


def _is_unused(name: str, rows: Sequence[TableRow], times: TimeColumns) -> bool:
    """Whether a column looks like a time that somebody might miss."""
    base, _ = base_and_unit(name)
    if times.start and (times.end or times.length):  # measures of the segment and other units of it are none
        again = {base_and_unit(used)[0] for used in times.used}
        return base in (*STARTS, *ENDS, OFFSET) and base not in again and _holds_times(rows, name)
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    timely = base in WORDS or words & _TIMELY or re.search(r"[(\[](s|sec)[)\]]$", name.strip().lower())
    return bool(timely) and _holds_times(rows, name)


def _holds_times(rows: Sequence[TableRow], name: str) -> bool:
    return any(_time(str(row.get(name, "")).strip()) is not None for row in rows)


def _time(text: str) -> float | None:
    """Seconds, minutes and seconds (1:23.4), or with hours (1:02:03); None for all else."""
    if match := _CLOCK.fullmatch(text):
        hours, minutes, rest = match.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(rest)
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 and "_" not in text else None
