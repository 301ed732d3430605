"""HEAR embeddings beside the published package: the same numbers in every variant, and seconds for 30 s of sound.

    python benchmarks/hear.py --peer PYTHON           about 20 minutes on two cores

PYTHON is that of an environment of its own with hear21passt 0.0.26, its timm and torchaudio, and the same torch. Both
sides have the same random weights, made by the peer: its published ones are a download. Every variant is compared on a
narrow network, `base` at full size too. Then both compute the timestamp embeddings of one sound of 30 s (601 windows of
160 ms), taking turns; medians over the rounds. Writes results/hear.json and hear.md, which keep a table for each
processor that this ran on.

`--golden FILE` writes the peer's numbers of the narrow networks, for the tests, and measures nothing.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker import Worker, work

THREADS = 2
TINY = {"dim": 24, "num_heads": 2, "depth": 2, "num_classes": 5, "deviation": 0.2}
FULL = {"dim": 768, "num_heads": 12, "depth": 12, "num_classes": 527, "deviation": 0.02}
FRAMES = {"base20sec": 2000, "base30sec": 3000, "hop100": 3200, "hop160": 2000}  # of the position table, else 998
HOPS = {"hop100": 100, "hop160": 160}
VARIANTS = (
    *("base", "base2level", "base2levelmel", "base20sec", "base30sec", "openmic2008"),
    *("hop100base", "hop100base2lvl", "hop100base2lvlmel", "hop160base", "hop160base2lvl", "hop160base2lvlmel"),
)
SECONDS = 30  # of the sound that is timed


def by_variant(table, variant, other):
    """The entry whose key the variant's name begins with."""
    return next((value for key, value in table.items() if variant.startswith(key)), other)


def window_seconds(variant):
    """Longest scene of one pass."""
    return {"base20sec": 20, "base30sec": 30}.get(variant, 10)


# --- a worker: runs in our environment and in the peer's, and imports what that one has ------------------------------


def sounds(samples):
    """Two sounds (sound, sample) of integers: the same on every machine."""
    import torch

    n = torch.arange(samples)
    rows = [(n * n * step + n * 104729) % 65537 for step in (7919, 3)]
    return ((torch.stack(rows) - 32768) / 131072).float()


class Peer:
    """The published package with random weights."""

    def make(self, variant, sizes):
        import importlib

        import hear21passt.models.passt as package
        import torch

        package.first_RUN = False
        network = package.PaSST(
            img_size=(128, by_variant(FRAMES, variant, 998)),
            stride=(10, 10),
            embed_dim=sizes["dim"],
            depth=sizes["depth"],
            num_heads=sizes["num_heads"],
            num_classes=sizes["num_classes"],
            distilled=True,
        )
        with torch.no_grad():
            for seed, (name, parameter) in enumerate(network.named_parameters()):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                # None is left at zero or one; in a narrow network larger weights are needed for blocks to matter.
                parameter.copy_(noise * sizes["deviation"] + (parameter.ndim == 1 and "norm" in name))
        module: Any = importlib.import_module(f"hear21passt.{variant}")
        module.get_model_passt = lambda **options: network
        self.module, self.model = module, module.load_model()
        return self

    def scene(self, audio):
        return self.module.get_scene_embeddings(audio, self.model)

    def timestamps(self, audio):
        return self.module.get_timestamp_embeddings(audio, self.model)

    @property
    def network(self):
        return self.model.net


class Ours:
    """This package."""

    precision: Any = "float32"

    def make(self, variant, sizes, state):
        from ossicle import create_model
        from ossicle.bundle import Bundle
        from ossicle.frontend import create_frontend
        from ossicle.hear import HearModel
        from ossicle.recognizer import Recognizer
        from ossicle.weights.tensors import load_into

        options = {name: value for name, value in sizes.items() if name != "deviation"}
        network = create_model("passt_base_s10", frames=by_variant(FRAMES, variant, 998), **options).eval()
        load_into(network, state, source="the peer")
        hop = by_variant(HOPS, variant, None)
        seconds = window_seconds(variant)
        bundle = Bundle(
            model=network,
            frontend=create_frontend("passt" if hop is None else f"passt_hop{hop}").eval(),
            model_name="passt_base_s10",
            task="multi-label",
            labels=tuple(str(number) for number in range(sizes["num_classes"])),
            window_seconds=seconds,
            hop_seconds=seconds,
            library_version="",
            version="",
        )
        self.model = HearModel(Recognizer(bundle, device="cpu", precision=self.precision), variant=variant)
        return self

    def scene(self, audio):
        return self.model.get_scene_embeddings(audio)

    def timestamps(self, audio):
        return self.model.get_timestamp_embeddings(audio)


