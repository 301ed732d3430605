"""Softmax attention a few heads at a time: the matrices of a tile stay in the cache.

A small attention matrix is saved for the backward pass, a large one is recomputed.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ossicle.kernels import operators

TILE = 2**20  # entries of the attention matrices processed at once: 2 MB in bfloat16
# Up to this number of tokens the matrix is smaller than the block's other saved tensors, and is saved: 4 % of a step.
KEPT_TOKENS = 512


class TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int) -> Tensor:
        ctx.num_heads = num_heads
        q, k, v = stack_heads(qkv, 3, num_heads)
        q = q * q.shape[-1] ** -0.5
        y = torch.empty_like(q)
        # In float32 they would be twice as large, and products make up less of the time.
        small = q.dtype != torch.float32 and q.shape[1] <= KEPT_TOKENS
        kept, matrices = small and ctx.needs_input_grad[0], []
        for tile in tiles(q):
            p = attention_matrix(q[tile], k[tile])
            torch.bmm(p, v[tile], out=y[tile])
            if kept:
                matrices.append(p)
        ctx.save_for_backward(qkv, *matrices)
        return unstack_heads(y[None], num_heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        qkv, *matrices = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_of(written_out_heads(qkv, ctx.num_heads), (qkv,), grads[0])[0], None
        q, k, v = stack_heads(qkv, 3, ctx.num_heads)
        scale = q.shape[-1] ** -0.5
        q = q * scale
        (dy,) = stack_heads(grads[0], 1, ctx.num_heads)
        dqkv = q.new_empty(3, *q.shape)
        dq, dk, dv = dqkv
        for number, tile in enumerate(tiles(q)):
            p = matrices[number] if matrices else attention_matrix(q[tile], k[tile])
            torch.bmm(p.mT, dy[tile], out=dv[tile])
            dp = torch.bmm(dy[tile], v[tile].mT)
            ds = operators.softmax_gradient(dp, p, -1)
            torch.bmm(ds, k[tile], out=dq[tile])
            torch.bmm(ds.mT, q[tile], out=dk[tile])
        dq *= scale
        return unstack_heads(dqkv, ctx.num_heads), None


def written_out(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """The same in operations that can be differentiated any number of times."""
    logits = (q * q.shape[-1] ** -0.5) @ k.mT
    return torch.softmax(logits if bias is None else logits + bias, -1) @ v


def split_heads(qkv: Float[Tensor, "clip token qkv"], num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (clip, head, token, dim / head)."""
    clips, tokens, _ = qkv.shape
    q, k, v = qkv.view(clips, tokens, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    return q, k, v


def written_out_heads(qkv: Float[Tensor, "clip token qkv"], num_heads: int) -> Float[Tensor, "clip token dim"]:
    return written_out(*split_heads(qkv, num_heads)).transpose(1, 2).flatten(2)


def gradients_of(y: Tensor, inputs: tuple[Tensor, ...], dy: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of inputs that require one, with a graph for higher derivatives."""
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))
    return tuple(next(found) if t.requires_grad else None for t in inputs)


def attention_matrix(q: Float[Tensor, "head token dim"], k: Float[Tensor, "head token dim"]) -> Tensor:
    return torch.softmax(torch.bmm(q, k.mT), -1)


def tiles(q: Float[Tensor, "head token dim"]) -> list[slice]:
    """Groups of heads whose matrices fit in the cache."""
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
