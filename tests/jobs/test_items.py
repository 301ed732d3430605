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
    assert seen == [1, 2, 3]
    assert folder.tables == (tmp_path / "out" / "predictions.csv", tmp_path / "out" / "errors.csv")
    rows, lost = (list(csv.DictReader(table.read_text().splitlines())) for table in folder.tables)
    assert [(row["start"], row["end"]) for row in rows] == [("", "")] * 2  # an image has no times
    assert lost == [{"file": str(files[1]), "error": f"{files[1]}: no image"}]


def test_a_row_without_text_is_named_and_the_others_are_predicted(cats: Predictor, tmp_path: Path) -> None:
    cats.modality, cats.plural = "text", "texts"  # type: ignore[misc]
    table = tmp_path / "t.csv"
    table.write_text("id,text\n1,miaow\n2,\n3,purr\n")
    (tmp_path / "empty.txt").write_text("")
    results = predict_files(cats, [table, tmp_path / "empty.txt"])
    assert [row.file for row in results.rows] == [f"{table}:2", f"{table}:4"]
    assert [outcome.error for outcome in results.failed] == [
        f"line 3 of {table} holds no text in the column 'text'.",
        f"line 1 of {tmp_path / 'empty.txt'} holds no text in the column 'text'.",
    ]


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
