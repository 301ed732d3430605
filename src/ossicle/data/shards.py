"""Data packed into tars of many files each, in the layout of the `webdataset` library, with an index beside each tar.

A tar holds for each recording, one behind the other, `KEY.wav` (or another suffix: its very bytes), `KEY.json` (its
name, labels, group, fold, split) and, where each has one label, `KEY.cls` (its number): any reader of such tars takes
them. Recordings lie in an order drawn once, so that a reader that goes through a tar from its start meets all classes.

The index is ours. It says where each recording lies, how long it is and what it is, so that training starts without
opening one, and reads them in any order: the order of an epoch stays what it is for a folder. It has two lines of JSON:
what it is with a hash of the second, and columns of values.
"""

import hashlib
import io
import json
import math
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ossicle.data.arrays import Coded, TarItems
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.labels import LabelRows
from ossicle.data.members import MappedTar, Names, Tar
from ossicle.data.modalities import FIRST_RATE, SOUND, Facts
from ossicle.data.parts import digest_of
from ossicle.data.threads import in_threads
from ossicle.errors import DataRefused
from ossicle.files import remove_abandoned, replacing, write_atomically

INDEX_SUFFIX = ".index.jsonl"  # in place of .tar
INDEX_VERSION = 2
SEED = 0  # of the order in the tars
SHARD_BYTES = 1 << 30
REMEDY = "copy it again, or pack the data again with `ossicle data shard`"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What was packed: the tars, how many recordings and bytes, and why others were left out."""

    tars: tuple[Path, ...]
    files: int
    bytes: int
    failures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording to be packed, and the clips that are it or lie in it, by position in the data set."""

    file: Path
    name: str
    positions: tuple[int, ...]
    size: int


def index_of(tar: Path) -> Path:
    """The index beside a tar."""
    return tar.with_suffix(INDEX_SUFFIX)


# ---------------------------------------------------------------- packing


