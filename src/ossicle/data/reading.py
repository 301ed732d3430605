"""From a folder or a table to a data set: what was found, with one spelling for each name, and in a sentence.

Nothing is guessed silently and nothing is dropped silently: `Dataset.layout` says what was detected.
"""

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.data.columns import ReadOptions
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.layout import Folder, LayoutContents
from ossicle.data.layouts import read_layout
from ossicle.data.modalities import MODALITIES, Modality, modality_of
from ossicle.data.names import apart, spellings
from ossicle.errors import DataRefused
from ossicle.types import Task

FOLD_FOLDERS = "fold*/"  # what folds are named after that are folders


def read_dataset(
    path: str | os.PathLike[str],
    *,
    modality: str = "sound",
    file: str | None = None,
    label: str | None = None,
    group: str | None = None,
    fold: str | None = None,
    text: str | None = None,
    track: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Reads the labeled clips, images or texts of a folder or a table; recordings and images are not opened.

    The layout is detected: a folder for each class, a folder with `meta.csv`, a table, label tracks, or a data set as
    published. Items whose file is missing stay in: training and `check_dataset` name and count them.

    Args:
        path: the folder or the table.
        modality: what the items are: "sound", "text" or "image".
        file, label, group, fold: columns of the table to use instead of the usual ones.
        text: column of the texts to use instead of the usual ones; for modality "text".
        track: of recordings with several audio tracks, from 1; by default the one that each file marks, or the first.
        labels: the only labels allowed, in this order (those of a model to evaluate); a class may then be small
            or absent.

    Raises:
        DataRefused: there is nothing here to learn from, in one sentence that says why.
        TypeError, ValueError: a wrong argument, in a sentence.

    Example:
        >>> from ossicle.data.recordings import drums_folder
        >>> dataset = read_dataset(drums_folder())
        >>> len(dataset), dataset.task, dataset.labels[:2]
        (155, 'single-label', ('bell', 'cymbal'))
        >>> next(iter(dataset)).labels
        ('bell',)
        >>> dataset.targets().shape
        (155, 7)
    """
    columns = {"file": file, "text": text, "label": label, "group": group, "fold": fold}
    _refuse_wrong_arguments(path, columns, track=track, labels=labels)
    kind = modality_of(modality)
    for other in MODALITIES.values():
        if other.option != kind.option and (column := columns[other.option]) is not None:
            raise DataRefused(
                f"{other.option}={column} names a column of {other.cells}, and {modality} is read: name a column of "
                f"{kind.cells} with {kind.option}, or read with modality={other.name!r}."
            )
    root = Path(os.path.abspath(path))
    options = ReadOptions(modality=kind, file=file, text=text, label=label, group=group, fold=fold)
    found = _with_one_spelling(read_layout(root, options), labels or ())
    arrays = found.arrays
    counts = Counter(arrays.label_counts())
    alone = (arrays.labels[0].sum(1) == 1).all() and not arrays.rare["unknown"]
    task: Task = "single-label" if alone else "multi-label"
    if labels is None:
        _refuse_too_little(root, counts, task, kind)
    else:
        _refuse_unknown(root, counts, labels)
    return Dataset(
        root=root if root.is_dir() else root.parent,
        items=found.items if track is None else tuple(replace(item, track=track) for item in found.items),
        labels=tuple(sorted(counts)) if labels is None else tuple(labels),
        task=task,
        layout=_sentence(found, counts, task, kind),
        group_name=found.columns.group if found.columns else None,
        fold_name=_fold_name(found),
        modality=modality,
        table=None if root.is_dir() else root,
    )


def _refuse_wrong_arguments(path: Any, columns: Mapping[str, Any], *, track: Any, labels: Any) -> None:
    """Raises TypeError or ValueError for what is no path, column, track or list of labels."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or a Path of a folder or a table, got {_type(path)}")
    for option, name in columns.items():
        if not isinstance(name, str | None):
            raise TypeError(f"{option} must be the name of a column (str), got {_type(name)}")
    if track is not None and (isinstance(track, bool) or not isinstance(track, int)):
        raise TypeError(f"track must be a whole number, got {_type(track)}")
    if track is not None and track < 1:
        raise ValueError(f"track must be 1 or more, got {track}")
    if labels is None:
        return
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(one, str) for one in labels):
        raise TypeError(f"labels must be a list or tuple of str, got {_type(labels)}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels must differ from each other, got {list(labels)}")


