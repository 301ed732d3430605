"""Bundles go to the Hugging Face Hub and come back, against a stand-in of it on this machine."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import constants
from tests.hub import TOKEN, Hub
from typer.testing import CliRunner

import ossicle
from ossicle.bundle import CARD, CONFIG, WEIGHTS, Card, find_bundle, push_to_hub
from ossicle.cli import app
from ossicle.ensemble import Ensemble
from ossicle.errors import BundleRefused, RunRefused, SettingRefused, WeightsRefused

SHARED = Path(__file__).parents[2] / "shared"
WHISPER = SHARED / "weights" / "whisper_tiny_en_encoder"
NAME = "someone/bells"

# huggingface_hub sends large files in a way that its own client no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, a cache of its own, and the owner's token."""
    stand_in = Hub()

    monkeypatch.setattr(constants, "ENDPOINT", stand_in.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.chdir(tmp_path)
    yield stand_in
    stand_in.close()


def a_bundle(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- there and back --------------------------------------------------------------------------------------------------


def test_a_model_is_pushed_with_its_card_and_loaded_back(
    hub: Hub, make_bundle: Callable[..., Path], tmp_path: Path, record: Callable[..., Path]
) -> None:
    card = Card(title="Bells", data="12 bells", protocol="fold 1", metrics=("accuracy 0.90 (0.80 to 0.97)",))
    make_bundle(tmp_path / "bundle", card=card, thresholds=(0.1, 0.2, 0.3))
    recognizer = ossicle.load(tmp_path / "bundle", device="cpu")
    assert recognizer.push_to_hub(NAME, weights_license="CC-BY-4.0") == f"{hub.address}/{NAME}"
    assert {CONFIG, WEIGHTS, CARD} < set(hub.files(NAME)) and not hub.repositories[NAME]["private"]
    text = hub.files(NAME)[CARD].decode()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "cc-by-4.0" and header["library_name"] == "ossicle"
    for fact in ("12 bells", "accuracy 0.90 (0.80 to 0.97)", "fold 1", "Limits", "The weights: CC-BY-4.0."):
        assert fact in text
    assert f'ossicle.load("{NAME}")' in text and f"ossicle predict {NAME} recording.wav" in text
    back = ossicle.load(NAME, device="cpu")
    path = record("a.wav", seconds=1.5)
    np.testing.assert_array_equal(back.predict(path).scores, recognizer.predict(path).scores)
    assert back.bundle.weights_license == "CC-BY-4.0" and back.thresholds.tolist() == [0.1, 0.2, 0.3]


def test_a_private_repository_is_for_those_with_a_token(
    hub: Hub, shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(shared_bundle, NAME, private=True, weights_license="unknown")
    assert hub.repositories[NAME]["private"]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BundleRefused, match=r"someone/bells: .* no such repository, or it is private: .*HF_TOKEN\)\.$"):
        find_bundle(NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (find_bundle(NAME) / WEIGHTS).read_bytes() == (shared_bundle / WEIGHTS).read_bytes()


def test_a_revision_is_a_branch_tag_or_commit(hub: Hub, shared_bundle: Path, make_bundle: Any, tmp_path: Path) -> None:
    first = hub.commit(NAME, a_bundle(shared_bundle), tag="v1")
    hub.commit(NAME, a_bundle(make_bundle(tmp_path / "later", labels=("x", "y", "z"))))
    runner = CliRunner()
    for revision in ("v1", first):
        assert ossicle.load(NAME, revision=revision, device="cpu").labels == ("bell", "drum", "voice")
        assert ossicle.load(f"{NAME}@{revision}", device="cpu").labels == ("bell", "drum", "voice")
    assert ossicle.load(NAME, device="cpu").labels == ("x", "y", "z")
    with pytest.raises(BundleRefused, match=r"someone/bells@v9: .* has no revision v9\.$"):
        find_bundle(f"{NAME}@v9")
    with pytest.raises(SettingRefused, match="revision=v1 is another revision than main"):
        ossicle.load(f"{NAME}@main", revision="v1")
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 32_000)
    done = runner.invoke(app, ["predict", f"{NAME}@v1", str(tmp_path / "a.wav"), "--top-k", "3", "--format", "csv"])
    assert done.exit_code == 0 and ",voice," in done.output


def test_without_network_what_was_downloaded_is_found(
    hub: Hub, shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit(NAME, a_bundle(shared_bundle))
    with pytest.raises(BundleRefused, match="without network access only what was downloaded whole"):
        ossicle.load(NAME, local_files_only=True)
    assert not hub.requests
    ossicle.load(NAME)
    asked = len(hub.requests)
    assert ossicle.load(NAME, local_files_only=True, device="cpu").labels == ("bell", "drum", "voice")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ossicle.load(NAME, device="cpu").labels == ("bell", "drum", "voice")
    with pytest.raises(BundleRefused, match="without network access"):
        ossicle.load("someone/else")
    assert len(hub.requests) == asked


def test_the_front_end_of_the_bundle_travels_and_no_other_is_taken(
    hub: Hub, shared_bundle: Path, tmp_path: Path
) -> None:
    """The network's name has a front end of its own in the registry, which must never stand in."""
    files = a_bundle(shared_bundle)
    config = json.loads(files[CONFIG])
    config["frontend"] |= {"hop_samples": 200, "max_hertz": 9_000.0, "mean": -3.0, "rate": 24_000}
    hub.commit(NAME, files | {CONFIG: json.dumps(config).encode()})
    recognizer = ossicle.load(NAME, device="cpu")
    assert recognizer.frontend.config.to_dict() == config["frontend"] and recognizer.rate == 24_000
    recognizer.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / CONFIG).read_text())["frontend"] == config["frontend"]
    for without in ({}, {key: value for key, value in config["frontend"].items() if key != "mean"}):
        hub.commit(NAME, {CONFIG: json.dumps(config | {"frontend": without}).encode()})
        with pytest.raises(BundleRefused, match="the front end lacks the settings"):
            ossicle.load(NAME)
    del config["frontend"]
    hub.commit(NAME, {CONFIG: json.dumps(config).encode()})
    with pytest.raises(BundleRefused, match="frontend is missing"):
        ossicle.load(NAME)


def test_a_head_on_the_real_whisper_is_pushed_and_gives_the_same_scores(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not WHISPER.is_dir():
        pytest.skip(f"{WHISPER} is absent: the published weights of Whisper tiny.en's encoder")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(8):
        label = ("noise", "tone")[number % 2]
        samples = rng.normal(size=8_000) if label == "noise" else np.sin(0.1 * (1 + number) * np.arange(8_000))
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "data" / label / f"{number}.wav", 0.2 * samples, 16_000)
    config = ossicle.TuneConfig(epochs=1, batch_size=4, device="cpu", crop=True)
    ossicle.tune(WHISPER, tmp_path / "data", config, output=tmp_path / "run")
    recognizer = ossicle.load(tmp_path / "run", device="cpu")
    recognizer.push_to_hub("someone/head", private=True, weights_license="MIT")
    files = hub.files("someone/head")
    assert json.loads(files[CONFIG])["encoder"]["name"] == WHISPER.name  # nobody's folders
    assert len(files[WEIGHTS]) < 1_000_000 and b"which is not included" in files[CARD]
    with pytest.raises(BundleRefused, match="the encoder of this head was not found; set its path with --encoder"):
        ossicle.load("someone/head", device="cpu")
    back = ossicle.load("someone/head", encoder=WHISPER, device="cpu")
    for path in sorted((tmp_path / "data").rglob("*.wav"))[::3]:
        np.testing.assert_array_equal(back.predict(path).scores, recognizer.predict(path).scores)
    back.save_pretrained(tmp_path / "here")
    assert json.loads((tmp_path / "here" / CONFIG).read_text())["encoder"]["name"] == str(WHISPER)


# --- what may go wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"README.md": b"hello"}, "there is no config.json"),
        ({CONFIG: b'{"model_type": "whisper"}', WEIGHTS: b""}, "its config.json is of a whisper"),
        ({CONFIG: b"[1]"}, "its config.json is no configuration"),
        ({CONFIG: b"<html>"}, "its config.json is no configuration"),
    ],
)
def test_a_repository_without_a_bundle_is_refused(hub: Hub, files: dict[str, bytes], says: str) -> None:
    hub.commit(NAME, files)
    with pytest.raises(BundleRefused, match=f"someone/bells: this repository .* has no ossicle bundle: {says}"):
        ossicle.load(NAME)


