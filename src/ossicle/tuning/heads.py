"""Heads on the layers of a frozen encoder: (clip, layer, dim) in, one logit per label out.

Source: "Density Adaptive Attention is All You Need" (arXiv 2401.11143), section 1.4 of version 4: the hidden states of
every layer, averaged over time, are weighted by an attention module, laid out as images with a channel per layer, and
classified by two convolutions and a linear map. Also common baselines: SUPERB's weighted sum
(arXiv 2105.01051, section 3), attentive statistics pooling (Okabe et al., arXiv 1803.10963), attention over layers,
alone and before batch normalization, as the paper compares them, and a sigmoid gate of the density's size.

**Deviations** from the authors' code:
- attention over layers attends over layers. Theirs hands (clip, layer, dim) to a module that takes the first axis for
  the sequence, so clips attend to the other clips of their batch;
- in a group of queries (GQ-DAAM) every query has its own softmax, and the results of the group are averaged; theirs
  adds the logits of a group before the softmax, which equals one query. The parameters are the same;
- attention over layers has a norm before it and the layers added behind it; theirs has neither;
- the 512 values of GQ-DAAM are laid out as an image of 16 x 32, theirs of 8 x 64, of texts 64 x 8 (`rows` gives these):
  a grid here is as near to a square as the width allows, which at the widths of the paper's other heads, 1024 and 5120,
  is theirs;
- a density head with fewer than three layers per head is refused: with two values z^2 is one for both, and the gate is
  constant.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ossicle.errors import SettingRefused
from ossicle.kernels import Linear
from ossicle.models.attention import Attention
from ossicle.models.density import Density, DensityGate, DensityMixture, DensityProduct
from ossicle.settings import checked_options

LEAST_LAYERS = 3  # per head of a density

Form = Literal["gate", "product", "mixture"]
Decoder = Literal["conv", "linear"]


class Head(nn.Module):
    """Base class of heads.

    Class attribute `takes_time`: whether the input is (clip, layer, time, dim) with a mask, instead of the mean.
    """

    takes_time = False

    @property
    def density(self) -> Density | None:
        """The density over its input layers, if it has one."""
        return None

    def forward(
        self,
        x: Float[Tensor, "clip layer dim"] | Float[Tensor, "clip layer time dim"],
        mask: Bool[Tensor, "clip time"] | None = None,
    ) -> Float[Tensor, "clip label"]:
        raise NotImplementedError


class MeanHead(Head):
    """A linear map of the last layer's mean over time."""

    def __init__(self, layers: int, dim: int, *, num_classes: int) -> None:
        super().__init__()
        self.fc = Linear(dim, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(x[:, -1])


class WeightedSum(nn.Module):
    """The average of the layers with one softmax weight per layer, equal at first."""

    def __init__(self, layers: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(layers), requires_grad=layers > 1)  # the softmax of one is 1
        self.normalize = normalize

    def forward(self, x: Float[Tensor, "clip layer *time dim"]) -> Float[Tensor, "clip *time dim"]:
        if self.normalize:
            x = F.layer_norm(x, x.shape[-1:])
        return torch.einsum("l,bl...->b...", self.logit.softmax(0), x)


class WeightedSumHead(Head):
    """SUPERB's head: weighted sum of layers, projection, linear map. The mean over time commutes with all of it.

    Args:
        normalize: normalize every layer's vector first, an option of S3PRL.
        hidden: width of the projection.
    """

    def __init__(self, layers: int, dim: int, *, num_classes: int, normalize: bool = False, hidden: int = 256) -> None:
        super().__init__()
        self.sum = WeightedSum(layers, normalize=normalize)
        self.projector = Linear(dim, hidden)
        self.fc = Linear(hidden, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc(self.projector(self.sum(x)))


class AttentiveStatisticsHead(Head):
    """The weighted sum of layers; mean and deviation over time, weighted by a learned attention; a linear map."""

    takes_time = True

    def __init__(self, layers: int, dim: int, *, num_classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.sum = WeightedSum(layers)
        self.score = nn.Sequential(Linear(dim, hidden), nn.Tanh(), Linear(hidden, 1))
        self.fc = Linear(2 * dim, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.sum(x)  # (clip, time, dim)
        score = self.score(h)
        if mask is not None:
            score = score.masked_fill(~mask[..., None], -torch.inf)
            h = torch.where(mask[..., None], h, 0)
        weight = score.softmax(1)
        mean = (weight * h).sum(1)
        deviation = (weight * (h - mean[:, None]).square()).sum(1).clamp(min=1e-5).sqrt()
        return self.fc(torch.cat([mean, deviation], -1))


class LayersHead(Head):
    """A weighting of the layers, `weigh`, and a decoder of all of them. The base class has no weighting.

    Args:
        decoder: conv is the paper's; linear is one linear map of all values.
        hidden: channels between the two convolutions.
        rows: of the image that a layer's values are laid out as; by default as near to a square as they allow.
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        num_classes: int,
        decoder: Decoder = "conv",
        hidden: int = 512,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        self.weigh: nn.Module = nn.Identity()
        self.decode: nn.Module
        if decoder == "conv":
            self.decode = ConvDecoder(layers, dim, num_classes=num_classes, hidden=hidden, rows=rows)
        elif rows is None:
            self.decode = nn.Sequential(nn.Flatten(), Linear(layers * dim, num_classes))
        else:
            raise SettingRefused(f"rows={rows} is of the image for decoder=conv, and the decoder is {decoder}.")

    @property
    def density(self) -> Density | None:
        first = self.weigh[0] if isinstance(self.weigh, nn.Sequential) else self.weigh
        return first if isinstance(first, Density) else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.decode(self.weigh(x))


class DensityHead(LayersHead):
    """DAT: a density over the layers, then the decoder.

    Args:
        form: gate is the paper's DAAM; product its "mixture", with x added; mixture a real mixture.
        num_heads: parts of the layers; by default as many as have at least three layers each.
        num_gaussians: of product and mixture.
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        num_classes: int,
        form: Form = "gate",
        num_heads: int | None = None,
        num_gaussians: int = 4,
        decoder: Decoder = "conv",
        hidden: int = 512,
        rows: int | None = None,
    ) -> None:
        super().__init__(layers, dim, num_classes=num_classes, decoder=decoder, hidden=hidden, rows=rows)
        self.weigh = create_density(layers, dim, form=form, num_heads=num_heads, num_gaussians=num_gaussians)


class GroupQueryHead(LayersHead):
    """GQ-DAAM: the density gate, then grouped-query attention over the layers at a separate width."""

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        num_classes: int,
        num_heads: int | None = None,
        decoder: Decoder = "conv",
        width: int = 512,
        hidden: int = 512,
        rows: int | None = None,
    ) -> None:
        super().__init__(layers, width, num_classes=num_classes, decoder=decoder, hidden=hidden, rows=rows)
        gate = create_density(layers, dim, form="gate", num_heads=num_heads)
        self.weigh = nn.Sequential(gate, Linear(dim, width), GroupQueryAttention(width))


class AttentionHead(LayersHead):
    """x + attention(norm(x)) over the layers of one clip, then the decoder."""

    batch_norm = False

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        num_classes: int,
        num_heads: int = 8,
        decoder: Decoder = "conv",
        hidden: int = 512,
        rows: int | None = None,
    ) -> None:
        super().__init__(layers, dim, num_classes=num_classes, decoder=decoder, hidden=hidden, rows=rows)
        if dim % num_heads:
            raise SettingRefused(f"num_heads={num_heads} does not divide the encoder's width of {dim}.")
        self.weigh = LayerAttention(dim, num_heads)
        if self.batch_norm:
            self.weigh = nn.Sequential(self.weigh, nn.BatchNorm1d(layers))


class NormedAttentionHead(AttentionHead):
    """The same with batch normalization of every layer before the decoder: MHA -> BN of the paper.

    In training a layer's values are normalized over the clips of the batch and their features.
    """

    batch_norm = True


class SigmoidHead(LayersHead):
    """A control for the density: a gate of its size that sees each value alone, and not where it is among the layers.

    Args:
        num_heads: parts of the layers; by default as many as a density has.
    """

    def __init__(
        self,
        layers: int,
        dim: int,
        *,
        num_classes: int,
        num_heads: int | None = None,
        decoder: Decoder = "conv",
        hidden: int = 512,
        rows: int | None = None,
    ) -> None:
        super().__init__(layers, dim, num_classes=num_classes, decoder=decoder, hidden=hidden, rows=rows)
        heads = heads_for(layers) if num_heads is None else num_heads
        if heads > layers:
            raise SettingRefused(f"num_heads={heads} over {layers} layers; at most {layers} heads are possible.")
        self.weigh = SigmoidGate(layers, dim, num_heads=heads)


class SigmoidGate(nn.Module):
    """x sigmoid(slope x + offset), with parameters for each feature and part of the layers, as the density gate has."""

    def __init__(self, layers: int, dim: int, *, num_heads: int) -> None:
        super().__init__()
        self.head_of = [min(layer // (layers // num_heads), num_heads - 1) for layer in range(layers)]
        self.slope = nn.Parameter(torch.zeros(num_heads, dim))
        self.offset = nn.Parameter(torch.ones(num_heads, dim))

    def forward(self, x: Float[Tensor, "clip layer dim"]) -> Float[Tensor, "clip layer dim"]:
        return x * torch.sigmoid(self.slope[self.head_of] * x + self.offset[self.head_of])


class LayerAttention(nn.Module):
    """x + attention(norm(x)), the layers as tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)

    def forward(self, x: Float[Tensor, "clip layer dim"]) -> Float[Tensor, "clip layer dim"]:
        return x + self.attn(self.norm(x))


class GroupQueryAttention(nn.Module):
    """Attention whose query heads share the keys and values of their group; a group's results are averaged.

    Source: Ainslie et al., "GQA" (arXiv 2305.13245); sizes as in the paper's GQ-DAAM: 8 query heads in 2 groups.
    """

    def __init__(self, dim: int, *, num_heads: int = 8, num_groups: int = 2) -> None:
        super().__init__()
        if dim % num_heads:
            raise SettingRefused(f"a width of {dim} cannot be divided among {num_heads} query heads.")
        self.num_heads, self.num_groups = num_heads, num_groups
        shared = dim // num_heads * num_groups
        self.q, self.k, self.v = Linear(dim, dim), Linear(dim, shared), Linear(dim, shared)
        self.norm = nn.LayerNorm(shared)
        self.proj = Linear(shared, dim)

    def forward(self, x: Float[Tensor, "clip layer dim"]) -> Float[Tensor, "clip layer dim"]:
        groups = self.num_groups
        q = self.q(x).unflatten(-1, (groups, self.num_heads // groups, -1)).permute(0, 2, 3, 1, 4)
        k, v = (t.unflatten(-1, (groups, 1, -1)).permute(0, 2, 3, 1, 4) for t in (self.k(x), self.v(x)))
        # One axis of heads, since ONNX exporters do not support attention with two.
        y = F.scaled_dot_product_attention(*(t.expand_as(q).flatten(1, 2) for t in (q, k, v)))
        y = y.unflatten(1, (groups, -1)).mean(2)  # (clip, group, layer, d)
        return self.proj(self.norm(y.transpose(1, 2).flatten(2)))


class ConvDecoder(nn.Module):
    """The layers' vectors as images, one channel per layer; two convolutions; a linear map."""

    def __init__(self, layers: int, dim: int, *, num_classes: int, hidden: int = 512, rows: int | None = None) -> None:
        super().__init__()
        if rows is not None and dim % rows:
            raise SettingRefused(f"rows={rows} does not divide the {dim} values of a layer.")
        self.grid = grid_of(dim) if rows is None else (rows, dim // rows)
        self.conv1 = nn.Conv2d(layers, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, layers, 3, padding=1)
        self.fc = Linear(layers * dim, num_classes)
        for module in (self.conv1, self.conv2, self.fc):
            nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Float[Tensor, "clip layer dim"]) -> Float[Tensor, "clip label"]:
        # Channels last: oneDNN pads a few channels to sixteen otherwise, and a step takes up to twice as long.
        image = x.unflatten(2, self.grid).contiguous(memory_format=torch.channels_last)
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(image)))).flatten(1))


