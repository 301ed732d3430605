"""A bundle comes back bit for bit, or not at all and with the file and the key that are wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ossicle.bundle import CARD, CONFIG, WEIGHTS, Card, find_bundle, load_bundle, save_bundle
from ossicle.errors import BundleRefused, RunRefused, WeightsRefused
from ossicle.frontend import frontend_config
from ossicle.models import create_model

LABELS = ("bell", "drum", "voice")


def saved(folder: Path, **changes: Any) -> torch.nn.Module:
    """Saves a small bundle with every value chosen to be told from its default, and gives its network."""
    model = create_model("passt_tiny_s16", num_classes=3, depth=1, frames=60, patchout_t=0.25)
    values = {
        "model": model,
        "model_name": "passt_tiny_s16",
        "frontend": frontend_config("passt", mean=-3.25, deviation=1.5),
        "task": "multi-label",
        "labels": LABELS,
        "thresholds": [0.25, 0.5, 0.125],
        "temperature": 1.75,
        "window_seconds": 0.5,
        "hop_seconds": 0.25,
        "weights_license": "CC-BY-4.0",
    }
    save_bundle(folder, **(values | changes))
    return model


def edited(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle, after `edit` has been at its configuration."""
    config = json.loads((bundle / CONFIG).read_text())
    edit(config)
    (bundle / CONFIG).write_text(json.dumps(config))
    return bundle


def retensored(bundle: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """The bundle, after `edit` has been at its tensors."""
    tensors = load_file(bundle / WEIGHTS)
    edit(tensors)
    save_file(tensors, bundle / WEIGHTS)
    return bundle


def test_a_bundle_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = saved(tmp_path / "bundle").eval()
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert loaded.model.config == model.config
    assert loaded.frontend.config == frontend_config("passt", mean=-3.25, deviation=1.5)
    assert (loaded.task, loaded.labels, loaded.temperature) == ("multi-label", LABELS, 1.75)
    assert loaded.thresholds is not None and loaded.thresholds.tolist() == [0.25, 0.5, 0.125]
    assert (loaded.window_seconds, loaded.hop_seconds, loaded.weights_license) == (0.5, 0.25, "CC-BY-4.0")
    spec = torch.randn(2, 128, 50)
    with torch.inference_mode():
        assert torch.equal(loaded.model(spec), model(spec))


def test_the_version_follows_the_weights_and_the_configuration(bundle: Path) -> None:
    before = load_bundle(bundle).version
    edited(bundle, lambda config: config.update(temperature=1.25))
    between = load_bundle(bundle).version
    retensored(bundle, lambda tensors: tensors["cls_token"].add_(1))
    assert len({before, between, load_bundle(bundle).version}) == 3


def test_a_bundle_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    saved(folder)
    saved(folder, labels=("x", "y", "z"))
    assert load_bundle(folder).labels == ("x", "y", "z")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]  # no temporary folder is left

    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "dear.txt").write_text("keep me")
    with pytest.raises(RunRefused, match="letters"):
        saved(letters)
    assert (letters / "dear.txt").read_text() == "keep me"
    (letters / CONFIG).write_text('{"name": "mine"}')
    with pytest.raises(RunRefused, match="letters"):
        saved(letters)
    bundle = tmp_path / "bundle"
    saved(bundle)
    (bundle / ".DS_Store").write_text("")
    saved(bundle)
    (bundle / "model.onnx").write_text("keep me too")
    with pytest.raises(RunRefused, match="files that are not part of a bundle"):
        saved(bundle)
    assert (bundle / "model.onnx").exists() and (letters / "dear.txt").exists()


