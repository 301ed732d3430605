"""Figures show the numbers they were given, for any label and any size."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ossicle.inference import Row
from ossicle.metrics import calibration_bins, compute_metrics
from ossicle.report import (
    confusion_figure,
    learning_curve_figure,
    per_class_figure,
    png_bytes,
    reliability_figure,
    sampling_figure,
    save_figure,
    timeline_figure,
)
from ossicle.report.style import CYCLE
from ossicle.report.timeline import MOST_COLUMNS

HOSTILE = ("<script>alert(1)</script>", "$x$ and $", "_hidden", "two\nlines", "狐の声", "w" * 200, r"\frac", "")


def evaluation(count, *, task="single-label", clips=60):
    generator = np.random.default_rng(0)
    targets = np.eye(count, dtype=bool)[generator.integers(0, count, clips)]
    scores = generator.dirichlet(np.ones(count), clips)
    labels = [HOSTILE[i] if i < len(HOSTILE) else f"label {i}" for i in range(count)]
    return compute_metrics(scores, targets, labels=labels, task=task, resamples=0)


def row(start, end, label, score=1.0):
    return Row(file="a.wav", start=start, end=end, label=label, score=score)


def size_of(png):
    """Width and height in pixels, from the header of a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


@pytest.mark.parametrize("count", [1, 2, 8, 50])
def test_any_labels_can_be_drawn(count):
    measured = evaluation(count)
    for figure in (
        confusion_figure(measured.confusion, measured.labels),
        per_class_figure(measured.classes),
        reliability_figure(measured.calibration),
        timeline_figure(
            np.zeros((4, 5), np.float32),
            [row(0.1, 0.2, label) for label in measured.labels],
            seconds=0.5,
            fmin=0.0,
            fmax=8000.0,
            title="$",
        ),
    ):
        assert max(size_of(png_bytes(figure))) < 3000


