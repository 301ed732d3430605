"""The three places where a block does its own arithmetic, because torch's choice is slow or keeps too much.

Each gives the numbers of the plain expression that it replaces, to rounding, and each stands aside for `torch.compile`
and `torch.export`, which see the plain expression. The rates below are of two Zen 5 cores with torch 2.13.

- `Linear`: float32 inference on an x86 CPU. torch sends it to MKL, which uses half of the vector width of cores that
  are not Intel's (180 Gflop/s); oneDNN, in the same torch, uses all of it (410 Gflop/s).
- `gelu_linear`: keeps the input of the GELU and computes its output again in the backward pass: a quarter less kept,
  for one elementwise pass.
- `tiled_attention`: bfloat16 on a CPU. torch's fused kernel runs at a fifth of the matrix rate there (150 of 750
  Gflop/s), its backward pass no faster; matrix products over a few heads, small enough for the cache, reach 400.
  Neither keeps the attention matrix.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TILE = 2**20  # entries of the attention matrices in work at once: 2 MB in bfloat16


class Linear(nn.Linear):
    """`nn.Linear`, by oneDNN where MKL would be slower."""

    def forward(self, input: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row out"]:
        if ONEDNN and not torch.is_grad_enabled() and plain_float32_on_cpu(input) and plain_float32_on_cpu(self.weight):
            return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], None)
        return super().forward(input)


# MKL is what x86 builds have; other machines have their own fast product.
ONEDNN = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def plain_float32_on_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous()  # oneDNN takes a very slow route for some strides
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return F.linear(F.gelu(h), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, weight = ctx.saved_tensors
        dy = grads[0].flatten(0, -2)
        dh = torch.ops.aten.gelu_backward(grads[0] @ weight, h)
        return dh, dy.T @ F.gelu(h).flatten(0, -2), dy.sum(0)


def gelu_linear(h: Float[Tensor, "*row hidden"], linear: nn.Linear) -> Float[Tensor, "*row dim"]:
    """`linear(gelu(h))`, keeping `h` alone for the backward pass."""
    # An adapter may have taken the place of the layer.
    if type(linear) is not Linear or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return linear(F.gelu(h))
    return GeluLinear.apply(h, linear.weight.to(h.dtype), linear.bias.to(h.dtype))


class TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int) -> Tensor:
        ctx.save_for_backward(qkv)
        ctx.num_heads = num_heads
        q, k, v = stack_heads(qkv, 3, num_heads)
        q = q * q.shape[-1] ** -0.5
        y = torch.empty_like(q)
        for tile in tiles(q):
            torch.bmm(attention_matrix(q[tile], k[tile]), v[tile], out=y[tile])
        return unstack_heads(y[None], num_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (qkv,) = ctx.saved_tensors
        q, k, v = stack_heads(qkv, 3, ctx.num_heads)
        scale = q.shape[-1] ** -0.5
        q = q * scale
        (dy,) = stack_heads(grads[0], 1, ctx.num_heads)
        dqkv = q.new_empty(3, *q.shape)
        dq, dk, dv = dqkv
        for tile in tiles(q):
            p = attention_matrix(q[tile], k[tile])
            torch.bmm(p.mT, dy[tile], out=dv[tile])
            dp = torch.bmm(dy[tile], v[tile].mT)
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            torch.bmm(ds, k[tile], out=dq[tile])
            torch.bmm(ds.mT, q[tile], out=dk[tile])
        dq *= scale
        return unstack_heads(dqkv, ctx.num_heads), None


def tiles_pay(qkv: Tensor) -> bool:
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16 and not torch.compiler.is_compiling()


def tiled_attention(qkv: Float[Tensor, "clip token qkv"], *, num_heads: int) -> Float[Tensor, "clip token dim"]:
    """Softmax attention from the joint projection, a few heads at a time."""
    return TiledAttention.apply(qkv, num_heads)


def attention_matrix(q: Float[Tensor, "head token dim"], k: Float[Tensor, "head token dim"]) -> Tensor:
    return torch.softmax(torch.bmm(q, k.mT), -1)


def tiles(q: Float[Tensor, "head token dim"]) -> list[slice]:
    """Heads to work on together, so that their matrices stay in the cache."""
    heads, tokens, _ = q.shape
    step = max(1, TILE // tokens**2)
    return [slice(i, i + step) for i in range(0, heads, step)]


def stack_heads(
    x: Float[Tensor, "clip token dims"], parts: int, num_heads: int
) -> Float[Tensor, "part heads token dim"]:
    """(clip, token, part * head * dim) to (part, clip * head, token, dim); the parts are q, k and v, or one alone."""
    clips, tokens, _ = x.shape
    apart = x.reshape(clips, tokens, parts, num_heads, -1).permute(2, 0, 3, 1, 4)
    return apart.reshape(parts, clips * num_heads, tokens, -1)


def unstack_heads(x: Float[Tensor, "part heads token dim"], num_heads: int) -> Float[Tensor, "clip token dims"]:
    """The inverse of `stack_heads`."""
    parts, heads, tokens, _ = x.shape
    apart = x.view(parts, heads // num_heads, num_heads, tokens, -1).permute(1, 3, 0, 2, 4)
    return apart.reshape(heads // num_heads, tokens, -1)
