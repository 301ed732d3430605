"""`ossicle evaluate`: the figures, and on which clips they were made."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from ossicle.data import read_dataset, split_dataset
from ossicle.evaluation import CONFIG, SPLIT, write_split
from ossicle.training import TrainConfig
from ossicle.training.config import write_config

Run = Callable[..., Result]
Record = Callable[..., Path]
Make = Callable[..., Path]

LABELS = ("bell", "drum", "voice")


@pytest.fixture
def data(record: Record, tmp_path: Path) -> Path:
    for number, label in enumerate(LABELS):
        for take in range(4):
            record(f"data/{label}/{take}.wav", seconds=0.5, seed=10 * number + take)
    return tmp_path / "data"


def test_everything_is_written_and_agrees(run: Run, shared_bundle: Path, data: Path, tmp_path: Path) -> None:
    result = run("evaluate", shared_bundle, data, "-o", tmp_path / "out")
    assert result.exit_code == 0 and result.stderr == ""
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert metrics["clips"] == len(rows) == 12
    right = sum(row["truth"] == row["prediction"] for row in rows) / len(rows)
    assert metrics["headline"]["accuracy"]["value"] == pytest.approx(right)
    assert f"{right:.3f}" in result.stdout
    for row in rows:
        scores = {label: float(row[f"score:{label}"]) for label in LABELS}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert max(scores, key=lambda label: scores[label]) == row["prediction"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Protocol: all 12 clips" in page and "http" not in page.split("</style>")[1]
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} >= {"confusions.png", "calibration.png"}


def test_segments_that_are_cut_short_are_said(run: Run, shared_bundle: Path, data: Path) -> None:
    lines = [f"{label}/{take}.wav,{label},0,{take + 0.5}" for label in LABELS for take in range(4)]
    (data / "meta.csv").write_text("\n".join(["file,label,start,end", *lines]))
    result = run("evaluate", shared_bundle, data)
    assert "cut short: 9 of 12 clips (the segment ends after the recording)" in result.stdout
    assert "asked for 1.5 s, found 0.50 s" in result.stdout


def test_any_column_may_hold_the_files(run: Run, shared_bundle: Path, data: Path) -> None:
    lines = [f"{label}/{take}.wav,{label}" for label in LABELS for take in range(4)]
    (data / "meta.csv").write_text("\n".join(["clip,label", *lines]))
    assert "files from `clip`" in run("evaluate", shared_bundle, data, "--file", "clip").stdout


def test_fewer_tokens_are_measured_and_said(run: Run, shared_bundle: Path, data: Path, tmp_path: Path) -> None:
    def scores(name: str, *options: str) -> str:
        assert run("evaluate", shared_bundle, data, "-o", tmp_path / name, *options).exit_code == 0
        return (tmp_path / name / "predictions.csv").read_text()

    every, half, fewer = (
        scores("all"),
        scores("half", "--keep", "0.5", "--keep-by", "strided"),
        scores("one", "--keep", "1"),
    )
    assert every == fewer and every != half
    protocol = json.loads((tmp_path / "half" / "metrics.json").read_text())["protocol"]
    assert protocol.endswith("; with 0.5 of the tokens, strided")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--keep-by", "merge"], 2, "needs --keep"),
        (["--keep", "2"], 2, "at most 1"),
        (["--keep", "0.01"], 1, "0.01"),
    ],
)
def test_a_share_that_there_is_not_is_one_sentence(
    options: list[str], code: int, said: str, run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    result = run("evaluate", make_bundle(tmp_path / "deep", depth=2), data, *options)
    assert result.exit_code == code and said in " ".join(result.stderr.replace("│", " ").split())


def test_without_an_output_nothing_is_written(run: Run, shared_bundle: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("evaluate", shared_bundle, data).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_an_evaluation_replaces_its_own_files_and_no_others(
    run: Run, shared_bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert run("evaluate", shared_bundle, data, "-o", out).exit_code == 0
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "predictions.csv").write_text("mine")
    refused = run("evaluate", shared_bundle, data, "-o", strange)
    assert refused.exit_code == 1 and "ossicle did not write it" in refused.stderr
    assert (strange / "predictions.csv").read_text() == "mine"
    labels = tmp_path / "labels"
    assert run("predict", shared_bundle, data / "bell", "-o", labels).exit_code == 0
    refused = run("evaluate", shared_bundle, data, "-o", labels)
    assert refused.exit_code == 1 and "there are predictions in it" in refused.stderr


def test_a_run_is_evaluated_on_its_own_test_part(run: Run, make_bundle: Make, data: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "run" / "model")
    dataset = read_dataset(data)
    split = split_dataset(dataset, seed=3)
    write_split(tmp_path / "run" / SPLIT, dataset, split)
    result = run("evaluate", tmp_path / "run", data, "-o", tmp_path / "out")
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        tested = [row["file"] for row in csv.DictReader(file)]
    assert tested == [dataset.relative(dataset.items[index]) for index in split.test]
    assert split.protocol in result.stdout

    everything = run("evaluate", tmp_path / "run", data, "--part", "all")
    assert "all 12 clips of data, this is the data of the training" in everything.stdout
    training = run("evaluate", tmp_path / "run", data, "--part", "train")
    assert "on the train part, which the training has seen" in training.stdout

    (data / "bell" / "3.wav").unlink()  # no longer the data of the run
    found = run("evaluate", tmp_path / "run", data).stdout
    assert "all 11 clips of data\n" in found
    write_config(tmp_path / "run" / CONFIG, TrainConfig(), data={"path": str(data)})
    found = run("evaluate", tmp_path / "run", data).stdout
    assert "all 11 clips of data, the data of the training but changed since then" in found


def test_the_columns_of_the_training_are_those_of_its_evaluation(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "run" / "model")
    lines = ["file,label,take,place"]
    lines += [f"{label}/{take}.wav,{label},{take},{label}{take % 2}" for label in LABELS for take in range(4)]
    (data / "meta.csv").write_text("\n".join(lines))
    dataset = read_dataset(data, group="place")
    split = split_dataset(dataset)
    write_split(tmp_path / "run" / SPLIT, dataset, split)
    write_config(tmp_path / "run" / CONFIG, TrainConfig(), data={"path": str(data), "group": "place"})
    found = run("evaluate", tmp_path / "run", data).stdout
    assert split.protocol in found and "whole groups" in found
    assert "changed since then" in run("evaluate", tmp_path / "run", data, "--group", "take").stdout


def test_broken_clips_are_named_and_left_out(run: Run, shared_bundle: Path, data: Path) -> None:
    (data / "drum" / "1.wav").write_bytes(b"RIFF")
    result = run("evaluate", shared_bundle, data)
    assert result.exit_code == 3
    assert "drum/1.wav" in result.stderr and "1 recordings could not be used" in result.stderr
    assert "11 clips" in result.stdout


def test_an_official_test_part_is_found(run: Run, shared_bundle: Path, data: Path) -> None:
    lines = ["file,label,split"]
    lines += [f"{label}/{take}.wav,{label},{'test' if take else 'train'}" for label in LABELS for take in range(4)]
    (data / "meta.csv").write_text("\n".join(lines))
    result = run("evaluate", shared_bundle, data, "--part", "test")
    assert result.exit_code == 0
    assert "the official `test` part of data, 9 clips" in result.stdout


def test_several_labels_are_refused_by_a_model_that_gives_one_and_taken_by_one_that_gives_several(
    run: Run, shared_bundle: Path, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    lines = ["file,labels"] + [f"bell/{take}.wav,bell;voice" for take in range(4)] + ["drum/0.wav,drum"]
    (data / "meta.csv").write_text("\n".join(lines))
    refused = run("evaluate", shared_bundle, data)
    assert refused.exit_code == 1 and "several labels" in refused.stderr
    several = make_bundle(tmp_path / "several", task="multi-label", thresholds=[0.4, 0.5, 0.6])
    assert run("evaluate", several, data).exit_code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: (data / "bell").rename(data / "gong"), "gong"),
        (lambda data: (data / "meta.csv").write_text("file,sound\nbell/0.wav,bell\n"), "label"),
        (lambda data: [path.write_text("") for path in data.rglob("*.wav")], "not one of 12 clips"),
    ],
)
def test_each_mistake_in_the_data_is_one_sentence(
    change: Callable[[Path], object], said: str, run: Run, shared_bundle: Path, data: Path
) -> None:
    change(data)
    result = run("evaluate", shared_bundle, data)
    assert result.exit_code == 1
    assert said in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_part_that_is_not_there_is_one_sentence(run: Run, shared_bundle: Path, data: Path) -> None:
    result = run("evaluate", shared_bundle, data, "--part", "test")
    assert result.exit_code == 1 and "--part all" in result.stderr


def test_a_damaged_split_is_one_sentence(run: Run, make_bundle: Make, data: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "run" / "model")
    (tmp_path / "run" / SPLIT).write_text("{}")
    result = run("evaluate", tmp_path / "run", data)
    assert result.exit_code == 1 and SPLIT in result.stderr
