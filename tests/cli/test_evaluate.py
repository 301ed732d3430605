"""`ossicle evaluate`: the figures, and on which clips they were made."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from ossicle.bundle.published import card_of
from ossicle.catalog import checkpoint
from ossicle.data import read_dataset, split_dataset
from ossicle.data.parts import write_split
from ossicle.ensemble import Ensemble
from ossicle.evaluation import CONFIG, SPLIT
from ossicle.evaluation.parts import trained_without_split
from ossicle.loading import load
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
    assert f"all 12 clips of data, {12 - len(split.test)} of which trained the model" in everything.stdout
    training = run("evaluate", tmp_path / "run", data, "--part", "train")
    assert "on the train part, which the training has seen" in training.stdout


def begun(run_folder: Path, data: Path, make_bundle: Make, **columns: str) -> tuple[set[str], Path]:
    """A run on the data, as far as an evaluation asks; gives what its test part holds."""
    make_bundle(run_folder / "model")
    dataset = read_dataset(data, **columns)
    split = split_dataset(dataset, seed=3)
    write_split(run_folder / SPLIT, dataset, split)
    write_config(run_folder / CONFIG, TrainConfig(), data={"path": str(data), **columns})
    return {dataset.items[index].file.name for index in split.test}, run_folder


def scored(run: Run, model: Path, data: Path, *options: str) -> tuple[set[str], str]:
    """The names of the clips that are evaluated, and what is said."""
    out = model.parent / f"out{len(list(model.parent.glob('out*')))}"
    result = run("evaluate", model, data, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    with open(out / "predictions.csv", newline="") as file:
        return {Path(row["file"]).name for row in csv.DictReader(file)}, result.stdout


@pytest.fixture
def takes(data: Path) -> Path:
    """The data with names of their own, `bell0.wav` and so on, and a table whose columns have unusual names."""
    lines = ["file,label,species,place"]
    for file in sorted(data.rglob("*.wav")):
        label, take = file.parent.name, file.stem
        file.rename(file.with_name(f"{label}{take}.wav"))
        lines.append(f"{label}/{label}{take}.wav,nothing,{label},{label}{int(take) // 2}")
    (data / "meta.csv").write_text("\n".join(lines))
    return data


def test_moved_data_are_scored_on_the_test_part_with_the_columns_of_the_training(
    run: Run, make_bundle: Make, takes: Path, tmp_path: Path
) -> None:
    test, model = begun(tmp_path / "run", takes, make_bundle, label="species", group="place")
    assert scored(run, model, takes)[0] == test
    moved = takes.rename(tmp_path / "elsewhere")
    names, said = scored(run, model, moved)
    assert names == test and "4 groups from `place`" not in said and "labels from `species`" in said
    assert "found by their content" not in said  # they are the very same data
    named, _ = scored(run, model, moved, "--label", "species")
    assert named == test


def test_renamed_clips_are_known_by_their_content(run: Run, make_bundle: Make, data: Path, tmp_path: Path) -> None:
    dataset = read_dataset(data)
    split = split_dataset(dataset, seed=3)
    make_bundle(tmp_path / "run" / "model")
    write_split(tmp_path / "run" / SPLIT, dataset, split)
    for number, item in enumerate(dataset.items):
        item.file.rename(item.file.with_name(f"z{number}.wav"))
    names, said = scored(run, tmp_path / "run", data)
    assert names == {f"z{number}.wav" for number in split.test}
    assert f"{len(split.test)} clips of the run's test part, found by their content" in said


def test_a_table_in_place_of_the_folder_and_a_subset_find_the_test_part(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    for file in sorted(data.rglob("*.wav")):
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    test, model = begun(tmp_path / "run", data, make_bundle)
    rows = [f"{file},{file.parent.name}" for file in sorted(data.rglob("*.wav"))]
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(["file,label", *rows]))
    assert scored(run, model, table)[0] == test
    kept = sorted(test)[1:]
    table.write_text("\n".join(["file,label", *(row for row in rows if sorted(test)[0] not in row)]))
    assert scored(run, model, table)[0] == set(kept)
    table.write_text("\n".join(["file,label", *(row for row in rows if not any(name in row for name in test))]))
    refused = run("evaluate", model, table)
    assert refused.exit_code == 1 and "trained the model or chose its epoch" in refused.stderr
    assert "--part all" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_segments_of_a_recording_that_trained_are_not_tested(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    for file in sorted(data.rglob("*.wav")):
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    test, model = begun(tmp_path / "run", data, make_bundle)
    table = tmp_path / "segments.csv"
    rows = [f"{file},{file.parent.name},0.1,0.4" for file in sorted(data.rglob("*.wav"))]
    table.write_text("\n".join(["file,label,start,end", *rows]))
    assert scored(run, model, table)[0] == test


def test_new_clips_are_tested_and_those_of_a_group_that_trained_are_not(
    run: Run, make_bundle: Make, takes: Path, tmp_path: Path, record: Record
) -> None:
    test, model = begun(tmp_path / "run", takes, make_bundle, label="species", group="place")
    dataset = read_dataset(takes, label="species", group="place")
    trained = next(item for item in dataset.items if item.file.name not in test)
    record("data/bell/new.wav", seconds=0.5, seed=77)
    record("data/bell/near.wav", seconds=0.5, seed=78)
    with open(takes / "meta.csv", "a") as table:
        table.write(f"\nbell/new.wav,x,bell,afar\nbell/near.wav,x,{trained.labels[0]},{trained.group}")
    names, said = scored(run, model, takes)
    assert names == {*test, "new.wav"}
    assert "1 that the run did not have" in said and "1 new ones of their groups too" in said


def test_other_data_are_said_to_be_other(run: Run, make_bundle: Make, data: Path, tmp_path: Path, record: Record):
    _, model = begun(tmp_path / "run", data, make_bundle)
    for number, label in enumerate(LABELS):
        record(f"other/{label}/strange.wav", seconds=0.5, seed=90 + number)
    assert "all 3 clips of other, none of which the run had\n" in scored(run, model, tmp_path / "other")[1]
    for label in LABELS:  # as if written anew, in another format
        (tmp_path / "other" / label / "strange.wav").rename(tmp_path / "other" / label / "0.wav")
    assert "have names of clips that trained the model" in scored(run, model, tmp_path / "other")[1]


def test_a_split_of_an_older_version_that_does_not_match_is_said(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    test, model = begun(tmp_path / "run", data, make_bundle)
    old = json.loads((model / SPLIT).read_text())
    (model / SPLIT).write_text(json.dumps({k: v for k, v in old.items() if k not in ("names", "contents")}))
    assert test and "found by" not in scored(run, model, data)[1]
    (data / "bell" / "3.wav").unlink()
    assert "whether they trained the model or chose its epoch cannot be told" in scored(run, model, data)[1]


def test_a_bundle_without_its_run_knows_the_data_of_its_card(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "alone")
    assert "all 12 clips of data\n" in scored(run, bundle, data)[1]
    with open(bundle / "README.md", "a") as card:
        card.write(f"Fingerprint: `{read_dataset(data, labels=LABELS).fingerprint()}`")
    assert "all 12 clips of data, the data that trained the model" in scored(run, bundle, data)[1]
    Ensemble.of([load(make_bundle(tmp_path / "other")), load(bundle)]).save_pretrained(tmp_path / "both")
    assert "all 12 clips of data, the data that trained the model" in scored(run, tmp_path / "both", data)[1]


def test_published_weights_know_the_data_set_of_their_authors(
    run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "fold1")
    (bundle / "README.md").write_text(card_of(checkpoint("passt_base_s10.esc50_fold1_acc967")).data)
    assert "all 12 clips of data\n" in scored(run, bundle, data)[1]
    dataset = read_dataset(data, labels=LABELS)
    named = dataclasses.replace(dataset, layout="ESC-50 (meta/esc50.csv): 12 clips.")
    assert "its authors trained the model on" in trained_without_split(named, bundle, same=False)


@pytest.mark.parametrize("text", ["{", "data: [", "3", "training: {}"])
def test_a_damaged_configuration_of_the_run_is_one_sentence(
    text: str, run: Run, make_bundle: Make, data: Path, tmp_path: Path
) -> None:
    _, model = begun(tmp_path / "run", data, make_bundle)
    (model / CONFIG).write_text(text)
    result = run("evaluate", model, data)
    assert result.exit_code == 1 and "not a run's config.yaml" in result.stderr
    assert len(result.stderr.splitlines()) == 1


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
    named = run("evaluate", tmp_path / "run", data, "--group", "take").stdout
    assert f"{len(split.test)} clips of the run's test part, found by their content" in named


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


@pytest.mark.parametrize("text", ["{}", "{", "[]", '{"train": [9], "contents": ["a"]}'])
def test_a_damaged_split_is_one_sentence(text: str, run: Run, make_bundle: Make, data: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "run" / "model")
    (tmp_path / "run" / SPLIT).write_text(text)
    result = run("evaluate", tmp_path / "run", data)
    assert result.exit_code == 1 and SPLIT in result.stderr and len(result.stderr.splitlines()) == 1
