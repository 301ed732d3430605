"""Density attention beside the published package: time and memory of forward and backward.

    python benchmarks/density.py --peer FOLDER      under a minute; --compile adds torch.compile, which wants a compiler

FOLDER holds gaussian-adaptive-attention 0.1.5, as `pip install --no-deps --target FOLDER` puts it. x is (32, 24, 1024),
clips, layers and features; 8 heads over the layers, 4 Gaussians. Ours takes the peer's offsets and scales, its weights
are compared first, and both take turns; medians over all passes. Peak memory is what torch's allocator hands out at
most between the start of the forward and the end of the backward pass, x and its gradient's seed left out.
"""

import argparse
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import about_this_run, claim_table, in_turns, write_result
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ossicle.allocator import keep_freed_memory
from ossicle.models.density import DensityGate, DensityMixture, DensityProduct

SHAPE = (32, 24, 1024)
HEADS, GAUSSIANS = 8, 4


def main() -> None:
    """Measures everything and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    sides: dict[str, Any] = {"package": the_package(arguments.peer)}
    sides["product"] = product_like(sides["package"])
    sides["gate"] = DensityGate(SHAPE[2], num_heads=HEADS)
    sides["mixture"] = DensityMixture(num_heads=HEADS, num_gaussians=GAUSSIANS)
    x, dy = torch.randn(SHAPE), torch.randn(SHAPE)
    with torch.no_grad():
        difference = float((sides["product"](x) - sides["package"](x)).abs().max())
    if arguments.compile:
        sides |= {f"{name}, compiled": torch.compile(sides[name]) for name in ("package", "product", "gate")}
    result = about_this_run() | {"largest_difference": difference, "sides": measure(sides, x, dy, arguments.repeats)}
    report(result)


def the_package(folder: Path) -> nn.Module:
    """The published layer, with scales and offsets that keep its densities above 1e-8, where it would clamp them."""
    sys.path.insert(0, str(folder))
    from gaussian_adaptive_attention import MultiHeadGaussianAdaptiveAttention

    torch.manual_seed(0)
    layer = MultiHeadGaussianAdaptiveAttention(1, HEADS, GAUSSIANS)
    with torch.no_grad():
        for head in layer.attention_heads:
            head.mean_offsets.normal_(std=1e-3)
            head.c.uniform_(1.5, 3)
    return layer


def product_like(package: Any) -> DensityProduct:
    """Our layer with the package's parameters."""
    layer = DensityProduct(num_heads=HEADS, num_gaussians=GAUSSIANS)
    with torch.no_grad():
        for h, head in enumerate(package.attention_heads):
            layer.offset[h] = head.mean_offsets
            layer.log_scale[h] = head.c.log()
    return layer


def measure(sides: dict[str, nn.Module], x: Tensor, dy: Tensor, repeats: int) -> dict[str, Any]:
    """Seconds and peak bytes of each side."""
    runs = {name: both_passes(layer, x, dy) for name, layer in sides.items()}
    seconds = in_turns(runs, rounds=repeats, warm=3, before=gc.collect)
    return {name: {"seconds": seconds[name], "peak_bytes": peak_bytes(run)} for name, run in runs.items()}


def both_passes(layer: nn.Module, x: Tensor, dy: Tensor) -> Callable[[], None]:
    """Forward and backward, to x and to every parameter."""
    x = x.detach().requires_grad_()

    def run() -> None:
        torch.autograd.grad(layer(x), [x, *layer.parameters()], dy)

    return run


def peak_bytes(run: Callable[[], None]) -> int:
    """The most that the allocator had handed out at once while `run()` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    held = peak = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def report(result: dict[str, Any]) -> None:
    """Writes the table with the goals beside the figures."""
    package, product = result["sides"]["package"], result["sides"]["product"]
    lines = [
        "| layer | forward and backward | package / this | peak memory | this / package |",
        "|---|---|---|---|---|",
    ]
    for name, side in result["sides"].items():
        faster, memory = package["seconds"] / side["seconds"], side["peak_bytes"] / package["peak_bytes"]
        numbers = f"{1e3 * side['seconds']:.1f} ms | {faster:.2f} | {side['peak_bytes'] / 1e6:.0f} MB | {memory:.2f}"
        lines.append(f"| {name} | {numbers} |")
    faster, memory = package["seconds"] / product["seconds"], product["peak_bytes"] / package["peak_bytes"]
    lines += [
        "",
        *claim_table(
            [
                ("product faster than the package", f"{faster:.2f}", "at least 2", faster >= 2),
                ("peak memory of the product / package", f"{memory:.2f}", "at most 0.5", memory <= 0.5),
            ]
        ),
        "",
        f"Largest difference of the two outputs: {result['largest_difference']:.1e}.",
    ]
    write_result("density", result, lines, title="Density attention beside the published package")


if __name__ == "__main__":
    main()
