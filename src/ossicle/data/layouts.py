"""Which of the known layouts a path holds, and its clips.

    folder per class        dog/1.wav, cat/a/b.WAV; also with train/ val/ test/ or fold1/ fold2/ ... above or below
    folder with a table     meta.csv or metadata.csv (or .tsv, .jsonl), the sound beside it or in audio/
    ESC-50                  meta/esc50.csv and audio/, as published (Piczak 2015)
    UrbanSound8K            metadata/UrbanSound8K.csv and audio/fold1/ ..., as published (Salamon et al. 2014)
    FSD50K                  FSD50K.ground_truth/ and FSD50K.dev_audio/, ..., as published (Fonseca et al. 2022)
    Speech Commands         folder per class, validation_list.txt and testing_list.txt, as published (Warden 2018)
    a table                 CSV, TSV or JSONL: file,label[s][,start,end,split,fold,group]
    label tracks            a.txt beside a.wav: Audacity's labels or Raven's selections

Images lie in the same layouts, in images/ where sound lies in audio/. Text is the rows of a table:

    a table                 text,label[s][,split,fold,group]; also as meta.csv in a folder, or in train/ val/ test/
    AG News and its kin     train.csv and test.csv without column names, and classes.txt (Zhang et al. 2015)

What was detected is said in `Dataset.layout`; nothing is guessed silently and nothing is dropped silently.
"""

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ossicle.audio.find import find_files
from ossicle.data.items import NOUNS, PLURALS, Dataset, Item, Modality, Task
from ossicle.data.names import apart, fold_of, spellings, split_of
from ossicle.data.tables import (
    SUFFIXES,
    TABLE_SUFFIXES,
    TRACK_SUFFIX,
    Columns,
    Table,
    Wanted,
    first_record,
    holds_labels,
    read_names,
    read_numbered,
    read_table,
    recording_of,
)
from ossicle.data.times import in_milliseconds
from ossicle.errors import DataRefused
from ossicle.files import legible

