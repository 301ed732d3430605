"""Recordings to answers without torch: handed a model that scores windows, it hears files, folders and streams.

listener     windows, answers and rows around any model
ahead        decoding while the model computes
store        the results of a job, a part for each recording
job          a folder of recordings to tables on disk: resumable, bounded, nothing lost
"""

from ossicle.listening.job import Heard, Hearing, JobResult, Workers, run_job
from ossicle.listening.listener import MAX_WINDOW_SECONDS, Answers, Listener, Prediction, Recording, probabilities

__all__ = [
    "MAX_WINDOW_SECONDS",
    "Answers",
    "Heard",
    "Hearing",
    "JobResult",
    "Listener",
    "Prediction",
    "Recording",
    "Workers",
    "probabilities",
    "run_job",
]
