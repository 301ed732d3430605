"""The built-in recordings keep their promises: sizes, classes, makers, licenses."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.data import read_dataset, split_dataset, split_folds
from ossicle.data import recordings as module
from ossicle.data.recordings import drums_folder
from ossicle.errors import DataRefused

DRUMS = drums_folder()
LICENSES = {"CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0", "CC-BY-SA-3.0-US"}


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with open(DRUMS / "meta.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_there_are_enough_clips_and_classes_in_little_space(table: list[dict[str, str]]) -> None:
    assert len(table) >= 150 and len({row["label"] for row in table}) >= 5
    assert sum(path.stat().st_size for path in DRUMS.rglob("*")) <= 8e6


def test_every_hit_is_audible_mono_at_32_khz_and_short(table: list[dict[str, str]]) -> None:
    for row in table:
        samples, rate = soundfile.read(DRUMS / row["file"])
        assert rate == 32_000 and samples.ndim == 1, row["file"]
        assert 0.02 < len(samples) / rate <= 2.0, row["file"]
        assert 0.5 < np.abs(samples).max() < 1.0, row["file"]
        attack = int(np.argmax(np.abs(samples) > 0.3 * np.abs(samples).max())) / rate
        assert attack < 0.03, row["file"]  # placed at t it sounds at t


def test_no_class_lives_in_one_group_or_one_fold_only(table: list[dict[str, str]]) -> None:
    groups, folds = defaultdict(set), defaultdict(set)
    for row in table:
        groups[row["label"]].add(row["group"])
        folds[row["label"]].add(row["fold"])
    assert min(map(len, groups.values())) >= 2
    assert min(map(len, folds.values())) >= 2


def test_no_group_is_cut_by_a_fold_and_no_person_is_on_both_sides(table: list[dict[str, str]]) -> None:
    folds = defaultdict(set)
    for row in table:
        folds[row["group"]].add(row["fold"])
        # Audiophob collects from many people; one of them may have a group of his own.
        folds[row["author"].split(" (freesound.org)")[0]].add(row["fold"])
    assert {name for name, where in folds.items() if len(where) > 1} == set()


def test_every_file_has_its_maker_and_license_in_the_readme(table: list[dict[str, str]]) -> None:
    readme = (DRUMS / "README.md").read_text(encoding="utf-8")
    stated = dict(
        re.findall(r"^\| (\S+\.flac) \| [^|]+ \| \[([^\]]+)\]\(https://creativecommons", readme, re.MULTILINE)
    )
    here = {path.relative_to(DRUMS).as_posix() for path in DRUMS.rglob("*.flac")}
    assert stated.keys() == here
    assert set(stated.values()) <= LICENSES
    for row in table:
        assert row["author"] and stated[row["file"]] == row["license"], row["file"]


def test_the_loops_are_no_class_and_none_is_the_amen_break() -> None:
    loops = sorted(path.name for path in (DRUMS / "loops").iterdir())
    assert loops and not any("amen" in name for name in loops)
    dataset = read_dataset(DRUMS)
    assert "loops" not in dataset.labels
    assert not any("loops" in item.file.parts for item in dataset.items)


def test_the_dataset_reads_with_its_groups_and_folds() -> None:
    dataset = read_dataset(DRUMS)
    assert dataset.task == "single-label"
    assert all(item.group and item.fold and item.file.is_file() for item in dataset.items)
    for fold in split_folds(dataset):
        split = split_dataset(dataset, fold=fold, validation=0.0)
        makers = [{dataset.items[i].group for i in part} for part in (split.train, split.test)]
        assert not makers[0] & makers[1]
        assert {dataset.items[i].labels for i in split.test} <= {dataset.items[i].labels for i in split.train}


def test_the_recordings_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site-packages" / "ossicle"
    (installed / "examples" / "drums").mkdir(parents=True)
    (installed / "examples" / "drums" / "meta.csv").write_text("file,label\n")
    (installed / "data").mkdir()
    monkeypatch.setattr(module, "__file__", str(installed / "data" / "recordings.py"))
    assert drums_folder() == installed / "examples" / "drums"


def test_missing_recordings_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "a" / "b" / "ossicle" / "data" / "recordings.py"))
    with pytest.raises(DataRefused, match="built-in recordings are missing"):
        drums_folder()
