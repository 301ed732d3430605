"""Fewer examples than Hypothesis's default: every one runs a whole measurement, with shapes checked."""

from hypothesis import settings

settings.register_profile("metrics", max_examples=50, deadline=None)
settings.load_profile("metrics")
