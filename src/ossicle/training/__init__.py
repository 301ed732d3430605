"""From labelled sounds to a trained recogniser, on Lightning."""

from ossicle.training.config import TrainConfig
from ossicle.training.run import FoldResult, TrainResult, run_training, train

__all__ = ["FoldResult", "TrainConfig", "TrainResult", "run_training", "train"]
