"""Inference without torch: handed a model that scores windows, it predicts files, folders and streams.

predictor    windows, answers and rows around any model
ahead        decoding while the model computes
store        the results of a job, a part for each recording
job          a folder of recordings to tables on disk: resumable, bounded, nothing lost
"""

from ossicle.inference.job import InferenceConfig, JobResult, Outcome, Workers, run_job
from ossicle.inference.predictor import MAX_WINDOW_SECONDS, ModelInfo, Prediction, Predictor, Recording, probabilities

__all__ = [
    "MAX_WINDOW_SECONDS",
    "InferenceConfig",
    "JobResult",
    "ModelInfo",
    "Outcome",
    "Prediction",
    "Predictor",
    "Recording",
    "Workers",
    "run_job",
    "probabilities",
]
