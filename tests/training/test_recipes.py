"""The recipes of data sets, as a command on folders in the published layout, from a checkpoint in the published one."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner

import ossicle
from ossicle.cli import app
from ossicle.data import read_dataset
from ossicle.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("undrawn")
RATE = 32_000
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc50"
# A network that trains in a second, on clips that are no longer.
SMALL = ("epochs=2", "window=0.4", "patchout_t=0.2", "patchout_f=0.25", "device=cpu", "precision=float32", "lr=1e-3")


def train(data: Path, output: Path, weights: Path, *, recipe: str, more: Sequence[str] = SMALL) -> Path:
    command = ["train", str(data), "--recipe", recipe, "--init", str(weights), "--model", "passt_tiny_s16"]
    result = CliRunner().invoke(app, [*command, "-o", str(output), "--set", *more])
    assert result.exit_code == 0, result.output
    return output


def sound(file: Path, *, high: bool, number: int, seconds: float = 0.4) -> None:
    """A tone, low or high, in noise."""
    rng = np.random.default_rng(number)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (4000 if high else 400) * rng.uniform(0.8, 1.2) * time)
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, 0.2 * tone + 0.02 * rng.standard_normal(len(time)), RATE)


def table(file: Path, rows: Sequence[Mapping[str, object]], *, delimiter: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def esc50(home: Path) -> None:
    """meta/esc50.csv and audio/: 5 folds of 4 clips."""
    rows = []
    for number in range(20):
        fold, high = 1 + number % 5, number % 2
        name = f"{fold}-{1000 + number}-A-{high}.wav"
        about = {"fold": fold, "target": high, "category": ("dog", "rooster")[high], "esc10": bool(high)}
        rows.append({"filename": name, **about, "src_file": 1000 + number, "take": "A"})
        sound(home / "audio" / name, high=bool(high), number=number)
    table(home / "meta" / "esc50.csv", rows)


def fsd50k(home: Path) -> None:
    """Labels with their ancestors, joined by commas; train and val in dev.csv; clips of several lengths."""
    truth: dict[str, list[dict[str, object]]] = {"dev": [], "eval": []}
    for number in range(24):
        part, high = ("eval" if number % 4 == 3 else "dev"), (number // 4) % 2
        labels = "Bark,Dog,Animal" if high else "Meow,Cat,Animal"
        row: dict[str, object] = {"fname": 10_000 + number, "labels": labels, "mids": "/m/a,/m/b,/m/c"}
        truth[part].append(row | ({"split": "val" if number % 4 == 2 else "train"} if part == "dev" else {}))
        file = home / f"FSD50K.{part}_audio" / f"{10_000 + number}.wav"
        sound(file, high=bool(high), number=number, seconds=0.3 + 0.1 * (number % 3))
    for part, rows in truth.items():
        table(home / "FSD50K.ground_truth" / f"{part}.csv", rows)
    names = ("Animal", "Bark", "Cat", "Dog", "Meow")
    vocabulary = "".join(f"{index},{name},/m/{index}\n" for index, name in enumerate(names))
    (home / "FSD50K.ground_truth" / "vocabulary.csv").write_text(vocabulary)


def openmic(home: Path) -> None:
    """A row for each judgment; of every clip one instrument of two is judged, of some both."""
    rows, keys = list[dict[str, object]](), dict[str, list[str]](train=[], test=[])
    for number in range(24):
        key, high = f"{number:06}_{3840 * number}", bool(number % 2)
        judged = {"flute": high, "bass": not high}
        if number % 3:
            judged.pop("flute" if number % 4 < 2 else "bass")
        rows += [
            {"sample_key": key, "instrument": name, "relevance": 0.9 if there else 0.1, "num_responses": 3}
            for name, there in judged.items()
        ]
        keys["test" if number >= 18 else "train"].append(key)
        sound(home / "audio" / key[:3] / f"{key}.ogg", high=high, number=number)
    table(home / "openmic-2018-aggregated-labels.csv", rows)
    for part, own in keys.items():
        (home / "partitions").mkdir(exist_ok=True)
        (home / "partitions" / f"split01_{part}.csv").write_text("\n".join(own) + "\n")


def dcase20(home: Path) -> None:
    """meta.csv with devices, by tabs; the list of tested recordings has a device that trains nowhere."""
    rows, parts = list[dict[str, object]](), dict[str, list[dict[str, object]]](train=[], evaluate=[])
    for number in range(24):
        scene, high = ("airport", "park")[number % 2], bool(number % 2)
        city, device = ("lyon", "milan", "paris")[number % 3], ("a", "b", "s4")[number // 8]
        name = f"audio/{scene}-{city}-{number}-{number}-{device}.wav"
        rows.append({"filename": name, "scene_label": scene, "identifier": f"{city}-{number}", "source_label": device})
        parts["evaluate" if device == "s4" else "train"].append({"filename": name, "scene_label": scene})
        sound(home / name, high=high, number=number)
    table(home / "meta.csv", rows, delimiter="\t")
    for part, own in parts.items():
        table(home / "evaluation_setup" / f"fold1_{part}.csv", own, delimiter="\t")


MADE: dict[str, Callable[[Path], None]] = {"esc50": esc50, "fsd50k": fsd50k, "openmic": openmic, "dcase20": dcase20}
TESTED = {"esc50": 4, "fsd50k": 6, "openmic": 6, "dcase20": 8}


@pytest.mark.parametrize("recipe", MADE)
def test_a_data_set_as_published_is_trained_by_its_recipe_and_tested_on_its_own_part(
    recipe: str, published: Path, tmp_path: Path
) -> None:
    MADE[recipe](tmp_path / "data")
    run = train(tmp_path / "data", tmp_path / "run", published, recipe=recipe)
    kept = yaml.safe_load((run / "config.yaml").read_text())["training"]
    assert (kept["weight_decay"], kept["warmup"], kept["average"], kept["roll"]) == (1e-4, 5.0, "swa", 50 / RATE)
    split = json.loads((run / "split.json").read_text())
    assert len(split["test"]) == TESTED[recipe] and len(split["validation"]) == (6 if recipe == "fsd50k" else 0)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["clips"] == TESTED[recipe]
    assert metrics["task"] == ("single-label" if recipe in ("esc50", "dcase20") else "multi-label")
    again = evaluate(run, tmp_path / "data")
    for name, estimate in again.metrics.headline.items():
        assert estimate.value == pytest.approx(metrics["headline"][name]["value"], abs=1e-5), name
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ("unknown" in rows[0]) == (recipe == "openmic")
    if recipe == "openmic":
        assert {row["unknown"] for row in rows} == {"", "bass", "flute"}
        assert not any(row["unknown"] and row["unknown"] in row["truth"].split(";") for row in rows)


def test_unknown_labels_train_otherwise_than_absent_ones(published: Path, tmp_path: Path) -> None:
    openmic(tmp_path / "data")
    run = train(tmp_path / "data", tmp_path / "unknown", published, recipe="openmic")
    file = tmp_path / "data" / "openmic-2018-aggregated-labels.csv"
    rows = file.read_text().splitlines()
    judged = {tuple(row.split(",")[:2]) for row in rows[1:]}
    pairs = sorted((key, name) for key in {key for key, _ in judged} for name in ("bass", "flute"))
    absent = [f"{key},{name},0.0,0" for key, name in pairs if (key, name) not in judged]
    file.write_text("\n".join(rows + absent) + "\n")
    assert absent and read_dataset(tmp_path / "data").known() is None
    other = train(tmp_path / "data", tmp_path / "absent", published, recipe="openmic")
    weights = [ossicle.load(folder).model.head[1].weight for folder in (run, other)]
    assert not torch.equal(*weights)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real recordings are not at {SHARED}")
def test_real_clips_are_fine_tuned_from_a_checkpoint_in_the_published_layout(published: Path, tmp_path: Path) -> None:
    """ESC-50 as published, a few clips of it; a new head, 10 s of positions for 5 s, rates by layer, a frozen start."""
    home = tmp_path / "ESC-50-master"
    with open(SHARED / "meta.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] in ("dog", "rain", "clock_tick")]
    rows = [row for number, row in enumerate(sorted(rows, key=lambda row: row["filename"])) if number % 4 == 0]
    table(home / "meta" / "esc50.csv", rows)
    (home / "audio").symlink_to(SHARED / "audio")
    settings = ("epochs=4", "layer_decay=0.75", "freeze_epochs=1", "lr=1e-3", "warmup=0.5", "device=cpu")
    run = train(home, tmp_path / "run", published, recipe="esc50", more=settings)
    with open(run / "metrics.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.9 * losses[0]
    recognizer = ossicle.load(run)
    assert recognizer.labels == ("clock_tick", "dog", "rain") and recognizer.bundle.window_seconds == 5.0
    assert recognizer.model.config.frames >= 998 and len(recognizer.model.blocks) == 2
    prediction = recognizer.predict(home / "audio" / rows[0]["filename"])
    assert float(prediction.scores.sum()) == pytest.approx(1.0)
