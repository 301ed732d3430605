"""From a recogniser and labelled clips to figures of merit on disk: for `ossicle evaluate`, and after a training."""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int64

from ossicle.bundle import find_bundle
from ossicle.data import Dataset, Item, Split, group_ids, read_dataset
from ossicle.data.inputs import INPUT_ERRORS
from ossicle.errors import AudioUnreadable, DataRefused, RunRefused, SettingRefused
from ossicle.files import check_writable, write_atomically, write_json
from ossicle.inference.store import HIDDEN, SETTINGS, Written
from ossicle.loading import load
from ossicle.metrics import Evaluation, decide, evaluate
from ossicle.models.tokens import TokenReduction
from ossicle.recognizer import Recognizer
from ossicle.report import Chart, Section, evaluation_lines, evaluation_sections, save_figure, write_report

Part = Literal["auto", "test", "development", "train", "all"]
PARTS = ("train", "development", "test")
CONFIG, SPLIT = "config.yaml", "split.json"  # in a run folder
FILES = ("metrics.json", "predictions.csv", "report.html")  # of an evaluation, beside figures/


@dataclass(frozen=True, kw_only=True)
class ItemScores:
    """The logits of the items that could be used, which these are, and why each of the others could not."""

    logits: Float[np.ndarray, "item label"]
    used: Int64[np.ndarray, " item"]  # positions among the items that were asked for, ascending
    failures: tuple[str, ...]  # one sentence each


def score_items(
    recognizer: Recognizer, items: Sequence[Item], *, progress: Callable[[int], None] = lambda done: None
) -> ItemScores:
    """Scores each item by itself, as `Recognizer.predict` does; an item that cannot be used is named and left out.

    Args:
        progress: told after each item how many are done
    """
    logits, used, failures = [], [], []
    for position, item in enumerate(items):
        try:
            logits.append(recognizer.item_logits(item))
            used.append(position)
        except INPUT_ERRORS as error:
            failures.append(str(error))
        progress(position + 1)
    return ItemScores(
        logits=np.stack(logits) if logits else np.zeros((0, len(recognizer.labels)), dtype=np.float32),
        used=np.asarray(used, dtype=np.int64),
        failures=tuple(failures),
    )


