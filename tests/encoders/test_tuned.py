"""`ossicle tune` on encoders of every modality, and `ossicle predict` with what comes out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

import ossicle
from ossicle.cli import app

pytestmark = pytest.mark.usefixtures("undrawn")
RATE = 16_000
SETTINGS = ["epochs=2", "options.hidden=4", "batch_size=4", "device=cpu"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve texts of two labels."""
    rows = ["text,label"]
    for number in range(12):
        label = ("animals", "weather")[number % 2]
        rows.append(
            f"{'two dogs bark' if label == 'animals' else 'rain falls on'} {'an old tin ' * (number // 2)},{label}"
        )
    path = tmp_path / "news.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve pictures, dark and bright."""
    rng = np.random.default_rng(0)
    for number in range(12):
        label = ("bright", "dark")[number % 2]
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        low = 0 if label == "dark" else 155
        Image.fromarray(rng.integers(low, low + 100, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Twelve clips of half a second, tones and noise."""
    rng = np.random.default_rng(0)
    for number in range(12):
        label = ("noise", "tone")[number % 2]
        folder = tmp_path / "speech" / label
        folder.mkdir(parents=True, exist_ok=True)
        samples = rng.normal(size=RATE // 2) if label == "noise" else np.sin(0.1 * (1 + number) * np.arange(RATE // 2))
        soundfile.write(folder / f"{number}.wav", 0.2 * samples, RATE)
    return tmp_path / "speech"


@pytest.mark.parametrize(
    "network, data, asked, labels",
    [
        ("bert", "texts", None, ("animals", "weather")),
        ("llama", "texts", None, ("animals", "weather")),
        ("vit", "images", "dark", ("bright", "dark")),
        ("beit", "images", "dark/1.png", ("bright", "dark")),
        ("wav2vec2", "speech", "tone", ("noise", "tone")),
        ("wavlm", "speech", "tone/1.wav", ("noise", "tone")),
        ("hubert", "speech", "tone", ("noise", "tone")),
        ("whisper", "speech", "tone", ("noise", "tone")),
    ],
)
def test_every_family_is_tuned_asked_and_measured(
    network: str,
    data: str,
    asked: str | None,
    labels: tuple[str, str],
    saved: Callable[[str], Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    path: Path = request.getfixturevalue(data)
    run, runner = tmp_path / "run", CliRunner()
    tuned = runner.invoke(app, ["tune", str(saved(network)), str(path), "-o", str(run), "--set", *SETTINGS])
    assert tuned.exit_code == 0, tuned.output
    assert (run / "report.html").exists() and (run / "importance.json").exists()
    inputs = path if asked is None else path / asked
    answered = runner.invoke(app, ["predict", str(run), str(inputs), "--format", "csv"])
    assert answered.exit_code == 0, answered.output
    rows = [line.split(",") for line in answered.output.splitlines()[1:]]
    assert rows and all(row[3] in labels for row in rows)
    if asked is None:  # every row of the table, by its line
        assert [row[0] for row in rows] == [f"{path}:{line}" for line in range(2, 14)]
    recognizer = ossicle.load(run)
    source = "two dogs bark" if asked is None else next(p for p in sorted(path.rglob("*.*")) if p.is_file())
    assert recognizer.predict(source).top[0] in labels
    assert recognizer.embed(source).shape == (recognizer.encoder.dim,)
    card = (run / "model" / "README.md").read_text()
    assert {"texts": "a sentence to read", "images": "picture.png", "speech": "recording.wav"}[data] in card
    measured = runner.invoke(app, ["evaluate", str(run), str(path), "--part", "all"])
    assert measured.exit_code == 0 and "12 " in measured.output


def test_an_image_that_is_too_narrow_is_a_bad_item_by_name(
    saved: Callable[[str], Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    Image.fromarray(np.zeros((2, 400, 3), np.uint8)).save(images / "dark" / "strip.png")
    run, runner = tmp_path / "run", CliRunner()
    call = ["tune", str(saved("dinov2")), str(images), "-o", str(run), "--set", *SETTINGS]
    refused = runner.invoke(app, call)
    assert refused.exit_code == 1 and "1 of 13 images cannot be used" in refused.output
    assert "strip.png: 400 x 2 pixels; allowed are 67,108,864 in all, and one side up to 50 times" in refused.output
    tuned = runner.invoke(app, [*call, "--skip-bad"])
    assert tuned.exit_code in (0, 3), tuned.output
    asked = runner.invoke(app, ["predict", str(run), str(images / "dark")])
    assert asked.exit_code == 3 and "strip.png: 400 x 2 pixels" in asked.output and "1 of 7 images" in asked.output


def test_a_text_file_is_one_text_and_what_has_no_times_refuses_them(
    saved: Callable[[str], Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    run, runner = tmp_path / "run", CliRunner()
    assert (
        runner.invoke(app, ["tune", str(saved("bert")), str(texts), "-o", str(run), "--set", *SETTINGS]).exit_code == 0
    )
    (tmp_path / "one.txt").write_text("rain falls\non a tin roof\n")
    answered = runner.invoke(app, ["predict", str(run), str(tmp_path / "one.txt")])
    assert answered.exit_code == 0 and " - " not in answered.output
    for option in (["--window", "1"], ["--format", "audacity"]):
        refused = runner.invoke(app, ["predict", str(run), str(texts), *option])
        assert refused.exit_code == 2 and "have no times" in refused.output


def test_a_tuner_trains_inside_the_encoder_and_comes_back(
    saved: Callable[[str], Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    runner = CliRunner()
    for tuner in ("lora", "density"):
        run = tmp_path / tuner
        call = [
            "tune",
            str(saved("hubert")),
            str(speech),
            "--tuner",
            tuner,
            "-o",
            str(run),
            "--set",
            *SETTINGS,
            "epochs=6",
        ]
        tuned = runner.invoke(app, call)
        assert tuned.exit_code == 0, tuned.output
        assert "inside the encoder" in tuned.output
        measured = runner.invoke(app, ["evaluate", str(run), str(speech)])
        ours, theirs = (next(x for x in out.output.splitlines() if x.startswith("mAP")) for out in (tuned, measured))
        assert ours == theirs


def test_lora_without_effect_stops_the_run_by_name(
    saved: Callable[[str], Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    call = ["tune", str(saved("wavlm")), str(speech), "--tuner", "lora", "-o", str(tmp_path / "run")]
    stopped = CliRunner().invoke(app, [*call, "--set", *SETTINGS, "epochs=9", "tuner_options.targets=q_proj"])
    assert stopped.exit_code == 1
    assert "q_proj" in stopped.output and "lora_A" in stopped.output


@pytest.mark.parametrize(
    "setting, said",
    [
        ("crop=true", "crop is an option of Whisper"),
        ("options.layers=3", "the head density has no option 'layers'"),
        ("options.dim=8", "the head density has no option 'dim'"),
        ("tuner_options.seed=1", "the tuner lora has no option 'seed'"),
        ("tuner_options.targets=w_proj", "no block has a linear layer 'w_proj'"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(
    setting: str, said: str, saved: Callable[[str], Path], speech: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    call = ["tune", str(saved("hubert")), str(speech), "--tuner", "lora", "-o", str(run), "--set", setting]
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 1 and said in " ".join(refused.output.split()), refused.output
    assert not run.exists()