MACOS_REMAINS = "__MACOSX"  # what its archiver leaves beside the real folders
NUMBERED_NAMES, NUMBERED_CLASSES = ("train.csv", "test.csv"), "classes.txt"
# Layouts as published: what they are called, their table, and where their recordings are.
PUBLISHED = (("ESC-50", "meta/esc50.csv", "audio"), ("UrbanSound8K", "metadata/UrbanSound8K.csv", "audio"))
FSD50K = "FSD50K.{}_audio"  # its folders of recordings, "dev" and "eval"
SPLIT_LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}  # of Speech Commands
NOISE = "_background_noise_"  # its folder that is no class
FOLD_FOLDERS = "fold*/"  # what folds are named after that are folders
TABLE_NAMES = tuple(stem + suffix for stem in ("meta", "metadata") for suffix in TABLE_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a layout yields before it is checked and counted."""

    items: tuple[Item, ...]
    what: str
    columns: Columns | None = None
    remarks: tuple[str, ...] = ()
    whole: bool = False  # labels are never joined by commas


def read_dataset(
    path: str | Path,
    *,
    file: str | None = None,
    label: str | None = None,
    group: str | None = None,
    fold: str | None = None,
    labels: Sequence[str] | None = None,
    modality: Modality = "sound",
    text: str | None = None,
    track: int | None = None,
) -> Dataset:
    """Reads the labeled clips, texts or images of a folder or table; recordings and images are not opened.

    Clips whose file is missing stay in: training and `check_dataset` name and count them.

    Args:
        file, label, group, fold: columns of the table to use instead of the usual ones.
        modality: what the items are: "sound", "text" or "image".
        text: column of the texts to use instead of the usual ones; for modality "text".
        track: of recordings with several audio tracks, from 1; by default the one that each file marks, or the first.
        labels: the only labels allowed, in this order (those of a model to evaluate); a class may then be small
            or absent.

    Raises:
        DataRefused: there is nothing here to learn from, in one sentence that says why.
    """
    if modality not in PLURALS:
        raise ValueError(f"modality must be one of {', '.join(PLURALS)}, not {modality!r}")
    if text is not None and modality != "text":
        raise DataRefused(f"text={text} names a column of texts, and {PLURALS[modality]} are read (modality='text').")
    if file is not None and modality == "text":
        raise DataRefused(f"file={file} names a column of file names, and text is read; text=COLUMN names its column.")
    root = Path(os.path.abspath(path))
    found = _detect(root, Wanted(modality=modality, file=file, text=text, label=label, group=group, fold=fold))
    found = _as_one(_taken_apart(found, labels or ()), labels or ())
    counts = Counter(name for item in found.items for name in item.labels)
    task: Task = "single-label" if all(len(item.labels) == 1 for item in found.items) else "multi-label"
    if labels is None:
        _refuse_too_little(root, counts, task, NOUNS[modality])
        names = tuple(sorted(counts))
    else:
        names = tuple(labels)
        if len(set(names)) != len(names):
            raise ValueError(f"labels must differ from each other, got {list(names)}")
        _refuse_unknown(root, counts, names)
    return Dataset(
        root=root if root.is_dir() else root.parent,
        items=found.items if track is None else tuple(replace(item, track=track) for item in found.items),
        labels=names,
        task=task,
        layout=_sentence(found, counts, task, modality),
        group_name=found.columns.group if found.columns else None,
        fold_name=_fold_name(found),
        modality=modality,
        table=None if root.is_dir() else root,
    )


# ---------------------------------------------------------------- detection


def _detect(root: Path, wanted: Wanted) -> _Found:
    what = PLURALS[wanted.modality]
    sound = wanted.modality == "sound"
    if sound and (published := _published(root, wanted)):
        return published
    if root.is_file():
        suffix = root.suffix.lower()
        if suffix not in TABLE_SUFFIXES and not (sound and suffix == TRACK_SUFFIX and holds_labels(root)):
            raise DataRefused(f"{root} is neither a folder nor a table: tables end in {', '.join(TABLE_SUFFIXES)}.")
        if _is_numbered(root):
            return _from_numbered([root], wanted)
        return _from_table(read_table(root, wanted), wanted.modality)
    if not root.is_dir():
        raise DataRefused(f"{root} does not exist: expected a folder of {what}, or a table of them.")
    table_path = _table_in(root)
    if table_path is not None:
        return _from_table(read_table(table_path, wanted), wanted.modality)
    parts = _part_folders(root, wanted.modality)
    if parts and all(_table_in(folder) for folder in parts):
        return _from_split_tables(parts, wanted)
    if wanted.modality == "text" and (numbered := _numbered_tables(root)):
        return _from_numbered(numbered, wanted)
    if sound and (tracks := _tracks(root)):
        return _from_tracks(root, tracks, wanted)
    for option, name in wanted.named.items():
        raise DataRefused(
            f"{option} {name} names a column, but {root} holds none of the tables {', '.join(TABLE_NAMES)}."
        )
    return _from_class_folders(root, parts, wanted.modality)


def _published(root: Path, wanted: Wanted) -> _Found | None:
    """What a published layout holds, whether its folder is given, its table, or its folder of recordings."""
    for name, table_name, audio in PUBLISHED:
        for home in (root, *root.parents[:2]):
            path = home / table_name
            if root in (home, path, home / audio) and path.is_file():
                table = read_table(path, wanted, folders=[home / audio])
                what = f"{name} as published ({table_name} and {audio}/, labels from `{table.columns.label}`)"
                return replace(_from_table(table, wanted.modality), what=what)
    if all((root / FSD50K.format(part)).is_dir() for part in ("dev", "eval")):
        return _from_fsd50k(root, wanted)
    return None


def _from_fsd50k(root: Path, wanted: Wanted) -> _Found:
    """FSD50K: labels joined by commas, files without a suffix, and its own split into train, val and eval."""
    tables = []
    for part in ("dev", "eval"):
        path = root / "FSD50K.ground_truth" / f"{part}.csv"
        file = wanted.file or "fname"
        tables.append(read_table(path, replace(wanted, file=file, commas=True), folders=[root / FSD50K.format(part)]))
    dev, test = tables
    return _Found(
        items=(*dev.items, *(replace(item, split="test") for item in test.items)),
        what=f"FSD50K as published (FSD50K.ground_truth/, labels from `{dev.columns.label}`)",
        columns=dev.columns,
        remarks=(*_missing_files(tables, wanted.modality), *_remarks_of(tables)),
        whole=True,
    )


def _table_in(folder: Path) -> Path | None:
    present = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    return next((present[name] for name in TABLE_NAMES if name in present), None)


def _numbered_tables(folder: Path) -> list[Path]:
    return [folder / name for name in NUMBERED_NAMES if (folder / name).is_file() and _is_numbered(folder / name)]


def _is_numbered(table: Path) -> bool:
    """Whether a table is published like AG News: names of classes beside it, and a number where columns have names."""
    if table.name not in NUMBERED_NAMES or not (table.parent / NUMBERED_CLASSES).is_file():
        return False
    return "".join(first_record(table)[:1]).strip().isdecimal()


def _folders_in(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != MACOS_REMAINS
    )


def _part_folders(root: Path, modality: Modality) -> list[Path]:
    """The folders of a split (train/, val/, test/) or of folds under `root`; none where they are classes.

    One such folder beside others is a class of that name; two are parts of the data, whatever lies beside them.
    """
    folders = _folders_in(root)
    if not any(map(_part, folders)):
        return []
    holding = [folder for folder in folders if _table_in(folder) or _files(folder, modality)]
    parts = [folder for folder in holding if _part(folder)]
    others = [folder for folder in holding if folder not in parts]
    if not others or len({_part(folder) for folder in parts}) > 1:
        return parts
    for folder in parts:
        both = sorted({entry.name for entry in _folders_in(folder)} & {other.name for other in others})
        if both:
            raise DataRefused(
                f"{folder} is a class or a part of the data: it holds folders that lie beside it too ({both[0]}); "
                f"move those beside it into a folder of their own, such as {root / 'train'}."
            )
    return []


def _part(folder: Path) -> tuple[str | None, str | None] | None:
    """The split, or the fold, that a folder's name says; None for any other name."""
    part = split_of(folder.name), fold_of(folder.name)
    return part if any(part) else None


def _files(folder: Path, modality: Modality) -> list[Path]:
    return find_files(folder, SUFFIXES[modality])


# ---------------------------------------------------------------- the layouts


def _from_table(table: Table, modality: Modality) -> _Found:
    where = "" if table.folder == table.path.parent else f" in {table.folder.name}/"
    source = f"{'texts' if modality == 'text' else 'files'} from `{table.columns.source}`{where}"
    if table.columns.source is None:
        source = f"labels of {table.items[0].file.name}"
    return _Found(
        items=table.items,
        what=f"table {table.path.name} ({source}, labels from `{table.columns.label}`{_times(table.columns)})",
        columns=table.columns,
        remarks=(*_missing_files([table], modality), *table.remarks),
        whole=table.listed,
    )


def _times(columns: Columns) -> str:
    """Which columns say where a clip lies in its recording, and in which unit where it is no second."""
    used = [f"`{name}`{' in milliseconds' if in_milliseconds(name) else ''}" for name in columns.times.used]
    return f", times from {', '.join(used[:-1])}{' and ' * (len(used) > 1)}{used[-1]}" if used else ""


def _missing_files(tables: Sequence[Table], modality: Modality) -> tuple[str, ...]:
    missing = sum(table.missing for table in tables)
    clips = f"{sum(len(table.items) for table in tables)} {NOUNS[modality]}s"
    return (f"{missing} of {clips} have no file",) if missing else ()


def _from_numbered(tables: Sequence[Path], wanted: Wanted) -> _Found:
    if wanted.modality != "text":
        raise DataRefused(
            f"{tables[0]} holds a table of text, not of {PLURALS[wanted.modality]}: modality 'text' reads it."
        )
    for option, name in wanted.named.items():
        raise DataRefused(f"{option} {name} names a column, but {tables[0]} has no line of column names.")
    classes = read_names(tables[0].parent / NUMBERED_CLASSES)
    items: list[Item] = []
    for table in tables:
        # One table alone is no split: there is nothing on the other side.
        items += read_numbered(table, classes, split=split_of(table.stem) if len(tables) > 1 else None)
    names = " and ".join(table.name for table in tables)
    return _Found(items=tuple(items), what=f"the layout of AG News ({names} without column names, {NUMBERED_CLASSES})")


def _from_split_tables(folders: Sequence[Path], wanted: Wanted) -> _Found:
    items: list[Item] = []
    parts = []
    for folder in folders:
        path = _table_in(folder)
        assert path is not None
        table = read_table(path, wanted)
        # The folder is the split, whatever the table says.
        items += [_in_part(item, folder) for item in table.items]
        parts.append((folder.name, table))
    columns = parts[0][1].columns
    if any(table.columns != columns for _, table in parts):
        raise DataRefused(f"the tables under {folders[0].parent} differ in their columns: give all of them the same.")
    names = ", ".join(f"{name}/{table.path.name}" for name, table in parts)
    tables = [table for _, table in parts]
    beside: list[str] = []
    _remark_beside(folders[0].parent, folders, beside, wanted.modality)
    return _Found(
        items=tuple(items),
        what=f"tables {names} (labels from `{columns.label}`{_times(columns)})",
        columns=columns,
        remarks=(*_missing_files(tables, wanted.modality), *_remarks_of(tables), *beside),
        whole=any(table.listed for table in tables),
    )


def _in_part(item: Item, folder: Path) -> Item:
    """The item as one of the split or fold that a folder's name says."""
    split, fold = _part(folder) or (None, None)
    return replace(item, split=split or item.split, fold=fold or item.fold)


def _remarks_of(tables: Sequence[Table]) -> list[str]:
    """The remarks of several tables, those of one with its name."""
    counts = Counter(remark for table in tables for remark in table.remarks)
    return [
        remark if counts[remark] == len(tables) else f"{table.path.parent.name}/{table.path.name}: {remark}"
        for table in tables
        for remark in table.remarks
        if counts[remark] < len(tables) or table is tables[0]
    ]


def _tracks(root: Path) -> list[Path]:
    """The label tracks that lie beside their recordings directly in a folder; none where its folders hold some."""
    texts = sorted(file for file in root.iterdir() if file.suffix.lower() == TRACK_SUFFIX and file.is_file())
    tracks = [file for file in texts if holds_labels(file) and recording_of(file)]
    return [] if any(_files(folder, "sound") for folder in _folders_in(root)) else tracks


def _from_tracks(root: Path, tracks: Sequence[Path], wanted: Wanted) -> _Found:
    tables = [read_table(track, wanted) for track in tracks]
    columns = tables[0].columns
    if any(table.columns != columns for table in tables):
        raise DataRefused(f"the label tracks in {root} differ in their columns: give all of them the same.")
    remarks = _remarks_of(tables)
    without = len(_files(root, "sound")) - len({item.file for table in tables for item in table.items})
    if without:
        remarks.append(f"recordings without a label track are left out ({without})")
    return _Found(
        items=tuple(item for table in tables for item in table.items),
        what=f"label tracks beside their recordings (labels from `{columns.label}`{_times(columns)})",
        columns=columns,
        remarks=tuple(remarks),
        whole=any(table.listed for table in tables),
    )


def _from_class_folders(root: Path, parts: Sequence[Path], modality: Modality) -> _Found:
    items: list[Item] = []
    remarks: list[str] = []
    _read_parts(root, items, remarks, modality)
    if not items:
        raise DataRefused(_why_nothing(root, modality))
    above = ", ".join(f"{folder.name}/" for folder in parts)
    if not parts:
        items, more = _by_lists(root, items) or _parts_below(root, items)
        remarks += more
        for folder in filter(_part, _folders_in(root)):
            what = PLURALS[modality]
            remarks.append(f"{folder.name}/ is taken for a class, as not only folders of a split hold {what}")
    what = f"folder per class{f' under {above}' if parts else ''}"
    return _Found(items=tuple(items), what=what, remarks=tuple(remarks))


def _read_parts(folder: Path, items: list[Item], remarks: list[str], modality: Modality) -> None:
    """Reads class folders, also below the folders of splits and folds, which may lie in each other."""
    parts = _part_folders(folder, modality)
    if not parts:
        _read_class_folders(folder, items, remarks, modality)
        return
    for part in parts:
        read: list[Item] = []
        _read_parts(part, read, remarks, modality)
        items += [_in_part(item, part) for item in read]
    _remark_beside(folder, parts, remarks, modality)


def _by_lists(root: Path, items: Sequence[Item]) -> tuple[list[Item], list[str]] | None:
    """The items of Speech Commands with the official split that its two lists say; None where they are not there."""
    if not all((root / name).is_file() for name in SPLIT_LISTS.values()):
        return None
    lists = {split: set(read_names(root / name)) for split, name in SPLIT_LISTS.items()}
    split_by_name = {name: split for split, names in lists.items() for name in names}
    kept = [item for item in items if item.labels != (NOISE,)]
    found = [replace(item, split=split_by_name.get(item.file.relative_to(root).as_posix(), "train")) for item in kept]
    remarks = [f"{NOISE}/ is no class and is left out ({len(items) - len(kept)})"] if len(kept) < len(items) else []
    return found, [f"the split is that of {' and '.join(SPLIT_LISTS.values())}", *remarks]


def _parts_below(root: Path, items: list[Item]) -> tuple[list[Item], list[str]]:
    """The items with the splits or folds that lie below the classes (dog/train/1.wav), if all do."""
    folders = [root.joinpath(*item.file.relative_to(root).parts[:2]) for item in items]
    found = {folder.name: _part(folder) for folder in folders if _part(folder)}
    if len(set(found.values())) < 2:
        return items, []
    names = ", ".join(f"{name}/" for name in sorted(found))
    if all(_part(folder) for folder in folders):
        return [_in_part(*pair) for pair in zip(items, folders, strict=True)], [f"parts from {names} below the classes"]
    return items, [f"{names} below the classes are no parts, as not all recordings lie in such folders"]


def _read_class_folders(folder: Path, items: list[Item], remarks: list[str], modality: Modality) -> None:
    loose = 0
    empty = {entry.name for entry in _folders_in(folder)}
    for file in _files(folder, modality):
        parts = file.relative_to(folder).parts
        if parts[0] == MACOS_REMAINS:
            continue
        if len(parts) == 1:
            loose += 1
            continue
        if legible(parts[0]) != parts[0]:
            raise DataRefused(f"{legible(folder / parts[0])}: a folder's name is a label, and this is no UTF-8 text.")
        empty.discard(parts[0])
        items.append(Item(file=Path(os.path.abspath(file)), labels=(parts[0],)))
    _remark_loose(folder, loose, remarks, modality)
    if empty and items:
        what = PLURALS[modality]
        remarks.append(f"folders without {what} in {folder.name}/ are left out: {', '.join(sorted(empty))}")


def _remark_beside(folder: Path, parts: Sequence[Path], remarks: list[str], modality: Modality) -> None:
    beside = [file for file in _files(folder, modality) if not any(part in file.parents for part in parts)]
    loose = sum(file.parent == folder for file in beside)
    _remark_loose(folder, loose, remarks, modality)
    if len(beside) > loose:
        names = ", ".join(f"{part.name}/" for part in parts)
        remarks.append(f"{PLURALS[modality]} beside {names} are left out ({len(beside) - loose})")


def _remark_loose(folder: Path, count: int, remarks: list[str], modality: Modality) -> None:
    if count:
        what = PLURALS[modality]
        remarks.append(f"{what} directly in {folder.name}/ lie in no class folder and are left out ({count})")


def _why_nothing(root: Path, modality: Modality) -> str:
    what = PLURALS[modality]
    expected = f"expected {'' if modality == 'text' else 'a folder per class, or '}one of the tables "
    expected += ", ".join(TABLE_NAMES)
    if _numbered_tables(root):
        return f"{root} holds tables of text, not of {what}: modality 'text' reads them."
    tables = [entry.name for entry in sorted(root.iterdir()) if entry.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        lacking = (
            f"none of the tables {', '.join(TABLE_NAMES)}" if modality == "text" else f"no class folders with {what}"
        )
        return f"{root} holds {lacking}; to read its table, give the path {root / tables[0]}."
    loose = len(_files(root, modality))
    if loose:
        return f"{root} holds {loose} {what} but no labels: {expected}."
    for other in SUFFIXES:
        count = len(_files(root, other))
        if count:
            return f"{root} holds no {what} but {PLURALS[other]} ({count}): modality {other!r} reads them."
    return f"{root} holds no {what}: {expected}."


# ---------------------------------------------------------------- names that mean the same


def _taken_apart(found: _Found, known: Sequence[str]) -> _Found:
    """The items with labels of their own where a label is several, joined by commas."""
    counts = Counter(label for item in found.items for label in item.labels)
    joined, doubtful = ({}, []) if found.whole else apart(counts, known)
    remarks = list(found.remarks)
    if joined:
        one = min(joined)
        clips = sum(counts[label] for label in joined)
        remarks.append(f"labels joined by commas are several, such as {one!r} (of {clips} clips)")
    if doubtful:
        remarks.append(f"labels with commas are one each, such as {doubtful[0]!r}: several are joined by ; or |")
    items = found.items
    if joined:
        items = tuple(
            replace(
                item, labels=tuple(dict.fromkeys(part for label in item.labels for part in joined.get(label, [label])))
            )
            for item in items
        )
    return replace(found, items=items, remarks=tuple(remarks))


def _as_one(found: _Found, known: Sequence[str]) -> _Found:
    """The items with one spelling for all names that are equal as numbers or as text, and a remark where several were.

    Args:
        known: the labels of a model, whose spelling wins
    """
    names = {
        "labels": spellings((label for item in found.items for label in item.labels), known),
        "groups": spellings(item.group for item in found.items if item.group is not None),
        "folds": spellings(item.fold for item in found.items if item.fold is not None),
    }
    remarks = list(found.remarks)
    for what, chosen in names.items():
        together: dict[str, list[str]] = {}
        for name in sorted(chosen):
            together.setdefault(chosen[name], []).append(name)
        if several := [group for group in together.values() if len(group) > 1]:
            remarks.append(f"{what} equal as numbers or as text are one: {' and '.join(map(ascii, several[0]))}")
    items = tuple(
        replace(
            item,
            labels=tuple(dict.fromkeys(names["labels"][label] for label in item.labels)),
            group=None if item.group is None else names["groups"][item.group],
            fold=None if item.fold is None else names["folds"][item.fold],
        )
        for item in found.items
    )
    return replace(found, items=items, remarks=tuple(remarks))


# ---------------------------------------------------------------- what cannot be learnt from


def _refuse_too_little(root: Path, counts: Counter[str], task: Task, noun: str) -> None:
    if not counts:
        raise DataRefused(f"no {noun} of {root} has a label: at least two classes with two {noun}s each are needed.")
    # One label that some clips have and others lack is a question with two answers.
    if len(counts) == 1 and task == "single-label":
        (name,) = counts
        deeper = root / name
        hint = ""
        if deeper.is_dir():
            below = _folders_in(deeper)
            parts = [folder.name for folder in below if _part(folder) and not _folders_in(folder)]
            hint = f"; if its folders are the classes, give the path {deeper}"
            hint = f"; its folders are parts of the data ({parts[0]}/) and no classes" if parts else hint
        raise DataRefused(f"{root} has one class only ({name}): at least two are needed{hint}.")
    lonely = sorted(name for name, count in counts.items() if count == 1)
    if lonely:
        more = f" (and {len(lonely) - 1} more such classes)" if len(lonely) > 1 else ""
        raise DataRefused(
            f"the class {lonely[0]!r} of {root} has one {noun}{more}: at least two are needed, one to learn from and "
            "one to test."
        )


def _refuse_unknown(root: Path, counts: Counter[str], labels: Sequence[str]) -> None:
    unknown = sorted(set(counts) - set(labels))
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], labels, n=3, cutoff=0.4) or list(labels[:3])
    more = f" (and {len(unknown) - 1} more such labels)" if len(unknown) > 1 else ""
    raise DataRefused(
        f"the label {unknown[0]!r} of {root} is not one of the {len(labels)} allowed{more}; nearest: {', '.join(near)}."
    )


