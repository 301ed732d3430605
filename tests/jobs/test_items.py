"""Texts and images in `predict_files`, with a model that needs no network."""

import csv
from pathlib import Path
from typing import Any

import pytest

from ossicle.inference import Predictor
from ossicle.jobs.predict import predict_files


def test_images_become_rows_in_memory_and_in_a_folder(cats: Predictor, tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "bad.png", tmp_path / "b.png", tmp_path / "a.png"]
    seen: list[int] = []
    memory = predict_files(cats, files, progress=lambda outcome, done, total: seen.append(done))
    folder = predict_files(cats, files, output=tmp_path / "out", formats="csv")
    for results in (memory, folder):
        assert results.files == (files[0], files[2])  # each once
        assert [row.file for row in results.rows] == [str(files[0]), str(files[2])]
        assert [outcome.error for outcome in results.failed] == [f"{files[1]}: no image"]
    assert seen == [1, 2, 3] and folder.tables == (tmp_path / "out" / "predictions.csv",)
    assert len(list(csv.DictReader(folder.tables[0].read_text().splitlines()))) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 1.0}, "leave out window"),
        ({"events": True}, "leave out events"),
        ({"output": "out", "each": True}, "leave out each"),
        ({"output": "out", "formats": "raven"}, "leave out formats raven"),
        ({"text": "body"}, "does not predict texts"),
    ],
)
def test_options_of_sound_are_refused_by_name(
    options: dict[str, Any], said: str, cats: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        predict_files(cats, "a.png", **options)
    assert not list(tmp_path.iterdir())
