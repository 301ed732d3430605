"""From scores to metrics, each with an interval: numpy alone, no torch.

`compute_metrics` measures everything at once; the single functions are what it is made of. Where a metric is not
defined (a class without positives has no average precision) the functions give NaN, `Metrics` gives None, and a mean
runs over the classes where it is.
"""

from ossicle.metrics.calibration import CalibrationBins, calibration_bins, fit_temperature
from ossicle.metrics.decisions import balanced_accuracy, confusion_matrix, decide, fit_thresholds
from ossicle.metrics.intervals import Estimate, mean_interval, t_quantile
from ossicle.metrics.measures import (
    METRICS,
    Baseline,
    ClassMetrics,
    Metric,
    Metrics,
    compute_metrics,
    mean_over_folds,
)
from ossicle.metrics.ranking import average_precision, d_prime, mean_average_precision

__all__ = [
    "METRICS",
    "Baseline",
    "CalibrationBins",
    "ClassMetrics",
    "Estimate",
    "Metric",
    "Metrics",
    "average_precision",
    "balanced_accuracy",
    "calibration_bins",
    "compute_metrics",
    "confusion_matrix",
    "d_prime",
    "decide",
    "fit_temperature",
    "fit_thresholds",
    "mean_average_precision",
    "mean_interval",
    "mean_over_folds",
    "t_quantile",
]
