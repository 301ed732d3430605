"""Weights and run state on disk, and the one door for other people's checkpoints."""
