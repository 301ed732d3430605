"""A recording of any length as the columns of a picture."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from ossicle import timeline
from ossicle.frontend import create_frontend
from ossicle.inference import Row
from ossicle.report import timeline_figure
from ossicle.report.style import BLUE

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


@pytest.mark.parametrize("samples", [700, FRONTEND.min_samples, 40_000, 3 * RATE])
@pytest.mark.parametrize("block", [999, 10_000])
def test_the_columns_are_the_frames_of_the_whole_recording(samples: int, block: int) -> None:
    noise = 0.01 * np.random.default_rng(0).standard_normal(samples)  # in silent bands rounding would be heard
    tone = (np.sin(2 * np.pi * 441.3 / RATE * np.arange(samples)) + noise).astype(np.float32)
    columns, _ = timeline.loudest(FRONTEND, (tone[at : at + block] for at in range(0, samples, block)))
    assert columns.shape[1] == FRONTEND.frames(samples)
    if samples >= FRONTEND.min_samples:
        whole = FRONTEND(torch.from_numpy(tone)[None])[0].numpy()
        np.testing.assert_allclose(columns, whole, atol=0.01)


def test_a_long_recording_is_one_artist_a_lane_with_a_shade_for_each_row() -> None:
    rows = [Row(file="a.wav", start=float(i), end=i + 1.0, label="ab"[i % 2], score=i / 100) for i in range(100)]
    mel = np.zeros((8, 100), np.float32)
    figure = timeline_figure(mel, rows, seconds=100.0, fmin=0.0, fmax=8000.0, reference=[rows[0]], labels=("b", "a"))
    bars = [lane for lane in figure.axes[1].collections if len(lane.get_facecolor()) > 1]
    assert [len(lane.get_paths()) for lane in bars] == [50, 50]
    odd, blue = np.arange(1, 100, 2) / 100, np.array(to_rgb(BLUE))
    np.testing.assert_allclose(bars[0].get_facecolor()[:, :3], 1 - (0.25 + 0.75 * odd)[:, None] * (1 - blue))


def test_of_windows_that_overlap_the_higher_score_is_seen_and_no_sum_of_both() -> None:
    rows = [
        Row(file="a.wav", start=start, end=start + 2.0, label="a", score=score)
        for start, score in ((0.0, 0.9), (1.0, 0.2))
    ]
    figure = timeline_figure(np.zeros((8, 10), np.float32), rows, seconds=3.0, fmin=0.0, fmax=8000.0)
    (lane,) = [lane for lane in figure.axes[1].collections if len(lane.get_facecolor()) == 2]
    assert lane.get_alpha() is None and (lane.get_facecolor()[:, 3] == 1).all()
    assert [path.vertices[:, 0].min() for path in lane.get_paths()] == [1.0, 0.0]  # drawn in this order
