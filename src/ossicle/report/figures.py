"""The standard plots of an evaluation and a training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ossicle.metrics import CalibrationBins, ClassMetrics
from ossicle.metrics.arrays import ratio
from ossicle.report.style import (
    BLUE,
    FAINT,
    FRACTIONS,
    INK,
    ORANGE,
    RULE,
    VERMILION,
    Figure,
    dress,
    legend,
    new_figure,
    note,
    set_labels,
)

MOST_BARS = 60
MOST_NAMED = 100


def confusion_figure(confusion: Int[np.ndarray, "label label"], labels: Sequence[str]) -> Figure:
    """Draws the confusion matrix: one row per true label, shaded by fraction of the row.

    Counts are shown for up to 25 labels, names for up to 100. A row without clips is crossed out.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    count = len(labels)
    fractions = ratio(confusion, confusion.sum(axis=1, keepdims=True))
    named = count <= MOST_NAMED
    cell = float(np.clip(6.5 / count, 0.17, 0.75)) if named else 12 / count
    figure = new_figure(count * cell + 2.6, count * cell + 1.7)
    axes = figure.subplots()
    image = axes.imshow(
        fractions, cmap=colormaps[FRACTIONS].with_extremes(bad="white"), vmin=0, vmax=1, interpolation="nearest"
    )
    dress(axes, x="recognized as", y="true label")
    size = float(np.clip(cell * 22, 6.5, 9))
    set_labels(axes, "y", range(count) if named else [], labels if named else [], size=size)
    upright = count > 4 or max(len(label) for label in labels) > 8
    set_labels(
        axes, "x", range(count) if named else [], labels if named else [], size=size, rotation=90.0 if upright else 0.0
    )
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for edge in np.arange(count + 1 if named else 0) - 0.5:  # thin white rules, so that equal neighbors stay apart
        axes.axhline(edge, color=RULE, linewidth=0.5)
        axes.axvline(edge, color=RULE, linewidth=0.5)
    if count <= 25:
        for row, column in np.argwhere(confusion > 0):
            color = "white" if fractions[row, column] > 0.55 else INK
            written = str(confusion[row, column])
            if count <= 8:
                written += f"\n{100 * fractions[row, column]:.0f} %"
            note(
                axes,
                float(column),
                float(row),
                written,
                ha="center",
                va="center",
                color=color,
                fontsize=size if count <= 12 else 6.5,
            )
    for row in np.flatnonzero(confusion.sum(axis=1) == 0):
        axes.add_patch(Rectangle((-0.5, row - 0.5), count, 1, fill=False, hatch="////", edgecolor=RULE, linewidth=0))
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / (count * cell)), aspect=22, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["0", "50 %", "100 %"])
    bar.ax.tick_params(labelsize=8, length=0, colors=INK)
    bar.set_label("fraction of the true label", fontsize=8.5, color=INK)
    return figure


