"""The standard sections of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.metrics import Estimate, Metrics, mean_over_folds
from ossicle.report.figures import confusion_figure, learning_curve_figure, per_class_figure, reliability_figure
from ossicle.report.page import Chart, FractionCell, Section, Table
from ossicle.report.style import Figure
from ossicle.report.text import (
    SHOWN,
    baseline_sentence,
    class_cells,
    class_header,
    interval,
    memory_text,
    number,
    subject,
    worst_confusions,
)


def evaluation_sections(metrics: Metrics) -> list[Section]:
    """Result, classes, confusions (single-label) and calibration, ready for `write_report`."""
    sections = [
        Section(title="Result", blocks=_result(metrics)),
        Section(title="Classes", blocks=_classes(metrics)),
    ]
    if metrics.confusion is not None:
        sections.append(Section(title="Confusions", blocks=_confusions(metrics)))
    sections.append(Section(title="Calibration", blocks=_calibration(metrics)))
    return sections


def fold_section(evaluations: Mapping[str, Metrics]) -> Section:
    """Cross-validation: every fold's metrics, by its name, and their mean with Student's t interval."""
    metrics = list(evaluations.values())
    summary, counted = mean_over_folds(metrics), f"{metrics[0].noun}s"
    names = ("accuracy", "balanced_accuracy", "macro_f1", "mean_average_precision", "auroc", "calibration_error")
    rows: list[list[str | FractionCell]] = [
        [fold, str(one.clips), *(number(one.headline[name].value) for name in names)]
        for fold, one in evaluations.items()
    ]
    rows.append(["mean", "", *(number(summary[name].value) for name in names)])
    rows.append(["95 % interval", "", *(interval(summary[name]) for name in names)])
    return Section(
        title="Folds",
        blocks=[
            f"{len(evaluations)} folds, each tested by a model trained on the others. The interval is Student's t over "
            f"the folds; it is a lower bound of the uncertainty, as folds share training {counted}.",
            Table(header=["fold", counted, *(SHOWN[name].title for name in names)], rows=rows),
        ],
    )


def training_section(rows: Sequence[Mapping[str, Any]], *, score_name: str = "validation score") -> Section:
    """The learning curve of a run, from the rows of its `metrics.csv`."""
    chart = Chart(
        figure=learning_curve_figure(rows, score_name=score_name),
        alt=f"Loss and {score_name} over {len(rows)} epochs",
        caption="The validation data are split from the training data; the test data are not used here.",
    )
    return Section(title="Training", blocks=[chart, *cost_sentences(rows)])


def cost_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the epochs of a run cost, in a sentence; none where it was not measured."""
    if not rows or "clips_per_second" not in rows[-1]:
        return []

    def median(name: str) -> float:
        return float(np.median([row[name] for row in rows if name in row]))

    peak = {name: max(row.get(name, 0.0) for row in rows) for name in ("memory_gigabytes", "gpu_gigabytes")}
    memory = f" Peak memory: {memory_text(peak)}." if any(peak.values()) else ""
    of_estimate = f", {100 * median('of_estimate'):.0f} % of the estimate" if "of_estimate" in rows[-1] else ""
    minutes = rows[-1]["seconds"] / 60
    return [
        f"{len(rows)} epochs, {rows[-1]['step']:,} steps, {minutes:.1f} minutes. The median epoch trained on "
        f"{median('clips_per_second'):.0f} clips per second{of_estimate}, and waited for data in "
        f"{100 * median('data_wait'):.1f} % of its time.{memory}"
    ]


def sampling_section(figure: Figure, *, clip: str) -> Section:
    """Sampling points of a deformable layer in one clip, before and after training."""
    chart = Chart(
        figure=figure,
        alt="Sampling points of each group of heads over the log-mel, before and after training",
        caption=f"The keys of the last deformable layer on the finest map that has one, in {clip}. A line connects "
        "the center of a key's cell and its sampling point; its mean length is in mel bands and frames.",
    )
    return Section(title="Sampling points", blocks=[chart])


def _result(metrics: Metrics) -> list[str | Table | Chart]:
    rows = [
        [SHOWN[name].title, _cell(name, estimate), interval(estimate), SHOWN[name].meaning_in(metrics.task)]
        for name, estimate in metrics.headline.items()
    ]
    protocol = [f"Protocol: {metrics.protocol}"] if metrics.protocol else []
    return [
        *protocol,
        subject(metrics),
        Table(header=["metric", "value", "95 % interval", "meaning"], rows=rows, words=(0, 3)),
        baseline_sentence(metrics),
    ]


def _cell(name: str, estimate: Estimate) -> str | FractionCell:
    if estimate.value is None or not SHOWN[name].fraction:
        return number(estimate.value)
    return FractionCell(value=estimate.value, low=estimate.low, high=estimate.high)


def _classes(metrics: Metrics) -> list[str | Table | Chart]:
    header = class_header(metrics)
    bars = {header.index(name): name for name in ("F1", "AP")}
    rows: list[list[str | FractionCell]] = []
    for i, one in enumerate(metrics.classes):
        row: list[str | FractionCell] = list(class_cells(metrics, i))
        for column, name in bars.items():
            value = one.f1 if name == "F1" else one.average_precision
            if value is not None:
                row[column] = FractionCell(value=value)
        rows.append(row)
    decision = (
        "the label with the highest score is predicted"
        if metrics.task == "single-label"
        else "a label is predicted if its score reaches its threshold"
    )
    table = Table(
        header=header,
        rows=rows,
        caption=f"“{metrics.noun}s” have the label, “predicted” counts predictions: {decision}. A dash: not defined.",
    )
    if all(row.average_precision is None for row in metrics.classes):
        return [table]
    chart = Chart(
        figure=per_class_figure(metrics.classes),
        alt="Average precision and F1 of each class, best first",
        caption=f"Best first; the number of {metrics.noun}s on the right.",
    )
    return [chart, table]


def _confusions(metrics: Metrics) -> list[str | Table | Chart]:
    assert metrics.confusion is not None
    chart = Chart(
        figure=confusion_figure(metrics.confusion, metrics.labels),
        alt=f"Confusion matrix of {len(metrics.labels)} labels; the mistakes are in the table below",
        caption="Rows are true labels, columns predicted labels; shades are fractions of the row.",
    )
    mistakes = worst_confusions(metrics)
    if not mistakes:
        return [chart, f"All {metrics.noun}s are correct."]
    rows = [[true, given, str(count), f"{100 * fraction:.0f} %"] for true, given, count, fraction in mistakes]
    table = Table(
        header=["true label", "predicted label", f"{metrics.noun}s", f"of its {metrics.noun}s"],
        rows=rows,
        caption="The most frequent mistakes",
        words=(0, 1),
    )
    return [chart, table]


def _calibration(metrics: Metrics) -> list[str | Table | Chart]:
    what = (
        "The confidence is the score of the predicted label"
        if metrics.task == "single-label"
        else "Every score of every label counts"
    )
    chart = Chart(
        figure=reliability_figure(metrics.calibration),
        alt=f"Observed frequency over confidence; calibration error {metrics.calibration.error:.3f}",
        caption=f"{what}. Of predictions with confidence 0.8, 80 % should be correct: bars on the dashed line.",
    )
    return [chart]
