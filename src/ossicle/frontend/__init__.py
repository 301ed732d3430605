"""Samples to log-mel features."""

from ossicle.frontend.mel import LogMel, create_frontend, jitter_edges, log_mel, measure_statistics, normalize
from ossicle.frontend.recipes import RECIPES, FrontendConfig, frontend_config

__all__ = [
    "RECIPES",
    "FrontendConfig",
    "LogMel",
    "create_frontend",
    "frontend_config",
    "jitter_edges",
    "log_mel",
    "measure_statistics",
    "normalize",
]
