"""From a recognizer and labeled clips to figures of merit on disk: for `ossicle evaluate`, and after a training."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int64

from ossicle.bundle import CARD, find_bundle
from ossicle.data import Dataset, Item, Split, group_ids, read_dataset
from ossicle.data.check import cut_short
from ossicle.data.inputs import INPUT_ERRORS
from ossicle.data.parts import Known, Past, found_again, read_past, read_split, recognize, unseen
from ossicle.errors import AudioUnreadable, DataRefused, RunRefused, SettingRefused
from ossicle.files import check_writable, write_atomically, write_json
from ossicle.inference import csv_line, seconds_text
from ossicle.jobs.store import HIDDEN, SETTINGS, Written
from ossicle.loading import load
from ossicle.metrics import Evaluation, decide, evaluate
from ossicle.models.tokens import TokenReduction
from ossicle.recognizer import Recognizer
from ossicle.report import Chart, Section, evaluation_lines, evaluation_sections, save_figure, write_report

Part = Literal["auto", "test", "validation", "train", "all"]
CONFIG, SPLIT = "config.yaml", "split.json"  # in a run folder
# What a data set was read with, as config.yaml names it.
COLUMNS = ("file", "label", "group", "fold", "text", "track")
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
    file: str | None = None,
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
    """Evaluates a model on labeled clips, says the figures, writes them to `output`; gives the clips that failed.

    Columns that are not named are those of the training, if the data have them.

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
    columns = {"file": file, "label": label, "group": group, "fold": fold_column, "text": text, "track": track}
    dataset, same = read_labeled(recognizer, data, folder=folder, columns=columns)
    if recognizer.task == "single-label" and dataset.task == "multi-label":
        raise DataRefused(f"{data}: some clips have several labels or none, but {model} gives exactly one to each.")
    say(dataset.layout)
    chosen, protocol = choose_part(dataset, folder, part=part, model=str(model), same=same)
    if reduction is not None:
        protocol += f"; with {reduction.keep:g} of the tokens, {reduction.method}"

    items = [dataset.items[index] for index in chosen]
    for sentence in cut_short(dataset, items):
        say(sentence)
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


def read_labeled(
    recognizer: Recognizer, data: Path, *, folder: Path, columns: Mapping[str, Any] | None = None
) -> tuple[Dataset, bool]:
    """Reads labeled items to measure a model on, and whether their path is that of its run's data.

    A column that is not named is that of the training, if the data have it.

    Args:
        folder: of the bundle
    """
    begun = stored_data(folder)
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


def split_of_run(folder: Path, dataset: Dataset) -> Split | None:
    """The split of the run that a bundle's folder is in, if that was trained on this data."""
    return read_split(folder.parent / SPLIT, dataset) if folder.name == "model" else None


def choose_part(
    dataset: Dataset, folder: Path, *, part: Part, model: str, same: bool
) -> tuple[Int64[np.ndarray, " item"], str]:
    """The items of a part, and how it was cut in a sentence.

    What a run has trained on is known by its content, wherever it lies now.

    Args:
        folder: of the bundle
        same: whether the data are where those of the training were

    Raises: DataRefused for a part that is not there.
    """
    past = read_past(folder.parent / SPLIT) if folder.name == "model" else None
    known = None if past is None else recognize(past, dataset)
    if past is not None and known is not None and known.any and part != "all":
        return part_of_run(dataset, past, known, part="test" if part == "auto" else part, fresh=part == "auto")
    if part in ("auto", "all"):
        return np.arange(len(dataset)), f"all {len(dataset)} {dataset.noun}s of {dataset.root.name}" + (
            found_again(past, known, dataset) if past is not None else trained_without_split(dataset, folder, same=same)
        )
    official = np.flatnonzero([item.split == part for item in dataset.items])
    if not len(official):
        raise DataRefused(
            f"{dataset.root}: there is no {part} part: {model} was not trained on this data, and the data has no "
            "official split; --part all takes all of it."
        )
    return official, f"the official `{part}` part of {dataset.root.name}, {len(official)} clips"


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


def trained_without_split(dataset: Dataset, folder: Path, *, same: bool) -> str:
    """What to say of data that trained a model which has no `split.json` beside it; nothing for other data."""
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        card = ""
    if same or dataset.fingerprint() in card:
        return f", the data that trained the model; which of them did, {SPLIT} in its run folder would tell"
    return ""


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
    fixed = ["file", "start", "end", "fold", "group", "truth", "prediction"]
    lines = [csv_line([*fixed, *(f"score:{label}" for label in dataset.labels)])]
    for item, of_item, answered in zip(items, scores, decided, strict=True):
        values = [
            dataset.relative(item),
            seconds_text(item.start),
            "" if item.end is None else seconds_text(item.end),
            item.fold or "",
            item.group or "",
            ";".join(item.labels),
            ";".join(np.asarray(dataset.labels)[answered]),
            *(f"{score:.6f}" for score in of_item),
        ]
        lines.append(csv_line(values))
    return "".join(lines)


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
