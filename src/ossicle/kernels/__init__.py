"""Kernels that replace slow or memory-intensive operations of torch, and the choice among them.

Each function equals the plain expression that it replaces, up to rounding, including first and higher derivatives.
`torch.compile`, `torch.export` and other devices use the plain expression.
`kernels="plain"`, `OSSICLE_KERNELS=plain` and `using_kernels("plain")` disable all of them.

    choice     `Kernels`: the choice of routines; the one in use
    measure    the fastest routines on this machine, measured once and cached
    operators  private operators of torch, with plain expressions as fallback
    products   matrix products, and the linear layer made of them
    attention  softmax attention a few heads at a time; with a position bias
"""

from ossicle.kernels.attention import (
    Bias,
    at_least_float32,
    attend,
    gradients_of,
    multihead_attention,
    softmax_attention,
    split_heads,
    written_out,
)
from ossicle.kernels.choice import PLAIN, Kernels, by_hand, current_kernels, using_kernels
from ossicle.kernels.measure import bfloat16_speedup, measured_kernels, resolve_kernels
from ossicle.kernels.products import Linear, autocasts, gelu_linear, linear, linear_gelu

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
