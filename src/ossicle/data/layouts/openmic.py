"""OpenMIC-2018 as published (Humphrey, Durand, McFee 2018): openmic-2018-aggregated-labels.csv, partitions/ and audio/.

Of a clip some of the twenty instruments were judged, and of the others nobody knows. A clip has an instrument whose
relevance is above 0.5, as in PaSST's code (the notebook of the set counts 0.5 itself too); of rows that judge the same
one the last counts. `openmic-2018.npz` says the same, but names its clips by pickled objects, which are not read.

Source: https://zenodo.org/records/1432913 and https://github.com/cosmir/openmic-2018.
"""

import re
from collections import defaultdict
from pathlib import Path

from ossicle.data.columns import Columns, ReadOptions
from ossicle.data.items import Item
from ossicle.data.layout import DataLayout, Folder, LayoutContents
from ossicle.data.modalities import SOUND
from ossicle.data.records import TableRows, listed, read_names, read_rows
from ossicle.errors import DataRefused

LABELS, ARRAYS, METADATA = "openmic-2018-aggregated-labels.csv", "openmic-2018.npz", "openmic-2018-metadata.csv"
PARTITIONS = {part: f"partitions/split01_{part}.csv" for part in ("train", "test")}


class OpenMic(DataLayout):
    modality = SOUND

    def detect(self, root: Folder, options: ReadOptions) -> Path | None:
        for home in (root.path, root.path.parent):
            if root.path in (home, home / LABELS, home / "audio") and (home / PARTITIONS["train"]).is_file():
                return home if (home / LABELS).is_file() or (home / ARRAYS).is_file() else None
        return None

    def read(self, root: Folder, found: Path, options: ReadOptions) -> LayoutContents:
        for option, name in options.named.items():
            raise DataRefused(f"--{option} {name} names a column, but {found} is read as OpenMIC-2018 is published.")
        if not (found / LABELS).is_file():
            raise DataRefused(
                f"{found / ARRAYS} names its clips by pickled objects, which can run code and are not read: put "
                f"{LABELS} of the published archive beside it, which has the same labels."
            )
        judged = read_judgments(found / LABELS)
        split = {key: part for part, name in PARTITIONS.items() for key in read_names(found / name)}
        artists = read_artists(found / METADATA)
        instruments = sorted({name for own in judged.values() for name in own})
        items = [
            Item(
                file=recording(found, key),
                labels=tuple(name for name in instruments if own.get(name, 0) > 0.5),
                unknown=tuple(name for name in instruments if name not in own),
                split=split[key],
                group=artists.get(key),
            )
            for key, own in sorted(judged.items())
            if key in split
        ]
        if not items:
            raise DataRefused(f"{found / LABELS} has no clip that {listed(PARTITIONS.values())} name.")
        missing = sum(not item.file.is_file() for item in items)
        if missing == len(items):
            raise DataRefused(f"none of the {missing} recordings of {found} exists, such as {items[0].file}.")
        labels = len(items) * len(instruments)
        unknown = sum(len(item.unknown) for item in items)
        remarks = [f"{labels - unknown} of {labels} labels are known; the others count in no loss and in no score"]
        remarks += [f"{missing} of {len(items)} clips have no file"] if missing else []
        left_out = len(judged) - len(items)
        remarks += [f"clips in neither partition are left out ({left_out})"] if left_out else []
        return LayoutContents(
            items=tuple(items),
            description=f"OpenMIC-2018 as published ({LABELS}, the split of {listed(PARTITIONS.values())})",
            columns=Columns(source="sample_key", label="instrument", group="artist_id" if artists else None),
            remarks=tuple(remarks),
            whole=True,
        )


def read_judgments(path: Path) -> dict[str, dict[str, float]]:
    """The relevance of each instrument that was judged, for each clip.

    Raises: DataRefused for a table of other columns, a name that is no key of a clip, or no number from 0 to 1.
    """
    judged: dict[str, dict[str, float]] = defaultdict(dict)
    for line, row in rows_of(path, "sample_key", "instrument", "relevance"):
        key, value = str(row["sample_key"]), str(row["relevance"])
        if not re.fullmatch(r"\w+", key):
            raise DataRefused(f"line {line} of {path} names the clip {key[:40]!r}: expected a key such as 000046_3840.")
        try:
            relevance = float(value)
        except ValueError:
            relevance = -1.0
        if not 0 <= relevance <= 1:
            raise DataRefused(f"line {line} of {path} has the relevance {value[:40]!r}: expected a number from 0 to 1.")
        judged[key][str(row["instrument"])] = relevance
    return judged


def read_artists(path: Path) -> dict[str, str]:
    """The artist of each clip, for validation parts that share none with the rest; empty without the table."""
    if not path.is_file():
        return {}
    return {str(row["sample_key"]): str(row["artist_id"]) for _, row in rows_of(path, "sample_key", "artist_id")}


def rows_of(path: Path, *columns: str) -> TableRows:
    """The rows of a table that has these columns.

    Raises: DataRefused where one is missing.
    """
    header, rows = read_rows(path)
    if missing := [name for name in columns if name not in header]:
        raise DataRefused(f"{path} has no column {missing[0]!r}; it has {listed(header)}.")
    return rows


def recording(home: Path, key: str) -> Path:
    """Where the recording of a clip lies, as published or converted to another format."""
    places = [home / "audio" / key[:3] / f"{key}{suffix}" for suffix in (".ogg", *SOUND.usual_suffixes)]
    return next((place for place in places if place.is_file()), places[0])


LAYOUT = OpenMic()
