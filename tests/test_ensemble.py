"""Ensembles: the mean of logits of members that each keep their network, front end, rate and window."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ossicle
from ossicle.audio.resample import resample
from ossicle.bundle import CARD, CONFIG, load_bundle, save_bundle
from ossicle.cli import app
from ossicle.embedding import embed_files, embedding_identity
from ossicle.ensemble import Ensemble
from ossicle.errors import BundleRefused, ExportRefused, RunRefused, SettingRefused
from ossicle.export import export_model
from ossicle.frontend import frontend_config
from ossicle.models import create_model
from ossicle.recognizer import Recognizer

Record = Callable[..., Path]
LABELS = ("bell", "drum", "voice")


def member(
    folder: Path, *, frontend: str = "passt", stride: int = 16, seconds: float = 1.0, seed: int = 0, **changes: Any
) -> Recognizer:
    """A model of its own stride, front end and window."""
    torch.manual_seed(seed)
    name = "datar_nano" if frontend == "kaldi_fbank" else f"passt_tiny_s{stride}"
    options = {"depth": 1, "frames": 300} if name.startswith("passt") else {}
    network = create_model(name, num_classes=3, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    how = {"task": "single-label", "labels": LABELS, "window_seconds": seconds, **changes}
    save_bundle(folder, model=network, model_name=name, frontend=frontend_config(frontend), **how)
    return ossicle.load(folder, device="cpu")


@pytest.fixture
def pair(tmp_path: Path) -> list[Recognizer]:
    """Two strides and windows, of one rate."""
    return [
        member(tmp_path / "one", temperature=2.0),
        member(tmp_path / "two", stride=20, seconds=2.0, seed=1, weights_license="MIT"),
    ]


def noise(seconds: float, *, rate: int = 32_000) -> np.ndarray:
    return np.random.default_rng(0).normal(scale=0.1, size=round(seconds * rate)).astype(np.float32)


# --- what it predicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_a_model_and_its_twin_predict_as_the_model(task: str, tmp_path: Path, record: Record) -> None:
    thresholds = {"thresholds": (0.4, 0.5, 0.6)} if task == "multi-label" else {}
    one = member(tmp_path / "one", task=task, temperature=1.7, hop_seconds=0.5, **thresholds)
    twins = Ensemble.of([one, one])
    path = record("a.wav", seconds=3.3)
    ours, theirs = twins.predict(path), one.predict(path)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-6)
    assert [(row.start, row.end, row.label) for row in ours.rows] == [
        (row.start, row.end, row.label) for row in theirs.rows
    ]
    if task == "multi-label":
        np.testing.assert_allclose(twins.thresholds, one.thresholds)


def test_logits_are_the_mean_of_the_members_by_their_own_windows(pair: list[Recognizer]) -> None:
    ensemble, wave = Ensemble.of(pair), noise(2)
    assert ensemble.window_samples()[0] == 64_000
    halves = pair[0].scores(np.stack([wave[:32_000], wave[32_000:]])).mean(0) / 2.0
    wanted = (halves + pair[1].scores(wave[None])[0]) / 2
    np.testing.assert_allclose(ensemble.scores(wave[None])[0], wanted, rtol=1e-5, atol=1e-5)
    assert ensemble.features(wave[None]).shape == (1, 2 * 192)


def test_each_member_hears_its_own_rate_and_front_end(tmp_path: Path) -> None:
    one, other = member(tmp_path / "one"), member(tmp_path / "other", frontend="kaldi_fbank", seed=1)
    ensemble, wave = Ensemble.of([other, one]), noise(1)
    assert ensemble.rate == 32_000 and ensemble.hertz == (0.0, 15_000.0)
    own = other.scores(resample(wave, 32_000, 16_000)[None])
    wanted = (own + one.scores(wave[None])) / 2
    np.testing.assert_allclose(ensemble.scores(wave[None]), wanted, rtol=1e-5, atol=1e-5)
    for samples in (1, ensemble.min_samples - 1, ensemble.min_samples):
        assert ensemble.predict((noise(1)[:samples], 32_000)).scores.sum() == pytest.approx(1)


# --- its bundle ------------------------------------------------------------------------------------------------------


def test_a_bundle_of_bundles_comes_back_as_it_was(pair: list[Recognizer], tmp_path: Path, record: Record) -> None:
    ensemble, path = Ensemble.of(pair), record("a.wav", seconds=3)
    ensemble.save_pretrained(tmp_path / "both")
    config = json.loads((tmp_path / "both" / CONFIG).read_text())
    assert config["members"] == ["member0", "member1"] and "model" not in config
    again = ossicle.load(tmp_path / "both", device="cpu")
    assert isinstance(again, Ensemble) and again.bundle.version == ensemble.bundle.version
    np.testing.assert_array_equal(again.predict(path).scores, ensemble.predict(path).scores)
    alone = ossicle.load(tmp_path / "both" / "member1", device="cpu")  # each is a bundle by itself
    np.testing.assert_array_equal(alone.predict(path).scores, pair[1].predict(path).scores)
    card = (tmp_path / "both" / CARD).read_text()
    assert "`passt_tiny_s20`" in card and "license of the weights: MIT" in card and "not been measured" in card
    again.save_pretrained(tmp_path / "both", weights_license="CC0-1.0")  # replaces itself
    assert ossicle.load(tmp_path / "both").bundle.weights_license == "CC0-1.0"
    for place in ("letter.txt", "member1/letter.txt"):
        (tmp_path / "both" / place).write_text("dear")
        with pytest.raises(RunRefused):
            again.save_pretrained(tmp_path / "both")
        (tmp_path / "both" / place).unlink()
    with pytest.raises(BundleRefused, match="an ensemble; use `ossicle.load`"):
        load_bundle(tmp_path / "both")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"members": ["member0"]}, r"members is \[\"member0\"\]; it must be member0, member1, \.\.\., at least two"),
        ({"members": ["member0", "../member1"]}, "members is"),
        ({"members": 2}, "members is 2"),
        ({"labels": ["a", "b", "c"]}, "its task or labels are not those of its members"),
        ({"frontend": {}}, "frontend is unknown"),
    ],
)
def test_a_damaged_ensemble_is_refused(
    change: dict[str, Any], says: str, pair: list[Recognizer], tmp_path: Path
) -> None:
    Ensemble.of(pair).save_pretrained(tmp_path / "both")
    path = tmp_path / "both" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    path.with_name("SHA256SUMS").unlink()
    with pytest.raises(BundleRefused, match=says):
        ossicle.load(tmp_path / "both")


def test_a_member_that_is_missing_or_an_ensemble_itself_is_refused(pair: list[Recognizer], tmp_path: Path) -> None:
    Ensemble.of(pair).save_pretrained(tmp_path / "both")
    (tmp_path / "both" / "member1").rename(tmp_path / "away")
    with pytest.raises(BundleRefused, match="member1: this is not a bundle"):
        ossicle.load(tmp_path / "both")
    (tmp_path / "both" / "member1").symlink_to(tmp_path / "both")
    with pytest.raises(BundleRefused, match="member1: a member of an ensemble cannot be one itself"):
        ossicle.load(tmp_path / "both")


def test_what_cannot_predict_together_is_refused(pair: list[Recognizer], tmp_path: Path) -> None:
    for members, says in (
        (pair[:1], "at least two members; got 1"),
        ([*pair, Ensemble.of(pair)], "model 3 is an ensemble itself"),
        (
            [pair[0], member(tmp_path / "more", task="multi-label")],
            "model 2 is multi-label, and model 1 is single-label",
        ),
        ([pair[0], member(tmp_path / "else", labels=("bell", "gong", "voice"))], "number 2 is 'gong' and 'drum'"),
    ):
        with pytest.raises(SettingRefused, match=says):
            Ensemble.of(members)
    Ensemble.of(pair).save_pretrained(tmp_path / "both")
    with pytest.raises(SettingRefused, match="is an ensemble; load its member with it"):
        ossicle.load(tmp_path / "both", encoder="elsewhere")


# --- every command ---------------------------------------------------------------------------------------------------


def test_the_commands_make_one_and_take_it(tmp_path: Path, record: Record, undrawn: None) -> None:
    for number, name in enumerate(("one", "two")):
        member(tmp_path / name, seed=number)
    for number, label in enumerate(LABELS):
        for take in range(2):
            record(f"data/{label}/{take}.wav", seconds=1.5, seed=2 * number + take)

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, done.output
        return done.output

    both = str(tmp_path / "both")
    said = run("models", "ensemble", str(tmp_path / "one"), str(tmp_path / "two"), "-o", both, "--license", "MIT")
    assert "2 members, 3 labels, windows of 1 s" in said
    assert "bell" in run("predict", both, str(tmp_path / "data"), "--format", "csv", "--min-score", "0")
    assert "6 clips" in run("evaluate", both, str(tmp_path / "data"), "-o", str(tmp_path / "evaluation"))
    run("embed", both, str(tmp_path / "data"), "-o", str(tmp_path / "v.npz"))
    assert np.load(tmp_path / "v.npz")["embeddings"].shape == (6, 2 * 192)
    refused = run("embed", both, str(tmp_path / "data"), "-o", str(tmp_path / "w.npz"), "--layer", "1", code=2)
    assert "needs a single network" in refused
    assert "at least two members; got 1" in run("models", "ensemble", both, "-o", str(tmp_path / "x"), code=1)


def test_an_ensemble_is_exported_as_one_graph(tmp_path: Path, record: Record, untyped: Callable) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from ossicle import runtime

    one = member(tmp_path / "one", temperature=2.0)
    ensemble = Ensemble.of([one, member(tmp_path / "two", frontend="passt_hop160", stride=20, seed=1)])
    ensemble.save_pretrained(tmp_path / "both")
    with untyped():
        done = export_model(tmp_path / "both", output=tmp_path / "both.onnx", int8=True)
    assert done.agreement.close == done.agreement.windows
    assert done.int8 is not None and done.int8.clips == 20
    path, predictor = record("a.wav", seconds=2.5), runtime.load(tmp_path / "both.onnx")
    np.testing.assert_allclose(predictor.predict(path).scores, ensemble.predict(path).scores, atol=1e-4)
    assert predictor.max_window_seconds == 1.0 and predictor.hertz == (0.0, 15_000.0)


def test_an_ensemble_that_is_no_single_graph_is_not_exported(pair: list[Recognizer], tmp_path: Path) -> None:
    Ensemble.of(pair).save_pretrained(tmp_path / "windows")
    with pytest.raises(ExportRefused, match="window of this ensemble is 2 s and that of a member 1 s.*--window 1"):
        export_model(tmp_path / "windows", to="pt2", output=tmp_path / "a.pt2")
    other = member(tmp_path / "other", frontend="kaldi_fbank")
    Ensemble.of([pair[0], other]).save_pretrained(tmp_path / "rates")
    with pytest.raises(ExportRefused, match="take sound at 16000 and 32000 Hz, and a graph takes one rate"):
        export_model(tmp_path / "rates", to="pt2", output=tmp_path / "a.pt2")


def test_an_embedding_of_an_ensemble_has_the_identity_of_its_members(
    pair: list[Recognizer], tmp_path: Path, record: Record
) -> None:
    first = embedding_identity(Ensemble.of(pair))
    assert first == embedding_identity(Ensemble.of(pair)) != embedding_identity(Ensemble.of(pair[::-1]))
    assert embed_files(Ensemble.of(pair), record("a.wav")).about["identity"]
