"""Frozen encoders of sound, text and images: any input to (clip, layer, time, dim)."""

from ossicle.encoders.hidden import Encoder, Hidden
from ossicle.encoders.load import load_encoder

__all__ = ["Encoder", "Hidden", "load_encoder"]
