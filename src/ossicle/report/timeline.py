"""A log-mel spectrogram of a recording, with the predicted events below it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ossicle.inference import Row
from ossicle.report.style import CYCLE, FAINT, INK, LEVELS, RULE, Figure, dress, legend, new_figure, note, set_labels

MOST_COLUMNS = 1000  # even; at most the pixels of a row, so that every column is visible
STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds between the ticks of a long recording
HERTZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)


def timeline_figure(
    mel: Float[np.ndarray, "mel frame"],
    rows: Sequence[Row],
    *,
    seconds: float,
    fmin: float,
    fmax: float,
    reference: Sequence[Row] = (),
    labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draws a recording's log-mel with one lane of events for each label below it, on one axis of seconds.

    Predicted events are filled, paler for lower scores; where they overlap the highest score is on top. Reference
    events are outlined.

    Args:
        mel: log-mel in any unit, at most `MOST_COLUMNS` frames; the bands, lowest first, are evenly spaced from `fmin`
            to `fmax` hertz on the mel scale.
        seconds: length of the recording.
        labels: order of the lanes; those that have an event are drawn. Without it, in the order of first appearance.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    appearing = list(
        dict.fromkeys(row.label for row in sorted([*reference, *rows], key=lambda row: (row.start, row.label)))
    )
    lanes = appearing if labels is None else [label for label in labels if label in set(appearing)]
    lane_inches = 0.26 * max(len(lanes), 1) + 0.5
    figure = new_figure(9.6, 2.7 + lane_inches)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.3, lane_inches])
    # From the fifth percentile up: digital silence would otherwise take most of the range.
    low, high = np.percentile(mel, [5, 99.8]) if mel.size else (0.0, 1.0)
    upper.imshow(
        mel,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, mel.shape[0]),
        cmap=LEVELS,
        vmin=float(low),
        vmax=float(max(high, low + 1e-6)),
        interpolation="nearest",
    )
    ticks = [hertz for hertz in HERTZ if fmin <= hertz <= fmax]
    lowest, highest = _mel(np.array([fmin, fmax], float))
    places = (_mel(np.array(ticks, float)) - lowest) / (highest - lowest) * mel.shape[0]
    roomy = np.diff(places, append=np.inf) > mel.shape[0] / 14  # low octaves are close on the mel scale
    ticks, places = [hertz for hertz, fits in zip(ticks, roomy, strict=True) if fits], places[roomy]
    dress(upper, title=title, y="hertz")
    set_labels(upper, "y", places, [f"{hertz // 1000}k" if hertz >= 1000 else str(hertz) for hertz in ticks])
    upper.tick_params(axis="x", labelbottom=False)

    least = seconds / 400  # so that an onset without length is visible
    for lane, label in enumerate(lanes):
        color = CYCLE[lane % len(CYCLE)]
        lower.axhline(lane + 0.5, color=RULE, linewidth=0.8)
        if found := sorted((row for row in rows if row.label == label), key=lambda row: row.score):
            # Mixed with white and not translucent: two windows that overlap would look like a higher score.
            strength = 0.25 + 0.75 * np.clip([row.score for row in found], 0, 1)
            lower.broken_barh(
                [(row.start, max(row.end - row.start, least)) for row in found],
                (lane - 0.27, 0.54),
                facecolor=1 - strength[:, None] * (1 - np.array(to_rgb(color))),
                linewidth=0,
            )
        lower.broken_barh(
            [(row.start, max(row.end - row.start, least)) for row in reference if row.label == label],
            (lane - 0.38, 0.76),
            facecolor="none",
            edgecolor=INK,
            linewidth=0.9,
        )
    dress(lower, x="minutes" if seconds > 120 else "seconds")
    set_labels(lower, "y", range(len(lanes)), lanes)
    lower.tick_params(axis="y", length=0)
    lower.set(xlim=(0, seconds), ylim=(max(len(lanes), 1) - 0.5, -0.5))
    if not lanes:
        note(lower, seconds / 2, 0.0, "no events", ha="center", va="center", color=FAINT)
    if seconds > 120:
        step = next((step for step in STEPS if seconds / step <= 10), seconds // 600 * 60)
        lower.xaxis.set_ticks(np.arange(0, seconds + 1e-6, step))
        lower.xaxis.set_major_formatter(lambda place, _: f"{int(place // 60)}:{place % 60:02.0f}")
    if reference:
        handles = [
            Rectangle((0, 0), 1, 1, color=FAINT, linewidth=0),
            Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK),
        ]
        names = ["predicted (paler: lower score)", "reference"]
        legend(upper, handles, names, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def _mel(hertz: Float[np.ndarray, " tick"]) -> Float[np.ndarray, " tick"]:
    return 1127 * np.log1p(hertz / 700)
