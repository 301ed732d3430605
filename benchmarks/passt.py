"""PaSST beside the published package: the same logits, seconds per 10 s clip, bytes kept for the backward pass.

    python benchmarks/passt.py --peer PYTHON        about 40 minutes on two cores; --quick about 5

PYTHON is that of an environment of its own with hear21passt 0.0.26, its timm and torchaudio, and the same torch.
Without it only the rows that compare us with ourselves are made. Writes results/passt.json and passt.md, which keep a
table for each processor that this ran on.

Network only, base_s10 unless said, batch 2, two threads, the optimizer's step included. Both environments run the same
measuring code below and take turns at every setting, and the settings take turns too, so that a busy machine hurts all
of them; medians over the rounds.

Ours runs three times: with the routines that were measured to be faster here, as every command does, and with all
float32 products forced to each of the two libraries in torch. Rows in bfloat16 are made where `ossicle train` would
choose it.

What each side is: the published network as its package runs it, with `torch.optim.AdamW` as it comes; ours as
`ossicle train` runs it, with the fused AdamW and `keep_freed_memory`, which the peer's own scripts do not have. The
optimizer's share is listed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from worker import Worker, work

HERE = Path(__file__).resolve().parent
FRAMES = 998
BATCH = 2
THREADS = 2
PRECISIONS = ("float32", "bf16")
FORCED = {"ours, MKL": "torch", "ours, oneDNN": "onednn"}  # what OSSICLE_KERNELS is for these sides
SETTINGS = ((10, 0, 0), (10, 40, 4), (16, 20, 2))  # stride, patchout in time, in frequency
WARM = (3, 8.0)  # passes and seconds, at least, before those that count: allocators still grow in the first ten steps


# --- a worker: runs in our environment and in the peer's, and imports what that one has ------------------------------


class Peer:
    """The published network; returns logits."""

    ARCHITECTURES = {10: "passt_s_swa_p16_128_ap476", 16: "passt_s_p16_s16_128_ap468"}

    def __init__(self):
        import hear21passt.models.passt as package

        self.package = package

    def network(self, stride, patchout_t=0, patchout_f=0):
        net = self.package.get_model(arch=self.ARCHITECTURES[stride], pretrained=False, fstride=stride, tstride=stride)
        self.package.first_RUN = False
        net.s_patchout_t, net.s_patchout_f = patchout_t, patchout_f
        return net

    def logits(self, net, spec):
        return net(spec)[0]

    def optimizer(self, net):
        import torch

        return torch.optim.AdamW(net.parameters())


class Ours:
    """This package's network."""

    def __init__(self):
        import torch

        from ossicle.allocator import keep_freed_memory

        keep_freed_memory()
        self.generator = torch.Generator().manual_seed(0)

    def network(self, stride, patchout_t=0, patchout_f=0):
        from ossicle import create_model

        return create_model(f"passt_base_s{stride}", patchout_t=patchout_t, patchout_f=patchout_f)

    def logits(self, net, spec):
        return net(spec, generator=self.generator)

    def optimizer(self, net):
        import torch

        return torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], fused=True)


def at_least(count, seconds):
    """Counts up for `count` turns and for `seconds`, whichever is longer."""
    start, turn = time.perf_counter(), 0
    while turn < count or time.perf_counter() - start < seconds:
        yield turn
        turn += 1


def inference_seconds(side, stride, patchout_t, patchout_f, bf16, *least):
    """Seconds per clip of each of at least so many passes and seconds, after one to warm up."""
    import torch

    net = side.network(stride).eval()
    spec = torch.randn(BATCH, 1, 128, FRAMES)
    times = []

    def run():
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            side.logits(net, spec)
        times.append((time.perf_counter() - start) / BATCH)

    run()
    times.clear()
    for _ in at_least(*least):
        run()
    return {"seconds": times}


def step_seconds(side, stride, patchout_t, patchout_f, bf16, *least):
    """Seconds per clip of each of at least so many training steps and seconds, and the optimizer's part of them.

    Some steps go before, until the allocator has all the memory it will ask for: a training is thousands of steps.
    """
    import torch

    net = side.network(stride, patchout_t, patchout_f).train()
    spec = torch.randn(BATCH, 1, 128, FRAMES)
    optimizer = side.optimizer(net)
    times, parts = [], []

    def run():
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = side.logits(net, spec)
        logits.float().sum().backward()
        middle = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        end = time.perf_counter()
        times.append((end - start) / BATCH)
        parts.append((end - middle) / BATCH)

    for _ in at_least(*WARM):
        run()
    times.clear()
    parts.clear()
    for _ in at_least(*least):
        run()
    return {"seconds": times, "optimizer_seconds": parts}