def reliability_figure(bins: CalibrationBins) -> Figure:
    """Draws observed frequency over confidence, and below it the number of predictions in each bin.

    Bars below the diagonal: more confident than right. Above it: more right than confident.
    """
    figure = new_figure(4.8, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = bins.count > 0
    left, width = bins.edges[:-1][filled], np.diff(bins.edges)[filled]
    confidence, frequency = bins.confidence[filled], bins.frequency[filled]
    (diagonal,) = upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    observed = upper.bar(left, frequency, width, align="edge", color=BLUE, alpha=0.8, edgecolor="white", linewidth=0.8)
    low, high = np.minimum(confidence, frequency), np.maximum(confidence, frequency)
    gap = upper.bar(
        left,
        high - low,
        width,
        bottom=low,
        align="edge",
        color="none",
        edgecolor=VERMILION,
        hatch="////",
        linewidth=0.8,
    )
    dress(upper, title=f"Calibration error {bins.error:.3f}", y="observed frequency", grid="y")
    upper.set(xlim=(0, 1), ylim=(0, 1))
    lower.bar(left, bins.count[filled], width, align="edge", color=FAINT, edgecolor="white", linewidth=0.8)
    dress(lower, x="stated confidence", y="predictions", grid="y")
    from matplotlib.ticker import MaxNLocator

    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    outside_legend(figure, [observed, gap, diagonal], ["observed", "gap to the confidence", "perfect"])
    return figure


def learning_curve_figure(rows: Sequence[Mapping[str, Any]], *, score_name: str = "validation score") -> Figure:
    """Draws loss and score by epoch and marks the best epoch.

    Args:
        rows: with `epoch`, `train_loss`, and where known `val_loss` and `val_score`, as in a run's `metrics.csv`; an
            empty or missing cell leaves a gap.
    """
    epochs, train, dev, score = (_column(rows, name) for name in ("epoch", "train_loss", "val_loss", "val_score"))
    scored = bool(np.isfinite(score).any())
    figure = new_figure(6.4, 4.8 if scored else 2.9)
    panels = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    dot = "o" if len(rows) <= 30 else None
    curves = [
        panels[0].plot(epochs, values, color=color, linewidth=1.6, marker=dot, markersize=3)[0]
        for values, color in ((train, BLUE), (dev, ORANGE))
        if np.isfinite(values).any()
    ]
    dress(panels[0], title="loss", x="" if scored else "epoch", grid="y")
    names = [name for name, values in (("training", train), ("validation", dev)) if np.isfinite(values).any()]
    if curves:
        legend(panels[0], curves, names, loc="upper right", ncols=2)
    if scored:
        panels[1].plot(epochs, score, color=ORANGE, linewidth=1.6, marker=dot, markersize=3)
        best = _best(score, dev)
        panels[1].plot(
            epochs[best], score[best], "o", color=VERMILION, markersize=7, markerfacecolor="none", markeredgewidth=1.6
        )
        late = best > len(rows) / 2
        panels[1].annotate(
            f"best {score[best]:.3f}, epoch {epochs[best]:.0f}",
            (float(epochs[best]), float(score[best])),
            xytext=(-8 if late else 8, -12),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            ha="right" if late else "left",
            va="top",
        )
        dress(panels[1], title=score_name, x="epoch", grid="y")
        panels[1].set(ylim=(-0.02, 1.02))
    panels[0].margins(y=0.12)
    for panel in panels:
        from matplotlib.ticker import MaxNLocator

        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _best(score: Float[np.ndarray, " row"], loss: Float[np.ndarray, " row"]) -> int:
    """The row of the best epoch: ties are broken by the smallest loss, then the first epoch."""
    ranked = np.lexsort((np.nan_to_num(loss, nan=np.inf), -np.nan_to_num(score, nan=-np.inf)))
    return int(ranked[0])


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Float[np.ndarray, " row"]:
    cells = [row.get(name) for row in rows]
    return np.array([float(cell) if cell not in (None, "") else np.nan for cell in cells], dtype=float)


def per_class_figure(classes: Sequence[ClassMetrics]) -> Figure:
    """Draws average precision (bar) and F1 (dot) of each class that has positives, best first.

    Of more than 60 classes the best 30 and the worst 30 are drawn.
    """
    known = [row for row in classes if row.average_precision is not None]
    known.sort(key=lambda row: (-(row.average_precision or 0.0), row.label))
    left_out = len(known) - MOST_BARS
    if left_out > 0:
        known = known[: MOST_BARS // 2] + known[-MOST_BARS // 2 :]
    figure = new_figure(6.4, 1.3 + 0.21 * max(len(known), 3))
    axes = figure.subplots()
    places = np.arange(len(known))
    precision = [row.average_precision or 0.0 for row in known]
    f1 = [row.f1 or 0.0 for row in known]
    bars: Any = axes.barh(places, precision, height=0.68, color=BLUE, alpha=0.85)
    (dots,) = axes.plot(
        f1, places, "o", color=ORANGE, markersize=5.5, markeredgecolor="white", markeredgewidth=0.8, clip_on=False
    )
    set_labels(axes, "y", places, [row.label for row in known])
    for place, row in zip(places, known, strict=True):
        note(axes, 1.015, float(place), str(row.support), va="center", color=INK, fontsize=8)
    dress(axes, x="average precision, F1", grid="x")
    note(axes, 1.015, -1.0, "count", va="center", color=INK, fontsize=8)
    axes.set(xlim=(-0.02, 1), ylim=(len(known) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    if left_out > 0:
        axes.axhline(MOST_BARS / 2 - 0.5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
        note(
            axes,
            0.99,
            MOST_BARS / 2 - 0.5,
            f"{left_out} classes between",
            ha="right",
            va="center",
            backgroundcolor="white",
        )
    outside_legend(figure, [bars, dots], ["average precision", "F1"])
    return figure


def outside_legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend above the axes."""
    figure.legend(
        handles,
        names,
        loc="outside upper right",
        ncols=len(names),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )
