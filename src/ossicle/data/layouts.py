"""Which of the known layouts a path holds, and its clips.

    folder per class        dog/1.wav, cat/a/b.WAV; also with train/ val/ test/ above
    folder with a table     meta.csv or metadata.csv (or .tsv, .jsonl), the sound beside it or in audio/
    ESC-50                  meta/esc50.csv and audio/, as published (Piczak 2015)
    a table                 CSV, TSV or JSONL: file,label[s][,start,end,split,fold,group]

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
from ossicle.data.tables import (
    SUFFIXES,
    TABLE_SUFFIXES,
    Columns,
    Table,
    Wanted,
    first_record,
    read_names,
    read_numbered,
    read_table,
    split_of,
)
from ossicle.errors import DataRefused
from ossicle.files import legible

MACOS_REMAINS = "__MACOSX"  # what its archiver leaves beside the real folders
NUMBERED_NAMES, NUMBERED_CLASSES = ("train.csv", "test.csv"), "classes.txt"
TABLE_NAMES = tuple(stem + suffix for stem in ("meta", "metadata") for suffix in TABLE_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a layout yields before it is checked and counted."""

    items: tuple[Item, ...]
    what: str
    columns: Columns | None = None
    remarks: tuple[str, ...] = ()


def read_dataset(
    path: str | Path,
    *,
    label: str | None = None,
    group: str | None = None,
    fold: str | None = None,
    labels: Sequence[str] | None = None,
    modality: Modality = "sound",
    text: str | None = None,
    track: int | None = None,
) -> Dataset:
    """Reads the labelled clips, texts or images of a folder or table; recordings and images are not opened.

    Clips whose file is missing stay in: training and `check_dataset` name and count them.

    Args:
        label, group, fold: columns of the table to use instead of the usual ones.
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
    root = Path(os.path.abspath(path))
    found = _detect(root, Wanted(modality=modality, text=text, label=label, group=group, fold=fold))
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
        fold_name=found.columns.fold if found.columns else None,
        modality=modality,
        table=None if root.is_dir() else root,
    )


# ---------------------------------------------------------------- detection


def _detect(root: Path, wanted: Wanted) -> _Found:
    what = PLURALS[wanted.modality]
    if root.is_file():
        if root.suffix.lower() not in TABLE_SUFFIXES:
            raise DataRefused(f"{root} is neither a folder nor a table: tables end in {', '.join(TABLE_SUFFIXES)}.")
        if _is_numbered(root):
            return _from_numbered([root], wanted)
        return _from_table(read_table(root, wanted), wanted.modality)
    if not root.is_dir():
        raise DataRefused(f"{root} does not exist: expected a folder of {what}, or a table of them.")
    esc50 = root / "meta" / "esc50.csv"
    if wanted.modality == "sound" and esc50.is_file():
        table = read_table(esc50, wanted, folders=[root / "audio"])
        esc50_as = f"ESC-50 as published (meta/esc50.csv and audio/, labels from `{table.columns.label}`)"
        return replace(_from_table(table, wanted.modality), what=esc50_as)
    table_path = _table_in(root)
    if table_path is not None:
        return _from_table(read_table(table_path, wanted), wanted.modality)
    splits = _split_folders(root, wanted.modality)
    if splits and all(_table_in(folder) for folder in splits):
        return _from_split_tables(splits, wanted)
    if wanted.modality == "text" and (numbered := _numbered_tables(root)):
        return _from_numbered(numbered, wanted)
    for option, name in wanted.named.items():
        raise DataRefused(
            f"{option} {name} names a column, but {root} holds none of the tables {', '.join(TABLE_NAMES)}."
        )
    return _from_class_folders(root, splits, wanted.modality)


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


def _split_folders(root: Path, modality: Modality) -> list[Path]:
    """The folders train/, val/, test/ under `root`; none if other folders hold recordings too: then all are classes."""
    folders = _folders_in(root)
    splits = [folder for folder in folders if split_of(folder.name) is not None]
    if not any(split_of(folder.name) == "train" for folder in splits):
        return []
    return [] if any(_files(folder, modality) for folder in folders if folder not in splits) else splits


def _files(folder: Path, modality: Modality) -> list[Path]:
    return find_files(folder, SUFFIXES[modality])


# ---------------------------------------------------------------- the layouts


def _from_table(table: Table, modality: Modality) -> _Found:
    where = "" if table.folder == table.path.parent else f" in {table.folder.name}/"
    source = f"{'texts' if modality == 'text' else 'files'} from `{table.columns.source}`{where}"
    return _Found(
        items=table.items,
        what=f"table {table.path.name} ({source}, labels from `{table.columns.label}`)",
        columns=table.columns,
        remarks=_missing_files([table], modality),
    )


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
        items += [replace(item, split=split_of(folder.name)) for item in table.items]
        parts.append((folder.name, table))
    columns = parts[0][1].columns
    if any(table.columns != columns for _, table in parts):
        raise DataRefused(f"the tables under {folders[0].parent} differ in their columns: give all of them the same.")
    names = ", ".join(f"{name}/{table.path.name}" for name, table in parts)
    return _Found(
        items=tuple(items),
        what=f"tables {names} (labels from `{columns.label}`)",
        columns=columns,
        remarks=_missing_files([table for _, table in parts], wanted.modality),
    )


def _from_class_folders(root: Path, splits: Sequence[Path], modality: Modality) -> _Found:
    items: list[Item] = []
    remarks: list[str] = []
    for folder in splits or [root]:
        _read_class_folders(folder, split_of(folder.name) if splits else None, items, remarks, modality)
    if not items:
        raise DataRefused(_why_nothing(root, modality))
    if splits:
        _remark_loose(root, sum(file.parent == root for file in _files(root, modality)), remarks, modality)
    elif "train" in {split_of(folder.name) for folder in _folders_in(root)}:
        remarks.append("train/ is taken for a class, as not only folders of a split hold " + PLURALS[modality])
    above = f" under {', '.join(f'{folder.name}/' for folder in splits)}" if splits else ""
    return _Found(items=tuple(items), what=f"folder per class{above}", remarks=tuple(remarks))


def _read_class_folders(
    folder: Path, split: str | None, items: list[Item], remarks: list[str], modality: Modality
) -> None:
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
        items.append(Item(file=Path(os.path.abspath(file)), labels=(parts[0],), split=split))
    _remark_loose(folder, loose, remarks, modality)
    if empty and items:
        what = PLURALS[modality]
        remarks.append(f"folders without {what} in {folder.name}/ are left out: {', '.join(sorted(empty))}")


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


# ---------------------------------------------------------------- what cannot be learnt from


def _refuse_too_little(root: Path, counts: Counter[str], task: Task, noun: str) -> None:
    if not counts:
        raise DataRefused(f"no {noun} of {root} has a label: at least two classes with two {noun}s each are needed.")
    # One label that some clips have and others lack is a question with two answers.
    if len(counts) == 1 and task == "single-label":
        (name,) = counts
        deeper = root / name
        hint = f"; if its folders are the classes, give the path {deeper}" if deeper.is_dir() else ""
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
    if found.columns is not None and found.columns.fold is not None:
        facts.append(f"{len({item.fold for item in found.items})} folds from `{found.columns.fold}`")
    splits = Counter(item.split for item in found.items if item.split is not None)
    if splits:
        facts.append("splits " + ", ".join(f"{name} {count}" for name, count in sorted(splits.items())))
    return "; ".join([*facts, *_alike(counts), *found.remarks]) + "."


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
