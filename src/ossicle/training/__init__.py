"""From labeled sounds to a trained recognizer, on Lightning."""

from ossicle.training.config import TrainConfig, TuneConfig
from ossicle.training.folds import FoldResult, TrainResult
from ossicle.training.run import run_training, train
from ossicle.training.tuning import run_tuning, tune

__all__ = ["FoldResult", "TrainConfig", "TrainResult", "TuneConfig", "run_training", "run_tuning", "train", "tune"]
