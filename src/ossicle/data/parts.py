"""Which clips trained, chose and tested a model, written beside it and found again by what the clips hold.

Data move, are renamed, grow, and are read by a table one day and as folders the next. Names and positions are others
then; the bytes of a recording are not. So `split.json` keeps a digest of each clip's content, and a clip that trained a
model is known for it wherever it turns up.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from ossicle.data.arrays import PIECE, TarItems
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.splits import Split, group_ids
from ossicle.errors import DataRefused, RunRefused
from ossicle.files import write_atomically

PARTS = ("train", "validation", "test")
NEW = len(PARTS)  # in none of them
# A file of more bytes is known by so many blocks of it, evenly spaced, and its size: hours of sound need no hour.
WHOLE_BYTES, BLOCK_BYTES = 1 << 20, 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """What a run noted of its clips."""

    split: Split
    fingerprint: str  # of the data set
    names: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()  # of each clip; none in a file of an older version


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """The part that each item of a data set had in a run."""

    parts: Int64[np.ndarray, "item"]  # positions in PARTS, or NEW
    same: bool  # the data set is the very one of the run
    alike: int = 0  # items with the name of a clip that trained or chose, and another content

    @property
    def any(self) -> bool:
        """Whether the run had any of the items."""
        return bool((self.parts != NEW).any())

    def of(self, *names: str) -> Bool[np.ndarray, "item"]:
        """Which items belong to these parts."""
        return np.isin(self.parts, [PARTS.index(name) for name in names])


def contents_of(items: Sequence[Item]) -> tuple[str, ...]:
    """A text for each item that is the same wherever it lies and whatever it is called; empty where it cannot be read.

    A segment has that of its file, then an @ and its times in seconds.
    """
    return tuple(_contents(items))


def _contents(items: Sequence[Item]) -> Iterator[str]:
    """The same, one after the other."""
    if isinstance(items, TarItems):
        for of_file, start, end in zip(items.digests(), items.starts, items.ends, strict=True):
            yield of_file if start == 0 and end != end else of_file + _segment(start, 0.0 if end != end else end)
        return
    digest = cache(digest_of)
    for item in items:
        if item.text is not None:
            yield hashlib.sha256(item.text.encode(errors="surrogatepass")).hexdigest()[:32]
            continue
        of_file = item.member.digest if item.member is not None else digest(item.file)
        whole = item.start == 0 and item.end is None
        yield of_file if whole or not of_file else of_file + _segment(item.start, item.end or 0.0)


def _segment(start: float, end: float) -> str:
    return f"@{start:.3f}-{end:.3f}"


def digest_of(file: Path) -> str:
    """A text for what a file holds; empty where it cannot be read."""
    try:
        size = file.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with open(file, "rb") as opened:
            if size <= WHOLE_BYTES:
                digest.update(opened.read())
            else:
                for place in np.linspace(0, size - BLOCK_BYTES, WHOLE_BYTES // BLOCK_BYTES, dtype=np.int64).tolist():
                    opened.seek(place)
                    digest.update(opened.read(BLOCK_BYTES))
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()[:32]


def write_split(path: Path, dataset: Dataset, split: Split, *, contents: Sequence[str] | None = None) -> None:
    """Writes which clips trained, chose and tested, so that the same test part is found again.

    Args:
        contents: those of `contents_of`, where they are known already.
    """
    lists: dict[str, Callable[[], Iterable[Any]]] = {
        **{part: partial(lambda part: getattr(split, part).tolist(), part) for part in PARTS},
        "names": dataset.names,
        "contents": lambda: _contents(dataset.items) if contents is None else contents,
    }

    def write(temporary: Path) -> None:
        """Of a million clips, one list after the other and piece by piece."""
        head = {"fingerprint": dataset.fingerprint(), "protocol": split.protocol, "fold": split.fold}
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}"))
            for name, make in lists.items():
                values = iter(make())
                file.write(f',\n  "{name}": [')
                ahead = ""
                while piece := list(itertools.islice(values, PIECE)):
                    file.write(ahead + json.dumps(piece, ensure_ascii=False)[1:-1])
                    ahead = ", "
                file.write("]")
            file.write("\n}\n")

    write_atomically(path, write)


def read_past(path: Path) -> Past | None:
    """Reads what `write_split` wrote; None where there is no such file.

    Raises: RunRefused for a damaged file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        split = Split(
            **{part: np.asarray(content[part], dtype=np.int64) for part in PARTS},
            protocol=str(content["protocol"]),
            fold=content["fold"],
        )
        names, contents = (tuple(map(str, content.get(key, ()))) for key in ("names", "contents"))
        positions = np.concatenate([getattr(split, part) for part in PARTS])
        if contents and not (len(names) == len(contents) > positions.max(initial=-1) and positions.min(initial=0) >= 0):
            raise ValueError(f"{len(names)} names, {len(contents)} contents, positions up to {positions.max()}")
        return Past(split=split, fingerprint=str(content["fingerprint"]), names=names, contents=contents)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunRefused(f"{path}: not what a run writes about its split ({error}).") from error