def kept_bytes(side, stride, patchout_t, patchout_f, bf16):
    """Bytes a clip of the distinct storages that autograd saves, parameters left out."""
    import torch
    from kept import kept_bytes as saved_bytes

    net = side.network(stride, patchout_t, patchout_f).train()
    spec = torch.randn(BATCH, 1, 128, FRAMES)

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return side.logits(net, spec)

    return {"bytes": saved_bytes(run, net.parameters()) / BATCH}


def save_logits(side, folder, seconds):
    """The peer's half of the comparison: its weights (none left at zero or one), inputs and their logits."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = side.network(10).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        out = {}
        for s in seconds:
            out[f"spec.{s}"] = torch.randn(1, 1, 128, 100 * s)
            out[f"logits.{s}"] = side.logits(net, out[f"spec.{s}"])
    save_file(
        {f"state.{k}": v.contiguous() for k, v in net.state_dict().items()} | out, Path(folder) / "peer.safetensors"
    )
    return {}


def compare_logits(side, folder, seconds):
    """Our half: loads the peer's tensors, refusing any misfit, and gives the largest difference at each length."""
    import torch

    from ossicle.weights.tensors import load_into, load_weights

    tensors = load_weights(Path(folder) / "peer.safetensors")
    state = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")}
    net = side.network(10).eval()
    load_into(net, state, source="the peer")
    rows = []
    for s in seconds:
        wanted = tensors[f"logits.{s}"]
        with torch.inference_mode():
            difference = (side.logits(net, tensors[f"spec.{s}"]) - wanted).abs()
        rows.append(
            {
                "seconds": s,
                "largest_difference": float(difference.max()),
                "largest_logit": float(wanted.abs().max()),
                "within": bool((difference <= 1e-5 + 1e-4 * wanted.abs()).all()),
            }
        )
    return {"tensors": len(state), "parameters": sum(t.numel() for t in state.values()), "lengths": rows}


