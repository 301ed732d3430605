"""Density adaptive attention (DAAM): each value weighted by a Gaussian around the mean of its own axis.

Source: Ioannides, Chadha, Elkins, "Density Adaptive Attention is All You Need" (arXiv 2401.11143). Three operators go
by that name; each has its own here. With mu and sigma^2 the mean and variance of x along the axis, inside a head:

- `DensityGate`, the paper's Algorithm 1, behind its headline numbers: z = (x - mu - offset) / sigma,
  y = x exp(-z^2 / (2 spread)); an offset and a spread for every feature.
- `DensityProduct`, Algorithms 2 to 4 and the published package: the product of K such Gaussians, divided by its sum
  along the axis. A product of Gaussians is one Gaussian, and that quotient is one softmax; so it is computed.
- `DensityMixture`, the sum of K Gaussians that the others are often taken for, as in the follow-up on JEPA
  (arXiv 2512.07168): y = x (1 + alpha sum_k pi_k N(z; offset_k, scale_k)).

Heads divide the axis into consecutive parts; the last takes the remainder. Clips are independent, and apart from mu and
sigma the entries along the axis are not mixed: the operators are gates.

**Deviations** from the authors' code, each where that code gives wrong numbers:
- spreads and scales are stored as logarithms, so that they stay positive; theirs may cross zero, and the gate explodes;
- the variance is computed in two passes, the rest in the log domain and in float32: no cancellation, no underflow of
  all densities at once, no NaN from a small scale or an axis of one entry;
- padding is masked in mean, variance, normalizer and output; theirs counts as zeros in all of them and is detected by
  equality of floats;
- offsets are in units of x in the gate and in the product, as theirs, and in units of sigma in the mixture, as there.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ossicle.kernels import at_least_float32

GATE_EPS = 1e-8 + 1e-5  # theirs adds one to the variance and one under the root
PRODUCT_EPS = 1e-8
MIXTURE_EPS = 1e-6


class Density(nn.Module):
    """Base class: parameters per head, and the use of the weights.

    Args:
        num_heads: number of parts of `axis`.
        axis: of the mean and the variance.
        feature_axis: along which parameters differ, where they do.
    """

    def __init__(self, *, num_heads: int = 1, axis: int = 1, feature_axis: int = -1) -> None:
        super().__init__()
        self.num_heads, self.axis, self.feature_axis = num_heads, axis, feature_axis

    def weights(self, x: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None) -> Float[Tensor, "..."]:
        """The factors of x, in float32 and of its shape.

        Args:
            mask: true where an entry is real; of a shape that broadcasts to x. The others have weight 0. Heads divide
                the axis as it is, padding included: with several heads the result depends on the length of the padding.

        Raises:
            ValueError: more heads than entries along the axis.
        """
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None) -> Float[Tensor, "..."]:
        return (real(x, mask) * self.weights(x, mask)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, axis={self.axis}"


class DensityGate(Density):
    """Algorithm 1: one Gaussian for every head and feature, not normalized. At the start exp(-z^2 / 4).

    On an axis of one entry z is the offset alone, so at the start it is the identity.

    Args:
        dim: features along `feature_axis`; 1 uses one Gaussian for all.
    """

    def __init__(self, dim: int, *, num_heads: int = 1, axis: int = 1, feature_axis: int = -1) -> None:
        super().__init__(num_heads=num_heads, axis=axis, feature_axis=feature_axis)
        self.offset = nn.Parameter(torch.zeros(num_heads, dim))
        self.log_spread = nn.Parameter(torch.full((num_heads, dim), math.log(2.0)))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        parameters = (self.offset, self.log_spread)
        return by_head(
            gate_weights, x, mask, parameters, heads=self.num_heads, axis=self.axis, feature_axis=self.feature_axis
        )


class DensityProduct(Density):
    """Algorithms 2 to 4: K Gaussians multiplied and normalized along the axis, where the weights sum to one.

    Args:
        num_gaussians: K. More than one adds parameters and no functions: see the top.
        residual: x is added, as in every block of the published package; else n entries shrink n-fold.
    """

    def __init__(self, *, num_heads: int = 1, num_gaussians: int = 1, axis: int = 1, residual: bool = False) -> None:
        super().__init__(num_heads=num_heads, axis=axis)
        self.residual = residual
        self.offset = nn.Parameter(torch.zeros(num_heads, num_gaussians))
        # The package draws the logarithms from a standard normal; with that, K of them are near one of 1 / sqrt(K).
        self.log_scale = nn.Parameter(torch.zeros(num_heads, num_gaussians))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        log_precision = -2 * self.log_scale
        # The product of the K Gaussians: precisions add, and offsets average by precision.
        offset = (log_precision.softmax(1) * self.offset).sum(1, keepdim=True)
        parameters = (offset, log_precision.logsumexp(1, keepdim=True))
        return by_head(product_weights, x, mask, parameters, heads=self.num_heads, axis=self.axis)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = self.weights(x, mask)
        return (real(x, mask) * (1 + weights if self.residual else weights)).to(x.dtype)


class DensityMixture(Density):
    """The sum of K Gaussians with weights of their own: a density over z, and not normalized along the axis.

    Args:
        num_gaussians: K. They start spread over one sigma around the mean, at half a sigma wide.
    """

    def __init__(self, *, num_heads: int = 1, num_gaussians: int = 4, axis: int = 1) -> None:
        super().__init__(num_heads=num_heads, axis=axis)
        shape = (num_heads, num_gaussians)
        # Equal Gaussians would receive equal gradients for ever.
        places = torch.linspace(-1, 1, num_gaussians) if num_gaussians > 1 else torch.zeros(1)
        self.offset = nn.Parameter(places.repeat(num_heads, 1))
        self.log_scale = nn.Parameter(torch.full(shape, math.log(0.5)))
        self.logit = nn.Parameter(torch.zeros(shape), requires_grad=num_gaussians > 1)  # the softmax of one is 1
        self.alpha = nn.Parameter(torch.tensor(0.05))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        parameters = (self.offset[:, None], self.log_scale[:, None], self.logit.log_softmax(1)[:, None])
        return by_head(mixture_weights, x, mask, parameters, heads=self.num_heads, axis=self.axis)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return (real(x, mask) * (1 + self.alpha * self.weights(x, mask))).to(x.dtype)


def gate_weights(x: Tensor, mask: Tensor | None, axis: int, offset: Tensor, log_spread: Tensor) -> Tensor:
    """exp(-z^2 / (2 spread)), the paper's equation 9."""
    apart, variance = deviations(x, mask, axis, unbiased=False)
    z2 = (apart - offset).square() / (variance + GATE_EPS)
    return real((-z2 / 2 * (-log_spread).exp()).exp(), mask)


