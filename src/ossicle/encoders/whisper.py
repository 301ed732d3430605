"""The encoder of Whisper, with its own front end.

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), section 2.2.

Whisper takes 30 s at a time; a shorter clip is padded with silence, and its attention includes the silence. A time is
one of its 1500 positions, 20 ms each; those of the clip are kept and are the mask. With `crop` the input of the network
is limited to these positions: a short clip costs a fraction, and its features are different.

**Deviation**: a clip of more than 30 s is cut into equal pieces; Whisper cuts 30 s pieces and pads the last.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.devices import DTYPES
from ossicle.encoders.hidden import bare
from ossicle.encoders.pretrained import count_blocks, import_transformers, load_network, recorded
from ossicle.encoders.processor import FrontEnd, read_front_end, refuse_other_extractor
from ossicle.encoders.sound import SoundEncoder
from ossicle.errors import BundleRefused

FRAMES = 2  # of the spectrogram to a position


class WhisperEncoder(SoundEncoder):
    """Whisper's encoder, from a whole checkpoint or from one of the encoder alone."""

    def __init__(self, folder: Path, *, config: Any, crop: bool, **about: Any) -> None:
        library = import_transformers()
        stated = read_front_end(folder, modality="sound")
        front = read_extractor(stated, config=config)
        network = load_network(
            library.models.whisper.modeling_whisper.WhisperEncoder,
            folder,
            config=config,
            dtype=DTYPES[about["settings"].get("precision", "float32")],
            key_mapping={r"^(model\.)?encoder\.": ""},
        )
        about["settings"] |= {
            "mels": front.feature_size,
            "hop_samples": front.hop_length,
            "fft_samples": front.n_fft,
            "crop": crop,
            "states": "the positions that hold sound",
        }
        super().__init__(
            network,
            rate=front.sampling_rate,
            max_samples=config.max_source_positions * FRAMES * front.hop_length,
            num_layers=count_blocks(network),
            dim=config.d_model,
            **about,
        )
        self.extractor = front
        self.crop = crop
        self.assumed = stated.sentences()

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "mel frame"]:
        samples, frames = self.max_samples, self.max_samples // self.extractor.hop_length
        if self.crop:
            # With one transform of silence after the clip, its frames equal those of the clip padded to 30 s.
            samples = min(samples, len(wave) + self.extractor.n_fft)
            frames = FRAMES * self.places(len(wave))
        spec = self.extractor(wave, sampling_rate=self.rate, max_length=samples, return_tensors="pt").input_features[0]
        return spec[:, :frames]

    def places(self, samples: int) -> int:
        return -(-samples // (FRAMES * self.extractor.hop_length))

    def states(self, rows: Float[Tensor, "row mel frame"], layers: int) -> Float[Tensor, "row layer time dim"]:
        with first_positions(self.network, rows.shape[-1] // FRAMES), recorded(self.network, layers) as states:
            self.network(rows)
        return torch.stack(states, dim=1)


def read_extractor(stated: FrontEnd, *, config: Any) -> Any:
    """The library's front end of Whisper with the settings of the files.

    Raises: BundleRefused for invalid settings, and for those of another network.
    """
    refuse_other_extractor(stated, wanted=("WhisperFeatureExtractor",))
    for key, default in (("sampling_rate", 16_000), ("hop_length", 160), ("n_fft", 400)):
        stated.count(key, default)
    front = stated.make(import_transformers().WhisperFeatureExtractor, feature_size=config.num_mel_bins)
    if front.feature_size != config.num_mel_bins:
        raise BundleRefused(
            f"{stated.file}: feature_size is {front.feature_size}; the network takes {config.num_mel_bins} mel bins."
        )
    positions = front.nb_max_frames // FRAMES
    if stated.settings is not None and positions != config.max_source_positions:
        raise BundleRefused(
            f"{stated.file}: chunk_length is {front.chunk_length} s, which is {positions} positions; the network has "
            f"{config.max_source_positions}."
        )
    if front.dither:  # features must not depend on a draw
        stated.assumed.append(f"dither=0 (the file has {front.dither})")
        front.dither = 0.0
    return front


@contextlib.contextmanager
def first_positions(network: nn.Module, count: int) -> Iterator[None]:
    """Makes the network accept inputs of `count` positions meanwhile; it refuses other lengths by default."""
    base = bare(network)
    table, config = base.embed_positions, base.config
    base.embed_positions = nn.Embedding.from_pretrained(table.weight[:count])
    config.max_source_positions = count
    try:
        yield
    finally:
        base.embed_positions, config.max_source_positions = table, table.num_embeddings