def _type(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"


# ---------------------------------------------------------------- names that mean the same


def _with_one_spelling(found: LayoutContents, known: Sequence[str]) -> LayoutContents:
    """The items with one spelling for all names that are equal as numbers or as text, and remarks where several were.

    A label that is several, joined by commas, is taken apart before.

    Args:
        known: the labels of a model, whose spelling wins
    """
    arrays = found.arrays
    counts = arrays.label_counts()
    joined, doubtful = ({}, []) if found.whole else apart(counts, known)
    remarks = list(found.remarks)
    if joined:
        clips = sum(counts[label] for label in joined)
        remarks.append(f"labels joined by commas are several, such as {min(joined)!r} (of {clips} clips)")
    if doubtful:
        remarks.append(f"labels with commas are one each, such as {doubtful[0]!r}: several are joined by ; or |")
    labels = {label: joined.get(label, [label]) for label in counts}
    names = {
        "labels": spellings((part for parts in labels.values() for part in parts), known),
        "groups": spellings(name for name in arrays.groups.present if name is not None),
        "folds": spellings(name for name in arrays.folds.present if name is not None),
    }
    for what, chosen in names.items():
        together: dict[str, list[str]] = {}
        for name in sorted(chosen):
            together.setdefault(chosen[name], []).append(name)
        if several := [group for group in together.values() if len(group) > 1]:
            remarks.append(f"{what} equal as numbers or as text are one: {' and '.join(map(ascii, several[0]))}")

    changed = any(parts != [label] for label, parts in labels.items())
    changed |= any(chosen != name for spelled in names.values() for name, chosen in spelled.items())
    if not changed and not arrays.labels[0].repeats:
        return replace(found, remarks=tuple(remarks))

    def spelled(item: Item) -> Item:
        parts = (names["labels"][part] for label in item.labels for part in labels[label])
        unknown = tuple(names["labels"].get(label, label) for label in item.unknown)
        group, fold = item.group and names["groups"][item.group], item.fold and names["folds"][item.fold]
        return replace(item, labels=tuple(dict.fromkeys(parts)), unknown=unknown, group=group, fold=fold)

    return replace(found, items=tuple(map(spelled, found.items)), remarks=tuple(remarks))


# ---------------------------------------------------------------- what cannot be learned from


def _refuse_too_little(root: Path, counts: Counter[str], task: Task, modality: Modality) -> None:
    noun = modality.noun
    if not counts:
        raise DataRefused(f"no {noun} of {root} has a label: at least two classes with two {noun}s each are needed.")
    # One label that some clips have and others lack is a question with two answers.
    if len(counts) == 1 and task == "single-label":
        (name,) = counts
        deeper = Folder(root / name, modality)
        parts = [folder.path.name for folder in deeper.folders if folder.part and not folder.folders]
        hint = f"; if its folders are the classes, give the path {deeper.path}" if deeper.path.is_dir() else ""
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


def _sentence(found: LayoutContents, counts: Counter[str], task: Task, modality: Modality) -> str:
    arrays = found.arrays
    files = len(np.unique(arrays.files))
    clips = f"{len(found.items)} {modality.noun}s"
    if modality.timed and files != len(found.items):
        clips += f" of {files} files"
    facts = [
        f"{found.description}: {clips}, {len(counts)} classes, {task}{_why(found, task)}",
        _kept_together(found, modality),
    ]
    if name := _fold_name(found):
        facts.append(f"{len(arrays.folds.present)} folds from `{name}`")
    splits = sorted(name for name in arrays.splits.present if name is not None)
    if splits:
        facts.append("splits " + ", ".join(f"{name} {arrays.splits.equals(name).sum()}" for name in splits))
    return "; ".join([*facts, *_alike(counts), *found.remarks]) + "."


def _fold_name(found: LayoutContents) -> str | None:
    """Where the folds come from: the column, or the folders."""
    if found.columns is not None and found.columns.fold is not None:
        return found.columns.fold
    return FOLD_FOLDERS if len(found.arrays.folds.present) > 1 else None


def _alike(labels: Iterable[str]) -> list[str]:
    """A remark where two labels may be meant as one."""
    folded: dict[str, list[str]] = {}
    for label in sorted(labels):
        folded.setdefault(unicodedata.normalize("NFKC", label).casefold(), []).append(label)
    pairs = [names for names in folded.values() if len(names) > 1]
    return [f"labels that differ in case or encoding alone: {', '.join(map(repr, pairs[0]))}"] if pairs else []


def _why(found: LayoutContents, task: Task) -> str:
    """What makes it multi-label, where that is empty cells alone and may be a slip."""
    numbers = found.arrays.labels[0].sum(1)
    if task == "single-label" or (numbers > 1).any():
        return ""
    empty = np.flatnonzero(numbers == 0)
    return f" ({len(empty)} have no label, such as {found.items[empty[0]].file.name}, and none has several)"


def _kept_together(found: LayoutContents, modality: Modality) -> str:
    groups = found.arrays.groups.present - {None}
    if found.columns is None or found.columns.group is None or not groups:
        return f"every {modality.alone} is its own group"
    return f"{len(groups)} groups from `{found.columns.group}`"
