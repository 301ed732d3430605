"""Log-mel in, scores out. The names load without torch; building a network loads it."""

from ossicle.models import presets as presets  # registers our own
from ossicle.models.heads import HeadSpec
from ossicle.models.registry import (
    ModelSummary,
    Preset,
    create_model,
    find_preset,
    list_models,
    network_class,
    register_network,
    summarize_model,
)

__all__ = [
    "HeadSpec",
    "ModelSummary",
    "Preset",
    "create_model",
    "find_preset",
    "list_models",
    "network_class",
    "register_network",
    "summarize_model",
]
