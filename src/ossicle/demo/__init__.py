"""The tour: on the built-in recordings, everything from sounds to time-stamped labels, in about two minutes."""

from ossicle.demo.tour import Tour, run_demo

__all__ = ["Tour", "run_demo"]
