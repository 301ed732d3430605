"""Weights and checkpoints on disk, and conversion of published checkpoints."""
