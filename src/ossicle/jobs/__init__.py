"""Prediction at scale, without torch: folders of recordings, workers, clusters, live sound.

folders      a folder of recordings to tables on disk: resumable, bounded, nothing lost
store        the results of a job, a part for each recording
cluster      the same on Ray Data
command      what the command lines share
"""

from ossicle.jobs.folders import InferenceConfig, JobResult, Outcome, Workers, run_job

__all__ = ["InferenceConfig", "JobResult", "Outcome", "Workers", "run_job"]
