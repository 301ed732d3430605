"""What an evaluation gives: predictions on labeled examples, their metrics, and a folder with a report."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from ossicle.data import Dataset, Item, group_ids
from ossicle.errors import RunRefused
from ossicle.files import check_writable, write_atomically, write_json
from ossicle.inference import csv_line, seconds_text
from ossicle.jobs.store import HIDDEN, SETTINGS, Written
from ossicle.metrics import ClassMetrics, Metrics, compute_metrics, decide
from ossicle.report import Chart, Section, evaluation_sections, save_figure, write_report
from ossicle.types import Task

FILES = ("metrics.json", "predictions.csv", "report.html")  # of an evaluation, beside figures/
FIXED = ("file", "start", "end", "fold", "group", "truth", "prediction")  # columns of predictions.csv before the scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Predictions on labeled examples, and their metrics with 95 % intervals.

    >>> evaluation = ossicle.evaluate("runs/drums", "drums")  # doctest: +SKIP
    >>> evaluation.metrics.accuracy.value  # doctest: +SKIP
    >>> evaluation.save("evaluation")  # metrics.json, predictions.csv, figures, report.html  # doctest: +SKIP
    """

    dataset: Dataset
    positions: Int64[np.ndarray, " example"]  # in the data set, of the examples that could be used
    scores: Float[np.ndarray, "example label"]  # probabilities, 0 to 1
    decided: Bool[np.ndarray, "example label"]  # the labels given
    metrics: Metrics
    title: str = ""  # of the report
    failures: tuple[str, ...] = ()  # a sentence for each example that could not be used

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        positions: Int64[np.ndarray, " example"],
        *,
        scores: Float[np.ndarray, "example label"],
        thresholds: Float[np.ndarray, " label"] | None = None,
        decided: Bool[np.ndarray, "example label"] | None = None,
        protocol: str = "",
        task: Task | None = None,
        **about: Any,
    ) -> "Evaluation":
        """Measures scores of a data set's examples.

        Args:
            task: that of the model; by default that of the data
            decided: where several models gave the scores, the labels by the thresholds of each.
        """
        task, known = task or dataset.task, dataset.known_rows
        if decided is None:
            decided = decide(scores, task=task, thresholds=thresholds)
        metrics = compute_metrics(
            scores,
            dataset.label_rows[positions],
            labels=dataset.labels,
            task=task,
            thresholds=thresholds,
            decided=decided,
            known=None if known is None else known[positions],
            groups=bootstrap_groups(dataset, positions),
            protocol=protocol,
            noun=dataset.noun,
        )
        return cls(dataset=dataset, positions=positions, scores=scores, decided=decided, metrics=metrics, **about)

    @property
    def classes(self) -> tuple[ClassMetrics, ...]:
        """The metrics of each class."""
        return self.metrics.classes

    @property
    def items(self) -> list[Item]:
        """The examples, in the order of the scores."""
        return [self.dataset.items[position] for position in self.positions]

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """A row for each example: what it is, its labels, the labels given, and the score of every label."""
        return list(self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of `predictions`, one at a time."""
        names = np.asarray(self.dataset.labels)
        for item, scores, decided in zip(self.items, self.scores, self.decided, strict=True):
            yield {
                "file": self.dataset.relative(item),
                "start": item.start,
                "end": item.end,
                "fold": item.fold,
                "group": item.group,
                "truth": list(item.labels),
                "unknown": list(item.unknown),
                "prediction": names[decided].tolist(),
                "scores": dict(zip(self.dataset.labels, scores.tolist(), strict=True)),
            }

    def save(self, folder: str | os.PathLike[str], *, title: str = "", sections: Sequence[Section] = ()) -> None:
        """Writes `metrics.json`, `predictions.csv`, `figures/` and `report.html`.

        An older evaluation in the folder is replaced; somebody else's files are left alone.

        Args:
            sections: of the report, after the evaluation's own.

        Raises: RunRefused for a folder with predictions or somebody else's files in the way.
        """
        written = own_files(Path(folder))
        write_evaluation(self, written.folder, title=title, sections=sections, claim=written.claim)

    def write(
        self, folder: Path, *, title: str, sections: Sequence[Section] = (), further: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the same files into a run folder, which is the run's own.

        Args:
            further: entries of `metrics.json` after the evaluation's own.
        """
        write_evaluation(self, folder, title=title, sections=sections, further=further)

    def __repr__(self) -> str:
        values = {name: estimate.value for name, estimate in self.metrics.headline.items()}
        shown = ", ".join(f"{name}={value:.4f}" for name, value in values.items() if value is not None)
        return f"Evaluation({len(self.positions)} {self.dataset.noun}s: {shown})"


def bootstrap_groups(dataset: Dataset, chosen: Int64[np.ndarray, " example"]) -> list[str] | None:
    """What a bootstrap of these examples draws, a name for each: those of one group or file; None for each alone."""
    groups = group_ids(dataset)[chosen]
    return groups.astype(str).tolist() if 1 < len(np.unique(groups)) < len(groups) else None


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


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    *,
    title: str = "",
    sections: Sequence[Section] = (),
    further: Mapping[str, Any] | None = None,
    claim: Callable[[Sequence[Path]], None] = lambda paths: None,
) -> None:
    """Writes the files of an evaluation.

    Args:
        further: entries of `metrics.json` after the evaluation's own
        claim: called with every path before anything is written
    """
    sections = [*evaluation_sections(evaluation.metrics), *sections]
    figures = {}
    for section in sections:
        charts = [block for block in section.blocks if isinstance(block, Chart)]
        for number, chart in enumerate(charts):
            name = section.title.lower().replace(" ", "_") + (f"_{number + 1}" if number else "")
            figures[folder / "figures" / f"{name}.png"] = chart.figure
    metrics, predictions, report = (folder / name for name in FILES)
    claim([metrics, predictions, *figures, report])
    write_json(metrics, {**evaluation.metrics.to_json(), **(further or {})})
    write_atomically(predictions, predictions_csv(evaluation))
    for path, figure in figures.items():
        save_figure(figure, path)
    write_report(report, title=title or evaluation.title or evaluation.dataset.root.name, sections=sections)


def predictions_csv(evaluation: Evaluation) -> str:
    """A line per example: what it is, the labels given, and the score of every label.

    Several labels in one cell are separated by a semicolon. Labels of which nobody knows whether an example has them
    have a column of their own, where there are some.
    """
    some = any(item.unknown for item in evaluation.items)
    names = [*FIXED, *(["unknown"] if some else [])]
    lines = [csv_line([*names, *(f"score:{label}" for label in evaluation.dataset.labels)])]
    for row in evaluation.rows():
        values = [
            row["file"],
            seconds_text(row["start"]),
            "" if row["end"] is None else seconds_text(row["end"]),
            row["fold"] or "",
            row["group"] or "",
            ";".join(row["truth"]),
            ";".join(row["prediction"]),
            *([";".join(row["unknown"])] if some else []),
            *(f"{score:.6f}" for score in row["scores"].values()),
        ]
        lines.append(csv_line(values))
    return "".join(lines)
