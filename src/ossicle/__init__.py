"""ossicle: efficient audio transformers, from a folder of sounds to a trained model.

>>> import ossicle
>>> result = ossicle.train("sounds", output="runs/sounds")  # doctest: +SKIP
>>> ossicle.load("runs/sounds").predict("recording.wav").top  # doctest: +SKIP

The names below are loaded on first use, so that `import ossicle` costs nothing and needs no torch. Nothing is printed:
what happens is logged under `ossicle`.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ossicle.data import Dataset, read_dataset
    from ossicle.embedding import Embeddings, embed_files
    from ossicle.encoders import Encoder, load_encoder
    from ossicle.errors import OssicleError
    from ossicle.evaluation import Evaluation, evaluate
    from ossicle.export import Exported, export_model
    from ossicle.inference import EventRules, Prediction
    from ossicle.jobs.folders import FileResults
    from ossicle.jobs.predict import predict_files
    from ossicle.loading import create_model, load
    from ossicle.models import list_models
    from ossicle.recognizer import Recognizer
    from ossicle.training import FoldResult, SweepResult, TrainConfig, TrainResult, TuneConfig, sweep, train, tune

# name -> the module that holds it.
_LAZY = {
    "Dataset": "ossicle.data",
    "Embeddings": "ossicle.embedding",
    "Encoder": "ossicle.encoders",
    "Evaluation": "ossicle.evaluation",
    "EventRules": "ossicle.inference",
    "Exported": "ossicle.export",
    "FileResults": "ossicle.jobs.folders",
    "FoldResult": "ossicle.training",
    "OssicleError": "ossicle.errors",
    "Prediction": "ossicle.inference",
    "Recognizer": "ossicle.recognizer",
    "SweepResult": "ossicle.training",
    "TrainConfig": "ossicle.training",
    "TrainResult": "ossicle.training",
    "TuneConfig": "ossicle.training",
    "create_model": "ossicle.loading",
    "embed_files": "ossicle.embedding",
    "evaluate": "ossicle.evaluation",
    "export_model": "ossicle.export",
    "list_models": "ossicle.models",
    "load": "ossicle.loading",
    "load_encoder": "ossicle.encoders",
    "predict_files": "ossicle.jobs.predict",
    "read_dataset": "ossicle.data",
    "sweep": "ossicle.training",
    "train": "ossicle.training",
    "tune": "ossicle.training",
}

__all__ = [
    "Dataset",
    "Embeddings",
    "Encoder",
    "Evaluation",
    "EventRules",
    "Exported",
    "FileResults",
    "FoldResult",
    "OssicleError",
    "Prediction",
    "Recognizer",
    "SweepResult",
    "TrainConfig",
    "TrainResult",
    "TuneConfig",
    "__version__",
    "create_model",
    "embed_files",
    "evaluate",
    "export_model",
    "list_models",
    "load",
    "load_encoder",
    "predict_files",
    "read_dataset",
    "sweep",
    "train",
    "tune",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ossicle' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
