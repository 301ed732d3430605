import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def sounds() -> SimpleNamespace:
    """The helpers of sounds.py (importlib mode gives test folders no import path)."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("sounds.py"))))


@pytest.fixture(scope="session")
def zoo(sounds: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seconds of one sweep in every format, at 48 kHz."""
    return sounds.write_zoo(tmp_path_factory.mktemp("zoo"), 2.0)
