"""Deformable multi-head attention: few keys, at positions that depend on the data.

A small network computes offsets of a grid of reference points from the queries; keys and values are sampled bilinearly
from the map there. Points belong to a group of heads and not to a query, so a layer costs queries times keys, and the
stride determines the number of keys.

Source: Xia et al., "Vision Transformer with Deformable Attention" (CVPR 2022), section 3.2, on maps of a spectrogram as
in Zhu, "Deformable Audio Transformer for Audio Event Detection" (arXiv 2312.16228).

**Deviations** from the published code of the first:
- Positions are pixels: a reference point is the center of its cell, and points outside the map are clamped to its
  border. The published grid is shrunk by half a pixel at either end, which is a lot on maps of four rows; a layer
  without offsets and with stride 1 is ordinary attention here.
- Maps have any height and width, down to one row; beyond its table a position bias is that of the table's border.
- The map can be split in time: a query then attends to the keys of its segment, whose points may cross the border.
- Positions are float32 under any autocast: in bfloat16, points on a map of 256 columns would be half a pixel apart.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ossicle.draws import onto
from ossicle.kernels import (
    Linear,
    at_least_float32,
    attend,
    autocasts,
    by_hand,
    gradients_of,
    softmax_attention,
)
from ossicle.kernels.operators import bag_weight_gradient, grid_gradients

Offsets = Literal["both", "time", "none"]
MAX_STRIPS = 2**20  # numbers in the lines of a bias table that are laid out for reading


class OffsetNetwork(nn.Module):
    """Unbounded offsets of the reference points, in key cells, from the queries of one group."""

    def __init__(self, dim: int, *, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, kernel, stride, kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pointwise = nn.Linear(dim, 2, bias=False)

    def forward(self, q: Float[Tensor, "map row column dim"]) -> Float[Tensor, "map key_row key_column 2"]:
        x, depthwise = q.permute(0, 3, 1, 2), self.depthwise
        if torch.compiler.is_exporting():
            # torch chooses a kernel by the input size; padding beforehand makes the size known.
            filled = F.pad(x, [side for size in reversed(depthwise.kernel_size) for side in (size // 2, size // 2)])
            h = F.conv2d(filled, depthwise.weight, depthwise.bias, depthwise.stride, groups=depthwise.groups)
        else:
            h = depthwise(x)
        h = h.permute(0, 2, 3, 1)
        return self.pointwise(F.gelu(self.norm(h)))


class DeformableAttention(nn.Module):
    """Attention of every place of a map to keys at moved points.

    Args:
        num_groups: of heads and channels that share their points.
        table: rows and columns of the map of the position bias; None is without bias.
        kernel: of the offset network, odd.
        stride: places from key to key, along rows and columns.
        offset_range: maximum offset, in key cells; None is unbounded.
        offsets: "time" moves along columns alone, "none" keeps the reference points.
        segment: columns of a segment, a multiple of the stride; None makes one of the whole map.

    Raises:
        ValueError: numbers that do not divide, or an even kernel.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        num_groups: int,
        table: tuple[int, int] | None,
        kernel: int = 5,
        stride: int | tuple[int, int] = 1,
        offset_range: float | None = 1.0,
        offsets: Offsets = "both",
        segment: int | None = None,
    ) -> None:
        super().__init__()
        stride = (stride, stride) if isinstance(stride, int) else stride
        if dim % num_heads or num_heads % num_groups:
            raise ValueError(f"dim {dim}, num_heads {num_heads} and num_groups {num_groups} do not divide")
        if kernel % 2 == 0:
            raise ValueError(f"the kernel of the offset network is {kernel}; expected an odd number")
        if segment is not None and segment % stride[1]:
            raise ValueError(f"a segment of {segment} columns is not a multiple of the stride {stride[1]}")
        self.num_heads, self.num_groups = num_heads, num_groups
        self.stride, self.offset_range, self.offsets, self.segment = stride, offset_range, offsets, segment
        self.q_proj = Linear(dim, dim)
        self.kv_proj = Linear(dim, 2 * dim)
        self.out_proj = Linear(dim, dim)
        self.offset = None if offsets == "none" else OffsetNetwork(dim // num_groups, kernel=kernel, stride=stride)
        self.relative_position_bias_table: nn.Parameter | None = None
        if table is not None:
            rows, columns = table
            values = torch.empty(num_heads, 2 * rows - 1, 2 * columns - 1)
            self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(values, std=0.01))

    def forward(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip row column dim"]:
        q = self.q_proj(x)
        points = self.move(q)
        k, v = self.kv_proj(sample(x, points)).chunk(2, dim=-1)
        y = [self.within(run, q, k, v, points) for run in runs(q.shape[2], self.segment, self.stride[1])]
        return self.out_proj(torch.cat(y, dim=2) if len(y) > 1 else y[0])

    def points(self, x: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip key_row key_column group 2"]:
        """Where the keys of each group are read: row and column, in pixels of the map."""
        return self.move(self.q_proj(x))

    def move(self, q: Float[Tensor, "clip row column dim"]) -> Float[Tensor, "clip key_row key_column group 2"]:
        """The sampling points for the queries."""
        clips, rows, columns, _ = q.shape
        centers, cells = reference(rows, columns, stride=self.stride, segment=self.segment, like=at_least_float32(q))
        points = centers[None, :, :, None].expand(clips, -1, -1, self.num_groups, -1)
        if self.offset is not None:
            # Without autocast: bfloat16 is too coarse for positions.
            with torch.autocast(q.device.type, enabled=False) if autocasts(q) else nullcontext():
                grouped = (
                    q.to(self.offset.pointwise.weight.dtype)
                    .unflatten(3, (self.num_groups, -1))
                    .permute(0, 3, 1, 2, 4)
                    .flatten(0, 1)
                )
                if self.stride == (1, 1) and by_hand() and not torch.compiler.is_exporting():
                    # With a key at every position, the intermediate result is cheap, and four times as large as q.
                    moves = checkpoint(self.offset, grouped, use_reentrant=False, preserve_rng_state=False)
                else:
                    moves = self.offset(grouped)
                moves = at_least_float32(moves).unflatten(0, (clips, -1)).movedim(1, 3)
            if self.offset_range is not None:
                moves = self.offset_range * moves.tanh()
            if self.offsets == "time":
                moves = moves * numbers(moves, 0, 1)
            points = points + moves * cells[:, :, None]
        last = numbers(points, rows - 1, columns - 1)
        return points.clamp(min=torch.zeros_like(last), max=last)

    def within(
        self,
        run: "Run",
        q: Float[Tensor, "clip row column dim"],
        k: Float[Tensor, "clip key_row key_column dim"],
        v: Float[Tensor, "clip key_row key_column dim"],
        points: Float[Tensor, "clip key_row key_column group 2"],
    ) -> Float[Tensor, "clip row run_column dim"]:
        """Attention inside each of some segments of one width."""
        clips, rows, _, dim = q.shape
        groups, heads = self.num_groups, self.num_heads // self.num_groups
        q = split_run(q, run.start, count=run.count, width=run.width)  # (clip * segment, row, column, dim)
        k, v, points = (
            split_run(t, run.key_start, count=run.count, width=run.key_width).flatten(1, 2)
            for t in (k, v, points.flatten(3))
        )
        k, v = (t.unflatten(2, (groups, heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1) for t in (k, v))
        starts = run.start + run.width * torch.arange(run.count, device=q.device).repeat(clips)
        inside = points.unflatten(2, (groups, 2)).transpose(1, 2).flatten(0, 1)  # (clip * segment * group, key, 2)
        inside = torch.stack([inside[..., 0], inside[..., 1] - starts.repeat_interleave(groups)[:, None]], -1)

        # The bias is computed in lines along one side of the map; along the long side they may exceed the memory limit.
        table: Tensor | None = self.relative_position_bias_table
        size, margin = (rows, run.width), (0, self.margin())
        swap = not torch.compiler.is_exporting() and (
            self.num_heads * (2 * rows - 1) * run.width**2 > MAX_STRIPS and rows < run.width
        )
        if swap:
            q, inside, size, margin = q.transpose(1, 2), inside.flip(-1), size[::-1], margin[::-1]
            table = None if table is None else table.mT
        q = q.unflatten(3, (groups, heads, -1)).permute(0, 3, 4, 1, 2, 5).flatten(3, 4).flatten(0, 1)
        if table is None:
            y = softmax_attention(q, k, v)
        else:
            y = attend(q, k, v, bias=PositionBias(size, margin=margin, num_groups=groups), inputs=(inside, table))
        y = y.unflatten(0, (clips, run.count, groups)).unflatten(4, size)
        # (clip, segment, group, head, line, place, dim)
        y = y.permute(0, 5, 1, 4, 2, 3, 6) if swap else y.permute(0, 4, 1, 5, 2, 3, 6)
        return y.reshape(clips, rows, run.count * run.width, dim)

    def margin(self) -> int:
        """Columns beyond a segment that its points can reach before the bias is that of the table's border."""
        table = self.relative_position_bias_table
        if self.segment is None or table is None or torch.compiler.is_exporting():
            return 0
        reach = table.shape[2] // 2
        return reach if self.offset_range is None else min(math.ceil(self.offset_range * self.stride[1]), reach)


@dataclass(frozen=True)
class Run:
    """Segments of one width, side by side: all of a map's, or the shorter one at its end."""

    start: int  # first column
    count: int  # segments
    width: int  # columns of each
    key_start: int
    key_width: int  # columns of keys of each


def runs(columns: int, segment: int | None, stride: int) -> list[Run]:
    """The segments of a map, from left to right."""
    # A graph has no loop over segments: it takes maps of one at most.
    full = 0 if segment is None or torch.compiler.is_exporting() else columns // segment
    found = [Run(0, full, segment, 0, segment // stride)] if segment is not None and full else []
    start = full * segment if segment is not None else 0
    if start < columns:
        found.append(Run(start, 1, columns - start, start // stride, (columns - start - 1) // stride + 1))
    return found


def split_run(
    x: Float[Tensor, "clip row column dim"], start: int, *, count: int, width: int
) -> Float[Tensor, "clip_segment row width dim"]:
    """The segments of a run as maps of their own."""
    return x[:, :, start : start + count * width].unflatten(2, (count, width)).transpose(1, 2).flatten(0, 1)


def reference(
    rows: int, columns: int, *, stride: tuple[int, int], segment: int | None = None, like: Tensor
) -> tuple[Float[Tensor, "key_row key_column 2"], Float[Tensor, "key_row key_column 2"]]:
    """Centers of the key cells and their sizes, in pixels, of the type of `like`; a segment's cells cover it evenly."""
    y, height = key_cells(runs(rows, None, stride[0]), like=like)
    x, width = key_cells(runs(columns, segment, stride[1]), like=like)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), -1), torch.stack(
        torch.meshgrid(height, width, indexing="ij"), -1
    )


def key_cells(found: list[Run], *, like: Tensor) -> tuple[Float[Tensor, "key"], Float[Tensor, "key"]]:
    """Centers and sizes along one side."""
    centers, sizes = [], []
    for run in found:
        number = run.count * run.key_width
        size = run.width / run.key_width
        centers.append(run.start + (torch.arange(number, dtype=like.dtype, device=like.device) + 0.5) * size - 0.5)
        sizes.append(like.new_full((number,), size))
    return torch.cat(centers), torch.cat(sizes)


def sample(
    x: Float[Tensor, "clip row column dim"], points: Float[Tensor, "clip key_row key_column group 2"]
) -> Float[Tensor, "clip key_row key_column dim"]:
    """Samples the map bilinearly at points in pixels, each group of channels at its own points."""
    clips, rows, columns, _ = x.shape
    groups = points.shape[3]
    maps = at_least_float32(x).unflatten(3, (groups, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)
    last = numbers(points, torch.sym_max(columns - 1, 1), torch.sym_max(rows - 1, 1))
    grid = 2 * points.movedim(3, 1).flatten(0, 1).flip(-1) / last - 1
    read = sample_grid(maps, grid)  # (clip * group, dim / group, key_row, key_column)
    return read.unflatten(0, (clips, groups)).permute(0, 3, 4, 1, 2).flatten(3).to(x.dtype).contiguous()


def sample_grid(
    maps: Float[Tensor, "map dim row column"], grid: Float[Tensor, "map key_row key_column 2"]
) -> Float[Tensor, "map dim key_row key_column"]:
    """`grid_sample` between corners, whose own gradient cannot be differentiated again."""
    if torch.compiler.is_compiling() or maps.device.type != "cpu":
        return F.grid_sample(maps, grid, align_corners=True)
    return GridSample.apply(maps, grid) if by_hand() else gather_grid(maps, grid)


def gather_grid(
    maps: Float[Tensor, "map dim row column"], grid: Float[Tensor, "map key_row key_column 2"]
) -> Float[Tensor, "map dim key_row key_column"]:
    """The same in operations that can be differentiated any number of times."""
    rows, columns = maps.shape[2:]
    x, x1, fx = corners((grid[..., 0] + 1) / 2 * (columns - 1), 0, columns - 1)
    y, y1, fy = corners((grid[..., 1] + 1) / 2 * (rows - 1), 0, rows - 1)

    def read(y: Tensor, x: Tensor) -> Tensor:
        place = (y * columns + x).flatten(1)[:, None].expand(-1, maps.shape[1], -1)
        return maps.flatten(2).gather(2, place).unflatten(2, grid.shape[1:3])

    fx, fy = fx[:, None], fy[:, None]
    return (1 - fy) * ((1 - fx) * read(y, x) + fx * read(y, x1)) + fy * ((1 - fx) * read(y1, x) + fx * read(y1, x1))


class GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(maps, grid)
        return F.grid_sample(maps, grid, align_corners=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        maps, grid = ctx.saved_tensors
        if torch.is_grad_enabled():
            return gradients_of(gather_grid(maps, grid), (maps, grid), grads[0])
        return grid_gradients(grads[0], maps, grid, wanted=ctx.needs_input_grad)


def numbers(like: Tensor, *values: int) -> Float[Tensor, "_"]:
    """The values, of which some may be symbols in a graph, as a tensor of the type of `like`."""
    if torch.compiler.is_exporting():
        return torch.stack([like.new_full((), value) for value in values])
    return onto(torch.tensor(values, dtype=like.dtype), like.device)


@dataclass(frozen=True)
class PositionBias:
    """The bias of queries on all positions of a map and keys at points in pixels: a table at query minus key.

    Query positions are integers, so one key reads the table at the same fractions for all of them: its bias is a
    weighted sum of four crops of the table. A row of `strips` is one line of such a crop for all heads of a group, and
    the following row the next line; an embedding bag computes the weighted sum of four rows.
    """

    size: tuple[int, int]  # lines, and positions per line
    margin: tuple[int, int] = (0, 0)  # lines and positions beyond the map that keys can reach
    num_groups: int = 1

    def prepare(
        self, points: Float[Tensor, "row key 2"], table: Float[Tensor, "num_heads y x"]
    ) -> tuple[Int[Tensor, "row key 4"], Float[Tensor, "row key 4"], Float[Tensor, "strip width"]]:
        """The strips of the first line of each key's four crops, what these weigh, and all strips."""
        (lines, places), (above, beside) = self.size, self.margin
        fitted = fit_table(at_least_float32(table), lines + above, places + beside).unflatten(0, (self.num_groups, -1))
        strips = sliding(fitted, places).permute(0, 3, 2, 1, 4)  # (group, start, y, head, place)
        groups, starts, height = strips.shape[:3]
        y, y1, fy = corners(points[..., 0], -above, lines - 1 + above)
        x, x1, fx = corners(points[..., 1], -beside, places - 1 + beside)
        group = torch.arange(groups, device=points.device).repeat(points.shape[0] // groups)[:, None]
        left, right = ((group * starts + places + beside - 1 - t) * height for t in (x, x1))
        top, bottom = (lines + above - 1 - t for t in (y, y1))
        strip = torch.stack([top + left, top + right, bottom + left, bottom + right], -1)
        weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], -1)
        return strip, weight, strips.reshape(groups * starts * height, -1).contiguous()  # crops reach into its memory

    def tile(
        self,
        rows: slice,
        lines: slice,
        strip: Int[Tensor, "row key 4"],
        weight: Float[Tensor, "row key 4"],
        strips: Float[Tensor, "strip width"],
    ) -> Float[Tensor, "tile_row head key tile_line place"]:
        begin, end, _ = lines.indices(self.size[0])
        strip, weight = strip[rows] + begin, weight[rows]
        crops = Crops.apply(strip, weight, strips, end - begin)
        return crops.view(*strip.shape[:2], end - begin, -1, self.size[1]).permute(0, 3, 1, 2, 4)

    def whole(
        self, points: Float[Tensor, "row key 2"], table: Float[Tensor, "num_heads y x"], *, again: bool = False
    ) -> Float[Tensor, "row head query key"]:
        if again or torch.compiler.is_exporting():
            # Runtimes gather rows fast, and sample grids slowly.
            strip, weight, strips = self.prepare(points, table)
            strip, weight = of_every_line(strip, weight, lines=self.size[0])
            corner = (F.embedding(strip[..., c], strips) * weight[..., c, None] for c in range(4))
            read = sum(corner, start=strips.new_zeros(()))  # (row, key, line, head * place)
            return read.unflatten(3, (-1, self.size[1])).permute(0, 3, 2, 4, 1).flatten(2, 3)
        line, place = (torch.arange(length, device=points.device) for length in self.size)
        place = torch.cartesian_prod(line, place).view(1, -1, 1, 2)
        apart = place - points[:, None]  # (row, query, key, 2)
        reach = numbers(points, table.shape[2] // 2, table.shape[1] // 2)
        grid = (apart.flip(-1) / reach.clamp(min=1)).unflatten(0, (-1, self.num_groups)).transpose(0, 1).flatten(1, 2)
        maps = at_least_float32(table).unflatten(0, (self.num_groups, -1))
        read = F.grid_sample(maps, grid, padding_mode="border", align_corners=True)  # (group, head, row query, key)
        return read.unflatten(2, (-1, apart.shape[1])).permute(2, 0, 1, 3, 4).flatten(0, 1)


class Crops(torch.autograd.Function):
    """Weighted sums of four crops of some lines for each key, by `embedding_bag`.

    A strip's gradient is a weighted sum too, over the lines that read it: sorted by strips they are read as the strips
    were. torch adds them up one at a time, which takes three times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        strip: Int[Tensor, "row key 4"],
        weight: Float[Tensor, "row key 4"],
        strips: Float[Tensor, "strip width"],
        lines: int,
    ) -> Float[Tensor, "all width"]:
        ctx.save_for_backward(strip, weight, strips)
        every, weights = of_every_line(strip, weight, lines=lines)
        return F.embedding_bag(every.view(-1, 4), strips, per_sample_weights=weights.reshape(-1, 4), mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None, None]:
        strip, weight, strips = ctx.saved_tensors
        if torch.is_grad_enabled():
            raise RuntimeError("Crops are differentiated once; `PositionBias.whole` any number of times.")
        grad, of_weight, of_strips = grads[0].contiguous(), None, None
        width, lines = grad.shape[1], len(grad) // (strip.shape[0] * strip.shape[1])
        if ctx.needs_input_grad[1]:
            # A crop lies in one piece, from its first strip on: as if it were a row of a table whose rows overlap.
            crops = strips.as_strided((len(strips) - lines + 1, lines * width), (width, 1))
            rows = strip.view(-1, 4)
            of_weight = bag_weight_gradient(grad.view(-1, lines * width), crops, rows).view_as(weight)
        if ctx.needs_input_grad[2]:
            every, weights = of_every_line(strip.int(), weight, lines=lines)
            order, place = every.flatten().sort()
            count = torch.bincount(order, minlength=len(strips))
            of_strips = F.embedding_bag(
                place >> 2,
                grad,
                count.cumsum(0) - count,
                per_sample_weights=weights.flatten()[place],
                mode="sum",
            )
        return None, of_weight, of_strips, None


def of_every_line(
    strip: Int[Tensor, "row key 4"], weight: Float[Tensor, "row key 4"], *, lines: int
) -> tuple[Int[Tensor, "row key line 4"], Float[Tensor, "row key line 4"]]:
    """The strips of each line of the crops, and what these weigh."""
    every = strip[:, :, None] + torch.arange(lines, dtype=strip.dtype, device=strip.device)[:, None]
    return every, weight[:, :, None].expand(every.shape)


def sliding(table: Float[Tensor, "*line x"], width: int) -> Float[Tensor, "*line start width"]:
    """All sliding windows of that width along the last axis."""
    if not torch.compiler.is_exporting():
        return table.unfold(-1, width, 1)
    starts = table.shape[-1] - width + 1
    place = torch.arange(starts, device=table.device)[:, None] + torch.arange(width, device=table.device)
    return table.index_select(-1, place.flatten()).unflatten(-1, (starts, width))


def corners(position: Tensor, low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole numbers on either side of a position in the range, and how far it is from the first."""
    position = position.clamp(low, high)
    first = position.detach().floor().long()
    return first, (first + 1).clamp(max=high), position - first


def fit_table(
    table: Float[Tensor, "num_heads y x"], rows: int, columns: int
) -> Float[Tensor, "num_heads fitted_y fitted_x"]:
    """A bias table cut, or continued by its border, to the displacements on a map of rows and columns."""
    y, x = (
        (torch.arange(1 - size, size, device=table.device) + length // 2).clamp(0, length - 1)
        for length, size in zip(table.shape[1:], (rows, columns), strict=True)
    )
    return table.index_select(1, y).index_select(2, x)