def grid_of(dim: int) -> tuple[int, int]:
    """Rows and columns of a vector laid out as an image, as near to a square as its divisors allow."""
    rows = max(n for n in range(1, math.isqrt(dim) + 1) if dim % n == 0)
    return rows, dim // rows


def heads_for(layers: int) -> int:
    """As many heads as have enough layers each, at least one."""
    return max(1, layers // LEAST_LAYERS)


def create_density(
    layers: int, dim: int, *, form: Form = "gate", num_heads: int | None = None, num_gaussians: int = 4
) -> Density:
    """A density over the layer axis of (clip, layer, dim).

    Raises:
        SettingRefused: fewer than three layers per head, or too many Gaussians.
    """
    heads = heads_for(layers) if num_heads is None else num_heads
    if heads < 1 or layers // heads < LEAST_LAYERS:
        raise SettingRefused(
            f"num_heads={heads} over {layers} layers is fewer than {LEAST_LAYERS} layers per head, where the density "
            f"is constant; at most {layers // LEAST_LAYERS} heads are possible."
        )
    if not 1 <= num_gaussians <= 64:
        raise SettingRefused(f"num_gaussians={num_gaussians} lies outside its range, 1 to 64.")
    if form == "gate":
        return DensityGate(dim, num_heads=heads)
    if form == "product":
        return DensityProduct(num_heads=heads, num_gaussians=num_gaussians, residual=True)
    return DensityMixture(num_heads=heads, num_gaussians=num_gaussians)


HEADS: dict[str, type[Head]] = {
    "density": DensityHead,
    "gq_density": GroupQueryHead,
    "layers": LayersHead,
    "mha": AttentionHead,
    "mha_bn": NormedAttentionHead,
    "sigmoid": SigmoidHead,
    "weighted_sum": WeightedSumHead,
    "attentive_stats": AttentiveStatisticsHead,
    "mean": MeanHead,
}


def create_head(
    name: str, *, layers: int, dim: int, num_classes: int, options: Mapping[str, Any] | None = None
) -> Head:
    """Builds a head with random weights.

    Args:
        options: of the head, by name.

    Raises:
        SettingRefused: unknown head, or an invalid option or value.
    """
    if name not in HEADS:
        raise SettingRefused(f"Head {name!r} is not available. Available: {', '.join(HEADS)}.")
    kind = HEADS[name]
    fixed = ("layers", "dim", "num_classes")
    chosen = checked_options(kind.__init__, options or {}, what=f"the head {name}", fixed=fixed)
    for option, value in chosen.items():
        if type(value) is int and value < 1:
            raise SettingRefused(f"{option}={value} lies outside its range, 1 or more.")
    return kind(layers, dim, num_classes=num_classes, **chosen)
