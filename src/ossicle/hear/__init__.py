"""Embeddings by the interface of HEAR 2021 (hearbenchmark.com), in the variants of the published PaSST package.

    import ossicle.hear as hear

    model = hear.load_model("runs/drums", variant="base")  # a run, a bundle, published weights or a Hub id
    hear.get_scene_embeddings(audio, model)  # (sound, dim); audio: (sound, sample) at model.sample_rate
    embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)  # (sound, time, dim), (sound, time) in ms

`hear.boards` has the same model for two boards that are alive: X-ARES and the audio tasks of MTEB.
"""

from ossicle.hear.model import (
    MODES,
    VARIANTS,
    HearModel,
    Variant,
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)

__all__ = [
    "MODES",
    "VARIANTS",
    "HearModel",
    "Variant",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "load_model",
]
