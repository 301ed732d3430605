"""DATAR: a pyramid transformer over the log-mel with deformable attention.

Four stages on ever smaller maps (4, 8, 16 and 32 frames and bins to a place); in the last two, blocks of local
windows alternate with blocks of deformable attention. No class token: the mean over the last map goes to a linear head.

Source: Zhu, "Deformable Audio Transformer for Audio Event Detection" (arXiv 2312.16228); layout, where what we know of
it is silent, of DAT-T (Xia et al., CVPR 2022); windows of Liu et al., "Swin Transformer" (arXiv 2103.14030), section
3.2.

**Deviations**
- Maps of any size: a stage repeats its last row or column if the size is odd, windows are padded and the padding is
  masked, so no clip is resized to a fixed length.
- Tokens stay channels-last; stem and merges are linear maps of gathered pixels, the same numbers as convolutions.
- The input adaptor's equation is not known to us, and there is no public code; there are three variants, none of which
  changes an untrained network's output, and a learned position table as a control; none is on by default.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ossicle.errors import WeightsRefused
from ossicle.kernels import Linear, attend, softmax_attention
from ossicle.models.attention import Mlp, check_fraction, drop_path, drop_path_rates
from ossicle.models.base import Layout, Network
from ossicle.models.deformable import DeformableAttention, Offsets, fit_table
from ossicle.models.images import pyramid_kind, pyramid_weights

PATCH = 4  # frames and mel bins to a place of the first map
STAGES = 4
HOP_FRAMES = PATCH * 2 ** (STAGES - 2)  # of a hop of `hop_features`: a place of the third map
Adaptor = Literal["none", "spectrogram", "feature", "bottleneck", "position_table"]


@dataclass(frozen=True, kw_only=True)
class DatarConfig:
    """Configuration of a DATAR network; tuples have one entry for each of the four stages."""

    num_classes: int
    dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    deform: tuple[bool, ...] = (False, False, True, True)  # every second block deforms; else it is a shifted window
    num_groups: tuple[int, ...] = (1, 2, 3, 6)  # of heads that share their sampling points
    kernels: tuple[int, ...] = (9, 7, 5, 3)  # of the offset networks
    key_strides: tuple[int, ...] = (8, 4, 1, 1)  # places from key to key
    window: tuple[int, int] = (8, 8)  # rows and columns of a local window
    segment: int | None = None  # frames whose keys a query attends to; None is all
    offset_range: float | None = 1.0  # maximum offset of a key, in key cells; None is unbounded
    offsets: Offsets = "both"
    position_bias: bool = True  # of the deformable blocks
    adaptor: Adaptor = "none"
    hop_features: bool = False  # keep the time resolution of the third stage in the output
    drop_path: float = 0.0  # fraction of branches skipped in training at the last block, rising from 0 at the first
    mels: int = 128
    frames: int = 1024  # length of the position tables; other lengths are supported

    def __post_init__(self) -> None:
        for name in ("dims", "depths", "num_heads", "deform", "num_groups", "kernels", "key_strides"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != STAGES or name != "deform" and min(values) < 1:
                raise ValueError(f"{name} is {values}; expected one number of at least 1 for each of {STAGES} stages")
        if min(self.num_classes, self.mels, self.frames, *self.window) < 1:
            raise ValueError("num_classes, mels, frames and window are at least 1")
        for name, allowed in (("adaptor", get_args(Adaptor)), ("offsets", get_args(Offsets))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if any(dim % heads for dim, heads in zip(self.dims, self.num_heads, strict=True)):
            raise ValueError(f"num_heads {self.num_heads} do not divide dims {self.dims}")
        check_fraction("drop_path", self.drop_path)
        if self.offset_range is not None and not self.offset_range > 0:
            raise ValueError(f"offset_range is {self.offset_range} key cells; expected more than 0, or None")
        unit = PATCH * 2 ** (STAGES - 1)
        if self.segment is not None and (self.segment < unit or self.segment % unit):
            raise ValueError(f"segment is {self.segment} frames; expected a multiple of {unit}")

    def map_size(self, stage: int) -> tuple[int, int]:
        """Rows and columns of a stage's map at `frames`."""
        scale = PATCH * 2**stage
        return -(-self.mels // scale), -(-self.frames // scale)


class DatarOutput(NamedTuple):
    """Outputs of a pass."""

    logits: Float[Tensor, "clip label"]
    features: Float[Tensor, "clip dim"]  # mean over the last map, before the head
    # Of each hop of 16 frames, before the head, where the network has them: `model.head` turns them into logits.
    hop_features: Float[Tensor, "clip hop dim"] | None
    # (clip, row, column, dim): input of the first block, then the output of each.
    hidden_states: tuple[Float[Tensor, "clip _ _ _"], ...] | None
    # (clip, key_row, key_column, group, 2) of each deformable block: row and column in pixels of its stage's map.
    points: tuple[Float[Tensor, "clip _ _ _ 2"], ...] | None


class TrainableSignal(nn.Module):
    """A learned tensor added to every map, zero at first; interpolated along time for other lengths."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(1, *shape))

    def forward(self, x: Float[Tensor, "clip row time *dim"]) -> Float[Tensor, "clip row time *dim"]:
        return x + stretch(self.theta, x.shape[2])


def stretch(theta: Float[Tensor, "1 row time *dim"], length: int) -> Float[Tensor, "1 row length *dim"]:
    """The tensor interpolated linearly to another length."""
    if not torch.compiler.is_exporting() and theta.shape[2] == length:
        return theta
    line = theta.movedim(2, -1)
    return F.interpolate(line.flatten(1, -2), length, mode="linear").view(*line.shape[:-1], -1).movedim(-1, 2)


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))) at a quarter of the width; `up` is zero at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = Linear(dim, max(1, dim // 4))
        self.up = Linear(max(1, dim // 4), dim)

    def forward(self, x: Float[Tensor, "*place dim"]) -> Float[Tensor, "*place dim"]:
        return x + self.up(F.gelu(self.down(x)))


class WindowAttention(nn.Module):
    """Attention inside windows of a map, with a learned bias of the distance.

    Args:
        window: rows and columns of a window; limited to the size of the map.
        shift: shift the windows by half of one, so that they cross the borders of the unshifted ones.
    """

    def __init__(self, dim: int, num_heads: int, *, window: tuple[int, int], shift: bool) -> None:
        super().__init__()
        self.num_heads, self.window, self.shift = num_heads, window, shift
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        table = torch.empty(num_heads, 2 * window[0] - 1, 2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def forward(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip row column dim"]:
        if torch.compiler.is_exporting():
            return self.exported(x)
        clips, *size, _ = x.shape
        window = (min(self.window[0], size[0]), min(self.window[1], size[1]))
        shift = [w // 2 if self.shift and s > w else 0 for w, s in zip(window, size, strict=True)]
        full = [-(-s // w) * w for w, s in zip(window, size, strict=True)]
        qkv = F.pad(self.qkv(x), (0, 0, 0, full[1] - size[1], 0, full[0] - size[0]))
        if any(shift):
            qkv = qkv.roll([-s for s in shift], dims=(1, 2))
        qkv = to_windows(qkv, window).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None
        if any(shift) or full != size:
            mask = window_mask(size, full=full, window=window, shift=shift, device=x.device)
        bias = WindowBias(window, mask=mask, rows=qkv.shape[1])
        y = attend(*qkv, bias=bias, inputs=(self.relative_position_bias_table,))
        y = from_windows(y.transpose(1, 2).flatten(2), window, full=full)
        if any(shift):
            y = y.roll(shift, dims=(1, 2))
        return self.proj(y[:, : size[0], : size[1]])

    def exported(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip row column dim"]:
        """As `forward`, for a symbolic number of columns.

        No operation depends on the number: there is always a mask, windows are padded to full width, and the shift is
        zero if one window covers all columns. Shifts are whole positions.
        """
        clips, *size, _ = x.shape
        window = (min(self.window[0], size[0]), self.window[1])
        shift = [
            w // 2 * torch.sym_min(s // (w + 1), 1) if self.shift else 0 for w, s in zip(window, size, strict=True)
        ]
        full = [(s + w - 1) // w * w for w, s in zip(window, size, strict=True)]
        moved = [axis for axis, s in enumerate(size) if not isinstance(s, int) or shift[axis] or full[axis] != s]
        for axis in moved:
            place = wrapped(torch.arange(full[axis], device=x.device) + shift[axis], full[axis])
            x = x.index_select(axis + 1, place.clamp(max=size[axis] - 1))
        q, k, v = to_windows(self.qkv(x), window).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = window_mask(size, full=full, window=window, shift=shift, device=x.device)
        (bias,) = WindowBias(window, mask=None, rows=1).prepare(self.relative_position_bias_table)
        apart = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
        q, k, v = (t.unflatten(0, (clips, -1)) for t in (q, k, v))
        y = softmax_attention(q, k, v, bias=bias.flatten(2).mT + apart[:, None]).flatten(0, 1)
        y = from_windows(y.transpose(1, 2).flatten(2), window, full=full)
        for axis in moved:
            place = torch.arange(size[axis], device=x.device) + full[axis] - shift[axis]
            y = y.index_select(axis + 1, wrapped(place, full[axis]))
        return self.proj(y)


def to_windows(x: Float[Tensor, "clip row column dim"], window: tuple[int, int]) -> Float[Tensor, "window place dim"]:
    """Windows clip by clip, row by row."""
    parts = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
    return parts.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def from_windows(
    x: Float[Tensor, "window place dim"], window: tuple[int, int], *, full: list[int]
) -> Float[Tensor, "clip row column dim"]:
    """The inverse of `to_windows` on a map of the size `full`."""
    grid = (-1, full[0] // window[0], full[1] // window[1])
    parts = x.unflatten(1, (window[0], window[1])).unflatten(0, grid)
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def window_mask(
    size: list[int], *, full: list[int], window: tuple[int, int], shift: list[int], device: torch.device
) -> Bool[Tensor, "window place place"]:
    """Which positions of a window attend to each other: not across the wrapped border, and no padding."""
    rows, columns = (regions(*sides, device=device) for sides in zip(size, full, shift, strict=True))
    region = 4 * rows[:, None] + columns
    region = to_windows(region[None, :, :, None].float(), window)[..., 0]
    return region[:, :, None] == region[:, None]


def regions(size: int, full: int, shift: int, *, device: torch.device) -> Int[Tensor, "full"]:
    """A number for each position along a side: whether it was wrapped by the shift, and whether it is padding."""
    place = torch.arange(full, device=device) + shift
    return (place >= full).int() + 2 * (wrapped(place, full) >= size).int()


def wrapped(place: Int[Tensor, "_"], length: int) -> Int[Tensor, "_"]:
    """Places below twice the length, those beyond it from the start again: a remainder that every runtime takes."""
    return torch.where(place < length, place, place - length)


class WindowBias:
    """The bias of the places of a window, and the mask of each window of a clip."""

    def __init__(self, size: tuple[int, int], *, mask: Bool[Tensor, "window place place"] | None, rows: int) -> None:
        self.size, self.rows = size, rows
        self.mask = None if mask is None else torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)

    def prepare(self, table: Float[Tensor, "head y x"]) -> tuple[Float[Tensor, "head key line place"]]:
        """The table read at every difference of two places."""
        row, column = (
            (torch.arange(w, device=table.device) - torch.arange(w, device=table.device)[:, None] + length // 2)
            for w, length in zip(self.size, table.shape[1:], strict=True)
        )  # (key, query) along each axis
        read = table[:, row[:, None, :, None], column[None, :, None]]  # (head, row, column, row, column)
        return (read.flatten(1, 2),)

    def tile(
        self, rows: slice, lines: slice, bias: Float[Tensor, "head key line place"]
    ) -> Float[Tensor, "tile_row head key tile_line place"]:
        if self.mask is None:
            return bias[None, :, :, lines].clone()
        windows = torch.arange(*rows.indices(self.rows), device=bias.device) % len(self.mask)
        return (bias + self.mask[windows, None].unflatten(3, self.size))[:, :, :, lines]

    def whole(self, table: Float[Tensor, "head y x"], *, again: bool = False) -> Float[Tensor, "#row head query key"]:
        return self.tile(slice(None), slice(None), *self.prepare(table)).flatten(3).mT


class PyramidBlock(nn.Module):
    """x + attention(adapted(norm(x))), then x + mlp(norm(x)), on a map."""

    def __init__(self, dim: int, attn: WindowAttention | DeformableAttention, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.norm1 = nn.LayerNorm(dim)
        self.adaptor: nn.Module = nn.Identity()
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = drop_path

    def forward(
        self, x: Float[Tensor, "clip row column dim"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "clip row column dim"]:
        x = x + self.drop_branch(self.attn(self.attended(x)), generator)
        return x + self.drop_branch(self.mlp(self.norm2(x)), generator)

    def attended(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip row column dim"]:
        """The input of the attention."""
        return self.adaptor(self.norm1(x))

    def drop_branch(self, branch: Float[Tensor, "clip row column dim"], generator: torch.Generator | None) -> Tensor:
        """Drops whole branches (stochastic depth, by clip) while training; the mean is kept."""
        if not (self.training and self.drop_path):
            return branch
        return drop_path(branch, rate=self.drop_path, generator=generator)


class Merge(nn.Module):
    """Squares of places become one: a convolution whose stride is its kernel, then a norm."""

    def __init__(self, dim: int, out_dim: int, *, side: int, bias: bool) -> None:
        super().__init__()
        self.side = side
        self.proj = Linear(side**2 * dim, out_dim, bias=bias)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip row_out column_out out_dim"]:
        for axis in (1, 2):
            x = filled(x, axis, side=self.side)
        rows, columns = (size // self.side for size in x.shape[1:3])
        squares = x.unflatten(2, (columns, self.side)).unflatten(1, (rows, self.side)).transpose(2, 3)
        return self.norm(self.proj(squares.flatten(3)))


def filled(x: Float[Tensor, "clip row column dim"], axis: int, *, side: int) -> Float[Tensor, "clip _ _ dim"]:
    """The map with its last row or column repeated until `side` divides."""
    size = x.shape[axis]
    if torch.compiler.is_exporting() and not isinstance(size, int):
        place = torch.arange((size + side - 1) // side * side, device=x.device)
        return x.index_select(axis, place.clamp(max=size - 1))
    if missing := -size % side:
        x = torch.cat([x, *[x.narrow(axis, size - 1, 1)] * missing], axis)
    return x


class Stage(nn.Module):
    """One level of the pyramid: a merge, then blocks; every second one deforms or has its windows shifted."""

    def __init__(self, config: DatarConfig, stage: int) -> None:
        super().__init__()
        dim, heads, size = config.dims[stage], config.num_heads[stage], config.map_size(stage)
        self.merge = (
            Merge(1, dim, side=PATCH, bias=True)
            if stage == 0
            else Merge(config.dims[stage - 1], dim, side=2, bias=False)
        )
        first, rates = sum(config.depths[:stage]), drop_path_rates(config.drop_path, sum(config.depths))

        def attention(number: int) -> WindowAttention | DeformableAttention:
            if number % 2 == 0 or not config.deform[stage]:
                window = (min(config.window[0], size[0]), config.window[1])
                return WindowAttention(dim, heads, window=window, shift=number % 2 == 1)
            segment = None if config.segment is None else config.segment // (PATCH * 2**stage)
            table = (size[0], size[1] if segment is None else min(segment, size[1]))
            return DeformableAttention(
                dim,
                heads,
                num_groups=config.num_groups[stage],
                table=table if config.position_bias else None,
                kernel=config.kernels[stage],
                stride=config.key_strides[stage],
                offset_range=config.offset_range,
                offsets=config.offsets,
                segment=segment,
            )

        self.blocks = nn.ModuleList(
            PyramidBlock(dim, attention(number), drop_path=rates[first + number])
            for number in range(config.depths[stage])
        )
        for block in self.deforming():
            if config.adaptor == "feature":
                block.adaptor = TrainableSignal(*size, dim)
            elif config.adaptor == "bottleneck":
                block.adaptor = Bottleneck(dim)

    def deforming(self) -> list[PyramidBlock]:
        """The blocks with deformable attention."""
        blocks = cast("Iterable[PyramidBlock]", self.blocks)
        return [block for block in blocks if isinstance(block.attn, DeformableAttention)]


class Datar(Network):
    """The network: log-mel in, one logit per label out."""

    config_class = DatarConfig
    train_settings = ("drop_path",)

    def __init__(self, config: DatarConfig, *, frontend: str = "kaldi_fbank") -> None:
        super().__init__(config, frontend=frontend)
        dim = config.dims[-1]
        self.spectrogram_adaptor: nn.Module = nn.Identity()
        if config.adaptor == "spectrogram":
            self.spectrogram_adaptor = TrainableSignal(config.mels, config.frames)
        self.position_table: nn.Module = nn.Identity()
        if config.adaptor == "position_table":
            self.position_table = TrainableSignal(*config.map_size(0), config.dims[0])
        self.stages = nn.ModuleList(Stage(config, stage) for stage in range(STAGES))
        self.lateral = Linear(config.dims[-2], dim) if config.hop_features else None
        self.norm = nn.LayerNorm(dim)
        self.head = Linear(dim, config.num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights: truncated normal of deviation 0.02, zero biases; offset networks as torch makes them."""
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.up.weight)

    @property
    def min_frames(self) -> int:
        """Shortest input: one place of the first map."""
        return PATCH

    @property
    def hop_frames(self) -> int | None:
        """A position of the third map, if its time resolution is kept."""
        return HOP_FRAMES if self.config.hop_features else None

    def export_frames(self, longest: int) -> int:
        """One segment, if there are segments, as a graph has no loop over them."""
        return longest if self.config.segment is None else min(longest, self.config.segment)

    @property
    def read_stage(self) -> int:
        """The stage whose blocks an encoder reads: the one with the most, the deepest of several."""
        return max(range(STAGES), key=lambda number: (self.config.depths[number], number))

    @property
    def layout(self) -> Layout:
        """The blocks of one stage, since stages differ in width: a time is a column of its map."""
        stage = self.read_stage
        return Layout(
            num_layers=self.config.depths[stage],
            dim=self.config.dims[stage],
            description=f"blocks of stage {stage + 1}, mean over frequency",
        )

    def stack(self, layers: int | None = None) -> list[nn.Module]:
        """All stages before the one that is read; those after it only for all blocks."""
        stages = [list(cast("Iterable[nn.Module]", stage.blocks)) for stage in self.stages]
        if layers is not None:
            stages = [*stages[: self.read_stage], stages[self.read_stage][:layers]]
        return [block for blocks in stages for block in blocks]

    def layer_frames(self, window: int) -> int:
        """The length of its position tables."""
        return self.config.frames

    def layer_times(self, frames: int) -> int:
        """Columns of the map of the stage that is read."""
        column = PATCH * 2**self.read_stage
        return (frames + column - 1) // column  # not -(-x // y): ONNX divides toward zero

    def layer_states(self, spec: Float[Tensor, "clip mel frame"], layers: int) -> Float[Tensor, "clip layer time dim"]:
        """The outputs of the blocks of that stage, averaged over frequency; no later block runs."""
        x, last = self.spectrogram_adaptor(self.check(spec)).unsqueeze(-1), self.read_stage
        states: list[Tensor] = []
        for number, stage in enumerate(cast("list[Stage]", list(self.stages)[: last + 1])):
            x = stage.merge(x)
            if number == 0:
                x = self.position_table(x)
            for block in list(cast("Iterable[PyramidBlock]", stage.blocks))[: layers if number == last else None]:
                x = block(x)  # (clip, row, column, dim)
                if number == last:
                    states.append(x.mean(1))
        return torch.stack(states, dim=1)

    def forward_features(
        self,
        spec: Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"],
        *,
        generator: torch.Generator | None = None,
        hidden_states: bool = False,
        points: bool = False,
    ) -> DatarOutput:
        """As `forward`, with the features, and optionally the hidden states and the sampling points."""
        x = self.spectrogram_adaptor(self.check(spec)).unsqueeze(-1)
        maps, states, sampled = [], [], []
        for number, stage in enumerate(cast("Iterable[Stage]", self.stages)):
            x = stage.merge(x)
            if number == 0:
                x = self.position_table(x)
                states.append(x)
            for block in cast("Iterable[PyramidBlock]", stage.blocks):
                if points and isinstance(block.attn, DeformableAttention):
                    sampled.append(block.attn.points(block.attended(x)))
                x = self.run_block(block, x, generator=generator)
                if hidden_states:
                    states.append(x)
            maps.append(x)
        hops = None
        if self.lateral is None:
            features = self.norm(x).mean((1, 2))
        else:
            hops = self.norm(self.hops(maps[-2], maps[-1]))
            features = hops.mean(1)
        return DatarOutput(
            self.head(features),
            features,
            hops,
            tuple(states) if hidden_states else None,
            tuple(sampled) if points else None,
        )

    def hops(
        self, fine: Float[Tensor, "clip _ hop _"], coarse: Float[Tensor, "clip _ _ dim"]
    ) -> Float[Tensor, "clip hop dim"]:
        """Features of each column of the finer of the last two maps."""
        assert self.lateral is not None
        line = coarse.mean(1).index_select(1, torch.arange(fine.shape[2], device=fine.device) // 2)
        return line + self.lateral(fine.mean(1))

    def deformable_layers(self) -> list[tuple[int, DeformableAttention]]:
        """The deformable layers in the order of `DatarOutput.points`, each with the mel bins and frames to a pixel."""
        stages = enumerate(cast("Iterable[Stage]", self.stages))
        return [
            (PATCH * 2**number, cast("DeformableAttention", block.attn))
            for number, stage in stages
            for block in stage.deforming()
        ]

    @classmethod
    def recognize(cls, tensors: Mapping[str, Tensor], *, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The labels of a DATAR of ours; its other options are those of the architecture that was named."""
        head = tensors.get("head.weight")
        if "stages.0.merge.proj.weight" not in tensors or head is None or head.ndim != 2:
            return None
        if not settings:
            raise WeightsRefused("the weights of a Datar, whose options are not all in the shapes; name its model")
        return {"num_classes": head.shape[0]}

    @classmethod
    def image_network(cls, tensors: Mapping[str, Tensor]) -> str | None:
        """DAT or Swin."""
        return pyramid_kind(tensors)

    def adapted(
        self,
        tensors: Mapping[str, Tensor],
        *,
        source: str | Path,
        new_head: bool = True,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> dict[str, Tensor]:
        """The tensors of a DATAR of another length or with other labels, or of an image pyramid, DAT or Swin.

        Bias tables are cropped or padded by their border, and learned signals interpolated; the head is the new one.
        """
        if kind := pyramid_kind(tensors):
            try:
                adapted, told = pyramid_weights(tensors, own=self.state_dict())
            except WeightsRefused as error:
                raise WeightsRefused(f"{source}: {error}") from None
            report(f"{source}: weights of {kind}, a network of images. {'; '.join(told).capitalize()}.")
            return adapted
        adapted = super().adapted(tensors, source=source, new_head=new_head)
        for name, own in self.state_dict().items():
            given = adapted.get(name)
            if given is None or given.shape == own.shape or given.ndim != own.ndim:
                continue
            if given.shape[:2] + given.shape[3:] != own.shape[:2] + own.shape[3:]:
                continue  # another length differs along time alone
            if name.endswith("relative_position_bias_table"):
                adapted[name] = fit_table(given, (own.shape[1] + 1) // 2, (own.shape[2] + 1) // 2)
            elif name.endswith("theta"):
                adapted[name] = stretch(given, own.shape[2])
        return adapted
