"""The arithmetic that this package does itself because torch's own is slow or keeps too much, and which routine does
it.

Each function gives the numbers of the plain expression that it replaces, to rounding, in the first and in further
derivatives, and stands aside for `torch.compile`, `torch.export` and other devices, which see the plain expression.
`kernels="plain"`, `OSSICLE_KERNELS=plain` and `using_kernels("plain")` turn all of it off.

    choice     `Kernels`: which routine does what; the one in use
    measure    what is faster on this machine, measured once and kept
    operators  what torch keeps to itself, with the plain expression for a torch without it
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
