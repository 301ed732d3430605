"""Style of all plots: colors for the color-blind and for gray printing, few lines.

The colors are Okabe and Ito's (2008, Color universal design); the two sequential maps rise evenly in lightness.
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ossicle.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # imported on first use
    Axes = Figure = Any

INK = "#1f2933"
FAINT = "#8a949e"
RULE = "#e3e7eb"
BLUE = "#0072B2"
VERMILION = "#D55E00"
ORANGE = "#E69F00"
GREEN = "#009E73"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
FRACTIONS = "Blues"  # white to dark blue
LEVELS = "magma"  # black to cream, for spectrograms

DPI = 160
LONGEST_LABEL = 28


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this many inches."""
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "") -> None:
    """Gives axes the common look.

    Args:
        grid: "x" or "y" rules the axes across that axis; "" leaves them plain.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=8.5, length=3, width=0.8)
    axes.set_axisbelow(True)
    if grid == "x":
        axes.xaxis.grid(True, color=RULE, linewidth=0.8)
    elif grid == "y":
        axes.yaxis.grid(True, color=RULE, linewidth=0.8)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    if title:
        axes.set_title(title, fontsize=10.5, color=INK, loc="left", fontweight="bold", pad=7, parse_math=False)


def set_labels(
    axes: Axes, which: str, positions: Any, labels: Any, *, size: float = 8.5, rotation: float = 0.0
) -> None:
    """Sets labels of an axis as plain text: dollar signs start no formula, long labels are shortened."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(list(positions), [short(label) for label in labels])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)
        text.set_fontsize(size)
        text.set_rotation(rotation)


def short(label: str) -> str:
    """The label on one line, at most 28 characters."""
    line = " ".join(label.split())
    return line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1] + "…"


def note(axes: Axes, x: float, y: float, text: str, **options: Any) -> Any:
    """Text at a position, without formulas."""
    return axes.text(x, y, text, **{"fontsize": 8.5, "color": INK, "parse_math": False, **options})


def legend(axes: Axes, handles: Any, labels: Any, **options: Any) -> None:
    """A plain legend with the labels as they are."""
    made = axes.legend(handles, list(labels), **{"fontsize": 8.5, "frameon": False, "labelcolor": INK, **options})
    for text in made.get_texts():
        text.set_parse_math(False)


_drawn: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG."""
    if figure in _drawn:
        return _drawn[figure]
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; pages and tables show it correctly.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        figure.savefig(content, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    _drawn[figure] = content.getvalue()
    return _drawn[figure]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(png_bytes(figure))
