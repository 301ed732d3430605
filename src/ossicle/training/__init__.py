"""From labeled sounds to a trained model, on Lightning."""

from ossicle.training.config import TrainConfig, TuneConfig
from ossicle.training.results import FoldResult, TrainResult
from ossicle.training.sweeps import SweepResult, SweepRun, sweep
from ossicle.training.train_network import train
from ossicle.training.trial import DryRun, dry_run
from ossicle.training.tune_head import tune

__all__ = [
    "DryRun",
    "FoldResult",
    "SweepResult",
    "SweepRun",
    "TrainConfig",
    "TrainResult",
    "TuneConfig",
    "dry_run",
    "sweep",
    "train",
    "tune",
]
