"""Small recordings that the tests of the corpus make themselves."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip(
    "pretraining", reason="the recipe of the corpus lies beside a checkout, not in an installed package"
)


def melody(seed: int, *, seconds: float = 3.0, rate: int = 32_000) -> np.ndarray:
    """Decaying tones at random times: another seed is another recording."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.002 * draw.standard_normal(len(time))
    for start in draw.uniform(0, seconds - 0.2, 12):
        after = np.maximum(time - start, 0)
        sound += (time >= start) * 0.2 * np.exp(-6 * after) * np.sin(2 * np.pi * draw.uniform(150, 6000) * after)
    return sound.astype(np.float32)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "melody.wav"
    soundfile.write(path, melody(0), 32_000)
    return path
