"""`ossicle bench`: what a person and a program see."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from ossicle.bench.forms import Cost, Variant

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the processes: float32 takes 20 ms a clip, half of the tokens 8 ms, nothing can be compiled."""

    def measure(work, forms, **options) -> list[Cost]:
        def cost(form: Variant) -> Cost:
            if form.engine == "compiled":
                return Cost(variant=form, problem="no compiler")
            if form.keep < 1:
                return Cost(variant=form, clip_seconds=0.008, peak_bytes=290_000_000)
            return Cost(variant=form, clip_seconds=0.02, peak_bytes=300_000_000)

        return [cost(form) for form in forms]

    monkeypatch.setattr("ossicle.bench.measure.measure", measure)


def test_the_table_has_time_speed_and_memory_and_says_what_does_not_run(run: Run) -> None:
    lines = run("bench", "some-run", "--keep", "0.5", "--no-files").stdout.splitlines()
    assert lines[1].split() == ["float32", "20.00", "0.0020", "300", "MB"]
    assert lines[2].endswith("not available: no compiler")
    assert lines[4].split() == ["merge,", "keep", "0.5", "8.00", "0.0008", "290", "MB"]


@pytest.mark.parametrize(
    "budget, says",
    [("25", "per clip: float32."), ("10", "per clip: merge, keep 0.5."), ("5", "No variant is within")],
)
def test_a_budget_is_answered(budget: str, says: str, run: Run) -> None:
    assert says in run("bench", "some-run", "--keep", "0.5", "--budget-ms", budget).stdout.splitlines()[-1]


def test_json_holds_what_the_table_does(run: Run) -> None:
    done = json.loads(run("bench", "passt_tiny_s16", "--json", "--budget-ms", "10", "--keep", "0.5").stdout)
    assert done["random_weights"] and done["recommended"] == "merge, keep 0.5"
    assert done["variants"][0] == {
        "variant": "float32",
        "clip_seconds": 0.02,
        "real_time_factor": 0.002,
        "peak_bytes": 300_000_000,
        "problem": None,
    }
    assert done["variants"][1]["problem"] == "no compiler"


def test_files_are_measured_unless_one_says_no(run: Run) -> None:
    assert [line[:12] for line in run("bench", "some-run").stdout.splitlines()[3::2]] == [
        "float32, ONN",
        "int8, ONNX  ",
    ]
    assert "ONNX" not in run("bench", "some-run", "--no-files").stdout


def test_random_weights_are_said(run: Run) -> None:
    assert "random weights, for measuring time and memory only" in run("bench", "passt_tiny_s16").stdout


def test_an_error_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    done = run("bench", tmp_path / "nothing")
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1 and "no such folder" in done.stderr
