"""The teacher: EfficientAT `mn04_as`, an AudioSet tagger of one million parameters.

Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation" (ICASSP
2023): a MobileNetV3 of width 0.4, distilled from an ensemble of PaSST. Its batch norms are folded into the
convolutions, its layers are data (`layers.json`), and its input is our `passt` log-mel. The weights (MIT) stay outside
the project, and so do its answers.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ossicle.frontend import frontend_config, log_mel

HINT = "layer_55"  # the last layer at the resolution of the student's patches
SHORTEST = 1.0  # seconds; a shorter clip is followed by silence, as the student hears it
FRONTEND = frontend_config("passt")
ACTIVATIONS = {"relu": F.relu, "hardswish": F.hardswish, "none": lambda x: x}


class Heard(NamedTuple):
    """What the teacher answers."""

    logits: Float[Tensor, "clip label"]  # before any sigmoid
    embedding: Float[Tensor, "clip value"]  # the mean of the map
    map: Float[Tensor, "clip value row column"]  # at a 32nd of the resolution
    hint: Float[Tensor, "clip channel row column"]  # at a 16th


class Teacher(nn.Module):
    """The network: log-mel (clip, 1, mel, frame) of any length to logits and embeddings.

    Args:
        folder: holds `model.safetensors` and `layers.json`
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layers: list[dict[str, Any]] = json.loads((folder / "layers.json").read_text())["layers"]
        # With the channels last a pass takes a third of the time on a CPU.
        self.tensors = {
            name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for name, tensor in load_file(folder / "model.safetensors").items()
        }

    def forward(self, mel: Float[Tensor, "clip 1 mel frame"]) -> Heard:
        x = kept = hint = mel.contiguous(memory_format=torch.channels_last)
        last = ""
        for layer in self.layers:
            if layer["op"] == "residual_begin":
                kept = x
            elif layer["op"] == "residual_end":
                x = x + kept
                hint = x if last == HINT else hint
            elif layer["op"] == "squeeze_excite":
                x = x * self.excitation(x, layer["name"])
            else:
                x, last = self.convolution(x, layer), layer["name"]
        embedding = x.mean(dim=(2, 3))
        logits = self.linear(F.hardswish(self.linear(embedding, "head_1")), "head_2")
        return Heard(logits, embedding, x, hint)

    def convolution(self, x: Tensor, layer: dict[str, Any]) -> Tensor:
        weight, bias = self.tensors[layer["name"] + ".weight"], self.tensors[layer["name"] + ".bias"]
        y = F.conv2d(x, weight, bias, stride=layer["stride"], padding=layer["padding"], groups=layer["groups"])
        return ACTIVATIONS[layer["activation"]](y)

    def excitation(self, x: Tensor, name: str) -> Tensor:
        squeezed = F.relu(self.linear(x.mean(dim=(2, 3)), name + ".fc1"))
        return self.linear(squeezed, name + ".fc2").sigmoid()[:, :, None, None]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[name + ".weight"], self.tensors[name + ".bias"])


def features(samples: Float[Tensor, "clip time"]) -> Float[Tensor, "clip 1 mel frame"]:
    """What the teacher reads of clips at 32 kHz."""
    missing = round(SHORTEST * FRONTEND.rate) - samples.shape[-1]
    return log_mel(F.pad(samples, (0, max(0, missing))), FRONTEND)[:, None]
