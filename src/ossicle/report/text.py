"""Metrics as lines for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from ossicle.metrics import METRICS, Estimate, Metrics

FEW_GROUPS = 10  # below, bootstrap intervals are too narrow
SHOWN = {metric.name: metric for metric in METRICS}


def number(value: float | None, digits: int = 3) -> str:
    """The value with this many decimals; a dash where it is not defined."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(estimate: Estimate) -> str:
    """The interval in brackets, or nothing."""
    return "" if estimate.low is None else f"[{number(estimate.low)}, {number(estimate.high)}]"


def subject(metrics: Metrics) -> str:
    """A sentence about the clips and the method of the intervals."""
    clips = f"{metrics.clips} {metrics.noun}{'s' * (metrics.clips != 1)}"
    of_groups = "" if metrics.groups is None else f" of {metrics.groups} groups"
    classes = f"{metrics.classes_scored} of {len(metrics.labels)} classes occur"
    if metrics.accuracy.low is None:
        return f"{clips}{of_groups}; {classes}."
    draws = f"{metrics.resamples} bootstrap draws of {f'{metrics.noun}s' if metrics.groups is None else 'whole groups'}"
    few = metrics.groups is not None and metrics.groups < FEW_GROUPS
    caution = "; with so few groups they are too narrow" if few else ""
    return f"{clips}{of_groups}; {classes}; 95 % intervals from {draws}{caution}."


def baseline_sentence(metrics: Metrics) -> str:
    """A sentence about the baseline."""
    baseline = metrics.baseline
    if baseline.accuracy is not None:
        verdict = "the whole accuracy interval lies above it" if metrics.beats_baseline else "not clearly beaten"
        return (
            f"Always predicting '{baseline.label}', the most frequent label of these {metrics.noun}s, "
            f"has accuracy {number(baseline.accuracy)}: {verdict}."
        )
    verdict = "the whole mAP interval lies above it" if metrics.beats_baseline else "not clearly beaten"
    return f"Scores drawn at random have mAP {number(baseline.mean_average_precision)}: {verdict}."


def evaluation_lines(metrics: Metrics) -> list[str]:
    """Protocol, metrics with intervals, the baseline and a line for each class."""
    lines = [f"Protocol: {metrics.protocol}"] if metrics.protocol else []
    lines += [subject(metrics), ""]
    lines += _metric_lines(metrics.headline)
    lines += ["", baseline_sentence(metrics)]
    lines.append("")
    rows = [class_header(metrics), *(class_cells(metrics, i) for i in range(len(metrics.classes)))]
    return lines + aligned_lines(rows)


def aligned_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines: the first column on its left edge, the others on their right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        lines.append("  ".join(aligned).rstrip())
    return lines


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is the header."""
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def fold_lines(summary: Mapping[str, Estimate], *, folds: int) -> list[str]:
    """The mean over folds of every metric with its interval."""
    return [f"Mean over {folds} folds, 95 % Student's t interval:", "", *_metric_lines(summary)]


def class_header(metrics: Metrics) -> list[str]:
    """The columns of the class table; thresholds where there are any."""
    thresholds = ["threshold"] if _has_thresholds(metrics) else []
    return ["class", f"{metrics.noun}s", "predicted", "precision", "recall", "F1", "AP", "AUROC", *thresholds]


def class_cells(metrics: Metrics, index: int) -> list[str]:
    """One row of the class table."""
    row = metrics.classes[index]
    values = [row.precision, row.recall, row.f1, row.average_precision, row.auroc]
    if _has_thresholds(metrics):
        values.append(row.threshold)
    return [" ".join(row.label.split()), str(row.support), str(row.given), *(number(value) for value in values)]


def _has_thresholds(metrics: Metrics) -> bool:
    return any(row.threshold is not None for row in metrics.classes)


def _metric_lines(headline: Mapping[str, Estimate]) -> list[str]:
    width = max(len(SHOWN[name].title) for name in headline)
    return [
        f"{SHOWN[name].title:<{width}}  {number(estimate.value):>6}  {interval(estimate)}".rstrip()
        for name, estimate in headline.items()
    ]


def worst_confusions(metrics: Metrics) -> Sequence[tuple[str, str, int, float]]:
    """The ten most frequent mistakes as (true label, predicted label, clips, fraction of the true label)."""
    if metrics.confusion is None:
        return []
    mistakes = [
        (int(count), true, given)
        for true, row in enumerate(metrics.confusion)
        for given, count in enumerate(row)
        if true != given and count
    ]
    mistakes.sort(key=lambda mistake: (-mistake[0], mistake[1], mistake[2]))
    return [
        (metrics.labels[true], metrics.labels[given], count, count / int(metrics.confusion[true].sum()))
        for count, true, given in mistakes[:10]
    ]


def memory_text(row: Mapping[str, Any]) -> str:
    """Peak memory of an epoch, by its row of `metrics.csv`; nothing where it was not measured.

    >>> memory_text({"memory_gigabytes": 1.24, "gpu_gigabytes": 8.0})
    '1.2 GB and 8.0 GB on the GPU'
    """
    places = {"memory_gigabytes": "", "gpu_gigabytes": " on the GPU"}
    return " and ".join(f"{row[name]:.1f} GB{where}" for name, where in places.items() if row.get(name))


def throughput_text(row: Mapping[str, Any]) -> str:
    """Speed and memory of an epoch, by its row of `metrics.csv`.

    >>> throughput_text({"clips_per_second": 210.4, "of_estimate": 0.97, "data_wait": 0.012, "memory_gigabytes": 1.24})
    '210 clips/s (97 % of the estimate)  1 % data wait  1.2 GB'
    """
    of_estimate = f" ({100 * row['of_estimate']:.0f} % of the estimate)" if row.get("of_estimate") else ""
    pace = f"{row['clips_per_second']:.0f} clips/s{of_estimate}"
    return "  ".join(filter(None, (pace, f"{100 * row['data_wait']:.0f} % data wait", memory_text(row))))
