"""Kernels that replace slow or memory-intensive operations of torch, and the choice among them.

Each function equals the plain expression that it replaces, up to rounding, including first and higher derivatives.
`torch.compile`, `torch.export` and other devices use the plain expression.
`kernels="plain"`, `OSSICLE_KERNELS=plain` and `using_kernels("plain")` disable all of them.

    operators  private operators of torch, with plain expressions as fallback
    tiled      softmax attention a few heads at a time
    choice     `Kernels`: the choice of routines
    measure    the fastest routines on this machine, measured once and cached
    current    the choice in use
    products   matrix products, and the linear layer made of them
    attention  softmax attention by the chosen routine; with a position bias
"""

from ossicle.kernels.attention import (
    Bias,
    at_least_float32,
    attend,
    multihead_attention,
    softmax_attention,
)
from ossicle.kernels.choice import PLAIN, Kernels
from ossicle.kernels.current import by_hand, current_kernels, measured_kernels, resolve_kernels, using_kernels
from ossicle.kernels.measure import bfloat16_speedup
from ossicle.kernels.products import Linear, autocasts, gelu_linear, linear, linear_gelu
from ossicle.kernels.tiled import gradients_of, split_heads, written_out

__all__ = [
    "PLAIN",
    "Bias",
    "Kernels",
    "Linear",
    "at_least_float32",
    "attend",
    "autocasts",
    "bfloat16_speedup",
    "by_hand",
    "current_kernels",
    "gelu_linear",
    "gradients_of",
    "linear",
    "linear_gelu",
    "measured_kernels",
    "multihead_attention",
    "resolve_kernels",
    "softmax_attention",
    "split_heads",
    "using_kernels",
    "written_out",
]
