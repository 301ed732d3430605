"""What every network here is from outside: a log-mel in, one logit per label out, and more by name on request."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Network(nn.Module):
    """The common face; a network adds `forward_features` and how few frames it takes."""

    config: Any  # has `mels` and `num_classes`
    frontend: str  # name of the front end that it was made for
    forward_features: Callable[..., Any]  # everything a pass computes, by name; `logits` and `features` always

    @property
    def min_frames(self) -> int:
        """Shortest input."""
        raise NotImplementedError

    def forward(
        self,
        spec: Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "clip label"]:
        """Scores a batch of spectrograms of one length.

        Args:
            generator: on the CPU; needed in training when something is drawn: patchout, dropout, drop path, the offset
                of a short clip's positions.
        """
        return self.forward_features(spec, generator=generator).logits

    def check(self, spec: Tensor) -> Float[Tensor, "clip mel frame"]:
        """The spectrogram without a channel axis.

        Raises:
            ValueError: what does not fit, with what would.
        """
        if spec.ndim == 4 and spec.shape[1] == 1:
            spec = spec.squeeze(1)
        if spec.ndim != 3:
            raise ValueError(
                f"the spectrogram has shape {tuple(spec.shape)}; (clip, mel, frame) or (clip, 1, mel, frame) is allowed"
            )
        _, mels, frames = spec.shape
        if mels != self.config.mels:
            raise ValueError(f"the spectrogram has {mels} mel bins; this network takes {self.config.mels}")
        if frames < self.min_frames:
            raise ValueError(
                f"the spectrogram has {frames} frames, less than one patch of {self.min_frames}; "
                f"pad the sound by {self.min_frames - frames} frames"
            )
        return spec
