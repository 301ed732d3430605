"""The encoder in the package: it answers offline, says where it comes from, and is where a training starts."""

import dataclasses
import logging
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

import ossicle
from ossicle.bundle import read_bundle_config
from ossicle.catalog import GENERAL, checkpoint, store
from ossicle.data.recordings import drums_folder
from ossicle.encoders import load_encoder
from ossicle.errors import BundleRefused, SettingRefused, WeightsRefused
from ossicle.training.initial import start_from
from ossicle.training.recipes import general
from ossicle.weights.tensors import load_weights

ROW = checkpoint(GENERAL)
LOOP = drums_folder() / "loops" / "mika55-loop_mika.flac"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and an empty store."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(store, "store_folder", lambda: tmp_path / "store")


def test_it_hears_drums_in_a_loop_of_drums() -> None:
    model = ossicle.load(GENERAL, device="cpu")
    prediction = model.predict(LOOP, top_k=2)
    assert {row.label for row in prediction.rows} <= {"Music", "Drum", "Drum kit", "Percussion", "Snare drum"}
    assert [(row.start, row.end) for row in prediction.rows[::2]] == [(0.0, 5.0), (3.0, 8.0)]
    assert len(model.labels) == 527 and model.embed(LOOP).shape[-1] == 192


def test_silence_has_no_label_above_its_threshold() -> None:
    model = ossicle.load(GENERAL, device="cpu")
    scores = model.predict((np.zeros(5 * model.rate, np.float32), model.rate)).scores
    assert model.bundle.thresholds is not None
    above = [label for label, there in zip(model.labels, scores > model.bundle.thresholds, strict=True) if there]
    assert set(above) <= {"Silence"}


def test_it_is_small_whole_and_stays() -> None:
    folder = ROW.package_folder
    assert folder is not None and sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    assert all(tensor.dtype == torch.float16 for tensor in load_weights(folder / "model.safetensors").values())
    assert store.verify(ROW) is None
    with pytest.raises(WeightsRefused, match="a part of the package"):
        store.remove(ROW)


def test_its_card_names_teachers_sources_and_limits() -> None:
    assert ROW.package_folder is not None
    card = (ROW.package_folder / "README.md").read_text()
    for words in ("EfficientAT mn04_as (MIT)", "Whisper tiny.en", "0ad-data (CC-BY-SA-3.0,", "must not decide about"):
        assert words in card
    sources = card.partition("## Labels")[0]
    assert not re.search(r"CC-[\w-]*N[CD]|ESC-50|FSDD|RAVDESS|EmoDB", sources)
    assert read_bundle_config(ROW.package_folder)["weights_license"] == ROW.license == "Apache-2.0"


def test_a_folder_of_its_name_is_used_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(shared_bundle, tmp_path / GENERAL)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(ossicle.load(GENERAL, device="cpu").labels) == 3
    assert "general is a folder here and published weights as well" in caplog.text
    (tmp_path / GENERAL / "model.safetensors").unlink()
    with pytest.raises((BundleRefused, WeightsRefused)):
        ossicle.load(GENERAL, device="cpu")


def test_a_training_starts_from_its_weights_and_a_head_of_its_own() -> None:
    assert ROW.package_folder is not None
    given = load_weights(ROW.package_folder / "model.safetensors")
    made = start_from(general(), num_classes=3, labels=["a", "b", "c"], frames=998).state_dict()
    assert made["head.1.weight"].shape == (3, 192)
    for name, tensor in made.items():
        if not name.startswith("head"):
            assert torch.equal(tensor, given[name].float()), name


def test_another_depth_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        SettingRefused, match="depth=2 does not go with .*general_v[0-9]+, which has 8 blocks; .* --init none"
    ):
        start_from(dataclasses.replace(general(), depth=2), num_classes=3, frames=998)


def test_another_architecture_is_refused_with_the_way_out() -> None:
    config = dataclasses.replace(general(), model="datar_nano")
    with pytest.raises(
        SettingRefused,
        match=r"^model=datar_nano does not go with .*general_v[0-9]+, which is a passt_tiny_conv; .* --init none\.$",
    ):
        start_from(config, num_classes=3, frames=998)


def test_as_an_encoder_its_name_has_its_version() -> None:
    encoder = load_encoder(GENERAL)
    assert encoder.name == ROW.name and encoder.num_layers >= 8