def evaluate_model(
    model: str | Path,
    data: Path,
    *,
    output: Path | None,
    label: str | None = None,
    group: str | None = None,
    fold_column: str | None = None,
    text: str | None = None,
    part: Part = "auto",
    track: int | None = None,
    device: str = "auto",
    encoder: str | None = None,
    reduction: TokenReduction | None = None,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Evaluates a model on labelled clips, says the figures, writes them to `output`; gives the clips that failed.

    Columns that are not named are, for the data that the model was trained on, those of the training.

    Raises:
        DataRefused: labels that the model does not know, several labels a clip for a model that gives one, or a part
            that is not there
        AudioUnreadable: not one of the clips could be used
        SettingRefused: a reduction of the tokens that this network does not take
    """
    written = None if output is None else own_files(output)
    folder = find_bundle(model)
    try:
        recognizer = load(folder, device=device, encoder=encoder, reduction=reduction)
    except ValueError as error:
        raise SettingRefused(f"{model}: {error}.") from error
    columns = {"label": label, "group": group, "fold": fold_column, "text": text, "track": track}
    dataset, same = read_labelled(recognizer, data, folder=folder, columns=columns)
    if recognizer.task == "single-label" and dataset.task == "multi-label":
        raise DataRefused(f"{data}: some clips have several labels or none, but {model} gives exactly one to each.")
    say(dataset.layout)
    chosen, protocol = choose_part(dataset, split_of_run(folder, dataset), part=part, model=str(model), same=same)
    if reduction is not None:
        protocol += f"; with {reduction.keep:g} of the tokens, {reduction.method}"

    items = [dataset.items[index] for index in chosen]
    scored = score_items(recognizer, items, progress=lambda done: progress(done, len(items)))
    if not len(scored.used):
        raise AudioUnreadable(f"{data}: not one of {len(items)} clips could be used; the first: {scored.failures[0]}")
    used = [items[position] for position in scored.used]
    targets = dataset.targets()
    scores = recognizer.activate(scored.logits)
    decided = decide(scores, task=recognizer.task, thresholds=recognizer.thresholds)
    evaluation = evaluate(
        scores,
        targets[chosen][scored.used],
        labels=dataset.labels,
        task=recognizer.task,
        thresholds=recognizer.thresholds,
        decided=decided,
        groups=bootstrap_groups(dataset, chosen[scored.used]),
        protocol=protocol,
    )
    for line in evaluation_lines(evaluation):
        say(line)
    if written is not None:
        write_evaluation(
            written.folder,
            evaluation,
            dataset=dataset,
            items=used,
            scores=scores,
            decided=decided,
            title=f"{recognizer.bundle.model_name} on {dataset.root.name}",
            claim=written.claim,
        )
        say(f"Report: {written.folder / 'report.html'}")
    return scored.failures


def own_files(folder: Path) -> Written:
    """The list of what an evaluation wrote to a folder before.

    Raises: RunRefused for a folder with predictions or somebody else's files in the way.
    """
    written = Written(folder)
    if (folder / HIDDEN / SETTINGS).exists():
        raise RunRefused(f"{folder}: there are predictions in it; choose another folder.")
    written.refuse_strangers([folder / name for name in FILES])
    check_writable(folder / HIDDEN)
    return written


def bootstrap_groups(dataset: Dataset, chosen: Int64[np.ndarray, " item"]) -> list[str] | None:
    """What a bootstrap of these items should draw, a name for each: those of one group or file; None for each alone."""
    groups = group_ids(dataset)[chosen]
    return groups.astype(str).tolist() if 1 < len(np.unique(groups)) < len(groups) else None


def read_labelled(
    recognizer: Recognizer, data: Path, *, folder: Path, columns: Mapping[str, Any] | None = None
) -> tuple[Dataset, bool]:
    """Reads labelled items to measure a model on, and whether they are, as far as their path tells, those of its run.

    Those are read by the columns of the training where none is named.

    Args:
        folder: of the bundle
    """
    try:
        begun = yaml.safe_load((folder.parent / CONFIG).read_text(encoding="utf-8"))["data"]
        same = begun["path"] == os.path.abspath(data)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        begun, same = {}, False
    columns = columns or {}
    if same and not any(columns.values()):
        columns = {name: begun.get(name) for name in ("label", "group", "fold", "text", "track")}
    return read_dataset(data, **columns, labels=recognizer.labels, modality=recognizer.modality), same


def split_of_run(folder: Path, dataset: Dataset) -> Split | None:
    """The split of the run that a bundle's folder is in, if that was trained on this data."""
    return read_split(folder.parent / SPLIT, dataset) if folder.name == "model" else None


def choose_part(
    dataset: Dataset, split: Split | None, *, part: Part, model: str, same: bool
) -> tuple[Int64[np.ndarray, " item"], str]:
    """The items of a part, and how it was cut in a sentence.

    Args:
        same: whether these are the data of the training, though perhaps changed

    Raises: DataRefused for a part that is not there.
    """
    everything = np.arange(len(dataset.items))
    if split is not None and part != "all":
        name = "test" if part == "auto" else part
        index = {"train": split.train, "development": split.development, "test": split.test}[name]
        if not len(index):
            raise DataRefused(f"{dataset.root}: the run has no {name} part of this data.")
        prefix = "" if name == "test" else f"on the {name} part, which the training has seen: "
        return index, prefix + split.protocol
    if part in ("auto", "all"):
        seen = ", this is the data of the training" if split is not None else ""
        if split is None and same:
            seen = ", the data of the training but changed since then: many of these clips trained the model"
        return everything, f"all {len(everything)} clips of {dataset.root.name}{seen}"
    official = np.flatnonzero([item.split == part for item in dataset.items])
    if not len(official):
        raise DataRefused(
            f"{dataset.root}: there is no {part} part: {model} was not trained on this data, and the data has no "
            "official split; --part all takes all of it."
        )
    return official, f"the official `{part}` part of {dataset.root.name}, {len(official)} clips"


def write_split(path: Path, dataset: Dataset, split: Split) -> None:
    """Writes which clips trained, chose and tested, so that the same test part is found again."""
    write_json(
        path,
        {
            "fingerprint": dataset.fingerprint(),
            "protocol": split.protocol,
            "fold": split.fold,
            **{part: getattr(split, part).tolist() for part in PARTS},
        },
    )


def read_split(path: Path, dataset: Dataset) -> Split | None:
    """Reads what `write_split` wrote; None when there is none, or it is of other data.

    The labels' order belongs to the fingerprint: read the data set with the labels of the model.

    Raises: RunRefused for a damaged file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["fingerprint"] != dataset.fingerprint():
            return None
        return Split(
            **{part: np.asarray(content[part], dtype=np.int64) for part in PARTS},
            protocol=content["protocol"],
            fold=content["fold"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunRefused(f"{path}: not what a run writes about its split ({error}).") from error


def predictions_csv(
    dataset: Dataset,
    items: Sequence[Item],
    scores: Float[np.ndarray, "item label"],
    *,
    decided: Bool[np.ndarray, "item label"],
) -> str:
    """Gives one line per item: what it is, what was answered, and the score of every label.

    Several labels in one cell are separated by a semicolon.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = ["file", "start", "end", "fold", "group", "truth", "prediction"]
    writer.writerow([*fixed, *(f"score:{label}" for label in dataset.labels)])
    for item, of_item, answered in zip(items, scores, decided, strict=True):
        writer.writerow(
            [
                dataset.relative(item),
                f"{item.start:.3f}",
                "" if item.end is None else f"{item.end:.3f}",
                item.fold or "",
                item.group or "",
                ";".join(item.labels),
                ";".join(np.asarray(dataset.labels)[answered]),
                *(f"{score:.6f}" for score in of_item),
            ]
        )
    return text.getvalue()


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    *,
    dataset: Dataset,
    items: Sequence[Item],
    scores: Float[np.ndarray, "item label"],
    decided: Bool[np.ndarray, "item label"],
    title: str,
    more_sections: Sequence[Section] = (),
    claim: Callable[[Sequence[Path]], None] = lambda paths: None,
) -> None:
    """Writes `metrics.json`, `predictions.csv`, `figures/` and `report.html`.

    Args:
        items: those scored, in the order of `scores` and `decided`
        more_sections: for the report, after the evaluation's own
        claim: told every path before anything is written
    """
    sections = [*evaluation_sections(evaluation), *more_sections]
    figures = {}
    for section in sections:
        charts = [block for block in section.blocks if isinstance(block, Chart)]
        for number, chart in enumerate(charts):
            name = section.title.lower().replace(" ", "_") + (f"_{number + 1}" if number else "")
            figures[folder / "figures" / f"{name}.png"] = chart.figure
    metrics, predictions, report = (folder / name for name in FILES)
    claim([metrics, predictions, *figures, report])
    write_json(metrics, evaluation.to_json())
    write_atomically(predictions, predictions_csv(dataset, items, scores, decided=decided))
    for path, figure in figures.items():
        save_figure(figure, path)
    write_report(report, title=title, sections=sections)
