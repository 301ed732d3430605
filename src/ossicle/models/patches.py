"""What transformers over patches of a spectrogram share: patches, patchout, class tokens, blocks, head and windows.

A family has tables of positions of its own (`ossicle.models.passt`, `ossicle.models.ast`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.draws import onto
from ossicle.kernels import Linear
from ossicle.models.attention import Block, check_fraction, drop_path_rates
from ossicle.models.base import Layout, Network
from ossicle.models.tokens import PATCHOUT, Patchout, TokenReduction, drop_count, select_patches, whole

PATCH = 16  # mel bins and frames on a side of a patch
HEAD_DIM = 64  # of published networks; not stored in checkpoints


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """Configuration of a transformer over patches."""

    num_classes: int
    dim: int = 768
    num_heads: int = 12
    depth: int = 12
    stride: int = 10  # mel bins and frames from patch to patch; below 16 they overlap
    mels: int = 128
    frames: int = 998  # input length the time positions are made for
    patchout: Patchout = field(default_factory=Patchout)
    dropout: float = 0.0  # fraction of each branch's values, in training
    drop_path: float = 0.0  # fraction of branches skipped in training at the last block, rising from 0 at the first
    interpolate_positions: bool = False  # process an input beyond the table in one pass
    stem: tuple[int, ...] = ()  # channels of the convolutions ahead of the patches, see `ConvStem`; () has none

    def __post_init__(self) -> None:
        if min(self.num_classes, self.dim, self.num_heads, self.depth, self.stride) < 1:
            raise ValueError("num_classes, dim, num_heads, depth and stride are at least 1")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if min(self.mels, self.frames) < PATCH:
            raise ValueError(f"mels {self.mels} and frames {self.frames} are at least the patch size {PATCH}")
        if self.stem and (min(self.stem) < 1 or self.stride != PATCH or PATCH % 2 ** len(self.stem)):
            raise ValueError(
                f"stem {self.stem} with stride {self.stride}: a stem of one to four positive widths needs a stride of "
                f"{PATCH}, as it halves the spectrogram once each"
            )
        check_fraction("dropout", self.dropout)
        check_fraction("drop_path", self.drop_path)

    @property
    def rows(self) -> int:
        """Patches over frequency."""
        return patches_along(self.mels, self.stride)

    @property
    def columns(self) -> int:
        """Patches over time."""
        return patches_along(self.frames, self.stride)


def patches_along(length: int, stride: int) -> int:
    """Patches that fit along one side."""
    return (length - PATCH) // stride + 1


def blocks_left(depth: int, cut: int) -> list[int]:
    """The blocks that `PatchTransformer.cut_depth` leaves."""
    if cut >= depth or cut < 0 and depth < 2:
        raise ValueError(f"cutting the depth by {cut} leaves nothing sensible of {depth} blocks")
    if cut >= 0:
        return [0, *range(cut + 1, depth)]
    return [0, *range(1, depth - 1, -cut), depth - 1]


class PatchOutput(NamedTuple):
    """Outputs of a pass.

    For an input processed in windows, hidden states and attention have one entry per window, clip after clip.
    """

    logits: Float[Tensor, "clip label"]
    features: Float[Tensor, "clip dim"]  # mean of the two class tokens, before the head
    # (clip, token, dim): input of the first block, then the output of each.
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
            # Other runtimes have no views, but a fast convolution.
            return F.conv2d(spec[:, None], self.proj.weight, self.proj.bias, self.stride).flatten(2).mT
        # A view: (clip, row, column, PATCH, PATCH).
        grid = spec.unfold(1, PATCH, self.stride).unfold(2, PATCH, self.stride)
        if patches is None:
            pixels = grid.flatten(1, 2).flatten(2)
        else:
            pixels = grid[:, patches // grid.shape[2], patches % grid.shape[2]].flatten(2)
        return F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """Spectrogram patches to tokens through convolutions, each of which halves it, with a residual one behind.

    It makes a transformer learn from less data, and costs the same for a dropped patch as for a kept one.

    Source: Xiao et al., "Early Convolutions Help Transformers See Better" (arXiv 2106.14881), without its norms: those
    of a batch can be folded into the weights once these are trained.

    Args:
        channels: of each halving
    """

    def __init__(self, dim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(zip((1, *channels), channels, strict=False))
        self.halve = nn.ModuleList(nn.Conv2d(before, after, 3, 2, 1) for before, after in pairs)
        # The first works at half the resolution, where another costs the most and tells the least.
        self.refine = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in channels[1:])
        left = PATCH // 2 ** len(channels)
        self.proj = nn.Conv2d(channels[-1], dim, left, left)

    def forward(
        self, spec: Float[Tensor, "clip mel frame"], *, patches: Int[Tensor, "patch"] | None = None
    ) -> Float[Tensor, "clip patch dim"]:
        rows, columns = (patches_along(length, PATCH) * PATCH for length in spec.shape[1:])
        x = spec[:, None, :rows, :columns]
        if not torch.compiler.is_exporting():
            x = x.contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        for level, halve in enumerate(self.halve):
            x = F.gelu(halve(x))
            if level:
                x = x + F.gelu(self.refine[level - 1](x))
        tokens = self.proj(x).flatten(2).mT
        return tokens if patches is None else tokens.index_select(1, patches)


class PatchTransformer(Network):
    """The network: log-mel in, one logit per label out.

    A family has `class_positions` and `positions`.

    Args:
        tables: shapes of the tables of positions, by name
        eps: of the norms of blocks and features, and of the head's
    """

    train_settings = ("depth", "drop_path", *PATCHOUT)
    reduces_tokens = True

    def __init__(
        self, config: PatchConfig, *, frontend: str, tables: Mapping[str, tuple[int, ...]], eps: tuple[float, float]
    ) -> None:
        super().__init__(config, frontend=frontend)
        dim = config.dim
        self.patch_embed = ConvStem(dim, config.stem) if config.stem else PatchEmbed(dim, config.stride)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.dist_token = nn.Parameter(torch.empty(1, 1, dim))
        for name, shape in tables.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.drawn = ("cls_token", "dist_token", *tables)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, dropout=config.dropout, drop_path=rate, eps=eps[0])
            for rate in drop_path_rates(config.drop_path, config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps[0])
        self.head = nn.Sequential(nn.LayerNorm(dim, eps=eps[1]), Linear(dim, config.num_classes))

    def class_positions(self) -> Float[Tensor, "1 2 dim"]:
        """The positions of the two class tokens."""
        raise NotImplementedError

    def positions(
        self, columns: int, *, generator: torch.Generator | None
    ) -> Callable[[Int[Tensor, "patch"] | None], Float[Tensor, "patch dim"]]:
        """A function from patches, or None for all, to their positions in a grid with that many columns."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draws new weights: truncated normal of deviation 0.02, zero biases; the patch kernel as torch makes it."""
        for name in self.drawn:
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
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
        kept = blocks_left(len(self.blocks), cut)
        self.blocks = nn.ModuleList(self.blocks[i] for i in kept)
        self.config = replace(self.config, depth=len(kept))

    @classmethod
    def kept_blocks(cls, depth: int, kept: int) -> list[int]:
        """Every k-th block as in PaSST-L, 7 of 12, if some k leaves as many; else the first and the last ones."""
        if not 1 <= kept <= depth:
            raise ValueError(f"a network of {depth} blocks cannot be cut to {kept}")
        ways = (blocks_left(depth, cut) for cut in (*range(-1, -depth, -1), depth - kept))
        return next(blocks for blocks in ways if len(blocks) == kept)

    @property
    def max_frames(self) -> int:
        """Longest input of one pass without interpolated positions."""
        return self.config.columns * self.config.stride + PATCH - 1

    @property
    def min_frames(self) -> int:
        """Shortest input: one patch."""
        return PATCH

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The fields of the configuration, and patchout by three amounts."""
        types = super().option_types() | dict.fromkeys(PATCHOUT, int | float)
        del types["patchout"]
        return types

    @classmethod
    def from_options(cls, **options: Any) -> "Network":
        """Builds a network with random weights."""
        patchout = Patchout(**{field: whole(options.pop(name, 0)) for name, field in PATCHOUT.items()})
        return super().from_options(patchout=patchout, **options)

    def options(self) -> dict[str, Any]:
        """The options that `from_options` builds this network from."""
        options = super().options()
        patchout = options.pop("patchout")
        return options | {name: patchout[field] for name, field in PATCHOUT.items()}

    @property
    def layout(self) -> Layout:
        """Every block's patch tokens: a time is a column of patches; the two class tokens are left out."""
        return Layout(num_layers=len(self.blocks), dim=self.config.dim, description="patch tokens, mean over frequency")

    def layer_frames(self, window: int) -> int:
        """The positions' length, or the window where positions are interpolated to it."""
        return max(self.max_frames, window) if self.config.interpolate_positions else self.max_frames

    def layer_times(self, frames: int) -> int:
        """Columns of patches."""
        return patches_along(max(frames, PATCH), self.config.stride)

    def layer_states(self, spec: Float[Tensor, "clip mel frame"], layers: int) -> Float[Tensor, "clip layer time dim"]:
        """The outputs of the first blocks, averaged over frequency; no later block runs."""
        x, states = self.embed(spec, generator=None), []
        for block in self.stack(layers):
            x = block(x)
            states.append(x[:, 2:].unflatten(1, (self.config.rows, -1)).mean(1))
        return torch.stack(states, dim=1)

    def forward_features(
        self,
        spec: Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"],
        *,
        generator: torch.Generator | None = None,
        hidden_states: bool = False,
        attention: bool = False,
        reduction: TokenReduction | None = None,
    ) -> PatchOutput:
        """As `forward`, with the features, and optionally the hidden states and the attention matrices.

        Args:
            reduction: computes fewer tokens, in evaluation; of a long input, in each of its windows.

        Raises:
            ValueError: a reduction in training, or one that merges more tokens than possible.
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
            # The head uses only the class tokens, so the last block computes only them, except for hidden states.
            queries = 2 if i == depth - 1 and not hidden_states else None
            if any(merges):
                tokens, sizes = block.merge(tokens, sizes=sizes, count=merges[i], fixed=2, queries=queries)
            else:
                tokens = self.run_block(block, tokens, queries=queries, generator=generator)
            if hidden_states:
                states.append(tokens)
        features = self.norm(tokens[:, :2]).mean(1)
        logits = self.head(features)
        if windows.shape[-1] < spec.shape[-1]:
            features = features.unflatten(0, (spec.shape[0], -1)).mean(1)
            logits = logits.unflatten(0, (spec.shape[0], -1)).mean(1)
        return PatchOutput(
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
        grid = (self.config.rows, patches_along(spec.shape[-1], self.config.stride))
        positions = self.positions(grid[1], generator=generator)
        patches = None if reduction is None else reduction.select(grid)
        if self.training:
            patches = select_patches(grid, self.config.patchout, generator=generator)
        patches = None if patches is None else onto(patches, spec.device)
        x = self.patch_embed(spec, patches=patches) + positions(patches)
        two = torch.cat([self.cls_token, self.dist_token], 1) + self.class_positions()
        return torch.cat([two.expand(x.shape[0], -1, -1), x], dim=1)

    @classmethod
    def derive_settings(cls, options: Mapping[str, Any], *, mels: int, frames: int) -> dict[str, tuple[Any, str]]:
        """Patchout, if clips have enough patches."""
        columns = patches_along(frames, options.get("stride", cls.config_class.stride))
        return {
            "patchout_t": (0.3 if columns >= 8 else 0.0, f"a clip has {columns} columns of patches"),
            "patchout_f": (0.3 if columns >= 4 else 0.0, "rows of patches"),
        }

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any], *, options: Mapping[str, Any], mels: int, frames: int) -> None:
        """Refuses patchout that drops all patches of a clip."""
        stride = options.get("stride", cls.config_class.stride)

        def left(name: str, total: int, what: str) -> int:
            amount = settings[name] or 0
            try:
                return total - drop_count(whole(amount), total, what=what)
            except ValueError as error:
                raise ValueError(
                    f"{name}={amount:g}: {error}. Use a fraction such as {name}=0.3; {name}=0 drops none"
                ) from None

        columns = left("patchout_t", patches_along(frames, stride), "patch columns")
        rows = left("patchout_f", patches_along(mels, stride), "patch rows")
        left("patchout_u", columns * rows, "patches that these leave")