def write_shards(
    dataset: Dataset,
    output: str | os.PathLike[str],
    *,
    shard_bytes: int = SHARD_BYTES,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Shards:
    """Packs a data set of sound into tars with an index beside each; `read_dataset(output)` reads them.

    Every recording is decoded once, to know its length. Tars of the same data that are there already are kept, so that
    what was interrupted goes on.

    Args:
        output: a folder; a new one, or one that holds tars of the same data.
        shard_bytes: bytes of recordings in a tar, of which a larger one is alone.
        skip_bad: leave out recordings that cannot be decoded.
        progress: called with the recordings done and all of them.

    Raises: DataRefused for other data than sound, recordings that cannot be decoded (with `skip_bad`, where all are
        such), and a folder with other files.
    """
    if dataset.modality != SOUND.name:
        raise DataRefused(f"{dataset.path} holds {dataset.noun}s: tars are packed of recordings.")
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be 1 or more, got {shard_bytes}")
    folder = Path(output)
    parts = cut(recordings_of(dataset), shard_bytes)
    digits = max(6, len(str(len(parts))))
    tars = [folder / f"{number:0{digits}}.tar" for number in range(len(parts))]
    head = {"set": set_of(dataset, parts), "shards": len(parts)}
    kept = already_there(folder, tars, head)
    total, done, failures, size = sum(map(len, parts)), 0, list[str](), 0
    rate = SOUND.facts(dataset.items[0]).rate or FIRST_RATE
    if skip_bad and not any(examine(dataset, recording, rate=rate).content for part in parts for recording in part):
        raise DataRefused(
            f"{dataset.path}: none of the {total} recordings can be decoded; `ossicle data check` says why."
        )
    for number, (tar, part) in enumerate(zip(tars, parts, strict=True)):
        if tar in kept:
            failures += kept[tar]["failures"]
        else:
            failed = write_shard(dataset, part, tar=tar, head={**head, "shard": number}, rate=rate, skip_bad=skip_bad)
            failures += failed
        size += tar.stat().st_size
        done += len(part)
        progress(done, total)
    return Shards(tars=tuple(tars), files=total - len(failures), bytes=size, failures=tuple(failures))


def recordings_of(dataset: Dataset) -> list[Recording]:
    """The recordings of a data set in an order drawn once; those that are missing have no bytes."""
    places: dict[str, list[int]] = {}
    for position, item in enumerate(dataset.items):
        places.setdefault(item.place, []).append(position)
    found = []
    for positions in places.values():
        item = dataset.items[positions[0]]
        if item.member is not None:
            raise DataRefused(f"{dataset.path} is packed already: copy the tars with their indexes.")
        try:
            size = item.file.stat().st_size
        except OSError:
            size = 0
        found.append(Recording(file=item.file, name=dataset.relative(item), positions=tuple(positions), size=size))
    return [found[place] for place in np.random.default_rng(SEED).permutation(len(found))]


def cut(recordings: Sequence[Recording], shard_bytes: int) -> list[list[Recording]]:
    """Consecutive recordings of about so many bytes."""
    parts: list[list[Recording]] = []
    size = 0
    for recording in recordings:
        if not parts or size + recording.size > shard_bytes:
            parts.append([])
            size = 0
        parts[-1].append(recording)
        size += recording.size
    return parts


def set_of(dataset: Dataset, parts: Sequence[Sequence[Recording]]) -> str:
    """What the tars of one packing share: the data and the cut."""
    sizes = [len(part) for part in parts]
    return hashlib.sha256(json.dumps([INDEX_VERSION, dataset.fingerprint(), sizes]).encode()).hexdigest()[:32]


def already_there(folder: Path, tars: Sequence[Path], head: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """The tars of this packing that are whole, with their indexes.

    Raises: DataRefused for a folder that holds anything else.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise DataRefused(f"{folder} is no folder: name a new one for the tars.")
    remove_abandoned(folder)
    found = {}
    for path in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        tar = path.with_name(path.name.removesuffix(INDEX_SUFFIX) + ".tar")
        found[tar] = read_index(tar)
        if found[tar]["set"] != head["set"]:
            raise DataRefused(f"{folder} holds tars of other data, or cut otherwise: name a new folder for these.")
    ours = {*tars, *map(index_of, tars)}
    for path in sorted(folder.iterdir()):
        if path not in ours:
            raise DataRefused(f"{folder} holds other files, such as {path.name}: name a new folder for the tars.")
    return found


def write_shard(
    dataset: Dataset, part: Sequence[Recording], *, tar: Path, head: Mapping[str, Any], rate: int, skip_bad: bool
) -> list[str]:
    """Writes one tar and then its index; gives a sentence for each recording that cannot be decoded.

    Raises: DataRefused for the first of these, unless they are to be left out.
    """
    failures: list[str] = []
    files: dict[str, list[Any]] = {name: [] for name in FILE_COLUMNS}
    kept: list[Recording] = []
    of_file = partial(examine, dataset, rate=rate)
    with replacing(tar) as temporary, tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
        for recording, facts in zip(part, in_threads(of_file, part, workers=os.cpu_count() or 1), strict=True):
            if not facts.content:
                reason = f"{recording.file}: {facts.problems[0][1].removeprefix(f'{recording.file}: ')}"
                if not skip_bad:
                    raise DataRefused(
                        f"{reason}; --skip-bad leaves out what cannot be used, and `ossicle data check` names all."
                    )
                failures.append(reason)
                continue
            content = recording.file.read_bytes()
            suffix = PurePosixPath(recording.name).suffix.lower()
            suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,16}", suffix) else ".bin"
            key = f"{recording.positions[0]:09}"
            add(archive, key + suffix, content)
            row = {
                "name": recording.name,
                "offset": archive.offset - padded(len(content)),
                "size": len(content),
                "frames": round(facts.seconds * facts.rate),
                "rate": facts.rate,
                "check": zlib.crc32(content),
                "digest": digest_of(recording.file),
            }
            for name, value in row.items():
                files[name].append(value)
            about = [clip_facts(dataset.items[position]) for position in recording.positions]
            add(archive, f"{key}.json", json.dumps({"file": recording.name, **joined(about)}).encode())
            labels = about[0]["labels"]
            if dataset.task == "single-label" and len(about) == 1:
                add(archive, f"{key}.cls", str(dataset.labels.index(labels[0])).encode())
            kept.append(recording)
    index = {
        **head,
        "bytes": tar.stat().st_size,
        "labels": list(dataset.labels),
        "group_name": dataset.group_name,
        "fold_name": dataset.fold_name,
        "failures": failures,
    }
    write_index(tar, index, files=files, clips=clip_columns(dataset, kept))
    return failures


def examine(dataset: Dataset, recording: Recording, *, rate: int) -> Facts:
    """What is known of a whole recording, once it has been decoded."""
    item = dataset.items[recording.positions[0]]
    return SOUND.facts(replace(item, start=0.0, end=None), rate=rate)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file; time and owner stay unset, so that the same data give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def padded(size: int) -> int:
    """Bytes that a file of this size takes in a tar."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def clip_facts(item: Item) -> dict[str, Any]:
    """What a table would say of a clip."""
    facts = {"labels": list(item.labels), "unknown": list(item.unknown), "start": item.start, "end": item.end}
    facts |= {"split": item.split, "fold": item.fold, "group": item.group, "track": item.track}
    return {name: value for name, value in facts.items() if name == "labels" or value not in (None, [], 0.0)}


def joined(about: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The facts of a recording that is one clip, or of all clips of it."""
    return about[0] if len(about) == 1 else {"clips": about}


# ---------------------------------------------------------------- the index

FILE_COLUMNS = ("name", "offset", "size", "frames", "rate", "check", "digest")
NAMED = ("group", "fold", "split")  # columns that hold positions in lists of names, or -1
# Columns that are left out where all clips are so.
PLAIN: Mapping[str, Any] = {"label_count": 1, "start": 0.0, "end": None, "track": None, "unknown": []}


def clip_columns(dataset: Dataset, recordings: Sequence[Recording]) -> dict[str, Any]:
    """The clips of some recordings as columns."""
    number = {label: place for place, label in enumerate(dataset.labels)}
    rows = [(row, position) for row, recording in enumerate(recordings) for position in recording.positions]
    items = [dataset.items[position] for _, position in rows]
    columns: dict[str, Any] = {
        "position": [position for _, position in rows],
        "file": [row for row, _ in rows],
        "label": [number[label] for item in items for label in item.labels],
    }
    names: dict[str, list[str]] = {}
    for column in NAMED:
        values = [getattr(item, column) for item in items]
        names[column] = sorted({value for value in values if value is not None})
        place = {name: at for at, name in enumerate(names[column])}
        columns[column] = [place.get(value, -1) for value in values]
    for column, plain in PLAIN.items():
        values = [len(item.labels) if column == "label_count" else getattr(item, column) for item in items]
        values = [list(value) for value in values] if column == "unknown" else values
        if any(value != plain for value in values):
            columns[column] = values
    return {**columns, "names": names}


def write_index(
    tar: Path, head: Mapping[str, Any], *, files: Mapping[str, Sequence[Any]], clips: Mapping[str, Any]
) -> None:
    """Writes the index of a tar; names and digests as one text each, as a million texts take long to read."""
    together = {"name": "".join(f"{name}\0" for name in files["name"]), "digest": "".join(files["digest"])}
    columns = {"files": {**files, **together}, "clips": clips}
    body = json.dumps(columns, separators=(",", ":"), allow_nan=False).encode()
    first = {"ossicle": "shard", "version": INDEX_VERSION, "sha256": hashlib.sha256(body).hexdigest(), **head}
    write_atomically(index_of(tar), json.dumps(first).encode() + b"\n" + body + b"\n")


def read_index(tar: Path) -> dict[str, Any]:
    """The index of a tar, once both have been found whole by their sizes and the index by its hash.

    Raises: DataRefused where they are missing, damaged or do not belong to each other.
    """
    path = index_of(tar)
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
        head = json.loads(first)
        body = rest.removesuffix(b"\n")
        if head["ossicle"] != "shard" or head["sha256"] != hashlib.sha256(body).hexdigest():
            raise ValueError("its hash is another")
    except FileNotFoundError:
        raise DataRefused(f"{tar} has no index {path.name} beside it: {REMEDY}.") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataRefused(f"{path} is damaged, or no index of a tar ({error}): {REMEDY}.") from error
    if head["version"] != INDEX_VERSION:
        raise DataRefused(f"{path} has version {head['version']}; this ossicle reads version {INDEX_VERSION}.")
    try:
        size = tar.stat().st_size
    except OSError:
        raise DataRefused(f"{path} is the index of {tar.name}, which is not there: {REMEDY}.") from None
    if size != head["bytes"]:
        raise DataRefused(f"{tar} has {size:,} bytes, and its index counts {head['bytes']:,}: {REMEDY}.")
    return {**head, **json.loads(body)}


def tar_of(path: Path, index: Mapping[str, Any]) -> Tar:
    """A tar by its index."""
    files = index["files"]
    numbers = {name: np.array(files[name], np.int64) for name in ("offset", "size", "frames", "rate", "check")}
    names, digests = Names(files["name"]), bytes.fromhex(files["digest"])
    if len(digests) != 16 * len(names) or any(len(one) != len(names) for one in numbers.values()):
        raise ValueError("columns of different lengths")
    return Tar(
        path=path,
        names=names,
        offsets=numbers["offset"],
        sizes=numbers["size"],
        frames=numbers["frames"],
        rates=numbers["rate"].astype(np.int32),
        checks=numbers["check"],
        digests=digests,
        checked=bytearray(len(names)),
        mapped=MappedTar(),
    )


class TarReader:
    """Joins the clips of tars, one tar after the other, into the items of the data set that was packed."""

    def __init__(self) -> None:
        self.tars: list[Tar] = []
        self.labels: list[str] = []
        self.columns: dict[str, list[np.ndarray]] = {}
        self.names: dict[str, dict[str, int]] = {column: {} for column in NAMED}
        self.rare: dict[str, dict[int, Any]] = {"track": {}, "unknown": {}}

    def add(self, path: Path, index: Mapping[str, Any]) -> None:
        """Takes over what an index says.

        Raises: KeyError, IndexError, TypeError or ValueError for one that is none.
        """
        tar, clips = tar_of(path, index), index["clips"]
        if self.tars and index["labels"] != self.labels:
            raise ValueError("other labels than those of the tars before")
        positions = clips["position"]
        number = len(positions)
        own = {
            "position": np.array(positions, np.int32),
            "tar": constant(len(self.tars), number, np.int32),
            "row": np.array(clips["file"], np.int32),
            "count": np.array(clips.get("label_count", [1] * number), np.int64),
            "start": np.array(clips["start"], np.float64) if "start" in clips else constant(0.0, number),
            "end": np.array(clips["end"], np.float64) if "end" in clips else constant(math.nan, number),  # None is NaN
        }
        for column in NAMED:
            place = self.names[column]
            numbers = [*(place.setdefault(name, len(place)) for name in clips["names"][column]), -1]
            own[column] = (
                np.array(numbers, np.int32)[clips[column]] if len(numbers) > 1 else constant(-1, number, np.int32)
            )
        if any(len(column) != number for column in own.values()):
            raise ValueError("columns of different lengths")
        refuse_outside(own["row"], len(tar.offsets), "files")
        if own["count"].min(initial=0) < 0 or own["count"].sum() != len(clips["label"]):
            raise ValueError("other counts of labels than labels")
        own["label"] = np.array(clips["label"], np.int32)
        refuse_outside(own["label"], len(index["labels"]), "labels")
        for fact, found in self.rare.items():
            for position, value in zip(positions, clips.get(fact, ()), strict=False):
                if value not in (None, []):
                    found[position] = tuple(value) if fact == "unknown" else value
        for name, values in own.items():
            self.columns.setdefault(name, []).append(values)
        self.labels = index["labels"]
        self.tars.append(tar)

    def items(self) -> TarItems:
        """All clips, in the order of the data set."""
        positions = self._joined("position")
        order = np.argsort(positions, kind="stable")
        counts = self._joined("count")
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = LabelRows(starts=starts, columns=self._joined("label"), number=len(self.labels)).only(order)
        rare: dict[str, dict[int, Any]] = {"track": {}, "unknown": {}}
        for fact, some in self.rare.items():
            places = np.searchsorted(positions, list(some), sorter=order).tolist() if some else []
            rare[fact] = dict(zip(places, some.values(), strict=True))
        return TarItems(
            self.tars,
            of_tar=self._joined("tar")[order],
            rows=self._joined("row")[order],
            labels=(rows, tuple(self.labels)),
            groups=Coded(codes=self._joined("group", order), names=tuple(self.names["group"])),
            folds=Coded(codes=self._joined("fold", order), names=tuple(self.names["fold"])),
            splits=Coded(codes=self._joined("split", order), names=tuple(self.names["split"])),
            starts=self._joined("start", order),
            ends=self._joined("end", order),
            rare=rare,
        )

    def _joined(self, name: str, order: Any = slice(None)) -> np.ndarray:
        """A column of all tars; one that is the same everywhere takes no memory."""
        parts = self.columns.pop(name)
        firsts = {str(part[:1]) for part in parts if len(part)}
        if len(firsts) == 1 and all(part.strides == (0,) for part in parts):
            return constant(next(part[0] for part in parts if len(part)), sum(map(len, parts)), parts[0].dtype)
        return np.concatenate(parts)[order]


def constant(value: Any, number: int, dtype: Any = None) -> np.ndarray:
    """So many times the same, in the memory of one."""
    return np.broadcast_to(np.array(value, dtype), number)


def refuse_outside(numbers: np.ndarray, most: int, what: str) -> None:
    """Raises ValueError for a number below 0, or of `most` or above."""
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < most:
        raise ValueError(f"{what} that are not there")
