"""Our arithmetic gives the numbers of the plain expressions, forward and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.models import kernels
from ossicle.models.attention import split_heads
from ossicle.models.kernels import Linear, gelu_linear, tiled_attention


def plain_attention(qkv: Tensor, num_heads: int) -> Tensor:
    y = F.scaled_dot_product_attention(*split_heads(qkv, num_heads))
    return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("tile", [1, 100, 2**20])
@pytest.mark.parametrize("clips, tokens, num_heads, dim", [(1, 1, 1, 4), (2, 7, 3, 12), (3, 5, 2, 10)])
def test_attention_in_tiles_is_attention(monkeypatch, tile: int, clips: int, tokens: int, num_heads: int, dim: int):
    monkeypatch.setattr(kernels, "TILE", tile)
    qkv = torch.randn(clips, tokens, 3 * dim, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(clips, tokens, dim, dtype=torch.float64)
    ours, theirs = tiled_attention(qkv, num_heads=num_heads), plain_attention(qkv, num_heads)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, qkv, dy), torch.autograd.grad(theirs, qkv, dy))


def test_attention_in_tiles_in_bfloat16_is_as_near_as_torchs() -> None:
    qkv = torch.randn(2, 40, 3 * 96, generator=torch.Generator().manual_seed(0))
    exact = plain_attention(qkv, 6)
    half = qkv.bfloat16()
    ours = (tiled_attention(half, num_heads=6) - exact).abs().mean()
    theirs = (plain_attention(half, 6) - exact).abs().mean()
    assert ours < 2.5 * theirs


@pytest.mark.parametrize("rows", [1, 6])
def test_gelu_is_computed_again_to_the_same_gradients(rows: int) -> None:
    linear = Linear(5, 3).double()
    h = torch.randn(2, rows, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gelu_linear(h, linear), linear(F.gelu(h)))
    assert torch.autograd.gradcheck(lambda h, *_: gelu_linear(h, linear), (h, linear.weight, linear.bias))


def test_gelu_keeps_one_tensor() -> None:
    linear, kept = Linear(8, 4), []
    h = torch.randn(2, 3, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu_linear(h, linear)
    assert {t.data_ptr() for t in kept} == {h.data_ptr(), linear.weight.data_ptr()}


def test_a_layer_in_the_place_of_ours_is_called_as_it_is() -> None:
    class Doubled(Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layer, h = Doubled(4, 2), torch.randn(1, 3, 4)
    torch.testing.assert_close(gelu_linear(h, layer), 2 * F.linear(F.gelu(h), layer.weight, layer.bias))


@pytest.mark.parametrize("shape", [(1, 16), (3, 16), (2, 5, 16), (2, 0, 16), (1, 1, 33, 16)])
def test_linear_in_inference_is_linear(shape: tuple[int, ...]) -> None:
    layer, x = Linear(16, 24), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)
        strided = torch.randn(24, 16, 2)[..., 0]
        torch.testing.assert_close(layer(strided), F.linear(strided, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)
