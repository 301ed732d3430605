"""Our arithmetic gives the numbers of the plain expressions, forward and backward."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.kernels import Linear, attend, gelu_linear, linear, linear_gelu, split_heads, tiled, using_kernels
from ossicle.kernels.tiled import TiledAttention
from ossicle.models.datar import WindowBias
from ossicle.models.deformable import DeformableAttention


def plain_attention(qkv: Tensor, num_heads: int) -> Tensor:
    y = F.scaled_dot_product_attention(*split_heads(qkv, num_heads))
    return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("tile", [1, 100, 2**20])
@pytest.mark.parametrize("kept", [0, 512])
@pytest.mark.parametrize("clips, tokens, num_heads, dim", [(1, 1, 1, 4), (2, 7, 3, 12), (3, 5, 2, 10)])
def test_attention_in_tiles_is_attention(
    monkeypatch, tile: int, kept: int, clips: int, tokens: int, num_heads: int, dim: int
):
    monkeypatch.setattr(tiled, "TILE", tile)
    monkeypatch.setattr(tiled, "KEPT_TOKENS", kept)
    qkv = torch.randn(clips, tokens, 3 * dim, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(clips, tokens, dim, dtype=torch.float64)
    ours, theirs = TiledAttention.apply(qkv, num_heads), plain_attention(qkv, num_heads)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, qkv, dy), torch.autograd.grad(theirs, qkv, dy))


def test_attention_in_tiles_in_bfloat16_is_as_near_as_torchs() -> None:
    qkv = torch.randn(2, 40, 3 * 96, generator=torch.Generator().manual_seed(0))
    exact = plain_attention(qkv, 6)
    half = qkv.bfloat16()
    ours = (TiledAttention.apply(half, 6) - exact).abs().mean()
    theirs = (plain_attention(half, 6) - exact).abs().mean()
    assert ours < 2.5 * theirs


@pytest.mark.parametrize("rows", [1, 6])
def test_gelu_is_computed_again_to_the_same_gradients(rows: int) -> None:
    layer = Linear(5, 3).double()
    h = torch.randn(2, rows, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gelu_linear(h, layer), layer(F.gelu(h)))
    assert torch.autograd.gradcheck(lambda h, *_: gelu_linear(h, layer), (h, layer.weight, layer.bias))


@pytest.mark.parametrize("kind", ["forward_pre", "forward", "full_backward"])
def test_a_hook_of_the_layer_behind_the_gelu_is_called(kind: str) -> None:
    layer, called = Linear(4, 2), []
    getattr(layer, f"register_{kind}_hook")(lambda *_: called.append(kind))
    gelu_linear(torch.randn(1, 3, 4, requires_grad=True), layer).sum().backward()
    assert called == [kind]


def test_gelu_keeps_one_tensor() -> None:
    layer, kept = Linear(8, 4), []
    h = torch.randn(2, 3, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu_linear(h, layer)
    assert {t.data_ptr() for t in kept} == {h.data_ptr(), layer.weight.data_ptr()}


def test_a_layer_in_the_place_of_ours_is_called_as_it_is() -> None:
    class Doubled(Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    layer, h = Doubled(4, 2), torch.randn(1, 3, 4)
    torch.testing.assert_close(gelu_linear(h, layer), 2 * F.linear(F.gelu(h), layer.weight, layer.bias))


def test_a_gelu_behind_a_product_is_the_same_in_one_step() -> None:
    layer, x = Linear(16, 24), torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(linear_gelu(x, layer), F.gelu(layer(x)), rtol=1e-5, atol=1e-6)


SHAPES = [(16,), (1, 16), (3, 16), (2, 5, 16), (2, 0, 16), (1, 1, 33, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strided", [False, True])
def test_linear_is_linear(shape: tuple[int, ...], strided: bool) -> None:
    layer, x = Linear(16, 24), torch.randn(*shape, 2)[..., 0] if strided else torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-6)
    dy = torch.randn(*shape[:-1], 24)
    ours, theirs = (gradients(f, x, layer.weight, layer.bias, dy=dy) for f in (linear, F.linear))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_with_a_part_that_needs_no_gradient(frozen: str, gelu: bool) -> None:
    parts = {"x": torch.randn(2, 3, 8), "weight": torch.randn(4, 8), "bias": torch.randn(4)}
    learnt = [part.requires_grad_() for name, part in parts.items() if name != frozen]
    y = linear(*parts.values(), gelu=gelu)
    plain = F.linear(F.gelu(parts["x"]) if gelu else parts["x"], parts["weight"], parts["bias"])
    torch.testing.assert_close(torch.autograd.grad(y.sum(), learnt), torch.autograd.grad(plain.sum(), learnt))


@pytest.mark.parametrize("gelu", [False, True])
def test_linear_under_autocast_multiplies_in_bfloat16_and_gives_float32_gradients(gelu: bool) -> None:
    x, weight, bias, dy = torch.randn(2, 30, 16), torch.randn(24, 16), torch.randn(24), torch.randn(2, 30, 24)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.gelu(x.bfloat16()) if gelu else x, weight, bias)

    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(lambda *parts: linear(*parts, gelu=gelu), x, weight, bias, dy=dy.bfloat16())
        theirs = gradients(plain, x, weight, bias, dy=dy.bfloat16())
    assert ours[0].dtype == torch.bfloat16
    assert all(grad.dtype == torch.float32 and grad.is_contiguous() for grad in ours[1:])
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2 * float(wanted.detach().abs().max()))


def test_doubles_stay_doubles_under_autocast() -> None:
    layer, x = Linear(4, 2).double(), torch.randn(3, 4, dtype=torch.double)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_attention_with_a_bias_has_the_plain_gradients(autocast: bool, default: torch.dtype) -> None:
    """Queries in float32 under autocast come from adapters that return what they were given."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dy = (torch.randn(3, 2, 16, 8, generator=generator) for _ in range(4))
    table = torch.randn(2, 7, 7, generator=generator)
    bias = WindowBias((4, 4), mask=None, rows=3)

    def ours(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return attend(q, k, v, bias=bias, inputs=(table,)).float()

    def plain(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.whole(table))

    torch.set_default_dtype(default)
    try:
        found = gradients(ours, q, k, v, table, dy=dy)
    finally:
        torch.set_default_dtype(torch.float32)
    for got, exact in zip(found, gradients(plain, q, k, v, table, dy=dy), strict=True):
        near = 2e-2 if autocast else 1e-5
        torch.testing.assert_close(got, exact, rtol=near, atol=near * float(exact.detach().abs().max()))


def test_attention_with_a_bias_in_bfloat16_has_gradients_as_near_as_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v, dy = (torch.randn(4, 3, 64, 32, generator=generator) + 1 for _ in range(4))
    table, bias = torch.randn(3, 15, 15, generator=generator), WindowBias((8, 8), mask=None, rows=4)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, bias=bias, inputs=(table,))

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.whole(table).to(q.dtype))

    exact = gradients(plain, q, k, v, dy=dy)
    half = [t.bfloat16() for t in (q, k, v)]
    found, theirs = (gradients(f, *half, dy=dy.bfloat16()) for f in (ours, plain))
    for got, other, wanted in zip(found[1:], theirs[1:], exact[1:], strict=True):
        assert (got - wanted).norm() < 2.5 * (other - wanted).norm()