def matrix_rate(side, repeats):
    """Operations a second of matrix products: torch's own in both precisions, and the fastest float32 kernel in it."""
    import torch

    from ossicle.kernels.operators import HAS_ONEDNN, onednn

    def best(function, operations):
        function()
        times = []
        for _ in range(3 * repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return operations / min(times)

    rates = {}
    with torch.inference_mode():
        for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
            a, b = torch.randn(2, 2048, 2048).to(dtype)
            rates[f"matmul_{name}"] = best(lambda a=a, b=b: a @ b, 2 * 2048**3)
        if HAS_ONEDNN:
            weight, x = torch.randn(3072, 768), torch.randn(2380, 768)
            rates["onednn_float32"] = best(lambda: onednn(x, weight), 2 * 2380 * 768 * 3072)
    return rates


def chosen(side):
    """What this machine computes with, and whether training would choose bfloat16."""
    from ossicle.kernels import bfloat16_speedup, measured_kernels

    return {"kernels": str(measured_kernels()), "bfloat16_speedup": bfloat16_speedup()}


def operations(side):
    """Operations of our pass over one clip, counted: two for each multiplication."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        side.network(10).eval()(torch.empty(1, 128, FRAMES))
    return {"operations": counter.get_total_flops()}


# --- the conductor ---------------------------------------------------------------------------------------------------


def take_turns(pythons, task, variants, *, forced, rounds, least):
    """Median seconds of each side over rounds in which sides and variants take turns, and the rounds themselves.

    Each turn is a process of its own, as a training is: what an earlier setting left in the memory of a process, or the
    system took back from it while it waited, is no part of a step.
    """
    # The libraries differ in float32 alone.
    sides = {variant: pythons if variant[1] else pythons | forced for variant in variants}
    answers: dict = {variant: {name: [] for name in sides[variant]} for variant in variants}
    for number in range(rounds):
        for variant in variants:
            for name, python in sides[variant].items():
                worker = Worker(python, name, script=__file__, kernels=FORCED.get(name, "auto"))
                setting, bf16 = variant
                answers[variant][name].append(worker.ask(task, *setting, bf16, *least))
                worker.close()
        print(f"{task}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {variant: {name: medians(found) for name, found in answers[variant].items()} for variant in variants}


def medians(answers):
    """Of all repeats of all rounds, and the rounds."""
    row = {key: statistics.median(value for answer in answers for value in answer[key]) for key in answers[0]}
    return row | {"rounds": [statistics.median(answer["seconds"]) for answer in answers]}


def name_of(setting):
    stride, t, f = setting
    return f"s{stride}, patchout {t}/{f}" if t else f"s{stride}, no patchout"


def measure(args):
    """Runs everything and gives it as one dictionary."""
    import torch
    from common import about_this_run

    torch.set_num_threads(THREADS)
    pythons = {"peer": args.peer, "ours": sys.executable} if args.peer else {"ours": sys.executable}
    workers = {"ours": Worker(sys.executable, "ours", script=__file__)}
    ours = workers["ours"]
    result = about_this_run() | {"times": {}, "kept_bytes": {}}
    result |= ours.ask("chosen")  # before the peer's threads are there
    workers |= {name: Worker(python, name, script=__file__) for name, python in pythons.items() if name != "ours"}
    forced = {name: sys.executable for name in FORCED}
    pace = {"rounds": 1, "least": (1, 0.0)} if args.quick else {"rounds": args.rounds, "least": (2, 8.0)}

    def say(text):
        print(text, file=sys.stderr, flush=True)

    if args.peer:
        seconds = [1, 5, 10] if args.quick else list(range(1, 11))
        with tempfile.TemporaryDirectory() as folder:
            workers["peer"].ask("save_logits", folder, seconds)
            result["parity"] = ours.ask("compare_logits", folder, seconds)
        say(f"parity: {result['parity']}")
    say(f"chosen: {result['kernels']}, bfloat16 {result['bfloat16_speedup']:.2f}")
    precisions = (False, True) if result["bfloat16_speedup"] > 1.2 else (False,)
    result["matrix_rate"] = [ours.ask("matrix_rate", 3)]
    result |= ours.ask("operations")
    variants = [(SETTINGS[0], bf16) for bf16 in precisions]
    for (_, bf16), row in take_turns(pythons, "inference_seconds", variants, forced=forced, **pace).items():
        result["times"][f"inference, {PRECISIONS[bf16]}"] = row
    result["matrix_rate"].append(ours.ask("matrix_rate", 3))
    for setting in SETTINGS:
        answers = {name: worker.ask("kept_bytes", *setting, False)["bytes"] for name, worker in workers.items()}
        result["kept_bytes"][name_of(setting)] = answers
        say(f"kept, {name_of(setting)}: {answers}")
    variants = [(setting, bf16) for bf16 in precisions for setting in SETTINGS]
    if args.quick:
        variants = [variant for variant in variants if variant[1] or variant[0] == SETTINGS[1]]
    for (setting, bf16), row in take_turns(pythons, "step_seconds", variants, forced=forced, **pace).items():
        result["times"][f"step, {name_of(setting)}, {PRECISIONS[bf16]}"] = row
    for worker in workers.values():
        worker.close()
    return result


def best_rates(result):
    """The best of the measurements of each kind: a busy moment must not lower the bar."""
    return {key: max(sample[key] for sample in result["matrix_rate"]) for key in result["matrix_rate"][0]}


def claims(result):
    """(what, got, wanted, met) for every target that the run measured."""
    times, kept = result["times"], result["kept_bytes"]
    none, some, wide = (name_of(setting) for setting in SETTINGS)

    def seconds(side, what):
        return times.get(what, {}).get(side, {}).get("seconds")

    rows = []

    def ratio(what, numerator, denominator, wanted):
        if numerator and denominator:
            got = numerator / denominator
            rows.append((what, f"{got:.2f}", f"at least {wanted}", got >= wanted))

    if "parity" in result:
        lengths = result["parity"]["lengths"]
        worst = max(row["largest_difference"] for row in lengths)
        what = f"largest logit difference from the peer's {result['parity']['tensors']} tensors, "
        what += f"{lengths[0]['seconds']} to {lengths[-1]['seconds']} s"
        rows.append((what, f"{worst:.1e}", "rtol 1e-4, atol 1e-5", all(row["within"] for row in lengths)))
    fp, bf = "inference, float32", "inference, bf16"
    ratio("inference float32, peer / ours", seconds("peer", fp), seconds("ours", fp), 1.8)
    rate = result["operations"] / seconds("ours", fp)
    best = best_rates(result)
    faster = max(best["matmul_float32"], best.get("onednn_float32", 0))
    ratio("inference float32, our rate / rate of the faster library's product", rate, faster, 0.85)
    ratio("inference bf16, peer float32 / ours", seconds("peer", fp), seconds("ours", bf), 3.5)
    ratio("inference bf16, peer bf16 / ours", seconds("peer", bf), seconds("ours", bf), 1.5)

    def step(side, setting, precision):
        return seconds(side, f"step, {setting}, {precision}")

    for setting in (none, some, wide):
        what = f"step float32, {setting}, peer / ours"
        ratio(what, step("peer", setting, "float32"), step("ours", setting, "float32"), 1.2)
    for what, sides in times.items():
        if better := min(
            (name for name in FORCED if name in sides), key=lambda name: sides[name]["seconds"], default=""
        ):
            low, middle, high = interval(
                [a / b for a, b in zip(*(sides[n]["rounds"] for n in ("ours", better)), strict=True)]
            )
            got = f"{middle:.3f} ({low:.3f} to {high:.3f})"
            rows.append((f"{what}, ours / the better of the two forced ({better[6:]})", got, "no slower", low <= 1))
    ours = step("ours", some, "bf16")
    ratio("step bf16, patchout 40/4, peer float32 / ours", step("peer", some, "float32"), ours, 2.4)
    ratio("step bf16, patchout 40/4, peer bf16 / ours", step("peer", some, "bf16"), ours, 1.2)
    ratio("step bf16, no patchout, peer bf16 / ours", step("peer", none, "bf16"), step("ours", none, "bf16"), 1.7)
    for precision in ("bf16", "float32"):
        full = step("ours", none, precision)
        ratio(f"our step {precision}, without / with patchout 40/4", full, step("ours", some, precision), 2.7)
        ratio(f"our step {precision}, without / stride 16 with 20/2", full, step("ours", wide, precision), 5)
    for setting, wanted in ((some, 0.45), (wide, 0.25)):
        got = kept[setting]["ours"] / kept[none]["ours"]
        what = f"bytes kept for the backward pass, ours, {setting} / {none}"
        rows.append((what, f"{got:.3f}", f"at most {wanted}", got <= wanted))
    for setting, row in kept.items():
        if "peer" in row:
            got = row["ours"] / row["peer"]
            what = f"bytes kept, {setting}, ours ({row['ours'] / 1e6:.0f} MB a clip) / peer ({row['peer'] / 1e6:.0f})"
            rows.append((what, f"{got:.2f}", "at most 0.7", got <= 0.7))
    return rows


def interval(values):
    """Mean of some rounds with its 95 % interval, by Student's t; of one round the interval is unknown, and wide."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return 0.0, mean, float("inf")
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}.get(len(values), 2.26)
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return mean - half, mean, mean + half


