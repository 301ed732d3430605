"""A model of HEAR for two boards, by their protocols: neither package is imported, nor needed until it runs.

X-ARES (github.com/jimbozhang/xares) takes a file that defines an encoder:

    from ossicle.hear.boards import XaresEncoder

    class MyEncoder(XaresEncoder):
        def __init__(self) -> None:
            super().__init__("user/name", variant="base")

MTEB (github.com/embeddings-benchmark/mteb) takes an object:

    from ossicle.hear.boards import MtebEncoder

    mteb.evaluate(MtebEncoder("user/name"), mteb.get_tasks(modalities=["audio"]))
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from torch import Tensor, nn

from ossicle.audio import as_clip
from ossicle.hear.model import HOP_MS, load_model
from ossicle.recognizer import Recognizer


class XaresEncoder(nn.Module):
    """An audio encoder of X-ARES: a vector for every 50 ms, of clips up to ten minutes and more.

    Vector number i is of the window around i times 50 ms; a clip has as many as hops begin in it.

    Args:
        options: of `load_model`.
    """

    hop_size_in_ms = HOP_MS

    def __init__(self, model: str | os.PathLike[str] | Recognizer = "", **options: Any) -> None:
        super().__init__()
        self.model = load_model(model, **options)
        self.sampling_rate = self.model.sample_rate
        self.output_dim = self.model.timestamp_embedding_size

    def forward(self, audio: Tensor) -> Float32[Tensor, "clip time dim"]:
        """The embeddings of (clip, sample), or of one clip (sample,), at `sampling_rate`."""
        clips = audio[None] if audio.ndim == 1 else audio
        times = -(-clips.shape[1] // self.model.timestamp_hop)
        return self.model.get_timestamp_embeddings(clips)[0][:, :times]


class MtebEncoder:
    """An encoder of MTEB for its tasks of audio: a scene embedding for each clip, of any length and rate.

    Args:
        model_name: as for `load_model`; published weights by name, or a Hub id
        revision: of a Hub id
        options: of `load_model`
    """

    mteb_model_meta: Any = None
    """MTEB's `ModelMeta`, for results that are published under a name."""

    def __init__(
        self, model_name: str | os.PathLike[str] | Recognizer = "", revision: str | None = None, **options: Any
    ) -> None:
        self.model = load_model(model_name, revision=revision, **options)

    def encode(
        self, inputs: Any, *, task_metadata: Any = None, hf_split: str = "", hf_subset: str = "", **options: Any
    ) -> Float32[np.ndarray, "clip dim"]:
        """The embeddings of the clips of a task."""
        return self.get_audio_embeddings(inputs, **options)

    def get_audio_embeddings(self, inputs: Any, **options: Any) -> Float32[np.ndarray, "clip dim"]:
        """The embeddings of the clips of a loader.

        Args:
            inputs: batches with a list `audio` of {"array": (sample,) or (channel, sample), "sampling_rate": hertz}
            options: batch size and progress bar, which change nothing here

        Raises: ValueError for batches without sound.
        """
        if hasattr(inputs, "collate_fn"):  # torch's own cannot join clips of several lengths
            inputs.collate_fn = as_lists
        rows = [self._embed(clip) for batch in inputs for clip in clips_of(batch)]
        return np.stack(rows)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The cosine of every pair: (row of the first, row of the second)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The cosine of each row of the first with that of the second."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)

    def _embed(self, clip: Mapping[str, Any]) -> Float32[np.ndarray, " dim"]:
        samples = np.asarray(clip["array"], dtype=np.float32)
        # Channels come first here, and last in every recording of ours.
        wave = as_clip(samples.T, int(clip["sampling_rate"]), rate=self.model.sample_rate).samples
        return self.model.get_scene_embeddings(wave[None])[0].numpy()


def as_lists(rows: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A batch of rows as a list for each column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def clips_of(batch: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The clips of a batch.

    Raises: ValueError if it has none.
    """
    if "audio" not in batch:
        raise ValueError(f"the task has {', '.join(batch)}; expected audio, the only input of this encoder")
    return batch["audio"]


def _unit(embeddings: Any) -> Float32[Tensor, "row dim"]:
    return F.normalize(torch.atleast_2d(torch.as_tensor(embeddings)).float(), dim=-1)
