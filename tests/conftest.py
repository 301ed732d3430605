"""What several folders of tests need: a bundle that no training made, and recordings made of numbers."""

import contextlib
import gc
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaxtyping
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, settings

from ossicle.errors import ImageRefused
from ossicle.inference import ModelInfo, Predictor, Reporting, Row

# Nothing in a test depends on what is faster on the machine that it runs on.
os.environ["OSSICLE_KERNELS"] = "onednn"
# No test measures time, also not by a deadline; and a failure must come back in the next run.
settings.register_profile(
    "facts", max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("facts")


DEAR = ("export", "training", "test_docs", "runtime", "cli", "hostile")


def names_in(path: Path) -> set[str]:
    """The names of a file and of its folders below this one, whatever the checkout's own path is."""
    return {*Path(os.path.relpath(path, Path(__file__).parent)).with_suffix("").parts}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dear folders first: a worker that came to one last would work alone."""
    place = {name: number for number, name in enumerate(DEAR)}
    items.sort(key=lambda item: min(place.get(name, len(DEAR)) for name in names_in(item.path)))


@pytest.fixture(autouse=True, scope="module")
def heap() -> None:
    """Keeps the garbage collector from walking through all that was imported, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def disk() -> Iterator[None]:
    """Nothing waits for the disk: no test cuts the power, and those of what reaches it count the calls."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda handle: None)
    yield
    patch.undo()


def save_tiny_bundle(
    folder: Path, *, labels: tuple[str, ...] = ("bell", "drum", "voice"), depth: int = 1, **changes: Any
) -> Path:
    """Saves a network of few blocks with random weights, large enough that its scores differ from sound to sound."""
    import torch

    from ossicle.bundle import save_bundle
    from ossicle.frontend import frontend_config
    from ossicle.models import create_model

    torch.manual_seed(0)
    model = create_model("passt_tiny_s16", num_classes=len(labels), depth=depth, frames=100)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    options = {"task": "single-label", "window_seconds": 1.0, "temperature": 1.5, **changes}
    save_bundle(
        folder,
        model=model,
        model_name="passt_tiny_s16",
        frontend=frontend_config("passt"),
        labels=labels,
        **options,
    )
    return folder


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single-label bundle for reading only."""
    return save_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Saves a tiny bundle at a path, with any argument of `save_bundle` changed."""
    return save_tiny_bundle


@pytest.fixture
def bundle(shared_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage, without the hashes by which that would be noticed at once."""
    copy = Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))
    (copy / "SHA256SUMS").unlink()
    return copy


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes noise of that many seconds below the test's folder, the same for the same seed, and gives the path."""

    def write(name: str, *, seconds: float = 1.0, rate: int = 32_000, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(seed).normal(scale=0.1, size=round(seconds * rate)).astype(np.float32)
        soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
        return path

    return write


@pytest.fixture(scope="session")
def exact_log_mel() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """The log-mel in double precision, and by how much float32 may differ from it: see exact.py."""
    return runpy.run_path(str(Path(__file__).with_name("exact.py")))["log_mel"]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and saved, and what is in them is not drawn; tests/report and tests/cli draw."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: file.write(b"\x89PNG"))


@contextlib.contextmanager
def without_types() -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


# Whole commands, trainings and exports, which would check the shapes of the same functions thousands of times over.
WHOLE = {"cli", "demo", "jobs", "runtime", "test_docs", "test_export"}
WHOLE |= {f"test_{name}" for name in ("distillation", "finetune", "ranks", "run", "state", "sweeps", "tuning")}


@pytest.fixture(autouse=True, scope="module")
def shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Shapes are checked where arrays are made and changed."""
    with without_types() if WHOLE & names_in(request.path) else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def untyped() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """For the making of a graph: shapes are symbols meanwhile, and a check of them would settle what they are."""
    return without_types


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the library logs, from INFO on."""
    caplog.set_level("INFO", logger="ossicle")
    return caplog


@pytest.fixture
def cats() -> Predictor:
    """A model of images that needs no network."""
    return Cats()


class Cats(Predictor):
    """Sees a cat in every image but one."""

    modality, plural, timed = "image", "images", False
    rate, min_samples = 8000, 1  # type: ignore[assignment]
    bundle = ModelInfo(
        model_name="cats",
        task="single-label",
        labels=("cat",),
        window_seconds=1.0,
        hop_seconds=1.0,
        library_version="0",
        version="0" * 12,
    )
    scores = features = None  # type: ignore[assignment]

    def predict_item(self, item: Any, *, reporting: Reporting) -> Any:
        if item.file.name == "bad.png":
            raise ImageRefused(f"{item.file}: no image")
        return SimpleNamespace(rows=(Row(file=item.place, start=0.0, end=0.0, label="cat", score=1.0),))
