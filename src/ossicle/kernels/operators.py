"""Private operators of torch, with fallbacks for versions of torch without them; oneDNN has none: see `HAS_ONEDNN`."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@functools.cache
def find(name: str) -> Callable[..., Any] | None:
    """The operator of that name, such as `aten.gelu_backward`; None if this torch does not have it."""
    namespace, _, operator = name.partition(".")
    return getattr(getattr(torch.ops, namespace), operator, None)


# Without it, and on other processors than x86, products are torch's own.
LINEAR_POINTWISE = find("mkldnn._linear_pointwise")
HAS_ONEDNN = LINEAR_POINTWISE is not None and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


def gelu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """The gradient to x of the exact GELU."""
    if (operator := find("aten.gelu_backward")) is not None:
        return operator(dy, x)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    return dy * ((1 + torch.erf(x / math.sqrt(2))) / 2 + x * density)


def softmax_gradient(dp: Tensor, p: Tensor, dim: int) -> Tensor:
    """The gradient to the logits, from that of the softmax p."""
    if (operator := find("aten._softmax_backward_data")) is not None:
        return operator(dp, p, dim, p.dtype)
    ds = dp * p
    return ds - p * ds.sum(dim, keepdim=True)


def grid_gradients(
    dy: Tensor, maps: Tensor, grid: Tensor, *, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of `grid_sample` between corners to the maps and to the grid, as far as required."""
    if (operator := find("aten.grid_sampler_2d_backward")) is not None:
        found = operator(dy, maps, grid, 0, 0, True, list(wanted))
    else:
        maps, grid = (t.detach().requires_grad_() for t in (maps, grid))
        with torch.enable_grad():
            found = torch.autograd.grad(F.grid_sample(maps, grid, align_corners=True), (maps, grid), dy)
    of_maps, of_grid = (grad if want else None for grad, want in zip(found, wanted, strict=True))
    return of_maps, of_grid


def bag_weight_gradient(
    dy: Float[Tensor, "bag width"], table: Float[Tensor, "row width"], rows: Int[Tensor, "bag entry"]
) -> Float[Tensor, "bag entry"]:
    """The gradient of an embedding bag's sum to the weight of each entry: dy times the table's row."""
    if (operator := find("aten._embedding_bag_per_sample_weights_backward")) is not None:
        bags, entries = rows.shape
        bag = torch.arange(bags)
        found = operator(dy, table, rows.flatten(), entries * bag, bag.repeat_interleave(entries), 0)
        return found.view(bags, entries)
    return torch.stack([(dy * table[entry]).sum(1) for entry in rows.unbind(1)], dim=1)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """x weight^T + bias by oneDNN, or its GELU, applied while the result is in the cache; without a gradient."""
    assert LINEAR_POINTWISE is not None
    return LINEAR_POINTWISE(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else None)
