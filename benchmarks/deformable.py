"""Our deformable attention beside a plain one: the same numbers, time and memory.

    python benchmarks/deformable.py     about a minute on two cores

The plain layer is written as the published one is, in a few lines of torch: maps with channels first, 1 x 1
convolutions, `grid_sample` for keys and for the position bias of every query and key, `einsum` and `softmax` for the
attention. It has the same geometry and shares its weights with ours. Both take turns at every setting; medians over all
passes. Ours is timed without a position bias too: the most that a faster bias could gain. Memory is what autograd keeps
for the backward pass, parameters left out, distinct storages. The goal of the times is set for one thread.
results/deformable.json and .md keep a table for each processor that this ran on.
"""

import argparse
import functools
import gc
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from common import about_this_run, in_turns, write_by_processor
from kept import kept_bytes
from torch import Tensor, nn

from ossicle.allocator import keep_freed_memory
from ossicle.models.deformable import DeformableAttention

# dim, heads, groups, rows, columns, key stride, kernel of the offset network; those of section 1.2 and the strided one.
SIZES = {
    "384 channels, 8 x 64, stride 1": (384, 12, 3, 8, 64, 1, 5),
    "768 channels, 4 x 32, stride 1": (768, 24, 6, 4, 32, 1, 3),
    "96 channels, 32 x 256, stride 8": (96, 3, 1, 32, 256, 8, 9),
}
WANTED = 1.3  # times faster at least, on one thread
WANTED_BYTES = 0.6  # at most
BATCH = 2