def product_weights(x: Tensor, mask: Tensor | None, axis: int, offset: Tensor, log_precision: Tensor) -> Tensor:
    """The normalized Gaussian of this offset and precision."""
    apart, variance = deviations(x, mask, axis, unbiased=True)
    z2 = (apart - offset).square() / (variance + PRODUCT_EPS)
    logits = -z2 / 2 * log_precision.exp()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
        logits = logits.where(mask.any(axis, keepdim=True), 0)  # nothing real along the axis: no NaN
    return real(logits.softmax(axis), mask)


def mixture_weights(
    x: Tensor, mask: Tensor | None, axis: int, offset: Tensor, log_scale: Tensor, log_weight: Tensor
) -> Tensor:
    """sum_k weight_k N(z; offset_k, scale_k); the last axis of the parameters is k."""
    apart, variance = deviations(x, mask, axis, unbiased=False)
    z = apart / variance.clamp(min=MIXTURE_EPS).sqrt()
    total: Tensor | None = None
    # One Gaussian at a time: K times the memory of x is never needed.
    for o, s, weight in zip(offset.unbind(-1), log_scale.unbind(-1), log_weight.unbind(-1), strict=True):
        log_density = weight - s - ((z - o) * (-s).exp()).square() / 2
        total = log_density if total is None else torch.logaddexp(total, log_density)
    assert total is not None
    return real((total - math.log(2 * math.pi) / 2).exp(), mask)


def deviations(x: Tensor, mask: Tensor | None, axis: int, *, unbiased: bool) -> tuple[Tensor, Tensor]:
    """x minus its mean along the axis, and its variance there, of what is real; of one entry the variance is zero.

    What is not real is zero in x. (`torch.var_mean` takes a hundred times as long along any axis but the last.)
    """
    number = x.shape[axis] if mask is None else mask.sum(axis, keepdim=True).clamp(min=1)
    apart = x - x.sum(axis, keepdim=True) / number
    if mask is not None:
        apart = real(apart, mask)
    others = number - 1 if unbiased else number
    others = max(others, 1) if isinstance(others, int) else others.clamp(min=1)
    return apart, apart.square().sum(axis, keepdim=True) / others


def real(x: Tensor, mask: Tensor | None) -> Tensor:
    """x in at least float32, with zeros where the mask is false."""
    x = at_least_float32(x)
    return x if mask is None else torch.where(mask, x, 0)


def by_head(
    function: Callable[..., Tensor],
    x: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."] | None,
    parameters: tuple[Float[Tensor, "head dim *gaussian"], ...],
    *,
    heads: int,
    axis: int,
    feature_axis: int = -1,
) -> Float[Tensor, "..."]:
    """Applies `function(x, mask, axis, *parameters)` to each head's part of the axis.

    All parts of one length are computed at once, on a new axis before `axis`.
    """
    axis, feature_axis = axis % x.ndim, feature_axis % x.ndim
    size = x.shape[axis]
    length = size // heads
    if length == 0:
        raise ValueError(f"{heads} heads cannot divide an axis of {size} entries; at most {size} can")
    if axis == feature_axis and parameters[0].shape[1] > 1:
        raise ValueError("parameters by feature need an axis of features that is not the axis of the statistics")
    x = real(x, mask)
    mask = None if mask is None else mask.expand(x.shape)
    even = heads if size % heads == 0 else heads - 1
    done = []
    for first, number, of_each in ((0, even, length), (even, heads - even, size - even * length)):
        if number == 0:
            continue
        part, part_mask = (
            t if t is None else t.narrow(axis, first * length, number * of_each).unflatten(axis, (number, of_each))
            for t in (x, mask)
        )
        shape = [1] * (x.ndim + 1)
        shape[axis] = number
        shape[feature_axis + (feature_axis > axis)] *= parameters[0].shape[1]
        own = (p[first : first + number].reshape(*shape, *p.shape[2:]) for p in parameters)
        done.append(function(part, part_mask, axis + 1, *own).flatten(axis, axis + 1))
    return torch.cat(done, axis) if len(done) > 1 else done[0]