def test_a_folder_that_cannot_take_its_name_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / "bundle", os.replace
    saved(folder)

    def refuse(source: Path, target: Path) -> None:
        if target == folder and not str(source).endswith(".old"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        saved(folder, labels=("x", "y", "z"))
    assert load_bundle(folder).labels == LABELS
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_save_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    saved(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ossicle.bundle.folder.save_weights", full)
    with pytest.raises(OSError, match="No space"):
        saved(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("a", "b", "a")}, "labels"),
        ({"thresholds": [0.5]}, "thresholds"),
        ({"temperature": float("nan")}, "temperature"),
        ({"window_seconds": 0.5, "hop_seconds": 0.75}, "hop_seconds"),
        ({"labels": ("a", "b"), "thresholds": None}, "2 labels"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        saved(tmp_path / "bundle", **changes)
    assert not (tmp_path / "bundle").exists()


def test_every_key_is_required_and_no_other_is_read(bundle: Path) -> None:
    config = json.loads((bundle / CONFIG).read_text())
    for key in config:
        (bundle / CONFIG).write_text(json.dumps({k: v for k, v in config.items() if k != key}))
        with pytest.raises(BundleRefused, match=rf"config\.json.*{key}"):
            load_bundle(bundle)
    for place in (config, config["model"], config["window"], config["frontend"], config["model"]["options"]):
        place["surprise"] = 1
        (bundle / CONFIG).write_text(json.dumps(config))
        with pytest.raises(BundleRefused, match=r"config\.json.*surprise"):
            load_bundle(bundle)
        del place["surprise"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(schema_version=1), r"in schema 1; .* supports schema 2. Train the model again"),
        (lambda c: c.update(schema_version=3), r"schema_version is 3; .* supports 2"),
        (lambda c: c.update(schema_version="2"), r'schema_version is .*"?2'),
        (lambda c: c.update(labels=["a", "b", ""]), "labels"),
        (lambda c: c.update(labels="abc"), "labels"),
        (lambda c: c.update(thresholds=[0.5, 0.5]), "thresholds .* 3 labels"),
        (lambda c: c.update(thresholds=[0.5, 0.5, "high"]), "thresholds"),
        (lambda c: c.update(temperature=0), "temperature is 0"),
        (lambda c: c.update(temperature=True), "temperature is true"),
        (lambda c: c.update(task="regression"), "task"),
        (lambda c: c["window"].update(seconds=-1), "window.seconds is -1"),
        (lambda c: c["window"].update(seconds=1e9), "window.seconds"),
        (lambda c: c["model"].update(name="passt_tyni_s16"), "passt_tiny_s16"),
        (lambda c: c["model"].update(options=[]), "model.options"),
        (lambda c: c["model"]["options"].update(depth=10**9), "depth"),
        (lambda c: c["model"]["options"].update(dim="wide"), "config.json"),
        (lambda c: c["model"]["options"].update(stride=0), "stride"),
        (lambda c: c["frontend"].update(rate="fast"), "rate"),
        (lambda c: c["frontend"].update(hop_samples=0), "hop_samples"),
        (lambda c: c["frontend"].update(fft_samples=2**40), "fft_samples"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(
    bundle: Path, edit: Callable[[dict[str, Any]], None], said: str
) -> None:
    with pytest.raises(BundleRefused, match=said):
        load_bundle(edited(bundle, edit))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"temperature": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_configuration_are_refused_by_name(bundle: Path, text: bytes) -> None:
    (bundle / CONFIG).write_bytes(text)
    with pytest.raises(BundleRefused, match=r"config\.json"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.pop("norm.weight"), r"missing \(norm\.weight \(192,\)\)"),
        (lambda t: t.update(extra=torch.zeros(3)), r"unexpected \(extra \(3,\)\)"),
        (lambda t: t.update({"head.1.bias": torch.zeros(5)}), r"head\.1\.bias \(5,\), wanted \(3,\)"),
        (lambda t: t["norm.bias"].fill_(float("nan")), r"norm\.bias has NaN"),
    ],
)
def test_a_wrong_tensor_is_refused_by_name_and_shapes(bundle: Path, edit: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(WeightsRefused, match=said) as refused:
        load_bundle(retensored(bundle, edit))
    assert WEIGHTS in str(refused.value)


def test_labels_that_the_head_does_not_have_are_refused(bundle: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"head\.1\.weight \(3, 192\), wanted \(4, 192\)"):
        load_bundle(edited(bundle, lambda config: config.update(labels=["a", "b", "c", "d"])))


def test_missing_or_cut_weights_are_refused(bundle: Path) -> None:
    whole = (bundle / WEIGHTS).read_bytes()
    (bundle / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsRefused, match=WEIGHTS):
        load_bundle(bundle)
    (bundle / WEIGHTS).unlink()
    with pytest.raises(WeightsRefused, match=WEIGHTS):
        load_bundle(bundle)


def test_the_card_opens_with_what_the_hub_reads_and_holds_the_facts(tmp_path: Path) -> None:
    card = Card(
        title="Bells",
        data="12 bells",
        fingerprint="abc",
        protocol="fold 1",
        metrics=("accuracy 0.9",),
        limits="no rain",
    )
    saved(tmp_path / "bundle", card=card)
    _, front, text = (tmp_path / "bundle" / CARD).read_text().split("---\n", 2)
    header = yaml.safe_load(front)
    assert header["license"] == "cc-by-4.0"
    assert (header["library_name"], header["pipeline_tag"]) == ("ossicle", "audio-classification")
    for fact in (
        "# Bells",
        "12 bells",
        "`abc`",
        "fold 1",
        "- accuracy 0.9",
        "no rain",
        "| drum | 0.5000 |",
        "CC-BY-4.0",
    ):
        assert fact in text


def test_a_card_leaves_out_what_nobody_said(tmp_path: Path) -> None:
    saved(tmp_path / "bundle", weights_license=None)
    text = (tmp_path / "bundle" / CARD).read_text()
    assert "license: other" in text and "No license is stated" in text
    for heading in ("Protocol", "Metrics", "Training data"):
        assert f"## {heading}" not in text
    assert "How well it predicts has not been measured here." in text


# --- what MODEL means ------------------------------------------------------------------------------------------------


def test_a_run_folder_stands_for_the_bundle_inside(shared_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(shared_bundle)
    assert find_bundle(tmp_path / "run") == tmp_path / "run" / "model"
    assert find_bundle(str(shared_bundle)) == shared_bundle


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="neither a bundle"):
        find_bundle(tmp_path)


def test_an_architecture_without_weights_is_refused_since_it_would_score_at_random() -> None:
    with pytest.raises(WeightsRefused, match="random"):
        find_bundle("passt_tiny_s16")


def test_thresholds_may_be_an_array(tmp_path: Path) -> None:
    saved(tmp_path / "bundle", thresholds=np.array([0.5, 0.25, 0.75], dtype=np.float32))
    loaded = load_bundle(tmp_path / "bundle").thresholds
    assert loaded is not None and loaded.tolist() == [0.5, 0.25, 0.75]


def test_a_mistyped_folder_is_not_looked_for_on_the_hub_and_models_below_one_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    for run in ("runs/birds/model", "runs/insects/model"):
        Path(run).mkdir(parents=True)
        (Path(run) / "config.json").write_text("{}")
    with pytest.raises(BundleRefused, match=r"runs/brids: there is no such folder in runs; did you mean runs/birds\?"):
        find_bundle("runs/brids")
    with pytest.raises(BundleRefused, match=r"models found in runs/birds, runs/insects\."):
        find_bundle("runs")