def test_a_repository_that_is_not_there_is_one_sentence_on_the_command_line(hub: Hub, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", "someone/else", str(tmp_path)])
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "someone/else: there is no such folder, and the Hugging Face Hub has no such repository" in done.output


@pytest.mark.filterwarnings("ignore")
def test_a_download_that_breaks_off_goes_on_or_is_refused_and_nothing_half_is_taken(
    hub: Hub, shared_bundle: Path
) -> None:
    hub.commit(NAME, a_bundle(shared_bundle))
    hub.breaks = [100_000, 100_000]  # huggingface_hub goes on by itself
    assert ossicle.load(NAME, device="cpu").labels == ("bell", "drum", "voice")
    hub.commit(NAME, {WEIGHTS: (shared_bundle / WEIGHTS).read_bytes() + b" "})
    hub.breaks = [0] * 20
    with pytest.raises(BundleRefused, match=r"someone/bells: .*the download from the Hugging Face Hub broke off \("):
        ossicle.load(NAME)
    with pytest.raises(BundleRefused, match="without network access only what was downloaded whole"):
        ossicle.load(NAME, local_files_only=True)


def test_a_hub_that_cannot_be_reached_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleRefused, match=r"someone/bells: .* broke off \(.*refused.*$"):
        ossicle.load(NAME)


