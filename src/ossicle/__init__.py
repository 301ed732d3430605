"""ossicle: efficient audio transformers, from a folder of sounds to a trained recognizer.

The names below are loaded when they are first used, so that `import ossicle` costs nothing and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ossicle.data import Dataset, read_dataset
    from ossicle.errors import OssicleError
    from ossicle.inference import Prediction
    from ossicle.loading import load
    from ossicle.models import create_model, list_models
    from ossicle.recognizer import Recognizer

# name -> the module that holds it.
_LAZY = {
    "Dataset": "ossicle.data",
    "OssicleError": "ossicle.errors",
    "Prediction": "ossicle.inference",
    "Recognizer": "ossicle.recognizer",
    "create_model": "ossicle.models",
    "list_models": "ossicle.models",
    "load": "ossicle.loading",
    "read_dataset": "ossicle.data",
}

__all__ = [
    "Dataset",
    "OssicleError",
    "Prediction",
    "Recognizer",
    "__version__",
    "create_model",
    "list_models",
    "load",
    "read_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ossicle' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