def read_split(path: Path, dataset: Dataset) -> Split | None:
    """The parts of a run on this very data set; None when there is no file, or it is of other data.

    The labels' order belongs to the fingerprint: read the data set with the labels of the model.

    Raises: RunRefused for a damaged file.
    """
    past = read_past(path)
    return past.split if past is not None and past.fingerprint == dataset.fingerprint() else None


def recognize(past: Past, dataset: Dataset) -> Known | None:
    """The part of each item in a run, by its content; None where the run kept no contents and its data are others.

    An item whose content lies in several parts, and a segment of a recording that has others in the run, counts as
    trained on before it counts as tested.
    """
    same = past.fingerprint == dataset.fingerprint()
    if not past.contents:
        return Known(parts=_positions(past.split, len(dataset)), same=True) if same else None
    contents = contents_of(dataset.items)
    of_past = _positions(past.split, len(past.contents))
    if same and contents == past.contents:
        return Known(parts=of_past, same=True)
    exact, files = _first_part(past.contents, of_past), _first_part(map(_file_of, past.contents), of_past)
    parts = np.array([exact.get(one, files.get(_file_of(one), NEW)) if one else NEW for one in contents], np.int64)
    learned = {
        _stem(name) for name, part in zip(past.names, of_past, strict=True) if PARTS[part : part + 1] != ("test",)
    }
    alike = sum(
        part == NEW and item.text is None and _stem(dataset.relative(item)) in learned
        for item, part in zip(dataset.items, parts.tolist(), strict=True)
    )
    return Known(parts=parts, same=False, alike=alike)


def _positions(split: Split, length: int) -> Int64[np.ndarray, "item"]:
    parts = np.full(length, NEW, np.int64)
    for number, name in enumerate(PARTS):
        index = getattr(split, name)
        parts[index[index < length]] = number
    return parts


def _first_part(keys: Iterable[str], parts: Int64[np.ndarray, "item"]) -> dict[str, int]:
    """The first part, in the order of PARTS, that has each key."""
    found: dict[str, int] = {}
    for key, part in zip(keys, parts.tolist(), strict=True):
        if key and part != NEW:
            found[key] = min(part, found.get(key, NEW))
    return found


def _file_of(content: str) -> str:
    return content.partition("@")[0]


def _stem(name: str) -> str:
    """A name without its suffix, which another format changes."""
    return PurePosixPath(name).with_suffix("").as_posix()


def unseen(known: Known, dataset: Dataset) -> tuple[Int64[np.ndarray, "item"], str]:
    """The items that neither trained nor chose, nor belong to a group that did, and a sentence on how they were found.

    Raises: DataRefused where there is none.
    """
    if known.same:
        return np.flatnonzero(known.of("test")), ""
    learned = known.of("train", "validation")
    groups = group_ids(dataset)
    related = (known.parts == NEW) & np.isin(groups, groups[learned])
    chosen = known.of("test") | (known.parts == NEW) & ~related
    noun = dataset.noun
    if not chosen.any():
        raise DataRefused(
            f"{dataset.root}: each of its {len(dataset)} {noun}s trained the model or chose its epoch, or belongs to a "
            "group that did; --part all scores them nevertheless."
        )
    facts = [f"{known.of('test').sum()} {noun}s of the run's test part, found by their content"]
    new = int((chosen & (known.parts == NEW)).sum())
    facts += [f"{new} that the run did not have"] if new else []
    facts += [f"{learned.sum()} that trained the model or chose its epoch are left out"] if learned.any() else []
    facts += [f"{related.sum()} new ones of their groups too"] if related.any() else []
    return np.flatnonzero(chosen), ", ".join(facts)


def found_again(past: Past, known: Known | None, dataset: Dataset) -> str:
    """What a run had of a whole data set, as far as can be told; it follows on "all of its clips"."""
    learned = "trained the model or chose its epoch"
    if known is None:
        return (
            f", and whether they {learned} cannot be told: the run's split.json is of other data, or of these before "
            "they changed, and keeps no contents"
        )
    if known.any:
        return f", {known.of('train', 'validation').sum()} of which {learned}"
    if known.alike:
        return (
            f", none of which the run had; but {known.alike} have names of {dataset.noun}s that {learned}, and another "
            "content: if these are the same recordings in another format, scores on them are optimistic"
        )
    return ", none of which the run had"