def embeddings(side, variant, short):
    """What a side computes for scenes within and beyond its window, and for timestamps."""
    import torch

    rate = 32000
    with torch.no_grad():
        out = {
            "scene_short": side.scene(sounds(rate)),
            "scene_long": side.scene(sounds((window_seconds(variant) + 1) * rate)),
        }
        out["timestamps"], out["times"] = side.timestamps(sounds(rate // 2 if short else rate))
    return {name: tensor.contiguous() for name, tensor in out.items()}


def save_embeddings(side, folder, variant, tiny):
    """The peer's half of the comparison: its weights and embeddings."""
    from safetensors.torch import save_file

    side.make(variant, TINY if tiny else FULL)
    state = {f"state.{name}": tensor.contiguous() for name, tensor in side.network.state_dict().items()}
    save_file(state | embeddings(side, variant, tiny), Path(folder) / f"{variant}.safetensors")


def compare_embeddings(side, folder, variant, tiny):
    """Our half: the largest difference, and the largest number, of each kind."""
    from safetensors.torch import load_file

    stored = load_file(Path(folder) / f"{variant}.safetensors")
    state = {name.removeprefix("state."): tensor for name, tensor in stored.items() if name.startswith("state.")}
    side.make(variant, TINY if tiny else FULL, state)
    found = {}
    for name, ours in embeddings(side, variant, tiny).items():
        theirs = stored[name]
        assert ours.shape == theirs.shape, f"{variant}, {name}: {ours.shape} and {theirs.shape}"
        found[name] = [float((ours - theirs).abs().max()), float(theirs.abs().max())]
    return found | {"sizes": [side.model.scene_embedding_size, side.model.timestamp_embedding_size]}


def in_half(side, folder, variant):
    """As `compare_embeddings` at full size, in bfloat16."""
    side.precision = "bfloat16"
    return compare_embeddings(side, folder, variant, False)


def seconds(side, repeats):
    """Seconds for the timestamp embeddings of one sound, for each repeat, after a short one to warm up."""
    import torch

    audio = sounds(SECONDS * 32000)[:1]
    times = []
    with torch.no_grad():
        side.timestamps(audio[:, :32000])
        for _ in range(repeats):
            start = time.perf_counter()
            side.timestamps(audio)
            times.append(time.perf_counter() - start)
    return {"seconds": times}


# --- the conductor ---------------------------------------------------------------------------------------------------


def write_golden(peer, file):
    """The peer's numbers of all narrow networks, whose weights are the same but for the position tables."""
    from safetensors.torch import load_file, save_file

    worker, golden = Worker(peer, "peer", script=__file__), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            worker.ask("save_embeddings", folder, variant, True)
            for name, tensor in load_file(Path(folder) / f"{variant}.safetensors").items():
                shared = f"state.{name.removeprefix('state.')}"
                if name.startswith("state.") and "time_new" not in name:
                    assert golden.setdefault(shared, tensor).equal(tensor)
                else:
                    golden[f"{variant}.{name}"] = tensor
    worker.close()
    about = {"made by": "hear21passt 0.0.26", "network": json.dumps(TINY)}
    save_file(golden, file, metadata=about)


def measure(args):
    """Runs everything and gives it as one dictionary."""
    from common import about_this_run

    result = about_this_run() | {"narrow": {}, "threads": THREADS}
    result["command"] = result["command"].replace(str(args.peer), "PYTHON")
    workers = {name: Worker(python, name, script=__file__) for name, python in sides(args).items()}
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            workers["peer"].ask("save_embeddings", folder, variant, True)
            result["narrow"][variant] = workers["ours"].ask("compare_embeddings", folder, variant, True)
            say(f"{variant}: {result['narrow'][variant]}")
        workers["peer"].ask("save_embeddings", folder, "base", False)
        workers["half"] = Worker(sys.executable, "ours", script=__file__)
        result["half"] = workers["half"].ask("in_half", folder, "base")
        result["full"] = workers["ours"].ask("compare_embeddings", folder, "base", False)
        say(f"full size: {result['full']}")
    found: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(args.rounds):
        for name, worker in workers.items():
            found[name] += worker.ask("seconds", 1)["seconds"]
        say(f"round {number + 1} of {args.rounds}: {found}")
    for worker in workers.values():
        worker.close()
    return result | {"seconds": {name: statistics.median(values) for name, values in found.items()}, "rounds": found}


def sides(args):
    return {"peer": args.peer, "ours": sys.executable}


def say(text):
    print(text, file=sys.stderr, flush=True)


def claims(result):
    """(what, got, wanted, met) for every target."""

    def worst(found):
        return max(found[name][0] for name in ("scene_short", "scene_long", "timestamps"))

    times = result["seconds"]
    ratio = times["peer"] / times["ours"]
    full = result["full"]
    narrow = max(map(worst, result["narrow"].values()))
    scene = max(full["scene_short"][0], full["scene_long"][0])
    return [
        (
            f"timestamp embeddings of {SECONDS} s, peer / ours",
            f"{ratio:.2f}",
            "at least 3, aim 10",
            ratio >= 3,
        ),
        ("largest difference, scene embeddings, full size", f"{scene:.1e}", "1e-4", scene <= 1e-4),
        (
            "largest difference, timestamp embeddings, full size",
            f"{full['timestamps'][0]:.1e}",
            "1e-4",
            full["timestamps"][0] <= 1e-4,
        ),
        (
            f"largest difference, {len(result['narrow'])} variants of a narrow network",
            f"{narrow:.1e}",
            "1e-4",
            narrow <= 1e-4,
        ),
        (
            "timestamp embeddings in bfloat16, peer float32 / ours",
            f"{times['peer'] / times['half']:.2f}",
            f"differs by {worst(result['half']):.2f} at most, of {full['timestamps'][1]:.1f}",
            None,
        ),
    ]


def table(result):
    """The result as lines of Markdown."""
    from common import claim_table

    times = result["seconds"]
    lines = [*claim_table(claims(result)), "", "| seconds | peer | ours | ours, bfloat16 |", "|---|---|---|---|"]
    cells = " | ".join(f"{times[name]:.2f}" for name in ("peer", "ours", "half"))
    return [*lines, f"| timestamp embeddings of {SECONDS} s | {cells} |"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", type=Path, help="python of an environment that holds hear21passt 0.0.26")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--golden", type=Path, help="write the peer's numbers of narrow networks here instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Peer if args.work == "peer" else Ours, globals(), threads=THREADS)
    elif not args.peer:
        parser.error("--peer is needed: every row is a comparison")
    elif args.golden:
        write_golden(args.peer, args.golden)
    else:
        from common import write_by_processor

        write_by_processor("hear", measure(args), table, title="HEAR embeddings beside the published package")


if __name__ == "__main__":
    main()