def test_weights_without_a_license_are_not_published(hub: Hub, shared_bundle: Path) -> None:
    recognizer = ossicle.load(shared_bundle, device="cpu")
    for push in (recognizer.push_to_hub, lambda name: push_to_hub(shared_bundle, name)):
        with pytest.raises(
            SettingRefused, match='^someone/bells: .* weights_license, for example "CC-BY-4.0", or "unknown"'
        ):
            push(NAME)
    assert not hub.requests
    recognizer.push_to_hub(NAME, weights_license="Research only")
    header = yaml.safe_load(hub.files(NAME)[CARD].decode().split("---\n")[1])
    assert (header["license"], header["license_name"]) == ("other", "Research only")


def test_only_a_whole_bundle_is_pushed(hub: Hub, bundle: Path) -> None:
    (bundle / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(WeightsRefused):
        push_to_hub(bundle, NAME, weights_license="unknown")
    assert not hub.requests


@pytest.mark.parametrize("header", ["[", "- a list\n"])
def test_a_card_that_somebody_broke_is_refused(header: str, hub: Hub, bundle: Path) -> None:
    (bundle / CARD).write_text(f"---\n{header}\n---\n\n# Bells\n")
    with pytest.raises(
        BundleRefused, match=r"^the header of the model card, README.md, is not valid YAML \([^\n]*\)\.$"
    ):
        push_to_hub(bundle, NAME, weights_license="unknown")
    (bundle / CARD).write_text("# Bells\n")
    push_to_hub(bundle, NAME, weights_license="unknown")
    assert hub.files(NAME)[CARD].startswith(b"---\nlicense: unknown\n---\n\n# Bells\n")
    (bundle / CARD).unlink()
    push_to_hub(bundle, NAME, weights_license="MIT")
    assert b"The weights: MIT." in hub.files(NAME)[CARD]


@pytest.mark.parametrize("token", [None, "hf_of_somebody"])
def test_a_push_without_the_right_is_one_sentence(
    token: str | None, hub: Hub, shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BundleRefused, match=r"^someone/bells: the upload .* failed: .*401[^\n]*hf auth login[^\n]*$"):
        push_to_hub(shared_bundle, NAME, weights_license="unknown")
    assert NAME not in hub.repositories


# --- saving ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_in_memory_with_the_card_that_came_with_it(bundle: Path, tmp_path: Path) -> None:
    recognizer = ossicle.load(bundle, device="cpu")
    next(recognizer.model.parameters()).data += 1
    assert recognizer.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    again = ossicle.load(tmp_path / "saved", device="cpu")
    windows = np.ones((1, 32_000), dtype=np.float32)
    np.testing.assert_array_equal(again.scores(windows), recognizer.scores(windows))
    assert (tmp_path / "saved" / CARD).read_text() == (bundle / CARD).read_text()
    recognizer.save_pretrained(tmp_path / "saved", card=Card(title="Others"), weights_license="MIT")
    text = (tmp_path / "saved" / CARD).read_text()
    assert "# Others" in text and "The weights: MIT." in text
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunRefused):
        recognizer.save_pretrained(tmp_path / "mine")


def test_an_ensemble_travels_with_its_members(hub: Hub, shared_bundle: Path, make_bundle: Any, tmp_path: Path) -> None:
    make_bundle(tmp_path / "other", depth=2, weights_license="MIT")
    ensemble = Ensemble.of([ossicle.load(path, device="cpu") for path in (shared_bundle, tmp_path / "other")])
    with pytest.raises(SettingRefused, match="weights_license"):
        ensemble.push_to_hub(NAME)
    ensemble.push_to_hub(NAME, weights_license="unknown")
    assert {"member0/config.json", "member1/model.safetensors", "member1/README.md"} < set(hub.files(NAME))
    back = ossicle.load(NAME, device="cpu")
    windows = np.random.default_rng(0).normal(size=(2, 32_000)).astype(np.float32)
    np.testing.assert_array_equal(back.scores(windows), ensemble.scores(windows))
