"""PaSST: a transformer over spectrogram patches that drops patches while training.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout" (arXiv 2110.05069), section 2; tensor
names and numbers as in the published checkpoints (github.com/kkoutini/PaSST, models/passt.py).

**Deviations**
- Patches are gathered before they are embedded, so a dropped patch costs nothing; the reference convolves first.
  The numbers are the same.
- Attention is `scaled_dot_product_attention`, in bfloat16 on a CPU `tiled_attention`; the reference forms the matrix.
- An input longer than the time positions is split into windows whose logits are averaged, or, when asked, seen in one
  pass with interpolated positions; the reference cuts it (and reads its length too early, so that patchout then fails).
- At stride 20 the time table has room for all 50 columns of 10 s; the reference makes 49 and cuts one.
- Every random number comes from the generator that the caller passes; the reference draws from the global stream.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.kernels import Linear
from ossicle.models.attention import Block, check_share, drop_path_rates
from ossicle.models.network import Network
from ossicle.models.tokens import Patchout, TokenReduction, select_patches

PATCH = 16  # mel bins and frames on a side of a patch


@dataclass(frozen=True, kw_only=True)
class PasstConfig:
    """What a PaSST network is made of."""

    num_classes: int
    dim: int = 768
    num_heads: int = 12
    depth: int = 12
    stride: int = 10  # mel bins and frames from patch to patch; below 16 they overlap
    mels: int = 128
    frames: int = 998  # input length the time positions are made for
    patchout: Patchout = field(default_factory=Patchout)
    dropout: float = 0.0  # share of each branch's values, in training
    drop_path: float = 0.0  # share of branches skipped in training at the last block, rising from 0 at the first
    interpolate_positions: bool = False  # see an input beyond the table in one pass

    def __post_init__(self) -> None:
        if min(self.num_classes, self.dim, self.num_heads, self.depth, self.stride) < 1:
            raise ValueError("num_classes, dim, num_heads, depth and stride are at least 1")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is no multiple of num_heads {self.num_heads}")
        if min(self.mels, self.frames) < PATCH:
            raise ValueError(f"mels {self.mels} and frames {self.frames} are at least the patch size {PATCH}")
        check_share("dropout", self.dropout)
        check_share("drop_path", self.drop_path)

    @property
    def rows(self) -> int:
        """Patches over frequency."""
        return patches_along(self.mels, self.stride)

    @property
    def columns(self) -> int:
        """Length of the time table: as published (frames // stride), and never less than `frames` need."""
        return max(self.frames // self.stride, patches_along(self.frames, self.stride))


def patches_along(length: int, stride: int) -> int:
    """Patches that fit along one side."""
    return (length - PATCH) // stride + 1


def kept_blocks(depth: int, cut: int) -> list[int]:
    """The blocks that `Passt.cut_depth` leaves."""
    if cut >= depth or cut < 0 and depth < 2:
        raise ValueError(f"cutting the depth by {cut} leaves nothing sensible of {depth} blocks")
    if cut >= 0:
        return [0, *range(cut + 1, depth)]
    return [0, *range(1, depth - 1, -cut), depth - 1]


class PasstOutput(NamedTuple):
    """Everything a pass computes, by name.

    For an input seen in windows, hidden states and attention have one entry per window, clip after clip.
    """

    logits: Float[Tensor, "clip label"]
    features: Float[Tensor, "clip dim"]  # mean of the two class tokens, before the head
    # (clip, token, dim): what enters the first block, then what leaves each.
    hidden_states: tuple[Float[Tensor, "window token dim"], ...] | None
    # (clip, head, token, token) of each block; the tokens are cls, dist, then the patches row by row.
    attention: tuple[Float[Tensor, "window head token token"], ...] | None


class PatchEmbed(nn.Module):
    """Spectrogram patches to tokens: a convolution by its weights, computed as a product with the gathered patches."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(1, dim, PATCH, stride)

    def forward(
        self, spec: Float[Tensor, "clip mel frame"], *, patches: Int[Tensor, "patch"] | None = None
    ) -> Float[Tensor, "clip patch dim"]:
        if patches is None and torch.compiler.is_exporting():
            # Other runtimes have no views, and a fast convolution.
            return F.conv2d(spec[:, None], self.proj.weight, self.proj.bias, self.stride).flatten(2).mT
        # A view: (clip, row, column, PATCH, PATCH).
        grid = spec.unfold(1, PATCH, self.stride).unfold(2, PATCH, self.stride)
        if patches is None:
            pixels = grid.flatten(1, 2).flatten(2)
        else:
            pixels = grid[:, patches // grid.shape[2], patches % grid.shape[2]].flatten(2)
        return F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class Passt(Network):
    """The network: log-mel in, one logit per label out."""

    def __init__(self, config: PasstConfig, *, frontend: str = "passt") -> None:
        super().__init__()
        self.config = config
        self.frontend = frontend
        dim = config.dim
        self.patch_embed = PatchEmbed(dim, config.stride)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim))
        self.new_pos_embed = nn.Parameter(torch.empty(1, 2, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.empty(1, dim, config.rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.empty(1, dim, 1, config.columns))
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, dropout=config.dropout, drop_path=rate)
            for rate in drop_path_rates(config.drop_path, config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(dim), Linear(dim, config.num_classes))
        # The published checkpoints carry this second head, and the published forward never uses it.
        self.head_dist = nn.Linear(dim, config.num_classes).requires_grad_(False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: truncated normal of deviation 0.02, zero biases; the patch kernel as torch makes it."""
        for tensor in (
            self.cls_token,
            self.dist_token,
            self.new_pos_embed,
            self.freq_new_pos_embed,
            self.time_new_pos_embed,
        ):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def cut_depth(self, cut: int) -> None:
        """Removes blocks from a network that has its weights, in place.

        Args:
            cut: n above 0 removes the n blocks after the first; -k keeps the first, every k-th from the second on, and
                the last: of 12 blocks, -2 leaves 7.

        Source: section 2.3.2 of the paper (PaSST-L).
        """
        kept = kept_blocks(len(self.blocks), cut)
        self.blocks = nn.ModuleList(self.blocks[i] for i in kept)
        self.config = replace(self.config, depth=len(kept))

    @property
    def max_frames(self) -> int:
        """Longest input that one pass sees with its own positions."""
        return self.config.columns * self.config.stride + PATCH - 1

    @property
    def min_frames(self) -> int:
        """Shortest input: one patch."""
        return PATCH

    def forward_features(
        self,
        spec: Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"],
        *,
        generator: torch.Generator | None = None,
        hidden_states: bool = False,
        attention: bool = False,
        reduction: TokenReduction | None = None,
    ) -> PasstOutput:
        """As `forward`, with the features, and on request the hidden states and the attention matrices.

        Args:
            reduction: computes fewer tokens, in evaluation; of a long input, in each of its windows.

        Raises:
            ValueError: a reduction in training, which has its patchout; or one that merges more than the blocks can.
        """
        if reduction is not None and self.training:
            raise ValueError("a reduction is for evaluation; training drops patches by its patchout")
        windows = self.split(self.check(spec))
        tokens = self.embed(windows, generator=generator, reduction=reduction)
        depth, sizes = len(self.blocks), None
        merges = [0] * depth if reduction is None else reduction.merges(tokens.shape[1] - 2, depth=depth)
        states, maps = [tokens], []
        for i, block in enumerate(cast("Iterable[Block]", self.blocks)):
            if attention:
                maps.append(block.attn.weights(block.norm1(tokens), sizes=sizes))
            # The head reads the class tokens alone, so the last block owes no other, unless they are asked for.
            queries = 2 if i == depth - 1 and not hidden_states else None
            if any(merges):
                tokens, sizes = block.merge(tokens, sizes=sizes, count=merges[i], fixed=2, queries=queries)
            else:
                tokens = block(tokens, queries=queries, generator=generator)
            if hidden_states:
                states.append(tokens)
        features = self.norm(tokens[:, :2]).mean(1)
        logits = self.head(features)
        if windows.shape[-1] < spec.shape[-1]:
            features = features.unflatten(0, (spec.shape[0], -1)).mean(1)
            logits = logits.unflatten(0, (spec.shape[0], -1)).mean(1)
        return PasstOutput(
            logits, features, tuple(states) if hidden_states else None, tuple(maps) if attention else None
        )

    def split(self, spec: Float[Tensor, "clip mel frame"]) -> Float[Tensor, "window mel frames"]:
        """Windows that fit the time positions, clip after clip, evenly spaced from the first frame to the last."""
        frames = spec.shape[-1]
        if frames <= self.max_frames or self.config.interpolate_positions:
            return spec
        span = (self.config.columns - 1) * self.config.stride + PATCH
        count = -(-frames // span)
        starts = [round(i * (frames - span) / (count - 1)) for i in range(count)]
        return torch.stack([spec[..., s : s + span] for s in starts], dim=1).flatten(0, 1)

    def embed(
        self,
        spec: Float[Tensor, "clip mel frame"],
        *,
        generator: torch.Generator | None,
        reduction: TokenReduction | None = None,
    ) -> Float[Tensor, "clip token dim"]:
        """The class tokens and the kept patches, each with its position."""
        config = self.config
        rows, columns = config.rows, patches_along(spec.shape[-1], config.stride)
        draws = self.training and (config.patchout or columns < config.columns)
        if draws and generator is None:
            raise ValueError("training with patchout, or on clips shorter than the time positions, needs a `generator`")
        offset, patches = 0, None if reduction is None else reduction.select((rows, columns))
        if draws and generator is not None:
            if columns < config.columns:
                offset = int(torch.randint(config.columns - columns + 1, (), generator=generator))
            patches = select_patches((rows, columns), config.patchout, generator=generator)
        patches = None if patches is None else patches.to(spec.device)

        freq = self.freq_new_pos_embed[0, :, :, 0].T  # (row, dim)
        if columns <= config.columns:
            time = self.time_new_pos_embed[0, :, 0, offset : offset + columns].T  # (column, dim)
        else:
            time = F.interpolate(self.time_new_pos_embed[0, :, 0][None], columns, mode="linear")[0].T
        if patches is None:
            position = (freq[:, None] + time).flatten(0, 1)
        else:
            position = freq.index_select(0, patches // columns) + time.index_select(0, patches % columns)
        x = self.patch_embed(spec, patches=patches) + position
        two = torch.cat([self.cls_token, self.dist_token], 1) + self.new_pos_embed
        return torch.cat([two.expand(x.shape[0], -1, -1), x], dim=1)
