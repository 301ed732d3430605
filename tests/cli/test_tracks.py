"""`--track` from the training on: the track that trained is the one that is evaluated."""

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from typer.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Recordings with silence as their first audio track, and a tone or noise as their second."""
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'ossicle[media]'")
    sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "audio" / "sounds.py")))
    rng = np.random.default_rng(0)
    time = np.arange(24_000) / 48_000
    for number in range(12):
        label = ("noise", "tone")[number % 2]
        tone = np.sin(2 * np.pi * rng.uniform(300, 3000) * time)
        samples = (0.2 * (tone if label == "tone" else rng.normal(size=len(time)))).astype(np.float32)
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True, exist_ok=True)
        sounds.write_timed(folder / f"{number}.mkv", [[(0.0, 0 * samples)], [(0.0, samples)]])
    return tmp_path / "data"


@pytest.mark.usefixtures("undrawn")
def test_the_track_that_trained_is_evaluated(
    data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    settings = ["epochs=1", "depth=1", "batch_size=4", "device=cpu", "precision=float32"]
    folder = tmp_path / "run"
    assert run("train", data, "--init", "none", "-o", folder, "--track", "2", "--set", *settings).exit_code == 0
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["track"] == 2

    def predictions(name: str, *more: str) -> str:
        result = run("evaluate", folder, data, "--part", "all", "-o", tmp_path / name, *more)
        assert result.exit_code == 0, result.output
        return (tmp_path / name / "predictions.csv").read_text()

    assert predictions("stored") == predictions("second", "--track", "2") != predictions("first", "--track", "1")
