"""`predict_files`: the rows of any number of files as an object, in memory or in a folder, and nothing printed."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ossicle.errors import DataRefused, SettingRefused
from ossicle.inference import EventRules, ModelInfo, Predictor
from ossicle.jobs.folders import Outcome
from ossicle.jobs.options import WrongUsage
from ossicle.jobs.predict import predict_files

Record = Callable[..., Path]


class Loudness(Predictor):
    """Says how loud it is."""

    rate, min_samples = 32_000, 1  # type: ignore[assignment]
    bundle = ModelInfo(
        model_name="loudness",
        task="multi-label",
        labels=("loud", "quiet"),
        window_seconds=0.5,
        hop_seconds=0.5,
        library_version="0",
        version="0" * 12,
    )

    def scores(self, windows: np.ndarray) -> np.ndarray:
        level = 100 * np.abs(windows).mean(1) - 8
        return np.stack([level, -level], 1)

    def features(self, windows: np.ndarray) -> np.ndarray:
        return self.scores(windows)


@pytest.fixture
def calls(record: Record, tmp_path: Path) -> Path:
    """A folder of two recordings and a broken one."""
    record("calls/a.wav", seconds=1.5)
    record("calls/c.wav", seconds=0.7, seed=1)
    (tmp_path / "calls" / "b.wav").write_text("dear diary")
    return tmp_path / "calls"


def test_rows_in_memory_are_those_of_a_folder_and_nothing_is_printed(
    calls: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Loudness()
    memory = predict_files(model, calls, min_score=0.0)
    folder = predict_files(model, str(calls), min_score=0.0, output=str(tmp_path / "out"), formats=("csv", "raven"))
    assert len(memory) == 2 and memory.files == folder.files == (calls / "a.wav", calls / "c.wav")
    assert [(row.file, row.start, row.label) for row in memory.rows] == [
        (row.file, row.start, row.label) for row in folder.rows
    ]
    for file, rows in memory:
        assert rows == model.predict(file, min_score=0.0).rows
    for results in (memory, folder):
        (outcome,) = results.failed
        assert outcome.file == str(calls / "b.wav") and "b.wav" in str(outcome.error)
    assert memory.folder is None and memory.tables == ()
    assert [path.name for path in folder.tables] == ["predictions.csv", "predictions.selections.txt", "errors.csv"]
    assert all(path.is_file() for path in folder.tables)
    assert repr(memory) == "FileResults(2 files in memory, 1 failed)"
    assert capfd.readouterr() == ("", "")


def test_progress_is_called_after_each_file(calls: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(outcome: Outcome, done: int, total: int) -> None:
        seen.append((Path(outcome.file).name, done, total))

    predict_files(Loudness(), calls, progress=progress)
    assert seen == [("a.wav", 1, 3), ("b.wav", 2, 3), ("c.wav", 3, 3)]


def test_a_job_is_continued_and_its_settings_are_kept(calls: Path, tmp_path: Path) -> None:
    run = functools.partial(predict_files, Loudness(), output=tmp_path / "out", events=EventRules(merge_gap=1.0))
    first = run([calls / "a.wav"])
    again = run([calls / "a.wav", calls / "c.wav"], resume=True)
    assert (first.before, again.before) == (0, 1) and again.rows[: len(first.rows)] == first.rows


def test_a_model_by_name_and_a_loaded_one_give_the_same_rows(shared_bundle: Path, calls: Path) -> None:
    from ossicle.loading import load

    options: dict[str, Any] = {"top_k": 2, "labels": ["bell", "drum"], "hop": 0.5}
    by_name = predict_files(str(shared_bundle), [calls / "a.wav"], device="cpu", **options)
    loaded = predict_files(load(shared_bundle, device="cpu"), [calls / "a.wav"], **options)
    assert by_name.rows == loaded.rows and {row.label for row in loaded.rows} == {"bell", "drum"}


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"resume": True}, ValueError, "resume needs output"),
        ({"workers": 2, "output": "out"}, ValueError, "workers and cluster need a model by name"),
        ({"device": "cpu"}, ValueError, "this one is loaded"),
        ({"formats": ("table",), "output": "out"}, ValueError, "'table' is not available; available: csv"),
        ({"labels": ["lod"]}, ValueError, "no label 'lod'; the nearest is 'loud'"),
        ({"window": 1000.0}, ValueError, "outside the range of this model"),
        ({"text": "body"}, ValueError, "does not predict texts"),
        ({"events": True, "top_k": 1}, ValueError, "top_k"),
        ({"inputs": []}, ValueError, "inputs is empty"),
        ({"inputs": "-"}, ValueError, "standard input"),
        ({"inputs": "."}, DataRefused, "there is no recording"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_a_sentence(
    options: dict[str, Any], kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said):
        predict_files(Loudness(), **{"inputs": "a.wav", **options})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "said"), [({"device": "warp"}, "warp"), ({"encoder": "x"}, "network of its own")])
def test_a_model_that_cannot_be_loaded_is_refused_before_anything_is_decoded(
    options: dict[str, Any], said: str, shared_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingRefused, match=said):
        predict_files(shared_bundle, tmp_path / "gone.wav", output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_a_value_error() -> None:
    assert issubclass(WrongUsage, ValueError)
