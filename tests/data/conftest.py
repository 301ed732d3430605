"""Trees of files and real data sets for the tests of data."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[Iterable[str] | Mapping[str, str]], Path]:
    """Makes files below a fresh folder: empty ones, or with the text given."""

    def make(files: Iterable[str] | Mapping[str, str]) -> Path:
        for name in files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name] if isinstance(files, Mapping) else "", encoding="utf-8")
        return tmp_path

    return make


@pytest.fixture
def shared() -> Path:
    """The folder of real data sets."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not at {SHARED}")
    return SHARED
