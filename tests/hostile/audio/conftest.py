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
    paths = sounds.write_zoo(tmp_path_factory.mktemp("seeds"), 0.1)
    return {name: path.read_bytes() for name, path in paths.items()}
