"""Which examples are evaluated: those of a run's test part, known by their content, or of an official split."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Int64

from ossicle.bundle import read_card, trained_by_authors
from ossicle.data import Dataset, read_dataset
from ossicle.data.parts import Known, Past, found_again, read_past, recognize, unseen
from ossicle.errors import DataRefused, RunRefused
from ossicle.recognizer import Recognizer

Part = Literal["auto", "test", "validation", "train", "all"]
CONFIG, SPLIT = "config.yaml", "split.json"  # in a run folder
# What a data set was read with, as config.yaml names it.
COLUMNS = ("file", "label", "group", "fold", "text", "track")


def read_labeled(
    recognizer: Recognizer,
    data: str | os.PathLike[str] | Dataset,
    *,
    folder: Path | None,
    columns: Mapping[str, Any] | None = None,
) -> tuple[Dataset, bool]:
    """Reads labeled examples to evaluate a model on, and whether their path is that of its run's data.

    A column that is not named is that of the training, if the data have it.

    Args:
        folder: of the bundle, if there is one

    Raises: DataRefused for labels that the model does not know, or several labels a clip for a model that gives one.
    """
    dataset, same = _read_labeled(recognizer, data, folder=folder, columns=columns)
    if recognizer.task == "single-label" and dataset.task == "multi-label":
        raise DataRefused(
            f"{dataset.path}: some clips have several labels or none, but {recognizer.bundle.model_name} gives exactly "
            "one to each."
        )
    return dataset, same


def _read_labeled(
    recognizer: Recognizer,
    data: str | os.PathLike[str] | Dataset,
    *,
    folder: Path | None,
    columns: Mapping[str, Any] | None,
) -> tuple[Dataset, bool]:
    begun = stored_data(folder) if folder is not None else {}
    if isinstance(data, Dataset):
        if data.modality != recognizer.modality:
            raise DataRefused(f"{data.path}: a data set of {data.noun}s; the model predicts {recognizer.plural}.")
        if unknown := sorted(set(data.labels) - set(recognizer.labels)):
            raise DataRefused(f"{data.path}: the model does not know the label {unknown[0]!r}.")
        same = begun.get("path") == os.path.abspath(data.path)
        return dataclasses.replace(data, labels=recognizer.labels), same
    data = Path(data)
    stored = {name: begun.get(name) for name in COLUMNS}
    named = {name: value for name, value in (columns or {}).items() if value is not None}

    def read(chosen: Mapping[str, Any]) -> Dataset:
        return read_dataset(data, **chosen, labels=recognizer.labels, modality=recognizer.modality)

    same = begun.get("path") == os.path.abspath(data)
    try:
        return read(stored | named), same
    except DataRefused:
        if same or not any(stored[name] for name in stored.keys() - named.keys()):
            raise
    return read(named), same  # other data, without the columns of the training


def stored_data(folder: Path) -> dict[str, Any]:
    """Where the data of the run that a bundle's folder is in were, and their columns; nothing outside a run.

    Raises: RunRefused for a damaged file.
    """
    path = folder.parent / CONFIG
    if not (folder.parent / SPLIT).exists() and not path.exists():
        return {}
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["data"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError, RecursionError) as error:
        if not (folder.parent / SPLIT).exists():  # somebody else's
            return {}
        why = " ".join(str(error).split())
        raise RunRefused(
            f"{path}: not a run's config.yaml ({why}); without it the columns of the training are unknown."
        ) from error


def choose_part(
    dataset: Dataset, folder: Path | None, *, part: Part, model: str, same: bool
) -> tuple[Int64[np.ndarray, " item"], str]:
    """The items of a part, and how it was cut in a sentence.

    What a run has trained on is known by its content, wherever it lies now.

    Args:
        folder: of the bundle
        same: whether the data are where those of the training were

    Raises: DataRefused for a part that is not there.
    """
    past, known = known_to(folder, dataset)
    if past is not None and known is not None and known.any and part != "all":
        return part_of_run(dataset, past, known, part="test" if part == "auto" else part, fresh=part == "auto")
    if part in ("auto", "all"):
        return np.arange(len(dataset)), f"all {len(dataset)} {dataset.noun}s of {dataset.root.name}" + (
            found_again(past, known, dataset) if past is not None else trained_without_split(dataset, folder, same=same)
        )
    official = np.flatnonzero(dataset.arrays.splits.equals(part))
    if not len(official):
        raise DataRefused(
            f"{dataset.root}: there is no {part} part: {model} was not trained on this data, and the data has no "
            "official split; --part all takes all of it."
        )
    return official, f"the official `{part}` part of {dataset.root.name}, {len(official)} clips"


def known_to(folder: Path | None, dataset: Dataset) -> tuple[Past | None, Known | None]:
    """The split of the run that a bundle's folder is in, if it is in one, and the items that this run had."""
    past = read_past(folder.parent / SPLIT) if folder is not None and folder.name == "model" else None
    return past, None if past is None else recognize(past, dataset)


def part_of_run(
    dataset: Dataset, past: Past, known: Known, *, part: str, fresh: bool
) -> tuple[Int64[np.ndarray, " item"], str]:
    """The items of a part of a run, and how it was cut in a sentence.

    Args:
        fresh: with items that the run did not have

    Raises: DataRefused where there is none.
    """
    if fresh and not known.same:
        index, how = unseen(known, dataset)
        return index, f"{how}; {past.split.protocol}"
    index = np.flatnonzero(known.of(part))
    if not len(index):
        raise DataRefused(f"{dataset.root}: the run has no {part} part of this data.")
    prefix = "" if part == "test" else f"on the {part} part, which the training has seen: "
    found = "" if known.same else f"{len(index)} {dataset.noun}s, found by their content; "
    return index, prefix + found + past.split.protocol


def trained_without_split(dataset: Dataset, folder: Path | None, *, same: bool) -> str:
    """The remark on data that trained a model, or a member of an ensemble, without a `split.json`; else nothing."""
    cards = [read_card(place) for place in (folder, *folder.glob("member*"))] if folder is not None else []
    fingerprint = dataset.fingerprint()
    if same or any(fingerprint in card for card in cards):
        return f", the data that trained the model; which of them did, {SPLIT} in its run folder would tell"
    if any(dataset.layout.startswith(f"{name} ") for card in cards for name in trained_by_authors(card)):
        return ", of a data set that its authors trained the model on: no test, unless only their test part is here"
    return ""
