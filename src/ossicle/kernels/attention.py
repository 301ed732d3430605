"""Softmax attention, without and with a position bias.

- `multihead_attention`: a few heads at a time if that is faster than torch's fused kernel, which on a CPU with bfloat16
  runs at a fifth of the rate of its matrix products.
- `attend`: a position bias, on a CPU. torch saves the whole attention matrix if the bias requires a gradient; ours
  saves queries, keys, values and the inputs of the bias, and recomputes the matrix, a few heads at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ossicle.kernels import operators
from ossicle.kernels.current import by_hand, current_kernels
from ossicle.kernels.products import forward_product, multiplied
from ossicle.kernels.tiled import TiledAttention, gradients_of, split_heads, written_out

# In float32: entries of the bias computed at once (16 MB), and of the logits (1 MB).
BIAS_TILE, PART_TILE = 2**22, 2**18


def multihead_attention(
    qkv: Float[Tensor, "clip token qkv"], *, num_heads: int, queries: int | None = None
) -> Float[Tensor, "clip query dim"]:
    """Softmax attention from the joint projection, for the first `queries` tokens or all."""
    kind = {torch.float32: "float32", torch.bfloat16: "bfloat16"}.get(qkv.dtype)
    if queries is None and qkv.device.type == "cpu" and kind and not torch.compiler.is_compiling():
        training = torch.is_grad_enabled() and qkv.requires_grad
        if current_kernels().in_tiles(kind, tokens=qkv.shape[1], training=training):  # type: ignore[arg-type]
            return TiledAttention.apply(qkv, num_heads)
    q, k, v = split_heads(qkv, num_heads)
    return softmax_attention(q[:, :, :queries], k, v).transpose(1, 2).flatten(2)


def softmax_attention(
    q: Float[Tensor, "*row query dim"],
    k: Float[Tensor, "*row key dim"],
    v: Float[Tensor, "*row key dim"],
    *,
    bias: Tensor | None = None,
) -> Float[Tensor, "*row query dim"]:
    """`scaled_dot_product_attention`; written out for runtimes, which fuse it, and for higher derivatives."""
    if torch.compiler.is_exporting() or not by_hand():
        return written_out(q, k, v, bias=bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


@runtime_checkable
class Bias(Protocol):
    """A position bias, made from tensors that may require gradients; rows are those of `attend`."""

    @property
    def size(self) -> tuple[int, int]:
        """Lines of the map of queries, and positions per line."""

    @property
    def prepare(self) -> Callable[..., tuple[Tensor, ...]]:
        """(*inputs): tensors for all tiles, computed once."""

    @property
    def tile(self) -> Callable[..., Float[Tensor, "#row head key line place"]]:
        """(slice of rows, slice of lines, *prepared): their bias, in new memory, as it is overwritten."""

    @property
    def whole(self) -> Callable[..., Float[Tensor, "#row head query key"]]:
        """(*inputs, again=False): the bias of all rows, in operations for every device.

        Args:
            again: in operations that can be differentiated any number of times
        """


def attend(
    q: Float[Tensor, "row head query dim"],
    k: Float[Tensor, "row head key dim"],
    v: Float[Tensor, "row head key dim"],
    *,
    bias: Bias,
    inputs: tuple[Tensor, ...],
) -> Float[Tensor, "row head query dim"]:
    """Softmax attention with a bias on the logits; rows are independent: clips, windows, or groups of heads."""
    if q.device.type == "cpu" and not torch.compiler.is_compiling() and by_hand():
        # In one precision in both directions: the backward pass is outside of autocast.
        return BiasedAttention.apply(bias, *(t.contiguous() for t in multiplied(q, k, v)), *inputs)
    return softmax_attention(q, k, v, bias=bias.whole(*inputs, again=not by_hand()).to(q.dtype))


class BiasedAttention(torch.autograd.Function):
    """The matrices have keys as rows and queries as columns, which is fastest for the bias."""

    @staticmethod
    def forward(ctx: Any, bias: Bias, q: Tensor, k: Tensor, v: Tensor, *inputs: Tensor) -> Tensor:
        ctx.bias = bias
        prepared = bias.prepare(*inputs)
        scaled = k * q.shape[-1] ** -0.5
        y, norms = torch.empty_like(q), at_least_float32(q.new_empty(q.shape[:3]))
        for tile in tiles_of_map(q, k, bias.size):
            b = bias.tile(tile.rows, tile.lines, *prepared).expand(tile.number, -1, -1, -1, -1)
            for part, of_keys, of_queries in tile.parts():
                p, total, norms[of_queries] = exponentials(q[of_queries], scaled[of_keys], b[part])
                y[of_queries] = products(v[of_keys].mT, p.mT).mT / total.mT
        ctx.save_for_backward(q, k, v, norms, *inputs)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, norms, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            y = written_out(q, k, v, bias=ctx.bias.whole(*inputs, again=True).to(q.dtype))
            return None, *gradients_of(y, (q, k, v, *inputs), grads[0])
        scale = q.shape[-1] ** -0.5
        k = k * scale
        # The bias has a graph of its own: from the inputs to what is prepared, and from that to each tile.
        sources = [t.detach().requires_grad_(need) for t, need in zip(inputs, ctx.needs_input_grad[4:], strict=True)]
        with torch.enable_grad():
            prepared = ctx.bias.prepare(*sources)
        held = [t.detach().requires_grad_(t.requires_grad) for t in prepared]
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for tile in tiles_of_map(q, k, ctx.bias.size):
            with torch.enable_grad():
                own = ctx.bias.tile(tile.rows, tile.lines, *held)
            b = own.detach().expand(tile.number, -1, -1, -1, -1)
            # The gradient overwrites the bias, which is read once.
            db = b if len(own) == tile.number else torch.empty_like(b, memory_format=torch.contiguous_format)
            for part, of_keys, of_queries in tile.parts():
                p = probabilities(q[of_queries], k[of_keys], b[part], norms=norms[of_queries])
                dy = grads[0][of_queries]
                dv[of_keys] += products(p, dy.mT)
                ds = softmax_gradient(products(v[of_keys], dy), p)
                dq[of_queries] = products(k[of_keys].mT, ds.mT).mT
                dk[of_keys] += products(ds, q[of_queries].mT)
                db[part] = ds.view(db[part].shape)
            if own.requires_grad:
                own.backward(db.sum_to_size(own.shape))
        dk *= scale
        reached = [(t, h.grad) for t, h in zip(prepared, held, strict=True) if h.grad is not None]
        torch.autograd.backward([t for t, _ in reached], [grad for _, grad in reached])
        return None, dq, dk, dv, *(source.grad for source in sources)


def exponentials(
    q: Float[Tensor, "row head query dim"],
    k: Float[Tensor, "row head key dim"],
    bias: Float[Tensor, "#row head key line place"],
) -> tuple[Float[Tensor, "row head key query"], Float[Tensor, "row head 1 query"], Float[Tensor, "row head query"]]:
    """The softmax before normalization, its normalizer, and the logarithm of the normalizer of exp(logits)."""
    logits = biased_logits(q, k, bias)
    if logits.dtype == torch.float32:
        # In place, for few passes; in bfloat16 the difference would lose precision.
        peak = logits.amax(-2, keepdim=True)
        p = logits.sub_(peak).exp_()
        total = p.sum(-2, keepdim=True)
        return p, total, (peak + total.log()).squeeze(-2)
    p = torch.softmax(logits, -2)
    one = torch.ones(*p.shape[:2], 1, p.shape[3], dtype=torch.promote_types(p.dtype, torch.float32))
    return p, one, one.squeeze(-2)


def probabilities(
    q: Float[Tensor, "row head query dim"],
    k: Float[Tensor, "row head key dim"],
    bias: Float[Tensor, "#row head key line place"],
    *,
    norms: Float[Tensor, "row head query"],
) -> Float[Tensor, "row head key query"]:
    """Recomputes the softmax from the logarithms of `exponentials`."""
    logits = biased_logits(q, k, bias)
    return logits.sub_(norms.unsqueeze(-2)).exp_() if logits.dtype == torch.float32 else torch.softmax(logits, -2)


def softmax_gradient(
    dp: Float[Tensor, "row head key query"], p: Float[Tensor, "row head key query"]
) -> Float[Tensor, "row head key query"]:
    """The gradient of the logits from that of the softmax, which may be overwritten."""
    if p.dtype != torch.float32:  # torch's own rounds once; in float32 it is ten times slower over keys as rows
        return operators.softmax_gradient(dp, p, -2)
    ds = dp.mul_(p)
    return ds.addcmul_(p, ds.sum(-2, keepdim=True), value=-1)


def biased_logits(
    q: Float[Tensor, "row head query dim"],
    k: Float[Tensor, "row head key dim"],
    bias: Float[Tensor, "#row head key line place"],
) -> Float[Tensor, "row head key query"]:
    logits = products(k, q)
    logits.view(*logits.shape[:3], *bias.shape[3:]).add_(bias)
    return logits


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def products(a: Float[Tensor, "row head m d"], b: Float[Tensor, "row head n d"]) -> Float[Tensor, "row head m n"]:
    """a b^T, of a single head by the faster library."""
    if a.shape[0] * a.shape[1] == 1:
        return forward_product(current_kernels(), a[0, 0], b[0, 0])[None, None]
    return torch.matmul(a, b.mT)


@dataclass(frozen=True)
class MapTile:
    """Rows and lines whose bias is computed together, and the parts of it for one attention product."""

    rows: slice
    lines: slice
    queries: slice  # the places of these lines
    number: int  # of rows
    heads: int
    step: tuple[int, int]  # rows and heads of a part

    def parts(self) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice, slice]]]:
        """Slices of a part in the bias, in the keys and in the queries."""
        for row in range(0, self.number, self.step[0]):
            inside = slice(row, min(row + self.step[0], self.number))
            rows = slice(self.rows.start + inside.start, self.rows.start + inside.stop)
            for head in range(0, self.heads, self.step[1]):
                heads = slice(head, head + self.step[1])
                yield (inside, heads), (rows, heads), (rows, heads, self.queries)


def tiles_of_map(
    q: Float[Tensor, "row head query dim"], k: Float[Tensor, "row head key dim"], size: tuple[int, int]
) -> Iterator[MapTile]:
    """Divides the work into tiles that fit in the cache, if possible."""
    (heads, keys), (lines, places) = (k.shape[1], k.shape[2]), size
    row_size, line_size = max(heads * keys * lines * places, 1), heads * keys * places
    rows = max(1, BIAS_TILE // row_size)
    some = min(lines, max(1, BIAS_TILE // line_size))
    part = keys * some * places
    step = max(1, PART_TILE // (heads * part)), min(heads, max(1, PART_TILE // part))
    for row in range(0, len(q), rows):
        number = min(rows, len(q) - row)
        for line in range(0, lines, some):
            queries = slice(line * places, (line + some) * places)
            yield MapTile(slice(row, row + number), slice(line, line + some), queries, number, heads, step)
