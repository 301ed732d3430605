"""The pre-norm transformer block that every model here is made of.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929), with the key names
of timm's ViT.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.draws import for_clips, onto
from ossicle.kernels import Linear, gelu_linear, linear_gelu, multihead_attention, split_heads
from ossicle.models.tokens import merge_tokens


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "clip token dim"], *, queries: int | None = None
    ) -> Float[Tensor, "clip query dim"]:
        return self.proj(multihead_attention(self.qkv(x), num_heads=self.num_heads, queries=queries))

    def proportional(
        self, x: Float[Tensor, "clip token dim"], *, sizes: Float[Tensor, "clip token"] | None, queries: int | None
    ) -> tuple[Float[Tensor, "clip query dim"], Float[Tensor, "clip token key"]]:
        """As `forward`, with keys weighted by their sizes; also returns the mean of the keys over the heads."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        bias = None if sizes is None else log_sizes(sizes).to(q.dtype)
        y = F.scaled_dot_product_attention(q[:, :, :queries], k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).flatten(2)), k.mean(1)

    def weights(
        self, x: Float[Tensor, "clip token dim"], *, sizes: Float[Tensor, "clip token"] | None = None
    ) -> Float[Tensor, "clip head token token"]:
        """The attention matrix, which `forward` does not materialize; each row sums to one."""
        q, k, _ = split_heads(self.qkv(x), self.num_heads)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if sizes is not None:
            logits = logits + log_sizes(sizes)
        return torch.softmax(logits, dim=-1, dtype=torch.float32)


def log_sizes(sizes: Float[Tensor, "clip token"]) -> Float[Tensor, "clip 1 1 token"]:
    """Added to the logits of a key that represents several equal keys, so that the softmax is over all of them."""
    return sizes.log()[:, None, None]


class Mlp(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "*token dim"]) -> Float[Tensor, "*token dim"]:
        if not torch.is_grad_enabled():
            return self.fc2(linear_gelu(x, self.fc1))
        return gelu_linear(self.fc1(x), self.fc2)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, dim: int, num_heads: int, *, dropout: float = 0.0, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.dim = dim
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.dropout = dropout
        self.drop_path = drop_path

    def forward(
        self,
        x: Float[Tensor, "clip token dim"],
        *,
        queries: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "clip query dim"]:
        """Computes the outputs of the first `queries` tokens, by default all."""
        x = x[:, :queries] + self.drop_branch(self.attn(self.norm1(x), queries=queries), generator)
        return x + self.drop_branch(self.mlp(self.norm2(x)), generator)

    def merge(
        self,
        x: Float[Tensor, "clip token dim"],
        *,
        sizes: Float[Tensor, "clip token"] | None,
        count: int,
        fixed: int,
        queries: int | None = None,
    ) -> tuple[Float[Tensor, "clip query dim"], Float[Tensor, "clip kept"] | None]:
        """As `forward` in evaluation, with `count` tokens merged between attention and mlp; see `merge_tokens`."""
        y, keys = self.attn.proportional(self.norm1(x), sizes=sizes, queries=queries)
        x = x[:, :queries] + y
        if count:
            x, sizes = merge_tokens(x, keys=keys, sizes=sizes, count=count, fixed=fixed)
        return x + self.mlp(self.norm2(x)), sizes

    def drop_branch(self, branch: Float[Tensor, "clip token dim"], generator: torch.Generator | None) -> Tensor:
        """Drops values (dropout) and whole branches (stochastic depth, by clip) while training; the mean is kept."""
        if not self.training:
            return branch
        if self.dropout:
            branch = branch * keep_mask(branch, branch.shape, rate=self.dropout, generator=generator)
        if self.drop_path:
            branch = drop_path(branch, rate=self.drop_path, generator=generator)
        return branch


def check_fraction(name: str, fraction: float) -> None:
    """Raises ValueError outside 0 to below 1."""
    if not 0 <= fraction < 1:
        raise ValueError(f"{name} is {fraction}; expected a fraction from 0 to below 1")


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """The rate of each block: from 0 at the first in equal steps to `rate` at the last; of a single block 0.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (arXiv 1603.09382), section 3, as in timm's ViT.
    """
    return [rate * block / max(depth - 1, 1) for block in range(depth)]


def drop_path(branch: Tensor, *, rate: float, generator: torch.Generator | None) -> Tensor:
    """Stochastic depth: drops the branch of whole clips, the first axis; the mean is kept."""
    return branch * keep_mask(branch, (branch.shape[0], *[1] * (branch.ndim - 1)), rate=rate, generator=generator)


def keep_mask(like: Tensor, shape: tuple[int, ...], *, rate: float, generator: torch.Generator | None) -> Tensor:
    """Zeros with probability `rate`, else 1 / (1 - rate), drawn on the CPU."""
    drawn = for_clips(lambda clips: torch.rand(clips, *shape[1:], generator=generator), shape[0], generator)
    return onto((drawn >= rate).to(like.dtype), like.device) / (1 - rate)
