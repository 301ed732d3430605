"""The page opens from disk, needs nothing else, and shows every label as text."""

from html.parser import HTMLParser

import numpy as np
import pytest

from ossicle.metrics import Estimate, compute_metrics, mean_over_folds
from ossicle.report import (
    Section,
    Table,
    evaluation_lines,
    evaluation_sections,
    fold_lines,
    fold_section,
    training_section,
    write_report,
)

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


class Page(HTMLParser):
    """Collects what a browser would: elements, where they point, and the text of the cells."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.targets, self.cells, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.targets += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag == "td" or ("scope", "row") in attributes:
            self.cells.append("")

    def handle_data(self, data):
        self.text.append(data)
        if self.cells and self.lasttag in ("td", "th", "span", "i", "b") and data.strip():
            self.cells[-1] += data


def measured(count=3, *, clips=40, task="single-label", resamples=50, labels=None, seed=0):
    generator = np.random.default_rng(seed)
    targets = np.eye(count, dtype=bool)[generator.integers(0, count, clips)]
    scores = generator.dirichlet(np.ones(count), clips)
    labels = labels or [f"label {i}" for i in range(count)]
    return compute_metrics(
        scores, targets, labels=labels, task=task, resamples=resamples, protocol=f"on {HOSTILE}", thresholds=None
    )


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_label_with_markup_stays_a_label(tmp_path, task):
    evaluation = measured(labels=[HOSTILE, "b", "c"], task=task)
    write_report(tmp_path / "report.html", title=HOSTILE, sections=evaluation_sections(evaluation))
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert "script" not in page.elements
    assert HOSTILE in page.cells and HOSTILE in page.text


def test_the_page_asks_nothing_of_the_network(tmp_path):
    rows = [{"epoch": 1, "train_loss": 2.0, "val_loss": 2.1, "val_score": 0.3}]
    sections = [
        *evaluation_sections(measured()),
        training_section(rows),
        fold_section({"1": measured(), "2": measured()}),
    ]
    write_report(tmp_path / "report.html", title="t", sections=sections)
    html = (tmp_path / "report.html").read_text("utf-8")
    page = Page(html)
    assert all(target.startswith(("data:image/png;base64,", "#part-")) for target in page.targets)
    assert not {"link", "script", "iframe", "object", "embed"} & set(page.elements)
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert page.elements.count("img") == 4


def test_fifty_classes_make_a_page_below_two_megabytes(tmp_path):
    write_report(tmp_path / "report.html", title="t", sections=evaluation_sections(measured(50, clips=400)))
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_the_page_shows_every_figure_with_its_interval(tmp_path):
    evaluation = measured()
    write_report(tmp_path / "report.html", title="t", sections=evaluation_sections(evaluation))
    cells = Page((tmp_path / "report.html").read_text("utf-8")).cells
    for estimate in evaluation.headline.values():
        assert f"{estimate.value:.3f}" in cells
        assert f"[{estimate.low:.3f}, {estimate.high:.3f}]" in cells


def test_a_row_of_the_wrong_length_is_a_slip(tmp_path):
    with pytest.raises(ValueError):
        write_report(
            tmp_path / "r.html",
            title="t",
            sections=[Section(title="s", blocks=[Table(header=["a", "b"], rows=[["1"]])])],
        )
    assert list(tmp_path.iterdir()) == []


def test_the_lines_hold_protocol_figures_baseline_and_classes():
    evaluation = measured()
    lines = evaluation_lines(evaluation)
    assert lines[0] == f"Protocol: on {HOSTILE}"
    accuracy = next(line for line in lines if line.startswith("Accuracy")).split()
    assert accuracy == [
        "Accuracy",
        f"{evaluation.accuracy.value:.3f}",
        f"[{evaluation.accuracy.low:.3f},",
        f"{evaluation.accuracy.high:.3f}]",
    ]
    assert any("most frequent label" in line and "not clearly beaten" in line for line in lines)
    assert [line.split()[:2] for line in lines[-3:]] == [["label", "0"], ["label", "1"], ["label", "2"]]


def test_what_is_not_defined_is_a_dash():
    one = compute_metrics(np.array([[0.9, 0.1]]), np.array([[True, False]]), labels=["a", "b"], task="single-label")
    lines = evaluation_lines(one)
    assert next(line for line in lines if line.startswith("AUROC")).split() == ["AUROC", "–"]
    assert lines[-1].split() == ["b", "0", "0", "–", "–", "–", "–", "–"]
    assert evaluation_sections(one)


def test_thresholds_have_a_column_only_where_there_are_any():
    scores, targets = np.array([[0.9, 0.1], [0.2, 0.7]]), np.array([[True, False], [False, True]])
    without = compute_metrics(scores, targets, labels=["a", "b"], task="multi-label")
    fitted = compute_metrics(scores, targets, labels=["a", "b"], task="multi-label", thresholds=np.array([0.55, 0.4]))
    assert not any("threshold" in line for line in evaluation_lines(without))
    assert evaluation_lines(fitted)[-2].split()[-1] == "0.550"


def test_the_folds_are_shown_with_their_mean():
    folds = {str(fold): measured(seed=fold) for fold in range(1, 4)}
    summary = mean_over_folds(list(folds.values()))
    table = fold_section(folds).blocks[1]
    accuracy = [line[2] for line in table.rows]
    assert accuracy[:3] == [f"{one.accuracy.value:.3f}" for one in folds.values()]
    assert accuracy[3] == f"{summary['accuracy'].value:.3f}"
    assert accuracy[4] == f"[{summary['accuracy'].low:.3f}, {summary['accuracy'].high:.3f}]"
    assert fold_lines({"accuracy": Estimate(value=0.5, low=0.4, high=0.6)}, folds=3)[-1].split()[1:] == [
        "0.500",
        "[0.400,",
        "0.600]",
    ]
