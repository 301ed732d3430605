"""Which of the known layouts a path holds, and its clips.

    folder per class        dog/1.wav, cat/a/b.WAV; also with train/ val/ test/ above
    folder with a table     meta.csv or metadata.csv (or .tsv, .jsonl), the sound beside it or in audio/
    ESC-50                  meta/esc50.csv and audio/, as published (Piczak 2015)
    a table                 CSV, TSV or JSONL: file,label[s][,start,end,split,fold,group]

What was detected is said in `Dataset.layout`; nothing is guessed silently and nothing is dropped silently.
"""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ossicle.audio import find_audio
from ossicle.data.items import Dataset, Item, Task
from ossicle.data.tables import TABLE_SUFFIXES, Columns, Table, read_table, split_of
from ossicle.errors import DataRefused

MACOS_REMAINS = "__MACOSX"  # what its archiver leaves beside the real folders
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
) -> Dataset:
    """Reads the labelled clips of a folder or table; the recordings themselves are not opened.

    Clips whose file is missing stay in: training and `check_dataset` name and count them.

    Args:
        label, group, fold: columns of the table to use instead of the usual ones.
        labels: the only labels allowed, in this order (those of a model to evaluate); a class may then be small
            or absent.

    Raises:
        DataRefused: there is nothing here to learn from, in one sentence that says why.
    """
    root = Path(os.path.abspath(path))
    found = _detect(root, label=label, group=group, fold=fold)
    counts = Counter(name for item in found.items for name in item.labels)
    task: Task = "single-label" if all(len(item.labels) == 1 for item in found.items) else "multi-label"
    if labels is None:
        _refuse_too_little(root, counts, task)
        names = tuple(sorted(counts))
    else:
        names = tuple(labels)
        if len(set(names)) != len(names):
            raise ValueError(f"labels must differ from each other, got {list(names)}")
        _refuse_unknown(root, counts, names)
    return Dataset(
        root=root if root.is_dir() else root.parent,
        items=found.items,
        labels=names,
        task=task,
        layout=_sentence(found, counts, task),
        group_name=found.columns.group if found.columns else None,
        fold_name=found.columns.fold if found.columns else None,
    )


# ---------------------------------------------------------------- detection


def _detect(root: Path, *, label: str | None, group: str | None, fold: str | None) -> _Found:
    if root.is_file():
        if root.suffix.lower() not in TABLE_SUFFIXES:
            raise DataRefused(f"{root} is neither a folder nor a table: tables end in {', '.join(TABLE_SUFFIXES)}.")
        return _from_table(read_table(root, label=label, group=group, fold=fold))
    if not root.is_dir():
        raise DataRefused(f"{root} does not exist: expected a folder of recordings, or a table of them.")
    esc50 = root / "meta" / "esc50.csv"
    if esc50.is_file():
        table = read_table(esc50, label=label, group=group, fold=fold, folders=[root / "audio"])
        what = f"ESC-50 as published (meta/esc50.csv and audio/, labels from `{table.columns.label}`)"
        return replace(_from_table(table), what=what)
    table_path = _table_in(root)
    if table_path is not None:
        return _from_table(read_table(table_path, label=label, group=group, fold=fold))
    splits = _split_folders(root)
    if splits and all(_table_in(folder) for folder in splits):
        return _from_split_tables(splits, label=label, group=group, fold=fold)
    for option, name in (("--label", label), ("--group", group), ("--fold", fold)):
        if name is not None:
            raise DataRefused(
                f"{option} {name} names a column, but {root} holds none of the tables {', '.join(TABLE_NAMES)}."
            )
    return _from_class_folders(root, splits)


def _table_in(folder: Path) -> Path | None:
    present = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    return next((present[name] for name in TABLE_NAMES if name in present), None)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != MACOS_REMAINS
    )


def _split_folders(root: Path) -> list[Path]:
    """The folders train/, val/, test/ under `root`; none if other folders hold recordings too: then all are classes."""
    folders = _folders_in(root)
    splits = [folder for folder in folders if split_of(folder.name) is not None]
    if not any(split_of(folder.name) == "train" for folder in splits):
        return []
    return [] if any(find_audio(folder) for folder in folders if folder not in splits) else splits


# ---------------------------------------------------------------- the layouts


