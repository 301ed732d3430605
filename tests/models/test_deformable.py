"""Deformable attention: golden numbers, ordinary attention as its special case, and two ways to the same bias."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from ossicle import kernels
from ossicle.kernels import attention
from ossicle.models import deformable
from ossicle.models.deformable import DeformableAttention, PositionBias, fit_table, reference, runs, sample

GOLDEN = Path(__file__).parent.parent / "golden"


def layer(dim: int = 8, heads: int = 4, *, groups: int = 2, table: tuple[int, int] | None = (3, 6), **options):
    """A layer in double precision whose points move visibly and whose bias matters."""
    torch.manual_seed(0)
    net = DeformableAttention(dim, heads, num_groups=groups, table=table, **{"kernel": 3, **options}).double()
    if net.offset is not None:
        net.offset.pointwise.weight.data.mul_(5)
    if net.relative_position_bias_table is not None:
        torch.nn.init.normal_(net.relative_position_bias_table)
    return net


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the way of every other device: the whole bias by `grid_sample`, then `scaled_dot_product_attention`."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@pytest.mark.parametrize("name", ["r1", "r2", "flat", "one_row"])
@pytest.mark.parametrize("way", ["strips", "other strips", "plain"])
def test_outputs_and_points_are_golden(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with safe_open(GOLDEN / f"deformable_attention_{name}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    net = DeformableAttention(
        config["dim"],
        config["num_heads"],
        num_groups=config["num_groups"],
        table=(config["height"], config["width"]),
        kernel=config["offset_kernel"],
        stride=config["stride"],
        offset_range=config["offset_range"],
    )
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    for part in ("weight", "bias"):
        state[f"kv_proj.{part}"] = torch.cat([state.pop(f"k_proj.{part}"), state.pop(f"v_proj.{part}")])
    net.load_state_dict(state)
    if way == "plain":
        plainly(monkeypatch)
    elif way == "other strips":
        monkeypatch.setattr(deformable, "MAX_STRIPS", 0)
    x = tensors["x"].permute(0, 2, 3, 1)
    torch.testing.assert_close(net(x).permute(0, 3, 1, 2), tensors["y"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.points(x).permute(0, 3, 1, 2, 4), tensors["points"], rtol=1e-4, atol=1e-5)


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 9),
    shares=st.sampled_from([(1, 1), (4, 1), (4, 2), (4, 4)]),
    stride=st.sampled_from([1, 2, (1, 2)]),
    segment=st.sampled_from([None, 2, 4]),
    offset_range=st.sampled_from([None, 1.0, 3.0]),
    offsets=st.sampled_from(["both", "time", "none"]),
    table=st.sampled_from([(1, 1), (2, 3), (5, 12)]),
    max_strips=st.sampled_from([0, 2**20]),
    tile=st.sampled_from([1, 30, 2**20]),
)
def test_both_ways_give_the_same_outputs_and_gradients(
    rows, columns, shares, stride, segment, offset_range, offsets, table, max_strips, tile
) -> None:
    heads, groups = shares
    options = {"stride": stride, "segment": segment, "offset_range": offset_range, "offsets": offsets}
    net = layer(heads=heads, groups=groups, table=table, **options)
    x = torch.randn(2, rows, columns, 8, dtype=torch.double, requires_grad=True)
    dy = torch.randn_like(x)
    leaves = [x, *net.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deformable, "MAX_STRIPS", max_strips)
        for name in ("BIAS_TILE", "PART_TILE"):
            patch.setattr(attention, name, tile)
        ours = net(x)
        of_ours = torch.autograd.grad(ours, leaves, dy, allow_unused=True)
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        theirs = net(x)
        of_theirs = torch.autograd.grad(theirs, leaves, dy, allow_unused=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for (name, _), a, b in zip([("x", x), *net.named_parameters()], of_ours, of_theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def ordinary(net: DeformableAttention, x: Tensor) -> Tensor:
    """Attention of all places to all places with the table as a Swin-style bias."""
    _, rows, columns, _ = x.shape
    q, k, v = net.q_proj(x), *net.kv_proj(x).chunk(2, -1)
    q, k, v = (t.flatten(1, 2).unflatten(2, (net.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    apart = place[:, None] - place + torch.tensor([rows - 1, columns - 1])
    bias = net.relative_position_bias_table[:, apart[..., 0], apart[..., 1]]
    logits = q @ k.mT * q.shape[-1] ** -0.5 + bias
    return net.out_proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2).view_as(x))


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 5), (4, 7)])
@pytest.mark.parametrize("offsets", ["both", "none"])
def test_without_offsets_and_stride_it_is_ordinary_attention(rows: int, columns: int, offsets) -> None:
    net = layer(table=(rows, columns), offsets=offsets)
    if net.offset is not None:
        torch.nn.init.zeros_(net.offset.pointwise.weight)
    x = torch.randn(2, rows, columns, 8, dtype=torch.double)
    torch.testing.assert_close(net(x), ordinary(net, x), rtol=1e-12, atol=1e-12)


def test_without_a_table_it_is_attention_to_the_sampled_keys() -> None:
    net = layer(table=None)
    x = torch.randn(2, 3, 5, 8, dtype=torch.double)
    k, v = net.kv_proj(sample(x, net.points(x))).chunk(2, -1)
    q, k, v = (t.flatten(1, 2).unflatten(2, (4, -1)).transpose(1, 2) for t in (net.q_proj(x), k, v))
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).view_as(x)
    torch.testing.assert_close(net(x), net.out_proj(y))


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 12),
    stride=st.integers(1, 4),
    unbounded=st.booleans(),
    time_only=st.booleans(),
)
def test_points_are_finite_on_the_map_and_within_reach(rows, columns, stride, unbounded, time_only) -> None:
    net = layer(stride=stride, offset_range=None if unbounded else 1.5, offsets="time" if time_only else "both")
    x = 100 * torch.randn(2, rows, columns, 8, dtype=torch.double)
    points = net.points(x)
    assert points.shape == (2, math.ceil(rows / stride), math.ceil(columns / stride), 2, 2)
    assert torch.isfinite(points).all()
    assert (points >= 0).all()
    assert (points <= torch.tensor([rows - 1, columns - 1])).all()
    centers, cells = reference(rows, columns, stride=(stride, stride), like=x)
    away = (points - centers[:, :, None]).abs()
    if not unbounded:
        # What is clamped to the border only comes nearer, but for centers that lie beyond it themselves: none do.
        assert (away <= 1.5 * cells[:, :, None] + 1e-9).all()
    if time_only:
        torch.testing.assert_close(points[..., 0], centers[None, :, :, None, 0].expand_as(points[..., 0]))


@given(rows=st.integers(1, 6), columns=st.integers(1, 40), stride=st.integers(1, 4), count=st.integers(1, 3))
def test_segments_share_out_the_map_and_its_keys(rows, columns, stride, count) -> None:
    segment = stride * count
    found = runs(columns, segment, stride)
    assert sum(run.count * run.width for run in found) == columns
    assert sum(run.count * run.key_width for run in found) == math.ceil(columns / stride)
    assert [run.start for run in found] == sorted(run.start for run in found)
    centers, cells = reference(rows, columns, stride=(stride, stride), segment=segment, like=torch.zeros(()))
    # The cells tile the map: their edges meet.
    x, width = centers[0, :, 1], cells[0, :, 1]
    torch.testing.assert_close((x + width / 2)[:-1], (x - width / 2)[1:])
    torch.testing.assert_close(
        torch.stack([x[0] - width[0] / 2, x[-1] + width[-1] / 2]), torch.tensor([-0.5, columns - 0.5])
    )


def test_a_segment_is_a_recording_of_its_own_but_for_points_across_the_border() -> None:
    net = layer(segment=4, offsets="none", stride=2)
    x = torch.randn(1, 3, 11, 8, dtype=torch.double)
    alone = torch.cat([net(x[:, :, :4]), net(x[:, :, 4:8]), net(x[:, :, 8:])], dim=2)
    torch.testing.assert_close(net(x), alone)
    net = layer(segment=4, offset_range=2.0)
    points = net.points(100 * x)[0, :, 4:8, :, 1]  # of the second segment
    assert ((points < 4) | (points > 7)).any()


def test_sampling_between_places_is_linear() -> None:
    x = torch.arange(12.0).view(1, 3, 4, 1)
    points = torch.tensor([[0.0, 0.0], [1.5, 2.0], [2.0, 0.25]]).view(1, 1, 3, 1, 2)
    torch.testing.assert_close(sample(x, points).flatten(), torch.tensor([0.0, 8.0, 8.25]))


@given(
    rows=st.integers(1, 4), columns=st.integers(1, 5), fitted_rows=st.integers(1, 6), fitted_columns=st.integers(1, 6)
)
def test_a_fitted_table_keeps_the_displacements_and_repeats_its_border(
    rows, columns, fitted_rows, fitted_columns
) -> None:
    table = torch.randn(2, 2 * rows - 1, 2 * columns - 1)
    fitted = fit_table(table, fitted_rows, fitted_columns)
    assert fitted.shape == (2, 2 * fitted_rows - 1, 2 * fitted_columns - 1)
    for y in range(1 - fitted_rows, fitted_rows):
        for x in range(1 - fitted_columns, fitted_columns):
            held = table[
                :, max(1 - rows, min(y, rows - 1)) + rows - 1, max(1 - columns, min(x, columns - 1)) + columns - 1
            ]
            assert torch.equal(fitted[:, y + fitted_rows - 1, x + fitted_columns - 1], held)


def test_gradients_are_those_of_finite_differences() -> None:
    bias = PositionBias((2, 3), margin=(0, 1), num_groups=2)
    torch.manual_seed(0)
    # Points off the whole numbers, where a bilinear map has a corner.
    points = (torch.randint(-1, 3, (4, 5, 2)) + torch.rand(4, 5, 2, dtype=torch.double) * 0.8 + 0.1).requires_grad_()
    table = torch.randn(4, 3, 7, dtype=torch.double, requires_grad=True)
    q, k, v = (torch.randn(4, 2, n, 3, dtype=torch.double, requires_grad=True) for n in (6, 5, 5))
    with torch.no_grad():
        points[..., 0].clamp_(0.1, 0.9)

    def attended(q, k, v, points, table):
        return kernels.attend(q, k, v, bias=bias, inputs=(points, table))

    assert torch.autograd.gradcheck(attended, (q, k, v, points, table), atol=1e-6, fast_mode=True)


def test_gradient_reaches_the_offset_network() -> None:
    net = DeformableAttention(8, 4, num_groups=2, table=(4, 32), kernel=3)
    net(torch.randn(1, 4, 32, 8)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("rows, columns, stride", [(4, 32, 4), (4, 32, 2), (2, 32, (2, 1)), (1, 1, 1)])
def test_few_key_rows_are_finite_with_their_gradients(rows: int, columns: int, stride) -> None:
    net = layer(stride=stride, table=(rows, columns))
    x = torch.randn(2, rows, columns, 8, dtype=torch.double, requires_grad=True)
    y = net(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(t.grad).all() for t in (x, *net.parameters()) if t.grad is not None)


def test_positions_stay_float32_under_autocast_and_in_bfloat16() -> None:
    net = DeformableAttention(16, 4, num_groups=2, table=(4, 256))
    x = torch.randn(1, 4, 256, 16)
    exact = net.points(x)
    with torch.autocast("cpu", torch.bfloat16):
        points, y = net.points(x), net(x)
    assert points.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    # The queries are rounded, the grid is not: half a pixel is what a bfloat16 grid would lose.
    assert (points - exact).abs().max() < 0.05
    assert net.bfloat16().move(net.q_proj(x.bfloat16())).dtype == torch.float32


def test_permuting_the_clips_permutes_the_outputs_and_a_clip_alone_is_the_same() -> None:
    net = DeformableAttention(16, 4, num_groups=2, table=(4, 9), stride=2)
    x = torch.randn(5, 4, 9, 16)
    order = torch.randperm(5)
    torch.testing.assert_close(net(x)[order], net(x[order]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-5, atol=1e-5)


def test_no_attention_matrix_and_no_bias_is_kept() -> None:
    net, kept = DeformableAttention(16, 4, num_groups=2, table=(8, 64)), {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.update({t.data_ptr(): t.numel()}) or t, lambda t: t):
        net(torch.randn(1, 8, 64, 16))
    assert max(kept.values()) < 512 * 512


@pytest.mark.parametrize(
    "options, says",
    [({"heads": 3}, "do not divide"), ({"kernel": 4}, "odd"), ({"segment": 5, "stride": 2}, "not a multiple")],
)
def test_numbers_that_do_not_divide_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        layer(**options)
