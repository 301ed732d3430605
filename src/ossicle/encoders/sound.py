"""Base class of audio encoders: long clips are split, and a batch has one length.

Padding a short clip to the length of a long one changes its features, through group norms, convolutions and attention.
So the rows of a pass have one length, no attention mask is needed, and a clip's features do not depend on the batch.

The memory of a pass is two hundred times its input (for wav2vec2-base 0.4 GB for half a minute). So without gradients
few rows are processed at a time, and the memory for a long recording is mostly its hidden states.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ossicle.encoders.hidden import Encoder, Hidden

# Attention costs the square of the length; networks of speech learnt on half of this.
MAX_SECONDS = 30
# Of rows in one pass without gradients: two pieces of half a minute at 16 kHz, or many short clips.
PASS_BYTES = 4 << 20


class SoundEncoder(Encoder):
    """Encodes audio: a front end on the CPU, then passes of the network over rows of one length.

    A clip of more than `max_samples` is split into consecutive pieces of equal length, whose features are joined in
    time. (If the length does not divide the clip, the last piece overlaps the one before by a few samples.)
    """

    modality = "sound"
    rate: int

    def __init__(
        self, network: nn.Module, *, rate: int, max_samples: int, settings: dict[str, Any], **about: Any
    ) -> None:
        super().__init__(network, settings={**settings, "rate": rate, "max_samples": max_samples}, **about)
        self.rate = rate
        self.max_samples = max_samples

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "*channel frame"]:
        """The network's input for one piece."""
        raise NotImplementedError

    def places(self, samples: int) -> int:
        """Number of times of a piece without padding; at least 1."""
        raise NotImplementedError

    def states(self, rows: Float[Tensor, "row *channel frame"], layers: int) -> Float[Tensor, "row layer time dim"]:
        """One pass over pieces of one length."""
        raise NotImplementedError

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        clips = [cut(checked(wave), max_samples=self.max_samples) for wave in inputs]
        if not clips:
            raise ValueError("expected at least one clip")
        rows = [self.front(piece).movedim(-1, 0) for piece in chain(*clips)]  # (frame, *channel)
        return {
            "rows": pad_sequence(rows, batch_first=True).movedim(1, -1),  # (row, *channel, frame)
            "frames": torch.tensor([len(row) for row in rows]),
            "places": torch.tensor([self.places(len(piece)) for piece in chain(*clips)]),
            "pieces": torch.tensor([len(pieces) for pieces in clips]),
        }

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        places = batch["places"].tolist()
        states: dict[int, Float[Tensor, "time layer dim"]] = {}
        for chosen, rows in passes(batch["rows"], batch["frames"].tolist()):
            for row, state in zip(chosen, self.states(rows, layers), strict=True):
                states[row] = state[:, : places[row]].movedim(1, 0)
        order = iter(range(len(places)))
        clips = [torch.cat([states.pop(row) for row in islice(order, count)]) for count in batch["pieces"].tolist()]
        times = torch.tensor([len(clip) for clip in clips], device=clips[0].device)
        longest = int(times.max())
        # After a tuner, the gradient of `pad_sequence` copies the whole batch once for every clip.
        padded = [F.pad(clip, (0, 0, 0, 0, 0, longest - len(clip))) if len(clip) < longest else clip for clip in clips]
        return Hidden(
            features=torch.stack(padded).movedim(1, 2), mask=torch.arange(longest, device=times.device) < times[:, None]
        )


def passes(
    rows: Float[Tensor, "row *channel frame"], frames: Sequence[int]
) -> Iterator[tuple[list[int], Float[Tensor, "chosen *channel time"]]]:
    """Groups rows of one length for a pass, and cuts them to it.

    Without gradients a group has at most `PASS_BYTES`, or one row. With gradients it has all rows of one length, as the
    memory of a pass is kept for the backward pass anyway.
    """
    for length in sorted(set(frames)):
        equal = [row for row, count in enumerate(frames) if count == length]
        most = len(equal)
        if not torch.is_grad_enabled():
            most = max(1, PASS_BYTES // rows[0, ..., :length].nbytes)
        for first in range(0, len(equal), most):
            chosen = equal[first : first + most]
            yield chosen, rows[chosen, ..., :length]


def checked(wave: Any) -> Float32[np.ndarray, "time"]:
    """Checks the type and shape of a clip."""
    if not (isinstance(wave, np.ndarray) and wave.dtype == np.float32 and wave.ndim == 1 and wave.size):
        found = f"{wave.dtype} of shape {wave.shape}" if isinstance(wave, np.ndarray) else type(wave).__name__
        raise ValueError(f"expected a clip as float32 array (time,) with at least one sample, got {found}")
    return wave


def cut(wave: Float32[np.ndarray, "time"], *, max_samples: int) -> list[Float32[np.ndarray, "_"]]:
    """Pieces of one length, as few as possible, that cover the clip in order."""
    count = -(-len(wave) // max_samples)
    length = -(-len(wave) // count)
    starts = [min(number * length, len(wave) - length) for number in range(count)]
    return [wave[start : start + length] for start in starts]
