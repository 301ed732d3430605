"""A recording of any length as the columns of a picture."""

import numpy as np
import pytest

from ossicle import timeline
from ossicle.frontend import create_frontend
from ossicle.inference import Row
from ossicle.report import timeline_figure

FRONTEND = create_frontend("passt").eval()
RATE, SECONDS = FRONTEND.rate, 12


@pytest.mark.parametrize("block", [0.05, 1.0, 5.0, 12.0])
@pytest.mark.parametrize("most", [20, 4000])  # each column longer than the shorter blocks, and none put together
def test_a_click_stands_at_its_time_however_the_recording_arrives(
    block: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MOST_COLUMNS", most)
    samples = np.zeros(SECONDS * RATE, np.float32)
    clicks = np.array([1.5, 7.25, 10.75])
    samples[np.round(clicks * RATE).astype(int)] = 1.0
    size = round(block * RATE)
    columns, seconds = timeline.loudest(FRONTEND, (samples[at : at + size] for at in range(0, len(samples), size)))
    assert seconds == SECONDS and columns.shape[1] <= most
    loud = columns.mean(axis=0)
    width = SECONDS / columns.shape[1]
    found = width * (np.flatnonzero(loud > (loud.min() + loud.max()) / 2) + 0.5)
    apart = np.abs(np.subtract.outer(found, clicks))
    assert apart.min(axis=0).max() <= width + 0.05 and apart.min(axis=1).max() <= width + 0.05


@pytest.mark.parametrize("samples", [0, 1, FRONTEND.min_samples - 1, FRONTEND.min_samples])
def test_the_shortest_recordings_have_a_column(samples: int) -> None:
    columns, seconds = timeline.loudest(FRONTEND, [np.zeros(samples, np.float32)])
    assert columns.shape[1] >= 1 and seconds == samples / RATE


def test_a_long_recording_is_one_artist_a_lane_with_a_shade_for_each_row() -> None:
    rows = [Row(file="a.wav", start=float(i), end=i + 1.0, label="ab"[i % 2], score=i / 100) for i in range(100)]
    mel = np.zeros((8, 100), np.float32)
    figure = timeline_figure(mel, rows, seconds=100.0, fmin=0.0, fmax=8000.0, reference=[rows[0]], labels=("b", "a"))
    bars = [lane for lane in figure.axes[1].collections if len(lane.get_facecolor()) > 1]
    assert [len(lane.get_paths()) for lane in bars] == [50, 50]
    odd = np.arange(1, 100, 2) / 100
    np.testing.assert_allclose(bars[0].get_facecolor()[:, 3], 0.25 + 0.75 * odd)