def _from_table(table: Table) -> _Found:
    if len({item.fold for item in table.items}) == 1 and table.columns.fold is not None:
        raise DataRefused(
            f"the column {table.columns.fold!r} of {table.path} holds one fold only ({table.items[0].fold}): at least "
            "two are needed."
        )
    where = "" if table.audio_folder == table.path.parent else f" in {table.audio_folder.name}/"
    return _Found(
        items=table.items,
        what=f"table {table.path.name} (files from `{table.columns.file}`{where}, labels from `{table.columns.label}`)",
        columns=table.columns,
        remarks=_missing_files([table]),
    )


def _missing_files(tables: Sequence[Table]) -> tuple[str, ...]:
    missing = sum(table.missing for table in tables)
    return (f"{missing} of {sum(len(table.items) for table in tables)} clips have no file",) if missing else ()


def _from_split_tables(folders: Sequence[Path], *, label: str | None, group: str | None, fold: str | None) -> _Found:
    items: list[Item] = []
    parts = []
    for folder in folders:
        path = _table_in(folder)
        assert path is not None
        table = read_table(path, label=label, group=group, fold=fold)
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
        remarks=_missing_files([table for _, table in parts]),
    )


def _from_class_folders(root: Path, splits: Sequence[Path]) -> _Found:
    items: list[Item] = []
    remarks: list[str] = []
    for folder in splits or [root]:
        _read_class_folders(folder, split_of(folder.name) if splits else None, items, remarks)
    if not items:
        raise DataRefused(_why_nothing(root))
    if splits:
        _remark_loose(root, sum(file.parent == root for file in find_audio(root)), remarks)
    above = f" under {', '.join(f'{folder.name}/' for folder in splits)}" if splits else ""
    return _Found(items=tuple(items), what=f"folder per class{above}", remarks=tuple(remarks))


def _read_class_folders(folder: Path, split: str | None, items: list[Item], remarks: list[str]) -> None:
    loose = 0
    empty = {entry.name for entry in _folders_in(folder)}
    for file in find_audio(folder):
        parts = file.relative_to(folder).parts
        if parts[0] == MACOS_REMAINS:
            continue
        if len(parts) == 1:
            loose += 1
            continue
        empty.discard(parts[0])
        items.append(Item(file=Path(os.path.abspath(file)), labels=(parts[0],), split=split))
    _remark_loose(folder, loose, remarks)
    if empty and items:
        remarks.append(f"folders without recordings in {folder.name}/ are left out: {', '.join(sorted(empty))}")


def _remark_loose(folder: Path, count: int, remarks: list[str]) -> None:
    if count:
        remarks.append(f"recordings directly in {folder.name}/ lie in no class folder and are left out ({count})")


def _why_nothing(root: Path) -> str:
    tables = [entry.name for entry in sorted(root.iterdir()) if entry.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        return f"{root} holds no class folders with recordings; to read its table, give the path {root / tables[0]}."
    loose = len(find_audio(root))
    if loose:
        return (
            f"{root} holds {loose} recordings but no labels: expected a folder per class, or one of the tables "
            f"{', '.join(TABLE_NAMES)}."
        )
    return f"{root} holds no recordings: expected a folder per class, or one of the tables {', '.join(TABLE_NAMES)}."


# ---------------------------------------------------------------- what cannot be learnt from


def _refuse_too_little(root: Path, counts: Counter[str], task: Task) -> None:
    if not counts:
        raise DataRefused(f"no clip of {root} has a label: at least two classes with two clips each are needed.")
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
            f"the class {lonely[0]!r} of {root} has one clip{more}: at least two are needed, one to learn from and "
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


def _sentence(found: _Found, counts: Counter[str], task: Task) -> str:
    files = len({item.file for item in found.items})
    clips = f"{len(found.items)} clips" + (f" of {files} files" if files != len(found.items) else "")
    facts = [f"{found.what}: {clips}, {len(counts)} classes, {task}", _kept_together(found)]
    if found.columns is not None and found.columns.fold is not None:
        facts.append(f"{len({item.fold for item in found.items})} folds from `{found.columns.fold}`")
    splits = Counter(item.split for item in found.items if item.split is not None)
    if splits:
        facts.append("splits " + ", ".join(f"{name} {count}" for name, count in sorted(splits.items())))
    return "; ".join([*facts, *found.remarks]) + "."


def _kept_together(found: _Found) -> str:
    groups = {item.group for item in found.items if item.group is not None}
    if found.columns is None or found.columns.group is None or not groups:
        return "every file is its own group"
    return f"{len(groups)} groups from `{found.columns.group}`"
