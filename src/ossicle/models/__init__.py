"""Log-mel in, scores out. The names load without torch; building a network loads it."""

from ossicle.models.registry import ModelInfo, create_model, find_preset, list_models, model_info

__all__ = ["ModelInfo", "create_model", "find_preset", "list_models", "model_info"]
