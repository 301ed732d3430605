"""PaSST: a transformer over spectrogram patches that drops patches while training.

Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout" (arXiv 2110.05069), section 2; tensor
names and numbers as in the published checkpoints (github.com/kkoutini/PaSST, models/passt.py).

**Deviations**
- Patches are gathered before they are embedded, so a dropped patch costs nothing; the reference convolves first.
  The numbers are the same.
- Attention is `scaled_dot_product_attention`, in bfloat16 on a CPU `tiled_attention`; the reference forms the matrix.
- An input longer than the time positions is split into windows whose logits are averaged, or optionally processed
  in one pass with interpolated positions; the reference cuts it (and reads its length too early, so patchout fails).
- At stride 20 the time table has all 50 columns of 10 s; the reference has 49 and cuts one.
- Every random number comes from the generator that the caller passes, where one is passed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ossicle.errors import WeightsRefused
from ossicle.kernels import Linear
from ossicle.models.attention import Block, check_fraction, drop_path_rates
from ossicle.models.base import Layout, Network
from ossicle.models.tokens import PATCHOUT, Patchout, TokenReduction, drop_count, select_patches, whole

PATCH = 16  # mel bins and frames on a side of a patch
# Of published networks; not stored in checkpoints.
STRIDES = (10, 12, 14, 16, 20)
LENGTHS = (998, 2000, 3000, 3200)
HEAD_DIM = 64


@dataclass(frozen=True, kw_only=True)
class PasstConfig:
    """Configuration of a PaSST network."""

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

    def __post_init__(self) -> None:
        if min(self.num_classes, self.dim, self.num_heads, self.depth, self.stride) < 1:
            raise ValueError("num_classes, dim, num_heads, depth and stride are at least 1")
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if min(self.mels, self.frames) < PATCH:
            raise ValueError(f"mels {self.mels} and frames {self.frames} are at least the patch size {PATCH}")
        check_fraction("dropout", self.dropout)
        check_fraction("drop_path", self.drop_path)

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


class Passt(Network):
    """The network: log-mel in, one logit per label out."""

    config_class = PasstConfig
    train_settings = ("depth", "drop_path", *PATCHOUT)
    reduces_tokens = True

    def __init__(self, config: PasstConfig, *, frontend: str = "passt") -> None:
        super().__init__(config, frontend=frontend)
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
    ) -> PasstOutput:
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
        time = self.time_new_pos_embed[0, :, 0]  # (dim, column)
        if columns > config.columns:
            time = F.interpolate(time[None], columns, mode="linear")[0]
        elif self.training and columns < config.columns:
            offset = torch.randint(config.columns - columns + 1, (), generator=generator)
            time = time.index_select(1, (offset + torch.arange(columns)).to(spec.device))
        else:
            time = time[:, :columns]
        time = time.T  # (column, dim)
        freq = self.freq_new_pos_embed[0, :, :, 0].T  # (row, dim)
        patches = None if reduction is None else reduction.select((rows, columns))
        if self.training:
            patches = select_patches((rows, columns), config.patchout, generator=generator)
        patches = None if patches is None else patches.to(spec.device)
        if patches is None:
            position = (freq[:, None] + time).flatten(0, 1)
        else:
            position = freq.index_select(0, patches // columns) + time.index_select(0, patches % columns)
        x = self.patch_embed(spec, patches=patches) + position
        two = torch.cat([self.cls_token, self.dist_token], 1) + self.new_pos_embed
        return torch.cat([two.expand(x.shape[0], -1, -1), x], dim=1)

    @classmethod
    def derive_settings(cls, options: Mapping[str, Any], *, mels: int, frames: int) -> dict[str, tuple[Any, str]]:
        """Patchout, if clips have enough patches."""
        columns = patches_along(frames, options.get("stride", PasstConfig.stride))
        return {
            "patchout_t": (0.3 if columns >= 8 else 0.0, f"a clip has {columns} columns of patches"),
            "patchout_f": (0.3 if columns >= 4 else 0.0, "rows of patches"),
        }

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any], *, options: Mapping[str, Any], mels: int, frames: int) -> None:
        """Refuses patchout that drops all patches of a clip."""
        stride = options.get("stride", PasstConfig.stride)

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

    @classmethod
    def options_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Length and depth of a PaSST's weights; nothing of an image transformer's."""
        if "time_new_pos_embed" not in tensors:
            return {}
        config = infer_config(tensors)
        return {"frames": config.frames, "depth": config.depth}

    @classmethod
    def lengthened(cls, tensors: Mapping[str, Tensor], *, frames: int) -> Mapping[str, Tensor]:
        """The time positions of a PaSST stretched to longer inputs, linearly, as `interpolate_positions` does."""
        if (table := tensors.get("time_new_pos_embed")) is None:
            return tensors
        config = infer_config(tensors)
        columns = patches_along(frames, config.stride)
        if columns <= config.columns:
            return tensors
        return {**tensors, "time_new_pos_embed": F.interpolate(table[:, :, 0], columns, mode="linear")[:, :, None]}

    def explain_misfit(self, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
        """Position tables of other sizes mean another stride or length."""
        tables = [shapes[name] for name in ("freq_new_pos_embed", "time_new_pos_embed") if name in shapes]
        if len(tables) < 2 or all(found == wanted for found, wanted in tables):
            return []
        (freq, own_freq), (time, own_time) = tables
        return [
            f"the file has {freq[2]} x {time[3]} positions (frequency x time), expected {own_freq[2]} x "
            f"{own_time[3]}; use the stride and length of the weights"
        ]

    def adapted(self, tensors: Mapping[str, Tensor], *, source: str | Path) -> dict[str, Tensor]:
        """The tensors of a PaSST, or of the image transformer DeiT, for this network.

        A color kernel is converted to mono, and positions of an image to ours; a head for other labels is replaced by
        the new one.

        Source: section 3.2 of the paper, and models/passt.py of the reference code.
        """
        adapted = dict(tensors)
        kernel = adapted.get("patch_embed.proj.weight")
        if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
            adapted["patch_embed.proj.weight"] = mono_kernel(kernel)
        if "pos_embed" in adapted:
            grid = (self.config.rows, self.config.columns)
            adapted |= positions_from_image(adapted.pop("pos_embed"), grid=grid, source=source)
        own = self.state_dict()
        head = adapted.get("head.1.weight")
        if head is None or head.shape != own["head.1.weight"].shape:
            new = ("head.1.", "head_dist.") if "head.0.weight" in adapted else ("head.", "head_dist.")
            adapted = {name: tensor for name, tensor in adapted.items() if not name.startswith(new)}
            adapted |= {name: tensor.clone() for name, tensor in own.items() if name.startswith(new)}
        return adapted


# --- weights of others ------------------------------------------------------------------------------------------------


def infer_config(tensors: Mapping[str, Tensor], *, num_heads: int | None = None) -> PasstConfig:
    """Reads width, depth, stride, length and labels from the shapes of a PaSST checkpoint.

    Args:
        num_heads: not determined by shapes; by default heads of width 64, as in every published network.

    Raises:
        WeightsRefused: not the tensors of a PaSST, or position tables that fit no stride.
    """
    try:
        rows = tensors["freq_new_pos_embed"].shape[2]
        columns = tensors["time_new_pos_embed"].shape[3]
        dim = tensors["cls_token"].shape[2]
        num_classes = tensors["head.1.bias"].shape[0]
    except (KeyError, IndexError) as error:
        raise WeightsRefused(f"these are not the tensors of a PaSST: {error} is missing or of another rank") from error
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    for stride in STRIDES:
        for frames in (*LENGTHS, columns * stride):
            config = PasstConfig(
                num_classes=num_classes,
                dim=dim,
                num_heads=num_heads or max(1, dim // HEAD_DIM),
                depth=depth,
                stride=stride,
                frames=max(frames, 16),
            )
            if (config.rows, config.columns) == (rows, columns):
                return config
    raise WeightsRefused(
        f"no stride of {', '.join(map(str, STRIDES))} gives {rows} x {columns} positions (frequency x time)"
    )


def mono_kernel(kernel: Float[Tensor, "dim 3 height width"]) -> Float[Tensor, "dim 1 height width"]:
    """A color patch kernel for spectrograms: the sum over colors, as for a gray image."""
    return kernel.sum(dim=1, keepdim=True)


def positions_from_image(
    pos_embed: Float[Tensor, "1 token dim"], *, grid: tuple[int, int], source: str | Path = "the checkpoint"
) -> dict[str, Tensor]:
    """Splits an image's position table (two class tokens, then a square) into ours for time and for frequency.

    The square is resized bicubically to (rows, columns); each of our tables is its mean over the other axis.
    """
    tokens, patches = pos_embed[:, :2], pos_embed[:, 2:]
    side = round(patches.shape[1] ** 0.5)
    if side < 1 or side**2 != patches.shape[1]:
        raise WeightsRefused(
            f"{source}: pos_embed has {pos_embed.shape[1]} positions; two class tokens and a square are needed"
        )
    square = patches.mT.unflatten(2, (side, side))  # (1, dim, row, column)
    stretched = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return {
        "new_pos_embed": tokens.clone(),
        "freq_new_pos_embed": stretched.mean(dim=3, keepdim=True),
        "time_new_pos_embed": stretched.mean(dim=2, keepdim=True),
    }
