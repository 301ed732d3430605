"""ossicle networks as encoders, from a bundle; `Network.layout` of each family defines the layers.

A clip longer than one pass is encoded in pieces. If the bundle was trained with padded clips, short clips are padded
here too, and the mask excludes the padding.
"""

import dataclasses
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from ossicle.bundle import Bundle
from ossicle.devices import DTYPES
from ossicle.encoders.hidden import EncoderPrecision, bare
from ossicle.encoders.sound import SoundEncoder
from ossicle.frontend import LogMel


def changed_options(config: Any) -> dict[str, Any]:
    """The options of a network that differ from the defaults, so that new options do not change fingerprints."""
    options = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
    changed = {field.name: value for field, value in options if value != field.default}
    return json.loads(json.dumps(changed, default=dataclasses.asdict))


def window_frames(bundle: Bundle) -> int:
    """Frames of a bundle's window."""
    frontend = bundle.frontend
    return frontend.frames(max(round(bundle.window_seconds * frontend.rate), frontend.min_samples))


def settings_of(bundle: Bundle) -> dict[str, Any]:
    """Everything besides the weights that the states of a bundle's network depend on, as JSON values."""
    network, window = bundle.model, window_frames(bundle)
    return {
        "family": bundle.model_name,
        "network": changed_options(network.config),
        "frontend": bundle.frontend.config.to_dict(),
        "padded_frames": min(window, network.layer_frames(window)) if bundle.pad else None,
        "states": network.layout.description,
    }


class BundleEncoder(SoundEncoder):
    """An ossicle network with the bundle's front end."""

    def __init__(self, bundle: Bundle, *, name: str, precision: EncoderPrecision = "float32") -> None:
        frontend, network = bundle.frontend, bundle.model.to(DTYPES[precision])
        super().__init__(
            network,
            rate=frontend.rate,
            max_samples=frontend.samples(network.layer_frames(window_frames(bundle)) + 1) - 1,
            num_layers=network.layout.num_layers,
            dim=network.layout.dim,
            name=name,
            settings=settings_of(bundle) | ({"precision": precision} if precision != "float32" else {}),
        )
        self._frontend = (frontend,)  # in a tuple, so that it stays on the CPU when the encoder moves
        self._frozen = tuple(network.modules())

    @property
    def frontend(self) -> LogMel:
        """Samples to log-mel, on the CPU."""
        return self._frontend[0]

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "mel frame"]:
        silence = max(0, self.frontend.min_samples - len(wave))
        padded = F.pad(torch.from_numpy(wave), (0, silence))
        return self.frontend(padded[None], frames=self.settings["padded_frames"])[0]

    def places(self, samples: int) -> int:
        """Number of time steps of a piece, without the padding to the window.

        Padding to the shortest input counts: an exported graph cannot tell it from sound.
        """
        return bare(self.network).layer_times(self.frontend.frames(max(samples, self.frontend.min_samples)))

    def states(self, rows: Float[Tensor, "row mel frame"], layers: int) -> Float[Tensor, "row layer time dim"]:
        return bare(self.network).layer_states(rows, layers)

    def train(self, mode: bool = True) -> "BundleEncoder":
        super().train(mode)
        for module in self._frozen:
            module.training = False  # no dropout in a frozen network; modules of a tuner may train
        return self


def bundle_encoder(bundle: Bundle, *, name: str, precision: EncoderPrecision = "float32") -> BundleEncoder:
    """The encoder of a bundle's network."""
    return BundleEncoder(bundle, name=name, precision=precision)