def table(result):
    """The result as lines of Markdown."""
    from common import claim_table

    rates = ", ".join(f"{key.replace('_', ' ')} {value / 1e9:.0f}" for key, value in best_rates(result).items())
    lines = [f"Matrix products on this machine, Gflop/s: {rates}.", ""]
    lines += claim_table(claims(result))
    names = ["peer", "ours", *FORCED]
    lines += ["", f"| seconds a clip | {' | '.join(names)} | of which optimizer, peer | ours |", "|---" * 7 + "|"]
    for what, sides in result["times"].items():
        cells = [(side, "seconds") for side in names] + [(side, "optimizer_seconds") for side in names[:2]]
        values = [sides.get(side, {}).get(key) for side, key in cells]
        lines.append(f"| {what} | " + " | ".join("" if value is None else f"{value:.3f}" for value in values) + " |")
    if "kernels" in result:
        lines += [
            "",
            f"Routines: `{result['kernels']}`; bfloat16 {result['bfloat16_speedup']:.2f} times as fast as float32.",
        ]
    if "remark" in result:  # on a run of which a part was measured again
        lines += ["", result["remark"]]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", type=Path, help="python of an environment that holds hear21passt 0.0.26")
    parser.add_argument("--quick", action="store_true", help="one round, fewer settings")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Peer if args.work == "peer" else Ours, globals(), threads=THREADS)
        return
    from common import write_by_processor

    result = measure(args)
    write_by_processor("passt", result, table, title="PaSST beside the published package")


if __name__ == "__main__":
    main()
