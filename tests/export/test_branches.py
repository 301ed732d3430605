"""What the networks do while they are exported gives the numbers of what they do otherwise, at every length.

Run as plain torch, without a graph: a graph holds what this computes, and takes a hundred times as long to make.
"""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.models import create_model
from ossicle.models.base import Network
from ossicle.models.datar import Datar, DatarConfig

SMALL: dict[str, Any] = {
    "dims": (8, 16, 16, 32),
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "num_groups": (1, 1, 2, 2),
    "frames": 96,
}
SEGMENTS = {"segment": 256, "deform": (True,) * 4, "key_strides": (8, 4, 2, 1)}


def exported(model: Network, spec: torch.Tensor) -> Any:
    """What a pass gives where `torch.compiler.is_exporting()`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_exporting", lambda: True)
        return model.forward_features(spec)


def assert_same(model: Network, spec: torch.Tensor) -> None:
    with torch.inference_mode():
        wanted, got = model.forward_features(spec), exported(model, spec)
    torch.testing.assert_close(got.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.features, wanted.features, rtol=1e-4, atol=1e-4)
    if getattr(wanted, "hop_features", None) is not None:
        torch.testing.assert_close(got.hop_features, wanted.hop_features, rtol=1e-4, atol=1e-4)


@given(frames=st.integers(16, 100), stride=st.sampled_from([10, 12, 14, 16, 20]))
def test_passt(frames: int, stride: int) -> None:
    torch.manual_seed(0)
    model = create_model(f"passt_tiny_s{stride}", num_classes=3, depth=2, frames=100).eval()
    assert_same(model, torch.randn(2, 128, frames))


@settings(max_examples=40)
@given(
    frames=st.integers(4, 256),
    clips=st.integers(1, 2),
    mels=st.sampled_from([128, 40]),
    kind=st.sampled_from([{}, SEGMENTS]),
    adaptor=st.sampled_from(["none", "spectrogram", "feature", "bottleneck", "position_table"]),
    offsets=st.sampled_from(["both", "time", "none"]),
    hop=st.booleans(),
    bias=st.booleans(),
)
def test_datar(
    frames: int, clips: int, mels: int, kind: dict[str, Any], hop: bool, bias: bool, adaptor: str, offsets: str
) -> None:
    torch.manual_seed(0)
    rest = {"mels": mels, "hop_features": hop, "position_bias": bias, "adaptor": adaptor, "offsets": offsets}
    model = Datar(DatarConfig(num_classes=3, **{**SMALL, **kind, **rest})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.05 * torch.randn_like(parameter))
    assert_same(model, torch.randn(clips, mels, frames))