class Plain(nn.Module):
    """The layer in plain torch, with the weights of ours."""

    def __init__(self, ours: DeformableAttention, *, rows: int, columns: int, kernel: int) -> None:
        super().__init__()
        dim = ours.q_proj.weight.shape[0]
        self.heads, self.groups, self.stride = ours.num_heads, ours.num_groups, ours.stride[0]
        self.size = rows, columns
        self.q, self.k, self.v, self.out = (nn.Conv2d(dim, dim, 1) for _ in range(4))
        self.offset = cast(nn.Module, ours.offset)
        self.table = cast(nn.Parameter, ours.relative_position_bias_table)
        with torch.no_grad():
            k, v = ours.kv_proj.weight.chunk(2)
            for conv, weight in (
                (self.q, ours.q_proj.weight),
                (self.k, k),
                (self.v, v),
                (self.out, ours.out_proj.weight),
            ):
                conv.weight.copy_(weight[:, :, None, None])
            k, v = ours.kv_proj.bias.chunk(2)
            for conv, bias in ((self.q, ours.q_proj.bias), (self.k, k), (self.v, v), (self.out, ours.out_proj.bias)):
                conv.bias.copy_(bias)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.q(x)
        o = self.offset(q.reshape(b * self.groups, -1, h, w).permute(0, 2, 3, 1))  # (b g, hk, wk, 2)
        hk, wk = o.shape[1:3]
        cell = torch.tensor([h / hk, w / wk])
        center = torch.stack(torch.meshgrid(torch.arange(hk) + 0.5, torch.arange(wk) + 0.5, indexing="ij"), -1)
        last = torch.tensor([h - 1.0, w - 1.0])
        p = (center * cell - 0.5 + o.tanh() * cell).clamp(torch.zeros(2), last)
        grid = 2 * p / last - 1
        xs = F.grid_sample(x.reshape(b * self.groups, -1, h, w), grid.flip(-1), align_corners=True)
        xs = xs.reshape(b, c, 1, hk * wk)
        q, k, v = (t.reshape(b * self.heads, c // self.heads, -1) for t in (q, self.k(xs), self.v(xs)))
        logits = torch.einsum("bcm,bcn->bmn", q, k) * (c // self.heads) ** -0.5
        place = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1).reshape(1, h * w, 1, 2)
        apart = (place - p.reshape(b * self.groups, 1, -1, 2)) / last
        table = self.table[None].expand(b, -1, -1, -1).reshape(b * self.groups, -1, *self.table.shape[1:])
        bias = F.grid_sample(table, apart.flip(-1), align_corners=True)
        attention = (logits + bias.reshape(logits.shape)).softmax(-1)
        return self.out(torch.einsum("bmn,bcn->bcm", attention, v).reshape(b, c, h, w))


def measure(name: str, *, repeats: int) -> dict[str, Any]:
    """Times both layers in turns, after their outputs and gradients have been compared."""
    dim, heads, groups, rows, columns, stride, kernel = SIZES[name]
    torch.manual_seed(0)
    ours = DeformableAttention(dim, heads, num_groups=groups, table=(rows, columns), kernel=kernel, stride=stride)
    plain = Plain(ours, rows=rows, columns=columns, kernel=kernel)
    inputs = {"ours": torch.randn(BATCH, rows, columns, dim)}
    inputs["plain"] = inputs["ours"].permute(0, 3, 1, 2).contiguous()
    layers = {"plain": plain, "ours": ours}
    gradients = {"ours": torch.randn_like(inputs["ours"])}
    gradients["plain"] = gradients["ours"].permute(0, 3, 1, 2).contiguous()
    out, found = {}, {}
    for side, layer in layers.items():
        x = inputs[side].requires_grad_()
        out[side] = layer(x)
        (found[side],) = torch.autograd.grad(out[side], x, gradients[side])
    difference = (out["ours"].permute(0, 3, 1, 2) - out["plain"]).abs().max() / out["plain"].abs().max()
    of_gradient = (found["ours"].permute(0, 3, 1, 2) - found["plain"]).abs().max() / found["plain"].abs().max()
    parameters = [*ours.parameters(), *plain.parameters()]
    kept = {side: kept_bytes(lambda s=side: layers[s](inputs[s]), parameters) / BATCH for side in layers}
    passes: dict[tuple[str, str], Callable[[], object]] = {}
    unbiased = DeformableAttention(dim, heads, num_groups=groups, table=None, kernel=kernel, stride=stride)
    for side, layer in {**layers, "unbiased": unbiased}.items():
        shape = "plain" if side == "plain" else "ours"
        x, dy = inputs[shape], gradients[shape]
        passes["forward", side] = functools.partial(forward, layer, x)
        passes["forward and backward", side] = functools.partial(both_passes, layer, x, dy)
    times = in_turns(passes, rounds=repeats, warm=2, before=gc.collect)
    seconds = {
        what: {side: times[what, side] / BATCH for side in (*layers, "unbiased")}
        for what in ("forward", "forward and backward")
    }
    return {
        "largest_difference": float(difference.detach()),
        "largest_difference_of_gradient": float(of_gradient),
        "seconds": seconds,
        "kept_bytes": kept,
    }


@torch.no_grad()
def forward(layer: nn.Module, x: Tensor) -> None:
    """A pass that keeps nothing."""
    layer(x)


def both_passes(layer: nn.Module, x: Tensor, dy: Tensor) -> None:
    """Forward and backward, to x and to every parameter."""
    layer(x).backward(dy)


def main() -> None:
    """Measures every size and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    keep_freed_memory()
    found: dict[str, Any] = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        found[f"{threads} threads"] = {name: measure(name, repeats=arguments.repeats) for name in SIZES}
    result = {**about_this_run(), "sizes": found}
    write_by_processor("deformable", result, table, title="Deformable attention beside a plain one")


def table(result: dict[str, Any]) -> list[str]:
    """The result as lines of Markdown."""
    lines: list[str] = []
    for threads, sizes in result["sizes"].items():
        one = threads == "1 threads"
        lines += [*(["", ""] if lines else []), f"{'1 thread' if one else threads}:", "", *rows(sizes, wanted=one)]
    worst = max(
        one[key]
        for sizes in result["sizes"].values()
        for one in sizes.values()
        for key in ("largest_difference", "largest_difference_of_gradient")
    )
    lines += ["", "Times and bytes are per clip, float32."]
    return [*lines, f"Largest relative difference of an output or gradient: {worst:.1e}."]


def rows(sizes: dict[str, dict[str, Any]], *, wanted: bool) -> list[str]:
    """A line for each layer and quantity."""
    lines = [
        "| layer | what | plain | ours | plain / ours | plain / ours without a bias | wanted | met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in sizes.items():
        for what, sides in one["seconds"].items():
            ratio = sides["plain"] / sides["ours"]
            verdict = (f"at least {WANTED}", "yes" if ratio >= WANTED else "**no**") if wanted else ("", "")
            times = " | ".join(f"{1e3 * sides[side]:.1f} ms" for side in ("plain", "ours"))
            most = f"{sides['plain'] / sides['unbiased']:.2f}" if "unbiased" in sides else ""
            lines.append(f"| {name} | {what} | {times} | {ratio:.2f} | {most} | {verdict[0]} | {verdict[1]} |")
        plain, ours = (one["kept_bytes"][side] / 1e6 for side in ("plain", "ours"))
        met = "yes" if ours / plain <= WANTED_BYTES else "**no**"
        lines.append(
            f"| {name} | kept for the backward pass | {plain:.1f} MB | {ours:.1f} MB "
            f"| ours / plain {ours / plain:.2f} | | at most {WANTED_BYTES} | {met} |"
        )
    return lines


if __name__ == "__main__":
    main()
