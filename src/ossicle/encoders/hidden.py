"""Base class of encoders: from audio, text or images to the hidden states of the blocks.

A hidden state is the output of a block; the embedding before the first block is not one. The norm that many networks
apply after the last block is not applied, so a layer's features do not depend on the number of blocks that run after
it. Where a block itself ends in a norm (BERT, wav2vec2-base and others of post-norm), that norm is part of it.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ossicle.devices import DTYPES

EncoderPrecision = Literal["float32", "bfloat16", "float16"]
VERSION = 2  # of the features; part of every fingerprint
HIDDEN_STATES = "what leaves each block: no embedding before the first, no norm behind the last"


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """The hidden states of a batch, in the precision of the encoder.

    Beyond a clip's length the features are undefined and the mask is false.
    """

    features: Float[Tensor, "clip layer time dim"]
    mask: Bool[Tensor, "clip time"]  # true where there was input

    def mean(self) -> Float[Tensor, "clip layer dim"]:
        """The mean over the times of the mask, in at least float32."""
        mask = self.mask[:, None, :, None]
        dtype = torch.promote_types(self.features.dtype, torch.float32)
        return self.features.masked_fill(~mask, 0.0).sum(2, dtype=dtype) / mask.sum(2)


class CopyableLock:
    """A lock that can be copied and pickled; the copy is a new, unlocked one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type["CopyableLock"], tuple[()]]:
        return CopyableLock, ()


class Encoder(nn.Module):
    """A trained network whose hidden states are read. Made by `load_encoder`.

    Its parameters are frozen, and it stays in evaluation mode also after `train()`. A tuner that changes `network`
    unfreezes its own parameters and sets `adapted`; from then on `train()` applies to the network.
    """

    modality: str  # one of ossicle.data.MODALITIES, by name
    rate: int | None = None  # hertz, of sound

    def __init__(self, network: nn.Module, *, name: str, num_layers: int, dim: int, settings: dict[str, Any]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.name = name  # as the user gave it
        self.num_layers = num_layers
        self.dim = dim
        self.settings = settings
        """Everything besides the weights that the features depend on, as JSON values."""
        self.fingerprint = fingerprint(network, settings)
        """16 hexadecimal digits of the weights, their names and the settings, as they were loaded."""
        self.assumed: tuple[str, ...] = ()
        """A sentence for each assumed setting, which is not in the encoder's files."""
        self.adapted = False
        self.pass_lock = CopyableLock()

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    @property
    def precision(self) -> EncoderPrecision:
        """Of the weights and of a pass."""
        return cast("EncoderPrecision", self.settings.get("precision", "float32"))

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Turns inputs into what `encode` takes, on the CPU and without the network; may run in another thread.

        Args:
            inputs: sound as float32 (time,) at `rate`; text as str; images as uint8 (row, column, 3)

        Raises: ValueError for an input of another type, or no input.
        """
        raise NotImplementedError

    def shortened(self, inputs: Sequence[Any]) -> str | None:
        """A sentence about inputs that are truncated; None if there are none."""
        return None

    def encode(self, batch: dict[str, Tensor], *, layers: int | None = None) -> Hidden:
        """Returns the hidden states of the output of `prepare`; gradients flow to parameters that require them.

        A lock serializes the threads, since a pass truncates the network and records the outputs of its blocks.

        Args:
            layers: number of blocks to run, 1 to `num_layers`
        """
        layers = self.depth(layers)
        # Some networks cache tensors between passes (BEiT its table of distances); tensors made in inference mode would
        # prevent gradients in later passes.
        gradients = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with self.pass_lock.lock, torch.inference_mode(False), torch.set_grad_enabled(gradients):
            dtype = DTYPES[self.precision]
            batch = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
            return self._encode({key: value.to(self.device) for key, value in batch.items()}, layers)

    def depth(self, layers: int | None) -> int:
        """Number of blocks to run for `layers`; None is all.

        Raises: ValueError outside 1 to `num_layers`.
        """
        if layers is not None and not 1 <= layers <= self.num_layers:
            raise ValueError(f"layers is {layers}; expected 1 to {self.num_layers} for {self.name}")
        return self.num_layers if layers is None else layers

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        self.network.train(mode and self.adapted)
        return self

    def extra_repr(self) -> str:
        return f"{self.name}, {self.modality}, num_layers={self.num_layers}, dim={self.dim}, {self.fingerprint}"


def fingerprint(network: nn.Module, settings: dict[str, Any]) -> str:
    """16 hexadecimal digits made of every tensor's name, kind, shape and bytes, and of the settings."""
    digest = hashlib.sha256(f"{VERSION} {json.dumps(settings, sort_keys=True, allow_nan=False)}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def bare(network: nn.Module) -> Any:
    """The network without a wrapper of `peft`."""
    return getattr(network, "get_base_model", lambda: network)()
