"""The demo: training, evaluation and time-stamped predictions on the built-in recordings, in about two minutes."""

from ossicle.demo.tour import Tour, run_demo

__all__ = ["Tour", "run_demo"]
