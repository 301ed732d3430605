"""A local server in place of those that publish weights, and a store of its own for each test."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.catalog.layouts import Shapes, shapes_of, swin, vit, write_published
from tests.catalog.server import Server, serving

from ossicle.catalog import Checkpoint, checkpoint, download, shapes_digest
from ossicle.catalog.rows import checkpoints
from ossicle.models import registry

DIM = 8


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every address of the catalogue leads there."""
    with serving() as server:
        monkeypatch.setenv("OSSICLE_MIRROR", server.address)
        yield server


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the store, which is empty; nothing of the user's settings, and no pauses."""
    for name in (
        "OSSICLE_OFFLINE",
        "HF_HUB_OFFLINE",
        "OSSICLE_MIRROR",
        "OSSICLE_MIRROR_TOKEN",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def publish(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Checkpoint]:
    """Makes a row of the catalogue available: a file in its layout, of a network of few numbers, on the server.

    Changes are to the row; `hashed=True` also gives it the hash and size of the file, and `damage` changes its tensors.
    """

    def make(name: str, *, hashed: bool = False, seed: int = 0, damage: Any = None, **changes: Any) -> Checkpoint:
        row = checkpoint(name)
        shrink(row.architecture, monkeypatch)
        path = write_published(
            row, tmp_path / "published" / row.file, shapes=small_shapes(row), seed=seed, damage=damage
        )
        content = path.read_bytes()
        facts: dict[str, Any] = {
            "bytes": None,
            "sha256": None,
            "shapes": None if row.by_shapes else shapes_digest(small_shapes(row)),
        }
        if hashed:
            facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        row = dataclasses.replace(row, **{"numbers": 1000, **facts, **changes})
        monkeypatch.setitem(checkpoints(), row.name, row)
        server.files[urlsplit(row.url).path] = content
        return row

    return make


def shrink(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a registered PaSST one of few numbers, in the same grid."""
    preset, network = registry._registered[name]
    if name.startswith("passt"):
        small = dataclasses.replace(preset, options={**preset.options, "dim": DIM, "num_heads": 1, "depth": 3})
        monkeypatch.setitem(registry._registered, name, (small, network))


def small_shapes(row: Checkpoint) -> Shapes:
    """The layout of a row's file for the network that `shrink` leaves."""
    if not row.is_start:
        return shapes_of(row)
    return vit(DIM, image=64, tokens=2, depth=3) if "deit" in row.name else swin(DIM, (1, 1, 1, 1), (1, 1, 1, 1))
