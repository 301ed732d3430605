"""Plot of the sampling points of a deformable layer over the log-mel."""

from typing import Any

import numpy as np
from jaxtyping import Float

from ossicle.report.style import CYCLE, FAINT, LEVELS, Figure, dress, new_figure, note

MOST_GROUPS = 8  # drawn


def sampling_figure(
    mel: Float[np.ndarray, "mel frame"],
    points: dict[str, Float[np.ndarray, "group key 2"]],
    *,
    centers: Float[np.ndarray, "key 2"],
    seconds: float,
) -> Figure:
    """Draws a row of plots for each group of heads, one for each entry of `points`, such as before and after training.

    A line connects the center of a key's cell and its sampling point.

    Args:
        mel: log-mel in any unit, lowest band first.
        points: by title; mel bin and frame of each key.
        centers: of the keys' cells, in the same units.
        seconds: length of the recording.
    """
    from matplotlib.collections import LineCollection

    groups = min(MOST_GROUPS, len(next(iter(points.values()))))
    figure = new_figure(4.9 * len(points), 0.6 + 1.55 * groups)
    grid: Any = figure.subplots(groups, len(points), sharex=True, sharey=True, squeeze=False)
    frames = mel.shape[1]
    scale = np.array([1.0, seconds / frames])
    low, high = np.percentile(mel, [5, 99.8])
    for column, (title, of_groups) in enumerate(points.items()):
        for row in range(groups):
            axes = grid[row, column]
            axes.imshow(
                mel,
                origin="lower",
                aspect="auto",
                extent=(0, seconds, -0.5, mel.shape[0] - 0.5),
                cmap=LEVELS,
                vmin=float(low),
                vmax=float(max(high, low + 1e-6)),
                interpolation="nearest",
            )
            ends = of_groups[row] * scale
            lines = np.stack([centers * scale, ends], 1)[:, :, ::-1]
            axes.add_collection(LineCollection(list(lines), colors=CYCLE[4], linewidths=0.7))
            axes.scatter(ends[:, 1], ends[:, 0], s=3.5, color="white", linewidths=0)
            moved = float(np.linalg.norm(of_groups[row] - centers, axis=1).mean())
            dress(
                axes,
                title=title if row == 0 else "",
                x="seconds" if row == groups - 1 else "",
                y=f"group {row + 1}\nmel band" if column == 0 else "",
            )
            axes.set(xlim=(0, seconds), ylim=(-0.5, mel.shape[0] - 0.5))
            text = f"moved by {moved:.1f} bins and frames on average"
            note(axes, 1.0, 1.02, text, transform=axes.transAxes, ha="right", va="bottom", color=FAINT)
    return figure
