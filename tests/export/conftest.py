"""Tiny bundles of every kind that can be exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ossicle.bundle import save_bundle
from ossicle.frontend import frontend_config
from ossicle.models import create_model

LABELS = ("bell", "drum", "voice")
SMALL: dict[str, Any] = {
    "dims": (8, 16, 16, 32),
    "depths": (2, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
    "num_groups": (1, 1, 2, 2),
}


@pytest.fixture(scope="session")
def make_network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a network of that name with random weights, large enough that its scores differ from sound to sound."""

    def make(name: str, *, options: dict[str, Any] | None = None, frontend: str | None = None, **answers: Any) -> Path:
        torch.manual_seed(0)
        model = create_model(name, num_classes=len(LABELS), **(options or {}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
        folder = tmp_path_factory.mktemp("network") / name
        given = {"task": "single-label", "window_seconds": 1.0, "temperature": 1.5, **answers}
        save_bundle(
            folder,
            model=model,
            model_name=name,
            frontend=frontend_config(frontend or model.frontend),
            labels=LABELS,
            **given,
        )
        return folder

    return make


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    """Options of a DATAR with few channels and blocks, one of each kind of attention."""
    return SMALL
