"""From a recogniser and labelled clips to figures of merit on disk: for `ossicle evaluate`, and after a training."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64

from ossicle.data import Dataset, Item
from ossicle.errors import AudioError
from ossicle.files import write_atomically, write_json
from ossicle.metrics import Evaluation
from ossicle.recognizer import Recognizer


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
            logits.append(recognizer.clip_logits(item.file, start=item.start, end=item.end))
            used.append(position)
        except AudioError as error:
            failures.append(str(error))
        progress(position + 1)
    return ItemScores(
        logits=np.stack(logits) if logits else np.zeros((0, len(recognizer.labels)), dtype=np.float32),
        used=np.asarray(used, dtype=np.int64),
        failures=tuple(failures),
    )


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
    thresholds: Float[np.ndarray, " label"] | None,
    title: str,
) -> None:
    """Writes `metrics.json`, `predictions.csv`, `figures/` and `report.html`."""
    from ossicle.metrics import decide

    write_json(folder / "metrics.json", evaluation.to_json())
    decided = decide(scores, task=evaluation.task, thresholds=thresholds)
    write_atomically(folder / "predictions.csv", predictions_csv(dataset, items, scores, decided=decided))
