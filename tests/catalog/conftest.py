"""A local server in place of those that publish weights, and a store of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.catalog.server import Server, serving

from ossicle.catalog import download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every address of the catalogue leads there."""
    with serving() as server:
        monkeypatch.setenv("OSSICLE_MIRROR", server.address)
        yield server


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the store, which is empty; nothing of the user's settings, and no pauses."""
    for name in ("OSSICLE_OFFLINE", "HF_HUB_OFFLINE", "OSSICLE_MIRROR", "OSSICLE_MIRROR_TOKEN", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache" / "weights"