def test_a_confusion_cell_is_shaded_by_its_share_of_the_row():
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), ["a", "b"])
    shares = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shares, [[0.75, 0.25], [np.nan, np.nan]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["3\n75 %", "1\n25 %"]
    assert len(figure.axes[0].patches) == 1  # the row without clips is crossed out


def test_hundreds_of_labels_still_fit_a_picture():
    figure = confusion_figure(np.eye(300, dtype=int), [f"label {i}" for i in range(300)])
    assert max(size_of(png_bytes(figure))) < 3000 and not figure.axes[0].get_yticklabels()


def test_labels_are_drawn_as_they_are():
    axes = confusion_figure(np.eye(2, dtype=int), ["$5 or $6", "_x"]).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["$5 or $6", "_x"]
    assert not any(text.get_parse_math() for text in [*axes.get_yticklabels(), *axes.get_xticklabels()])


def test_the_calibration_bars_are_the_observed_frequencies():
    scores = np.array([[0.1], [0.9], [0.9], [0.9], [0.9]])
    targets = np.array([[False], [True], [True], [True], [False]])
    upper, lower = reliability_figure(calibration_bins(scores, targets, task="multi-label")).axes
    assert [bar.get_height() for bar in upper.containers[0]] == [0.0, 0.75]
    assert [bar.get_height() for bar in lower.containers[0]] == [1, 4]


def test_the_learning_curve_marks_the_best_epoch_and_bears_gaps():
    rows = [
        {"epoch": 1, "train_loss": 3.0},
        {"epoch": 2, "train_loss": "2.5", "val_loss": "", "val_score": 0.7},
        {"epoch": 3, "train_loss": 2.0, "val_loss": 2.2, "val_score": 0.6},
    ]
    losses, scores = learning_curve_figure(rows).axes
    assert losses.lines[0].get_ydata().tolist() == [3.0, 2.5, 2.0]
    assert (scores.lines[1].get_xdata().tolist(), scores.lines[1].get_ydata().tolist()) == ([2.0], [0.7])
    assert len(learning_curve_figure(rows[:1]).axes) == 1


def test_of_equal_scores_the_epoch_with_the_smallest_loss_is_marked_as_it_is_kept():
    rows = [{"epoch": n + 1, "train_loss": 1.0, "val_loss": loss, "val_score": 0.5} for n, loss in enumerate((3, 1, 1))]
    (marked,) = learning_curve_figure(rows).axes[1].texts
    assert marked.get_text() == "best 0.500, epoch 2"


def test_classes_are_drawn_best_first_and_absent_ones_not_at_all():
    scores = np.array([[0.9, 0.3, 0.0], [0.8, 0.2, 0.0], [0.1, 0.1, 0.0]])
    targets = np.array([[True, False, False], [True, False, False], [False, True, False]])
    measured = compute_metrics(scores, targets, labels=["best", "worst", "absent"], task="multi-label", resamples=0)
    axes = per_class_figure(measured.classes).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["best", "worst"]
    assert [bar.get_width() for bar in axes.patches] == [1.0, pytest.approx(1 / 3)]


def test_of_hundreds_of_classes_the_best_and_the_worst_are_drawn():
    measured = evaluation(200, clips=2000)
    axes = per_class_figure(measured.classes).axes[0]
    precision = sorted((one.average_precision for one in measured.classes), reverse=True)
    assert [bar.get_width() for bar in axes.patches] == precision[:30] + precision[-30:]
    assert "140 classes between" in [text.get_text() for text in axes.texts]


def test_an_event_is_drawn_at_its_seconds_in_the_lane_of_its_label():
    mel = np.zeros((8, 100), np.float32)
    found, reference = [row(1.0, 1.5, "b", 0.5), row(2.0, 2.0, "a")], [row(1.1, 1.4, "b")]
    upper, lower = timeline_figure(mel, found, seconds=4.0, fmin=0.0, fmax=8000.0, reference=reference).axes
    assert [text.get_text() for text in lower.get_yticklabels()] == ["b", "a"]
    assert tuple(upper.images[0].get_extent()) == (0, 4.0, 0, 8) and lower.get_xlim() == (0, 4.0)
    lanes = [lane for lane in lower.collections if lane.get_paths()]
    first, outline, second = (lane.get_paths()[0].get_extents() for lane in lanes)
    assert (first.x0, first.x1) == (1.0, 1.5) and first.y0 < 0 < first.y1
    blue = np.array(to_rgb(CYCLE[0]))
    np.testing.assert_allclose(lanes[0].get_facecolor()[0, :3], 1 - 0.625 * (1 - blue))
    assert (outline.x0, outline.x1) == (1.1, 1.4)
    assert second.x0 == 2.0 and second.x1 > 2.0 and second.y0 < 1 < second.y1  # no length, still seen


def test_frequencies_stand_where_the_mel_scale_puts_them():
    """1000 Hz is 999.99 mel, and 8000 Hz is 2840 mel."""
    upper = timeline_figure(np.zeros((64, 10), np.float32), [], seconds=1.0, fmin=0.0, fmax=8000.0).axes[0]
    places = {text.get_text(): place for text, place in zip(upper.get_yticklabels(), upper.get_yticks(), strict=True)}
    assert places["1k"] == pytest.approx(64 * 1000 / 2840, abs=0.05) and places["8k"] == pytest.approx(64)


def test_each_column_of_the_fullest_picture_is_seen():
    mel = np.zeros((8, MOST_COLUMNS), np.float32)
    mel[:, ::7] = 7.0
    figure = timeline_figure(mel, [row(0.0, 1.0, "a" * 40)], seconds=3600.0, fmin=0.0, fmax=8000.0)
    png = imread(io.BytesIO(png_bytes(figure)))[..., 0]
    box = figure.axes[0].get_window_extent()
    middle = png[len(png) - int((box.y0 + box.y1) / 2), int(box.x0) + 2 : int(box.x1) - 2]
    clicks = np.flatnonzero(np.diff((middle > 0.5).astype(int)) == 1)
    assert len(clicks) >= (MOST_COLUMNS - 1) // 7  # the first stands on the edge


def test_a_figure_is_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        save_figure(reliability_figure(evaluation(3).calibration), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_touches_neither_pyplot_nor_torch():
    program = (
        "import sys, numpy as np\n"
        "import ossicle.report as report\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        "report.png_bytes(report.confusion_figure(np.eye(2, dtype=int), ['a', 'b']))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("groups", [1, 3, 20])
def test_sampling_points_are_drawn_for_each_group_and_the_lines_lead_to_them(groups):
    centers = np.array([[4.0, 10.0], [12.0, 30.0]])
    before = np.repeat(centers[None], groups, 0)
    after = before + np.array([3.0, 4.0])
    figure = sampling_figure(np.random.rand(16, 40), {"before": before, "after": after}, centers=centers, seconds=0.4)
    drawn = min(groups, 8)
    assert len(figure.axes) == 2 * drawn
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [[f"moved by {moved} bins and frames on average"] for moved in ("0.0", "5.0")] * drawn
    start, end = figure.axes[1].collections[0].get_segments()[0]
    np.testing.assert_allclose((start, end), ((0.1, 4.0), (0.14, 7.0)))
    assert size_of(png_bytes(figure))[1] > 100
