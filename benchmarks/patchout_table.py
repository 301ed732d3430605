"""Table 1 of the PaSST paper in our terms: what patchout, depth and stride do to the time and the memory of a step.

    python benchmarks/patchout_table.py [--rounds 3] [--batch 2]                  about 8 minutes on two cores
    python benchmarks/patchout_table.py --choices [passt_tiny_s16 ...]            the second table, see below
    python benchmarks/patchout_table.py --device cuda --peer PYTHON --peak TFLOPS         on a GPU

Network only, 128 x 998 spectrograms (10 s), 527 labels, forward, backward and the fused AdamW: B is passt_base_s10
without patchout, U drops 400 patches anywhere, S drops 40 columns and 4 rows, S-L is S with 7 of 12 blocks, S-N has
patches that do not overlap (stride 16) and drops 20 columns and 2 rows. The paper's figures are training spectrograms a
second and memory per sample, on a Titan RTX in 16 bits.

Rows take turns in every round, medians over the rounds. Memory is what a step has allocated at its peak beyond
weights, gradients and the optimizer's state, per clip: on a CPU by the count of torch's allocator (`torch.profiler`),
on a GPU by `max_memory_allocated`.

On a GPU the steps are in bfloat16 and stand beside those of the published package (hear21passt 0.0.26) in an
environment of its own, with the share of the card's peak that they use: --peak is the dense bfloat16 rate of its data
sheet. Without a GPU these rows stay open.

A second table says what layouts, `compile` and `gradient_checkpointing` do to a step of two small networks (--choices;
compiling takes minutes). Writes results/patchout_table.json and .md, or step_choices, a table for each device.
"""

import argparse
import gc
import time
from pathlib import Path

from passt import Ours, Peer
from worker import Worker, work

FRAMES, THREADS = 998, 2
# Stride, patchout in time, in frequency, unstructured, blocks; speed and memory per sample of the paper, B is 1.
ROWS = {
    "B": ((10, 0, 0, 0, 12), 1.0, 1.0),
    "U": ((10, 0, 0, 400, 12), 1.9, 0.49),
    "S": ((10, 40, 4, 0, 12), 3.8, 0.22),
    "S-L": ((10, 40, 4, 0, 7), 6.4, 0.13),
    "S-N": ((16, 20, 2, 0, 12), 8.0, 0.09),
}
NAMES = {
    "B": "B, no patchout",
    "U": "U, 400 patches anywhere",
    "S": "S, 40 columns and 4 rows",
    "S-L": "S, 7 blocks",
    "S-N": "S, no overlap",
}
SMALL = ("passt_tiny_s16", "datar_nano")


# --- a worker: runs in our environment and in the peer's, and imports what that one has ------------------------------


def network(side, row):
    """The network of a row, in training."""
    stride, time_out, freq_out, anywhere, depth = ROWS[row][0]
    if isinstance(side, Peer):
        net = side.network(stride, time_out, freq_out)
        net.u_patchout = anywhere
        if depth < 12:  # as `lighten_model` of the package leaves them
            net.blocks = net.blocks[:1] + net.blocks[1:-1:2] + net.blocks[-1:]
        return net.train()
    from ossicle import create_model

    options = {"patchout_t": time_out, "patchout_f": freq_out, "patchout_u": anywhere, "depth": depth}
    return create_model(f"passt_base_s{stride}", **options).train()  # type: ignore[arg-type]


class Step:
    """A training step of a network on noise.

    Args:
        bf16: under autocast
    """

    def __init__(self, side, net, *, batch, device, bf16, mels=128, frames=FRAMES):
        import torch

        self.side, self.net, self.device, self.bf16 = side, net.to(device), torch.device(device), bf16
        self.spec = torch.randn(batch, mels, frames, device=device)
        if isinstance(side, Peer):
            self.spec = self.spec[:, None]
        self.optimizer = side.optimizer(net)
        self()  # allocates gradients and state

    def forward(self):
        import torch

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.side.logits(self.net, self.spec)

    def __call__(self):
        import torch
        import torch.nn.functional as F

        logits = self.forward().float()
        F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # so that gradients do not count as memory of the step
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self):
        """Of one step."""
        began = time.perf_counter()
        self()
        return time.perf_counter() - began

    def peak_bytes(self):
        """The most that a step has allocated at any time, beyond what there was before."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        allocated = peak = 0
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]":
                allocated += event.nbytes()
                peak = max(peak, allocated)
        return peak


def measure_row(side, row, batch, device, bf16, steps):
    """Seconds a clip of each of some steps, after two that warm up."""
    step = Step(side, network(side, row), batch=batch, device=device, bf16=bf16)
    step()
    found = {"seconds": [step.seconds() / batch for _ in range(steps)]}
    del step
    gc.collect()
    return found


def measure_memory(side, row, batch, device, bf16):
    """Bytes a clip at the peak of a step."""
    step = Step(side, network(side, row), batch=batch, device=device, bf16=bf16)
    return {"bytes": step.peak_bytes() / batch}


# --- both tables -----------------------------------------------------------------------------------------------------


def measure(args):
    """Every row on every side, in turns."""
    import statistics
    import sys

    import torch
    from common import about_this_run

    gpu = args.device == "cuda"
    workers = {"ours": Worker(sys.executable, "ours", script=__file__)}
    if args.peer:
        workers["peer"] = Worker(args.peer, "peer", script=__file__)
    rounds: dict[str, dict[str, list[float]]] = {row: {name: [] for name in workers} for row in ROWS}
    for _ in range(args.rounds):
        for row in ROWS:
            for name, worker in workers.items():
                found = worker.ask("measure_row", row, args.batch, args.device, gpu, 20 if gpu else 1)
                rounds[row][name] += found["seconds"]
    rows = {}
    for row, sides in rounds.items():
        rows[row] = {"flops": step_flops(row)}
        for name, seconds in sides.items():
            memory = workers[name].ask("measure_memory", row, args.batch, args.device, gpu)
            rows[row][name] = {"seconds": statistics.median(seconds), "rounds": seconds, **memory}
    for worker in workers.values():
        worker.close()
    about = about_this_run() | {"threads": THREADS, "device": args.device, "batch": args.batch}
    if gpu:
        about |= {"machine": torch.cuda.get_device_name(), "peak_tflops": args.peak}
    return about | {"rows": rows}


def step_flops(row):
    """Operations of a step for a clip: products and attention, forward and backward, by torch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ossicle.kernels import using_kernels

    with torch.device("meta"), using_kernels("torch"):
        net = network(Ours(), row)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 128, FRAMES), generator=torch.Generator("cpu")).sum().backward()
    return counter.get_total_flops()


