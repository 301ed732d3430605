"""Measures the fastest routines once for each processor, version of torch and number of threads, and caches them.

The routines run alternately on the sizes of `choice`, so that other load on the machine affects both equally; the
shortest time of each counts. That takes about two seconds. Results of an idle machine are written to the cache folder,
so that later processes make the same choice; under other load each process measures again, for a few seconds at most.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.errors import SettingRefused
from ossicle.files import cache_folder, write_atomically
from ossicle.kernels import operators
from ossicle.kernels.choice import (
    ATTENTIONS,
    DIRECTIONS,
    PRODUCTS,
    TORCH,
    Direction,
    Kernels,
    from_letters,
    parse_kernels,
)
from ossicle.kernels.tiled import TiledAttention, split_heads

MARGIN = 0.97  # of the time of torch's own routine; smaller gains are noise
TURNS = 4  # the first of each warms up; more while all took less than `LEAST`, up to `MOST`
LEAST, MOST = 0.01, 40  # seconds: what takes microseconds is lost in noise after three turns
LONGEST = 5.0  # seconds, after which torch's own routine is used for the rest
QUIET = 0.8  # fraction of the time that this thread must have run, or the measurement is not cached
DISPATCH = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")  # of the libraries


def bfloat16_speedup() -> float:
    """How many times faster the products of a training step are in bfloat16 than in float32 on this processor.

    0 if bfloat16 does not work.
    """
    return known_here(torch.get_num_threads())[1]


@functools.cache
def known_here(threads: int) -> tuple[Kernels, float]:
    """The measured choice and the speedup of bfloat16: from the cache folder, or measured now and cached."""
    path = cache_folder() / "kernels" / f"{fingerprint(threads)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, SettingRefused):
        known = json.loads(path.read_text(encoding="utf-8"))
        return parse_kernels(known["kernels"]), float(known["bfloat16_speedup"])
    began, used = time.perf_counter(), time.thread_time()
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
        gain = measure_bfloat16()
        kernels = measure(began + LONGEST)
    seconds = time.perf_counter() - began
    if seconds < LONGEST and time.thread_time() - used > QUIET * seconds:
        about = {"processor": processor(), "torch": torch.__version__, "threads": threads}
        known = {"kernels": str(kernels), "bfloat16_speedup": gain, **about}
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(known, indent=1) + "\n")
    return kernels, gain


def fingerprint(threads: int) -> str:
    """Everything that the speed of a routine depends on, as text."""
    parts = [processor(), torch.__version__, torch.backends.cpu.get_cpu_capability(), str(threads), str(os.cpu_count())]
    parts += [f"{name}={os.environ.get(name, '')}" for name in DISPATCH] + ["".join(map(str, (PRODUCTS, ATTENTIONS)))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def processor() -> str:
    """The processor's name and model, if the system has them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.partition(":")[::2] for line in reversed(lines))
    about = {name.strip(): value.strip() for name, value in fields.items()}
    name = about.get("model name") or platform.machine()
    # The name of a virtual machine's processor may be that of three generations.
    kind = f" (family {about['cpu family']}, model {about['model']})" if {"cpu family", "model"} <= about.keys() else ""
    return name + kind


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(until: float = float("inf")) -> Kernels:
    """Measures the routines of `Kernels` until the deadline; the rest are torch's own."""
    chosen = dict(TORCH.letters())
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        attentions = (measure_attention(dtype, tokens, training=training) for tokens, training in ATTENTIONS)
        chosen[name] = before(until, attentions, rest=chosen[name])
    if operators.HAS_ONEDNN:
        for direction in DIRECTIONS:
            cells = (measure_product(direction, *size) for size in PRODUCTS)
            chosen[direction] = before(until, cells, rest=chosen[direction])
    return from_letters(chosen)


def before(until: float, letters: Iterator[str], *, rest: str) -> str:
    """Takes letters until the deadline, then `rest`."""
    taken = ""
    while len(taken) < len(rest) and time.perf_counter() < until:
        taken += next(letters)
    return taken + rest[len(taken) :]


@torch.no_grad()
def measure_product(direction: Direction, rows: int, into: int, out: int) -> Literal["o", "t"]:
    """The faster library for a product of a linear layer."""
    x, weight, dy = torch.randn(rows, into), torch.randn(out, into), torch.randn(rows, out)
    bias, onednn = torch.randn(out), operators.onednn
    if direction == "forward":
        faster = is_faster(lambda: onednn(x, weight, bias), than=lambda: F.linear(x, weight, bias))
    elif direction == "input":
        faster = is_faster(lambda: onednn(dy, weight.T), than=lambda: dy @ weight)
    else:
        faster = is_faster(lambda: onednn(dy.T, x.T), than=lambda: dy.T @ x)
    return "o" if faster else "t"


def measure_attention(dtype: torch.dtype, tokens: int, *, training: bool) -> Literal["f", "h"]:
    """The faster attention of six heads, without or with its gradients."""
    qkv = torch.randn(1, tokens, 3 * 384, dtype=dtype, requires_grad=training)
    dy = torch.randn(1, tokens, 384, dtype=dtype)

    def passes(function: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: function(qkv).backward(dy) if training else function(qkv)

    def fused(qkv: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*split_heads(qkv, 6)).transpose(1, 2).flatten(2)

    try:
        with torch.set_grad_enabled(training):
            return "h" if is_faster(passes(lambda t: TiledAttention.apply(t, 6)), than=passes(fused)) else "f"
    except RuntimeError:  # a type that this build of torch does not multiply
        return "f"


@torch.no_grad()
def measure_bfloat16() -> float:
    """See `bfloat16_speedup`."""
    x, weight, dy = (torch.randn(*size) for size in ((512, 768), (768, 768), (512, 768)))
    half = [t.bfloat16() for t in (x, weight, dy)]

    def step(x: Tensor, weight: Tensor, dy: Tensor) -> Callable[[], None]:
        def products() -> None:
            F.linear(x, weight), dy @ weight, dy.T @ x

        return products

    def by_onednn() -> None:
        operators.onednn(x, weight), operators.onednn(dy, weight.T), operators.onednn(dy.T, x.T)

    exact = [step(x, weight, dy), *([by_onednn] if operators.HAS_ONEDNN else [])]
    try:
        *single, rounded = in_turns(*exact, step(*half))
        return min(single) / rounded
    except RuntimeError:
        return 0.0


def is_faster(function: Callable[[], Any], *, than: Callable[[], Any]) -> bool:
    """Whether a routine is clearly faster than torch's own."""
    own, other = in_turns(than, function)
    return other < MARGIN * own


def in_turns(*functions: Callable[[], Any]) -> list[float]:
    """The shortest time of each in seconds, over alternating calls."""
    best = [float("inf")] * len(functions)
    started, turn = time.perf_counter(), 0
    while turn < TURNS or turn < MOST and time.perf_counter() - started < LEAST:
        for place, function in enumerate(functions):
            began = time.perf_counter()
            function()
            if turn:
                best[place] = min(best[place], time.perf_counter() - began)
        turn += 1
    return best
