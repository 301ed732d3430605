"""Frozen encoders of sound, text and images: any input to (clip, layer, time, dim)."""

from ossicle.encoders.hidden import Encoder, EncoderPrecision, Hidden
from ossicle.encoders.load import load_encoder

__all__ = ["Encoder", "EncoderPrecision", "Hidden", "load_encoder"]