def measure_choices(args):
    """The second table."""
    from common import about_this_run

    found = {model: choices(model, args) for model in args.choices or SMALL}
    return about_this_run() | {"threads": THREADS, "device": args.device, "choices": found}


def choices(model, args):
    """Seconds and peak bytes of a step for a clip of 10 s, as it is and with each thing that could make it faster."""
    import torch
    from common import in_turns

    from ossicle import create_model
    from ossicle.models.base import drawing_from

    torch.set_num_threads(THREADS)

    class Compiled(Step):
        def forward(self):
            with drawing_from(self.side.generator):
                return self.compiled(self.spec)

        def __call__(self):
            if not hasattr(self, "compiled"):  # a compiled network asks its own for its truth
                self.compiled = torch.compile(self.net)
            super().__call__()

    def step(kind=Step, change=lambda net: net):
        side = Ours()
        patchout = {"patchout_t": 0.3, "patchout_f": 0.3} if "passt" in model else {}
        net = create_model(model, num_classes=50, **patchout).train()  # type: ignore[arg-type]
        change(net)
        return kind(side, net, batch=8, device=args.device, bf16=args.device == "cuda", frames=net.config.frames)

    steps = {
        "as it is": step(),
        "channels-last": step(change=lambda net: net.to(memory_format=torch.channels_last)),
        "gradient_checkpointing": step(change=lambda net: setattr(net, "gradient_checkpointing", True)),
        "compile": step(Compiled),
    }
    seconds = in_turns(steps, rounds=2 * args.rounds, warm=2)
    return {name: {"seconds": seconds[name] / 8, "bytes": one.peak_bytes() / 8} for name, one in steps.items()}


def table(result):
    """The result as lines of Markdown."""
    rows, peer = result["rows"], "peer" in result["rows"]["B"]
    first = rows["B"]["ours"]
    lines = [
        f"Steps on {result['device']}, batch {result['batch']}; B takes {first['seconds']:.3g} s and "
        f"{first['bytes'] / 1e6:.0f} MB a clip.",
        "",
        "| | speed, B is 1 | paper | memory, B is 1 | paper | clips/s | MB a clip | share of peak | the package |",
        "|---" * 9 + "|",
    ]
    for row, (_, speed, memory) in ROWS.items():
        own = rows[row]["ours"]
        rate = rows[row]["flops"] / own["seconds"]
        share = f"{100 * rate / (1e12 * result['peak_tflops']):.0f} %" if result.get("peak_tflops") else "open"
        beside = "open"
        if peer:
            other = rows[row]["peer"]
            beside = f"{1 / other['seconds']:.3g} clips/s, {other['bytes'] / 1e6:.0f} MB"
        cells = [
            NAMES[row],
            f"{first['seconds'] / own['seconds']:.2f}",
            f"{speed:g}",
            f"{own['bytes'] / first['bytes']:.2f}",
            f"{memory:g}",
            f"{1 / own['seconds']:.3g}",
            f"{own['bytes'] / 1e6:.0f}",
            share,
            beside,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if result["device"] == "cpu":
        lines += ["", "Open: a GPU (clips per second beside the published package, share of the card's peak)."]
    return lines


def choices_table(result):
    """The second as lines of Markdown."""
    lines = [f"Steps on {result['device']}, clips of 10 s."]
    for model, found in result["choices"].items():
        plain = found["as it is"]
        lines += ["", f"| {model}, batch 8 | s a clip | of the step as it is | MB a clip |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {one['seconds']:.4f} | {one['seconds'] / plain['seconds']:.2f} | {one['bytes'] / 1e6:.1f} |"
            for name, one in found.items()
        ]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--peer", type=Path, help="python of an environment that holds hear21passt 0.0.26")
    parser.add_argument("--peak", type=float, help="dense bfloat16 operations of the card, 10^12 a second")
    parser.add_argument("--choices", nargs="*", metavar="MODEL", help="layouts, compile and gradient checkpointing")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Peer if args.work == "peer" else Ours, globals(), threads=THREADS)
        return
    from common import write_by_processor

    if args.choices is not None:
        title = "What layouts, compile and checkpointing do to a step"
        write_by_processor("step_choices", measure_choices(args), choices_table, title=title)
        return
    write_by_processor("patchout_table", measure(args), table, title="What patchout saves: table 1 of the paper")


if __name__ == "__main__":
    main()
