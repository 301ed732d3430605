"""`read_dataset` and `check_dataset` in Python: what they give, and what they say of wrong arguments."""

import doctest
import inspect
import json
from pathlib import Path

import pytest

import ossicle
from ossicle.data import Dataset, check_dataset, reading

CLIPS = [f"{label}/{number}.wav" for label in ("cat", "dog") for number in "12"]


def test_the_example_in_the_docstring_is_true():
    results = doctest.testmod(reading)
    assert results.attempted and not results.failed


def test_a_data_set_is_short_to_show_and_gives_its_items_in_order(tree):
    root = tree(CLIPS)
    dataset = ossicle.read_dataset(str(root))
    assert isinstance(dataset, ossicle.Dataset)
    assert repr(dataset) == f"Dataset({str(root)!r}, 4 clips, 2 classes, single-label)"
    assert len(dataset) == 4 and [item.labels[0] for item in dataset] == ["cat", "cat", "dog", "dog"]
    assert dataset.targets().tolist() == [[True, False]] * 2 + [[False, True]] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"path": 3}, TypeError, "path must be a str or a Path of a folder or a table, got 3 (int)"),
        ({"path": None}, TypeError, "got None (NoneType)"),
        ({"modality": "sond"}, ValueError, "modality must be one of sound, text, image, not 'sond'"),
        ({"label": 3}, TypeError, "label must be the name of a column (str), got 3 (int)"),
        ({"group": ["a", "b"]}, TypeError, "group must be the name of a column"),
        ({"track": 0}, ValueError, "track must be 1 or more, got 0"),
        ({"track": "2"}, TypeError, "track must be a whole number, got '2' (str)"),
        ({"labels": "dog"}, TypeError, "labels must be a list or tuple of str, got 'dog' (str)"),
        ({"labels": [1, 2]}, TypeError, "labels must be a list or tuple of str, got [1, 2] (list)"),
        ({"labels": ["dog", "dog"]}, ValueError, "labels must differ from each other"),
    ],
)
def test_a_wrong_argument_is_named_in_a_sentence(tree, arguments, error, sentence):
    unchecked = inspect.unwrap(ossicle.read_dataset)  # the tests' check of types would speak first
    with pytest.raises(error) as caught:
        unchecked(**{"path": tree(CLIPS), **arguments})
    assert sentence in str(caught.value)


def test_a_path_is_no_data_set(tree):
    with pytest.raises(TypeError, match="dataset must be what read_dataset returns, got a str"):
        inspect.unwrap(check_dataset)(str(tree(CLIPS)))


def test_a_report_is_short_to_show_and_long_to_print(tree):
    report = check_dataset(ossicle.read_dataset(tree(CLIPS)))
    assert repr(report) == "DataReport(4 clips, 4 problems)"
    assert str(report).splitlines() == report.lines() and "broken: 4 of 4 clips" in str(report)
    assert json.dumps(report.to_json())


def test_a_data_set_may_be_made_by_hand(tmp_path: Path):
    dataset = Dataset(root=tmp_path, items=(), labels=("a", "b"), task="single-label", layout="made by hand.")
    assert len(dataset) == 0 and list(dataset) == [] and dataset.targets().shape == (0, 2)
