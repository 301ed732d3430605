"""A data set small enough to train on in a second: tones against noise, in four groups."""

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import ossicle
from ossicle.data import Dataset, read_dataset
from ossicle.models import create_model
from ossicle.training import TrainConfig, TrainResult, train

RATE = 32_000


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 0.4 s: two labels, six groups, one table."""
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = ["file,label,group"]
    for number in range(24):
        label = ("tone", "noise")[number % 2]
        time = np.arange(int(0.4 * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 3000) * time)
        samples = tone if label == "tone" else 0.3 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{number}.wav", samples, RATE)
        rows.append(f"{number}.wav,{label},speaker{number // 4}")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Trainings in processes of their own that start at once: see forked.py."""
    folder = Path(__file__).parent
    started = runpy.run_path(str(folder / "forked.py"))["Forks"](
        *(["--drawn"] if int(os.environ.get("OSSICLE_KILLS", "10")) > 10 else []),
        environment=environment() | {"OSSICLE_CACHE": str(tmp_path_factory.mktemp("cache"))},
    )
    yield started
    started.close()


def environment() -> dict[str, str]:
    """Of programs that the tests start."""
    source = str(Path(ossicle.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source, "OSSICLE_KERNELS": "onednn"}


@pytest.fixture
def dataset(sounds: Path) -> Dataset:
    return read_dataset(sounds)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainConfig]:
    return tiny_config


def tiny_config(**changes: Any) -> TrainConfig:
    """One block, two epochs, nothing drawn but the order; every change on top of that."""
    settled: dict[str, Any] = {
        "depth": 1,
        "window": 0.4,
        "epochs": 2,
        "batch_size": 4,
        "average": "none",
        "gain": 0.0,
        "mixup": 0.0,
        "jitter": False,
        "label_smoothing": 0.0,
        "patchout_t": 0.0,
        "patchout_f": 0.0,
        "balance": "none",
        "warmup": 0.0,
        "precision": "float32",
        "device": "cpu",
    }
    return TrainConfig(**{**settled, **changes})


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the published layout: a flat state dict of 527 labels and 10 s, of two narrow blocks."""
    file = tmp_path_factory.mktemp("published") / "passt.pt"
    torch.manual_seed(0)
    torch.save(create_model("passt_tiny_s16", num_classes=527, depth=2).state_dict(), file)
    return file


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainResult]:
    """Trains in a folder of its own; decoded samples are shared, and pages drawn only when asked for."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def go(
        name: str = "run", *, data: Dataset = dataset, resume: bool = False, report: bool = False, **changes: Any
    ) -> TrainResult:
        folds = changes.pop("folds", None)
        with pytest.MonkeyPatch.context() as patch:
            if not report:
                draw_nothing(patch)
            return train(data, tiny_config(**changes), output=tmp_path / name, folds=folds, resume=resume, cache=cache)

    return go


@pytest.fixture(scope="session")
def without_pictures() -> Callable[[pytest.MonkeyPatch], None]:
    return draw_nothing


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leaves what tells a finished run, and none of its pictures; no step is measured ahead."""

    def write_no_pages(evaluation: Any, folder: Path, **__: Any) -> None:
        (folder / "report.html").write_text("")

    patch.setattr("ossicle.evaluation.result.write_evaluation", write_no_pages)
    patch.setattr("ossicle.training.callbacks.measure", lambda *_, **__: None)
    patch.setattr("ossicle.training.tune_head.importance_sections", lambda *_, **__: [])