def gradients(function: Callable[..., Tensor], *parts: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """The result, and the gradient of each part."""
    parts = tuple(part.detach().requires_grad_() for part in parts)
    y = function(*parts)
    return y, *torch.autograd.grad(y, parts, dy)


# --- derivatives of derivatives ---------------------------------------------------------------------------------------


def curvature(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the squared norm of the gradient, which a gradient penalty needs."""
    x = x.detach().requires_grad_()
    (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    return torch.autograd.grad(first.square().sum(), x)[0]


@pytest.mark.parametrize("gelu", [False, True])
def test_a_linear_layer_has_second_derivatives(gelu: bool) -> None:
    layer = Linear(5, 3).double()
    h = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda h, w, b: linear(h, w, b, gelu=gelu), (h, layer.weight, layer.bias))


def test_a_linear_layer_in_float32_has_second_derivatives() -> None:
    layer, x = Linear(8, 8), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found = curvature(lambda x: layer(layer(x).square()), x)
    plain = curvature(lambda x: F.linear(F.linear(x, layer.weight, layer.bias).square(), layer.weight, layer.bias), x)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_attention_in_tiles_has_second_derivatives() -> None:
    qkv = torch.randn(1, 3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda qkv: TiledAttention.apply(qkv, 2), qkv)


def test_attention_with_a_bias_has_second_derivatives() -> None:
    q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    table, bias = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True), WindowBias((2, 2), mask=None, rows=1)
    function = lambda *parts: attend(*parts[:3], bias=bias, inputs=(parts[3],))  # noqa: E731
    assert torch.autograd.gradgradcheck(function, (q, k, v, table))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernels", ["onednn", "plain"])
def test_deformable_attention_has_second_derivatives(stride: int, kernels: str) -> None:
    """They had been wrong by as much as they are, without a word."""
    torch.manual_seed(0)
    layer = DeformableAttention(8, 2, num_groups=2, table=(3, 4), kernel=3, stride=stride).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    x = torch.randn(1, 3, 4, 8, dtype=torch.float64)
    with using_kernels(kernels):
        found = curvature(layer, x)
        step, direction = 1e-6, torch.randn_like(x)

        def penalty(x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(layer(x).sum(), x)[0].square().sum()

        difference = (penalty(x + step * direction) - penalty(x - step * direction)) / (2 * step)
    torch.testing.assert_close((found * direction).sum(), difference, rtol=1e-5, atol=1e-6)
