"""Soups: the mean of the weights of runs of one network, of all or of those that a validation part keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ossicle
from ossicle import TrainConfig
from ossicle.bundle import CARD, load_bundle
from ossicle.cli import app
from ossicle.errors import DataRefused, SettingRefused
from ossicle.soup import greedy, make_soup, mean_of
from ossicle.weights.tensors import load_weights, save_weights

Record = Callable[..., Path]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path / "model.safetensors")


def another(folder: Path, make_bundle: Callable[..., Path], *, by: float, **changes: Any) -> Path:
    """The shared bundle with other weights."""
    make_bundle(folder, **changes)
    tensors = {name: tensor + by for name, tensor in weights(folder).items()}
    save_weights(folder / "model.safetensors", tensors)
    (folder / "SHA256SUMS").unlink()
    return folder


def test_a_soup_is_the_mean_of_its_runs(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    runs = [another(tmp_path / str(by), make_bundle, by=by, thresholds=(0.1, 0.2, 0.3)) for by in (0.0, 0.3, 0.6)]
    made = make_soup(runs, output=tmp_path / "soup")
    assert made.used == tuple(map(str, runs)) and made.score is None
    first, soup = weights(runs[0]), weights(tmp_path / "soup")
    for name, tensor in soup.items():
        torch.testing.assert_close(tensor, first[name] + 0.3)
    loaded = load_bundle(tmp_path / "soup")
    assert loaded.temperature == 1.0 and loaded.thresholds is None  # those of the runs are not its own
    card = (tmp_path / "soup" / CARD).read_text()
    assert "# Soup of 3 runs" in card and "version" in card and str(tmp_path) not in card
    assert ossicle.load(tmp_path / "soup", device="cpu").predict((np.zeros(32_000, "f4"), 32_000)).top


def test_a_mean_is_weighted_and_leaves_counts_alone() -> None:
    one, two = ({"w": torch.full((2,), value), "n": torch.tensor(count)} for value, count in ((1.0, 3), (4.0, 5)))
    mean = mean_of((one, two), weights=(2, 1))
    assert mean["w"].tolist() == [2.0, 2.0] and mean["w"].dtype == torch.float32 and mean["n"] == 3


def test_the_greedy_soup_keeps_what_does_not_lower_the_score() -> None:
    states = {"a": 1.0, "b": 3.0, "c": 9.0, "d": 2.0}

    def judge(tensors: dict[str, torch.Tensor], *, source: str) -> float:
        return -abs(float(tensors["w"]) - 2)

    def read(name: str) -> dict[str, torch.Tensor]:
        return {"w": torch.tensor(states[name])}

    alone = {name: judge(read(name), source=name) for name in states}
    said: list[str] = []
    used, soup, score = greedy(read, judge, alone=alone, report=said.append)
    assert used == ["d"] and float(soup["w"]) == 2.0 and score == 0.0
    assert len(said) == 3 and all(sentence.endswith("left out") for sentence in said)
    states["d"] = 2.5
    alone["d"] = judge(read("d"), source="d")
    used, soup, score = greedy(read, judge, alone=alone, report=said.append)
    assert used == ["d", "a", "b"] and float(soup["w"]) == pytest.approx(6.5 / 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"depth": 2}, "has another model.options.depth than .*: 2 and 1"),
        ({"labels": ("x", "y", "z")}, "has another labels than"),
    ],
)
def test_runs_that_have_no_mean_are_refused(
    changes: dict[str, Any], says: str, shared_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    make_bundle(tmp_path / "other", **changes)
    with pytest.raises(SettingRefused, match=says):
        make_soup([shared_bundle, tmp_path / "other"], output=tmp_path / "soup")
    with pytest.raises(SettingRefused, match="at least two different runs; got 1"):
        make_soup([shared_bundle, shared_bundle], output=tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_runs_are_chosen_by_the_validation_part_that_all_left_out(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    for number, label in enumerate(("bell", "drum")):
        for take in range(8):
            record(f"data/{label}/{take}.wav", seconds=0.4, seed=10 * number + take)

    def train(name: str, **settings: Any) -> str:
        config = TrainConfig(depth=1, epochs=1, batch_size=4, device="cpu", precision="float32", **settings)
        ossicle.train(tmp_path / "data", config, output=tmp_path / name)
        return str(tmp_path / name)

    runs = [train("one", lr=1e-4), train("two", lr=3e-4)]
    done = CliRunner().invoke(
        app,
        ["models", "soup", *runs, "-o", str(tmp_path / "soup"), "--data", str(tmp_path / "data"), "--device", "cpu"],
    )
    assert done.exit_code == 0, done.output
    assert "of 2 runs; validation score " in done.output
    card = (tmp_path / "soup" / CARD).read_text()
    assert "chosen on the validation part, which the training has seen" in card
    assert load_bundle(tmp_path / "soup").thresholds is not None
    tested = CliRunner().invoke(app, ["evaluate", str(tmp_path / "soup"), str(tmp_path / "data"), "--device", "cpu"])
    assert "all 16 clips of data, the data that trained the model" in tested.output
    other = train("other", seed=5)
    with pytest.raises(DataRefused, match="that .*(one|other) was trained on; take runs of one split"):
        make_soup([runs[0], other], output=tmp_path / "mixed", data=tmp_path / "data", device="cpu")
