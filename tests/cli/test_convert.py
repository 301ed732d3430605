"""`ossicle models convert`: from a downloaded file to predictions, as a person does it."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import Result

from ossicle.bundle import load_bundle
from ossicle.models.passt import Passt, PasstConfig


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = Passt(PasstConfig(num_classes=3, dim=16, num_heads=1, depth=2, stride=16)).state_dict()
    both = {f"net.{name}": tensor for name, tensor in state.items()}
    both |= {f"net_swa.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": both, "epoch": 1}, tmp_path / "epoch=1.ckpt")
    (tmp_path / "labels.txt").write_text("bell\ndrum\nvoice\n")
    return tmp_path / "epoch=1.ckpt"


def test_a_checkpoint_becomes_a_bundle_that_predicts(
    run: Callable[..., Result], checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    done = run(
        "models", "convert", checkpoint, "--labels", tmp_path / "labels.txt", "-o", out, "--task", "single-label"
    )
    lines = done.stdout.splitlines()
    assert done.exit_code == 0 and "using net_swa, not net" in lines[0]
    assert re.fullmatch(rf"{out}: passt_\w+, 3 labels, 39 tensors, in \d+\.\d s", lines[-2])
    assert lines[-1] == f"Use it: ossicle predict {out} AUDIO"
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).normal(size=32_000), 32_000)
    predicted = run("predict", out, tmp_path / "a.wav", "--format", "csv")
    assert predicted.exit_code == 0 and re.search("bell|drum|voice", predicted.stdout)


def test_every_option_reaches_the_bundle(run: Callable[..., Result], checkpoint: Path, tmp_path: Path) -> None:
    options = ["--no-average", "--depth", "1", "--window", "5", "--license", "MIT", "--model", "passt_tiny_s16"]
    done = run("models", "convert", checkpoint, "-o", tmp_path / "out", *options, "--frontend", "passt_hop160")
    bundle = load_bundle(tmp_path / "out")
    assert done.exit_code == 0 and "using net, not net_swa" in done.stdout
    assert "12 tensors are not in it: blocks.1.norm1.weight, " in done.stdout
    assert (bundle.window_seconds, bundle.weights_license, bundle.model_name) == (5, "MIT", "passt_tiny_s16")
    assert bundle.frontend.config.hop_samples == 160 and bundle.model.config.depth == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--labels", "two.txt"), "epoch=1.ckpt: the network has 3 outputs; got 2 labels."),
        (("--labels", "none.txt"), "none.txt: there is no such file; expected one label a line."),
        (("--model", "datar_nano"), "epoch=1.ckpt: these are the weights of a Passt, not of datar_nano."),
        (("--frontend", "past"), "front end 'past' is not available; similar names: passt"),
        (("--depth", "3"), "epoch=1.ckpt: a network of 2 blocks cannot be cut to 3"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing(
    run: Callable[..., Result],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("bell\ndrum\n")
    before = sorted(os.listdir())
    done = run("models", "convert", checkpoint.name, "-o", "out", *options)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"ossicle: {said}") and sorted(os.listdir()) == before


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch boom",)


def test_code_is_one_sentence_too(run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pt").write_bytes(pickle.dumps(Bomb()))
    done = run("models", "convert", "w.pt", "-o", "out")
    assert done.exit_code == 1 and os.listdir() == ["w.pt"]
    assert done.stderr == (
        f"ossicle: w.pt: the checkpoint cannot be loaded: it needs {os.system.__module__}.system to load, which could "
        "run code; expected only tensors\n"
    )


def test_a_window_of_nothing_is_wrong_usage(run: Callable[..., Result], checkpoint: Path, tmp_path: Path) -> None:
    assert run("models", "convert", checkpoint, "-o", tmp_path / "out", "--window", "0").exit_code == 2
    assert run("models", "convert", checkpoint).exit_code == 2