# ---------------------------------------------------------------- the sentence


def _sentence(found: _Found, counts: Counter[str], task: Task, modality: Modality) -> str:
    files = len({item.file for item in found.items})
    clips = f"{len(found.items)} {NOUNS[modality]}s"
    if modality == "sound" and files != len(found.items):
        clips += f" of {files} files"
    facts = [
        f"{found.what}: {clips}, {len(counts)} classes, {task}{_why(found, task)}",
        _kept_together(found, modality),
    ]
    if name := _fold_name(found):
        facts.append(f"{len({item.fold for item in found.items})} folds from `{name}`")
    splits = Counter(item.split for item in found.items if item.split is not None)
    if splits:
        facts.append("splits " + ", ".join(f"{name} {count}" for name, count in sorted(splits.items())))
    return "; ".join([*facts, *_alike(counts), *found.remarks]) + "."


def _fold_name(found: _Found) -> str | None:
    """Where the folds come from: the column, or the folders."""
    if found.columns is not None and found.columns.fold is not None:
        return found.columns.fold
    return FOLD_FOLDERS if len({item.fold for item in found.items}) > 1 else None


def _alike(labels: Iterable[str]) -> list[str]:
    """A remark where two labels may be meant as one."""
    folded: dict[str, list[str]] = {}
    for label in sorted(labels):
        folded.setdefault(unicodedata.normalize("NFKC", label).casefold(), []).append(label)
    pairs = [names for names in folded.values() if len(names) > 1]
    return [f"labels that differ in case or encoding alone: {', '.join(map(repr, pairs[0]))}"] if pairs else []


def _why(found: _Found, task: Task) -> str:
    """What makes it multi-label, where that is empty cells alone and may be a slip."""
    empty = [item for item in found.items if not item.labels]
    if task == "single-label" or any(len(item.labels) > 1 for item in found.items):
        return ""
    return f" ({len(empty)} have no label, such as {empty[0].file.name}, and none has several)"


def _kept_together(found: _Found, modality: Modality) -> str:
    groups = {item.group for item in found.items if item.group is not None}
    if found.columns is None or found.columns.group is None or not groups:
        return f"every {'row' if modality == 'text' else 'file'} is its own group"
    return f"{len(groups)} groups from `{found.columns.group}`"
