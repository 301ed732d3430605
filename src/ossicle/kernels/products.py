"""Matrix products of a linear layer by the fastest library on this machine, and a GELU that saves memory.

torch computes float32 products on an x86 CPU with MKL. oneDNN, in the same torch, has an operator for fused
layers; `Kernels` determines where it is used. With `gelu` the input before the GELU is saved, and the backward pass
recomputes the GELU: a quarter less memory for one elementwise pass.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.kernels import operators
from ossicle.kernels.choice import Kernels
from ossicle.kernels.current import by_hand, current_kernels

# Attributes with a module's hooks.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row out"]:
        return linear(input, self.weight, self.bias)


def is_plain_layer(layer: nn.Module) -> TypeGuard[Linear]:
    """Whether calling the layer is only its product: not an adapter, without hooks."""
    return type(layer) is Linear and not any(getattr(layer, hooks, None) for hooks in HOOKS)


def gelu_linear(h: Float[Tensor, "*row hidden"], layer: nn.Module) -> Float[Tensor, "*row dim"]:
    """`layer(gelu(h))`, saving only `h` for the backward pass."""
    if is_plain(h) or not is_plain_layer(layer):
        return layer(F.gelu(h))
    return linear(h, layer.weight, layer.bias, gelu=True)


def linear_gelu(x: Float[Tensor, "*row dim"], layer: nn.Module) -> Float[Tensor, "*row hidden"]:
    """`gelu(layer(x))` without gradients: oneDNN applies the GELU while the result is in the cache."""
    if not is_plain(x) and is_plain_layer(layer):
        x, weight, bias = multiplied(x, layer.weight, layer.bias)
        kernels = current_kernels()
        if chosen(kernels, "forward", x, weight):
            return operators.onednn(x, weight, bias, gelu=True)
    return F.gelu(layer(x))


def linear(
    x: Float[Tensor, "*row dim"], weight: Float[Tensor, "out dim"], bias: Tensor | None, *, gelu: bool = False
) -> Float[Tensor, "*row out"]:
    """`F.linear`, optionally of gelu(x)."""
    if is_plain(x):
        return F.linear(F.gelu(x) if gelu else x, weight, bias)
    kernels = current_kernels()
    x, weight, bias = multiplied(x, weight, bias)
    if torch.is_grad_enabled():
        return LinearFunction.apply(x, weight, bias, gelu, kernels)
    return forward_product(kernels, F.gelu(x) if gelu else x, weight, bias)


def is_plain(x: Tensor) -> bool:
    """Whether to use torch's own expressions for x: in compiled code, on other devices than CPU, or by choice."""
    return torch.compiler.is_compiling() or x.device.type != "cpu" or not by_hand()


class LinearFunction(torch.autograd.Function):
    """Its gradient is made of differentiable operations if `create_graph` is set."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, kernels: Kernels) -> Tensor:
        into_x, into_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if into_weight or gelu else None, weight if into_x else None)
        ctx.gelu, ctx.kernels = gelu, kernels
        return forward_product(kernels, F.gelu(x) if gelu else x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        into_x, into_weight, into_bias, *_ = ctx.needs_input_grad
        dx = dweight = None
        dy = grads[0].reshape(-1, grads[0].shape[-1]).contiguous()
        if into_x:
            dx = input_product(ctx.kernels, dy, weight).view(*grads[0].shape[:-1], weight.shape[1])
            if ctx.gelu:
                dx = operators.gelu_gradient(dx, x)
        if into_weight:
            x = (F.gelu(x) if ctx.gelu else x).reshape(-1, x.shape[-1])
            dweight = weight_product(ctx.kernels, dy, x)
        return dx, dweight, dy.sum(0) if into_bias else None, None, None


# --- one product ------------------------------------------------------------------------------------------------------


def forward_product(kernels: Kernels, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias."""
    return operators.onednn(x, weight, bias) if chosen(kernels, "forward", x, weight) else F.linear(x, weight, bias)


def input_product(kernels: Kernels, dy: Float[Tensor, "row out"], weight: Float[Tensor, "out dim"]) -> Tensor:
    """dy weight."""
    return operators.onednn(dy, weight.T) if chosen(kernels, "input", dy, weight.T) else dy @ weight


def weight_product(kernels: Kernels, dy: Float[Tensor, "row out"], x: Float[Tensor, "row dim"]) -> Tensor:
    """dy^T x."""
    return operators.onednn(dy.T, x.T) if chosen(kernels, "weight", dy.T, x.T) else dy.T @ x


def chosen(kernels: Kernels, direction: Any, x: Tensor, weight: Tensor) -> bool:
    """Whether to use oneDNN for x weight^T, the layer's product in that direction."""
    # With a graph of the gradient, only operations that torch can differentiate again are allowed.
    backward = direction != "forward"
    if (backward and torch.is_grad_enabled()) or not (suits_onednn(x) and suits_onednn(weight)):
        return False
    rows, into, out = x.numel() // x.shape[-1], x.shape[-1], weight.shape[0]
    if direction == "input":
        into, out = out, into
    elif direction == "weight":
        rows, into, out = into, out, rows
    return kernels.by_onednn(direction, rows=rows, into=into, out=out)


def suits_onednn(x: Tensor) -> bool:
    """In float32 and not empty, and contiguous or the transpose of a contiguous matrix: others are very slow."""
    packed = x.is_contiguous() or x.ndim == 2 and x.T.is_contiguous()
    float32 = x.device.type == "cpu" and x.dtype == torch.float32
    return operators.HAS_ONEDNN and float32 and packed and x.numel() > 0


# --- precision --------------------------------------------------------------------------------------------------------


def multiplied(*tensors: Tensor | None) -> list[Any]:
    """Tensors in the precision of autocast; float64 does not change."""
    return [
        x.to(torch.get_autocast_dtype(x.device.type))
        if x is not None and autocasts(x) and x.dtype != torch.float64
        else x
        for x in tensors
    ]


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of x."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
