"""What every encoder is from outside: sound, text or an image in, the hidden states of its blocks out.

A hidden state is what leaves a block, one for each block and never the embedding that enters the first. The norm that
many networks put behind their last block is not applied, so a layer's features are the same however many blocks run
after it. Where a block itself ends in a norm (BERT, wav2vec2-base and others of post-norm), that norm is part of it.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

VERSION = 1  # of what features mean; another one makes every fingerprint another
HIDDEN_STATES = "what leaves each block: no embedding before the first, no norm behind the last"


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """The hidden states of a batch. Beyond a clip's own length the features mean nothing and the mask is false."""

    features: Float[Tensor, "clip layer time dim"]
    mask: Bool[Tensor, "clip time"]  # true where there was input

    def mean(self) -> Float[Tensor, "clip layer dim"]:
        """The mean over the time that holds input."""
        mask = self.mask[:, None, :, None]
        return self.features.masked_fill(~mask, 0.0).sum(2) / mask.sum(2)


class Turns:
    """A lock; a copy of it, also in another process, is a new one, which nobody holds."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Turns"], tuple[()]]:
        return Turns, ()


class Encoder(nn.Module):
    """A trained network whose hidden states are read. Made by `load_encoder`.

    Nothing in it wants a gradient, and it stays in evaluation mode also under `train()`. A tuner that changes `network`
    unfreezes what it wants and sets `adapted`; from then on `train()` reaches the network.
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
        """Everything but the weights that the features depend on, as JSON holds it."""
        self.fingerprint = fingerprint(network, settings)
        """16 hexadecimal digits of the weights, their names and the settings, as they were loaded."""
        self.assumed: tuple[str, ...] = ()
        """A sentence for each thing that the features depend on and no file of the encoder says."""
        self.adapted = False
        self.turns = Turns()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Turns inputs into what `encode` takes, on the CPU and without the network; may run in another thread.

        Args:
            inputs: sound as float32 (time,) at `rate`; text as str; images as uint8 (row, column, 3)

        Raises: ValueError for an input of another kind, or none at all.
        """
        raise NotImplementedError

    def shortened(self, inputs: Sequence[Any]) -> str | None:
        """A sentence for the user about inputs that lose their end; None where each is encoded whole."""
        return None

    def encode(self, batch: dict[str, Tensor], *, layers: int | None = None) -> Hidden:
        """Gives the hidden states of what `prepare` made; gradients reach the parameters that want them.

        Threads take turns: a pass cuts the network short and listens to its blocks, and another one would hear that.

        Args:
            layers: end after so many blocks, 1 to `num_layers`; no later one runs
        """
        layers = self.depth(layers)
        # Some networks keep tensors from pass to pass (BEiT its table of distances); made in inference mode, they would
        # let no later pass have a gradient.
        gradients = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        with self.turns.lock, torch.inference_mode(False), torch.set_grad_enabled(gradients):
            return self._encode({key: value.to(self.device) for key, value in batch.items()}, layers)

    def depth(self, layers: int | None) -> int:
        """How many blocks run where so many layers are asked for; all for None.

        Raises: ValueError for fewer than one, and for more than there are.
        """
        if layers is not None and not 1 <= layers <= self.num_layers:
            raise ValueError(f"layers is {layers}; {self.name} has 1 to {self.num_layers}")
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
    """The network itself, where `peft` has wrapped it."""
    return getattr(network, "get_base_model", lambda: network)()
