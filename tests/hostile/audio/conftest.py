import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def sounds() -> SimpleNamespace:
    """The helpers of tests/audio/sounds.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "audio" / "sounds.py")))


@pytest.fixture(scope="session")
def seeds(sounds: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tenth of a second of sound in every format, as bytes to be damaged."""
    damage = runpy.run_path(str(Path(__file__).with_name("damage.py")))
    return damage["make_seeds"](tmp_path_factory.mktemp("seeds"), sounds)
