"""Report of the Importance Factor of an encoder's layers.

Source: "Density Adaptive Attention is All You Need" (arXiv 2401.11143), section 1.5 of version 4. The comparison with
the untrained head and with the accuracy of each layer alone is ours.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ossicle.report.page import Chart, Section
from ossicle.report.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LEVELS,
    VERMILION,
    Figure,
    dress,
    legend,
    new_figure,
    set_labels,
)
from ossicle.report.text import number

if TYPE_CHECKING:  # they import torch, which this package must not
    from ossicle.tuning.importance import Correlation, Importance

MOST_NUMBERS = 26  # of layer labels on an axis
MOST_COLUMNS = 1200  # of features


def importance_figure(factor: Float[np.ndarray, "layer dim"], *, layers: Sequence[int]) -> Figure:
    """Draws the Importance Factor, a row for each layer with the first at the bottom.

    For more than 1200 features, a column is the mean of several neighbors.

    Args:
        factor: 0 to 1.
        layers: numbers of the layers.
    """
    count, dim = factor.shape
    figure = new_figure(9.6, 1.1 + float(np.clip(0.15 * count, 1.2, 4.5)))
    axes = figure.subplots()
    each = -(-dim // MOST_COLUMNS)
    firsts = np.arange(0, dim, each)
    image = axes.pcolormesh(
        np.append(firsts, dim) + 0.5,
        np.arange(count + 1) - 0.5,
        np.add.reduceat(factor, firsts, axis=1) / np.diff(firsts, append=dim),
        cmap=LEVELS,
        vmin=0,
        vmax=1,
    )
    dress(axes, x="feature", y="layer")
    _number_layers(axes, "y", layers)
    axes.tick_params(axis="y", length=0)
    bar = figure.colorbar(image, ax=axes, aspect=22, pad=0.015)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    bar.ax.tick_params(labelsize=8, length=0, colors=INK)
    bar.set_label("Importance Factor", fontsize=8.5, color=INK)
    return figure


def layer_share_figure(
    share: Float[np.ndarray, " layer"],
    *,
    initial: Float[np.ndarray, " layer"],
    layers: Sequence[int],
    probes: Float[np.ndarray, " layer"] | None = None,
    probe_name: str = "balanced accuracy",
) -> Figure:
    """Draws each layer's fraction of the weights, trained and initial, and below it the score of each layer alone.

    Args:
        share: fraction of each layer in percent, as is `initial`.
        layers: numbers of the layers.
        probes: a score of each layer alone, called `probe_name`.
    """
    count = len(share)
    figure = new_figure(6.4, 2.9 if probes is None else 4.8)
    panels: Any = figure.subplots(1 if probes is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    places = np.arange(count)
    style: Any = {"linewidth": 1.6, "marker": "o" if count <= 48 else None, "markersize": 3.5}
    even = panels[0].axhline(100 / count, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    untrained: Any = style | {"linestyle": (0, (4, 2)), "markersize": 5.5, "markerfacecolor": "white"}
    (start,) = panels[0].plot(places, initial, color=VERMILION, **untrained)
    (trained,) = panels[0].plot(places, share, color=BLUE, **style)
    dress(panels[0], title="fraction of the weights", y="percent", grid="y")
    legend(
        panels[0],
        [trained, start, even],
        ["trained", "untrained", "all alike"],
        loc="lower right",
        bbox_to_anchor=(1.01, 0.98),
        ncols=3,
    )
    if probes is not None:
        panels[1].plot(places, probes, color=GREEN, **style)
        dress(panels[1], title="each layer alone", y=probe_name, grid="y")
    for panel in panels:
        panel.margins(y=0.12)
    panels[-1].set_xlabel("layer", fontsize=9.5, color=INK)
    _number_layers(panels[-1], "x", layers)
    return figure


def importance_section(importance: "Importance", *, probe_name: str = "balanced accuracy") -> Section:
    """The Importance Factor of a trained head, compared with that of the untrained head.

    Args:
        probe_name: metric of the probes.
    """
    layers, clips, probes = importance.layers, importance.clips, importance.probes
    factor, share, initial = importance.trained.factor, importance.trained.share, importance.initial.share
    found = f"with the untrained ones {_correlation(importance.against_initial)}"
    if importance.against_probes is not None:
        found += f", with the {probe_name} of each layer alone {_correlation(importance.against_probes)}"
    paragraph = (
        "The map shows how much weight the trained head gives each layer and feature, on average over "
        f"{clips} clip{'' if clips == 1 else 's'} and scaled to run from 0 to 1; the curve below it shows each "
        "layer's fraction of all weights. The untrained head has not been trained on any label: it weights a layer by "
        "the distance of its values to the mean of the layers, whatever the task. So only differences between the "
        f"trained and the untrained curve are about the task. {_about_heads(importance.heads)} "
        f"Spearman's rank correlation of the trained fractions: {found}. The p-values are of a "
        "permutation test that takes layers for independent; neighboring layers are alike, so they are rather too "
        "small."
    )
    named = f"{len(layers)} layer{'' if len(layers) == 1 else 's'}"
    charts = [
        Chart(
            figure=importance_figure(factor, layers=layers),
            alt=f"Importance Factor of {factor.shape[1]} features in {named}",
            caption="Importance Factor of the trained head; the last layer on top.",
        ),
        Chart(
            figure=layer_share_figure(share, initial=initial, layers=layers, probes=probes, probe_name=probe_name),
            alt=f"Fraction of the weights of {named}, trained and untrained"
            + ("" if probes is None else f", and {probe_name} of each layer alone"),
            caption=_caption(share, layers)
            + ("" if probes is None else " Below, a logistic regression on each layer alone, on the validation data."),
        ),
    ]
    return Section(title="Importance of the layers", blocks=[paragraph, *charts])


def _about_heads(heads: int) -> str:
    if heads == 1:
        return "The density has one head over all layers."
    return (
        f"The density has {heads} heads, each over a part of the layers, and weights a layer relative to those of "
        "its own head: fractions compare layers within a head, not across heads."
    )


def _correlation(found: "Correlation") -> str:
    value, layers, p = found
    if value is None or p is None:
        return f"not defined (all values of one side are equal; {layers} layers)"
    return f"{number(value, 2)} ({layers} layers, p = {p:.2g})"


def _caption(share: Float[np.ndarray, " layer"], layers: Sequence[int]) -> str:
    ends = int(share.argmax()), int(share.argmin())
    most, least = (f"in layer {layers[place]} ({share[place]:.1f} %)" for place in ends)
    return f"Most weight {most}, least {least}."


def _number_layers(axes: Any, which: str, layers: Sequence[int]) -> None:
    step = -(-len(layers) // MOST_NUMBERS)
    places = range(0, len(layers), step)
    set_labels(axes, which, places, [str(layers[place]) for place in places])
