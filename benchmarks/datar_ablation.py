"""Which parts of DATAR earn their keep? One part of datar_nano changed at a time, each variant from random weights.

    python benchmarks/datar_ablation.py screen    [--seeds 0 1 2]     ESC-10, all five official folds, 40 epochs
    python benchmarks/datar_ablation.py main      [--seeds 0 1 2]     ESC-50, official fold 1, 30 epochs

A seed of all variants takes some three to six hours on two cores, in either study. --only VARIANT ... names the
variants to run; without "deformable" there is nothing to compare them with.

One recipe for all, and nothing is chosen by any score: a fixed number of epochs on the other four folds, then the test
fold is read once. The precision is fixed too, where a training would measure which is faster. passt_tiny_s16 stands
beside them under the same recipe: without the patchout of its own, with a front end at 32 kHz where the pyramids have
16, and with fixed mel edges as they have.

A (variant, seed) counts when all its folds are there. Its accuracy is that of all test clips together, and the interval
beside a mean accuracy is Student's t over seeds. A variant is compared with "deformable" by the differences of the
paired runs, those of one seed and fold: their mean, its t interval, and the smallest difference that so many pairs can
detect at 5 % significance with 80 % power: (t(0.975) + t(0.8)) deviation / sqrt(pairs), where the deviation is that of
its own differences, and t has a degree of freedom less than there are pairs. Differences are decided from two seeds on,
by the paired t test and all comparisons together at 5 % (Holm 1979); an interval is of its comparison alone. The pairs
of one fold share their clips: all this speaks of new seeds on these recordings, not of other recordings.

Runs are kept in --runs and continued or skipped when the script is called again: results accumulate. Two processes may
work on one study if they have no (variant, seed) in common.
"""

import argparse
import csv
import dataclasses
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from common import about_this_run, runs_to_add_to, stored_runs, write_result
from esc50 import BASE as ESC50
from esc50 import train_once

from ossicle import create_model
from ossicle.allocator import keep_freed_memory
from ossicle.data import Dataset, read_dataset
from ossicle.frontend import frontend_config
from ossicle.metrics import Estimate, mean_interval, t_quantile
from ossicle.models import find_preset
from ossicle.training import TrainConfig

BASE = dataclasses.replace(
    ESC50,
    model="datar_nano",
    epochs=None,
    validation=0.0,
    lr=5e-4,
    patchout_t=0.0,
    patchout_f=0.0,
    jitter=False,
    precision="bfloat16",
)
REFERENCE = "deformable"
VARIANTS: dict[str, dict[str, Any]] = {
    "all-local": {"network": {"deform": [False, False, False, False]}},
    "global without offsets": {"network": {"offsets": "none"}},
    REFERENCE: {},
    "deformable, key stride 2": {"network": {"key_strides": [8, 4, 2, 1]}},
    "time-only offsets": {"network": {"offsets": "time"}},
    "adaptor: spectrogram": {"network": {"adaptor": "spectrogram"}},
    "adaptor: feature": {"network": {"adaptor": "feature"}},
    "adaptor: bottleneck": {"network": {"adaptor": "bottleneck"}},
    "control: position table": {"network": {"adaptor": "position_table"}},
    "passt_tiny_s16": {"model": "passt_tiny_s16"},
}
EPOCHS = {"screen": 40, "main": 30}
TITLES = {
    "screen": "Parts of datar_nano, ESC-10 from random weights, five folds",
    "main": "Parts of datar_nano, ESC-50 from random weights, fold 1",
}

Run = dict[str, Any]
Runs = dict[int, dict[str, Run]]  # of one variant: seed to fold to run


def main() -> None:
    """Runs the study that was asked for and writes what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=tuple(EPOCHS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc50"))
    parser.add_argument("--runs", type=Path, default=Path("runs/datar_ablation"))
    parser.add_argument("--epochs", type=int, help="by default 40 for screen, 30 for main")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), metavar="VARIANT", help="names of variants")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    dataset = read_dataset(arguments.data)
    folds: tuple[str, ...] = ("1",)
    if arguments.study == "screen":
        dataset, folds = esc10(dataset, arguments.data), dataset.folds
    epochs = arguments.epochs or EPOCHS[arguments.study]
    name = f"datar_ablation_{arguments.study}"
    for seed in arguments.seeds:
        for variant in arguments.only or VARIANTS:
            config = dataclasses.replace(BASE, seed=seed, epochs=epochs, **VARIANTS[variant])
            for fold in folds:
                key = {"variant": variant, "epochs": epochs, "seed": seed, "fold": fold}
                # Finished runs live in the result file, which is committed: a run folder may be gone.
                if any(key.items() <= run.items() for run in stored_runs(name)["runs"]):
                    continue
                plain = re.sub("[^a-z0-9]+", "_", variant.lower())
                folder = arguments.runs / f"{arguments.study}_{plain}_{epochs}_{seed}_{fold}"
                run = {**key, **about_this_run(), **tested(dataset, config, fold=fold, folder=folder)}
                with runs_to_add_to(name) as result:
                    result["runs"].append(run)
                    report(arguments.study, {**result, **about_this_run()}, dataset=dataset, folds=folds, epochs=epochs)


def esc10(dataset: Dataset, root: Path) -> Dataset:
    """The rows that the table marks as ESC-10, with their ten labels alone."""
    table = next(path for path in (root / "meta" / "esc50.csv", root / "meta.csv") if path.exists())
    with open(table, newline="") as file:
        chosen = {row["filename"] for row in csv.DictReader(file) if row["esc10"] == "True"}
    items = tuple(item for item in dataset.items if item.file.name in chosen)
    labels = tuple(sorted({label for item in items for label in item.labels}))
    layout = f"ESC-10, {len(items)} clips of {len(labels)} classes of: {dataset.layout}"
    return dataclasses.replace(dataset, items=items, labels=labels, layout=layout)


def tested(dataset: Dataset, config: TrainConfig, *, fold: str, folder: Path) -> Run:
    """One training, and what the study keeps of it."""
    trained, curve, minutes = train_once(dataset, config, fold=fold, folder=folder)
    return {
        "score": trained.evaluation.metrics.accuracy.value,
        "clips": len(trained.folds[0].tested),
        **minutes,
        "curve": [round(loss, 4) for loss in curve["train_loss"]],
        **size(config, num_classes=len(dataset.labels)),
    }


def size(config: TrainConfig, *, num_classes: int) -> dict[str, int]:
    """Parameters, and multiplications of a pass over one clip, counted on a network without storage."""
    from torch.utils.flop_counter import FlopCounterMode

    frontend = frontend_config(find_preset(config.model).frontend)
    assert config.window is not None
    frames = frontend.frames(round(config.window * frontend.rate))
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = create_model(config.model, num_classes=num_classes, frames=frames, **config.network).eval()
        model(torch.empty(1, frontend.mels, frames))
    return {"parameters": sum(p.numel() for p in model.parameters()), "macs": counter.get_total_flops() // 2}


# --- what the runs say -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A variant against the reference on the seeds that both have complete."""

    seeds: int
    differences: list[float]  # of accuracy, one for each seed and fold

    @property
    def estimate(self) -> Estimate:
        """Mean difference with its interval."""
        return mean_interval(self.differences)

    @property
    def error(self) -> float:
        """Standard error of the mean difference."""
        return statistics.stdev(self.differences) / math.sqrt(len(self.differences))

    @property
    def smallest(self) -> float:
        """The smallest difference that so many pairs that deviate so can detect."""
        return sum(t_quantile(p, degrees=len(self.differences) - 1) for p in (0.975, 0.8)) * self.error

    def leaves_out_zero(self, *, level: float) -> bool:
        """Whether the interval of this level does."""
        reach = t_quantile((1 + level) / 2, degrees=len(self.differences) - 1) * self.error
        return abs(statistics.mean(self.differences)) > reach


def verdicts(comparisons: Mapping[str, Comparison]) -> dict[str, Literal["better", "worse", "undecided"]]:
    """Whether the data decide the sign of each difference, at 5 % for all of them together (Holm's steps)."""
    found: dict[str, Literal["better", "worse", "undecided"]] = dict.fromkeys(comparisons, "undecided")
    left = dict(comparisons)
    while left:
        decided = [name for name, one in left.items() if one.leaves_out_zero(level=1 - 0.05 / len(left))]
        if not decided:
            break
        for name in decided:
            found[name] = "better" if statistics.mean(left.pop(name).differences) > 0 else "worse"
    return found


def complete(runs: Sequence[Run], variant: str, *, folds: Sequence[str]) -> Runs:
    """The runs of a variant, of the seeds for which every fold is there."""
    found: Runs = {}
    for run in runs:
        if run["variant"] == variant:
            found.setdefault(run["seed"], {})[run["fold"]] = run
    return {seed: found[seed] for seed in sorted(found) if set(found[seed]) == set(folds)}


def accuracy(by_fold: Mapping[str, Run]) -> float:
    """Of all test clips of a seed together."""
    clips = sum(run["clips"] for run in by_fold.values())
    return sum(run["score"] * run["clips"] for run in by_fold.values()) / clips


def compare(runs: Runs, reference: Runs) -> Comparison | None:
    """Pairs the runs of the same seed and fold; None where there is no common seed."""
    seeds = sorted(runs.keys() & reference.keys())
    pairs = [(runs[seed][fold], reference[seed][fold]) for seed in seeds for fold in sorted(runs[seed])]
    differences = [one["score"] - other["score"] for one, other in pairs]
    return Comparison(seeds=len(seeds), differences=differences) if pairs else None


def report(study: str, result: dict[str, Any], *, dataset: Dataset, folds: Sequence[str], epochs: int) -> None:
    """Writes the table of all runs so far."""
    runs = [run for run in result["runs"] if run["epochs"] == epochs]
    finished = {variant: found for variant in VARIANTS if (found := complete(runs, variant, folds=folds))}
    reference = finished.get(REFERENCE, {})
    comparisons = {
        variant: comparison
        for variant, found in finished.items()
        if variant != REFERENCE and (comparison := compare(found, reference))
    }
    judged = verdicts({variant: one for variant, one in comparisons.items() if one.seeds >= 2})
    clips = sum(item.fold in folds for item in dataset.items)
    lines = [f"{epochs} epochs; {clips} test clips in {len(folds)} fold{'s' if len(folds) > 1 else ''}."]
    lines += [conclusion(judged), "", *table(finished, comparisons, judged)]
    left_out = sum(1 for run in runs if run["seed"] not in finished.get(run["variant"], {}))
    if left_out:
        lines += ["", f"{left_out} finished runs wait for the other folds of their seed and are left out."]
    write_result(f"datar_ablation_{study}", result, lines, title=f"{TITLES[study]}, {epochs} epochs")


def conclusion(judged: Mapping[str, str]) -> str:
    """The sentence on what the data say."""
    if not judged:
        return f"No variant can be compared with {REFERENCE!r} yet."
    named = {word: "; ".join(v for v in judged if judged[v] == word) for word in ("better", "worse", "undecided")}
    if not named["better"] and not named["worse"]:
        return f"No variant is decided to be better or worse than {REFERENCE!r} (compared: {named['undecided']})."
    better, worse, undecided = (named[word] or "none" for word in ("better", "worse", "undecided"))
    return f"Decided against {REFERENCE!r}: better are {better}, worse are {worse}; undecided are {undecided}."


def table(finished: Mapping[str, Runs], comparisons: Mapping[str, Comparison], judged: Mapping[str, str]) -> list[str]:
    """A row for each variant with a complete seed."""
    lines = [
        f"| variant | seeds | mean accuracy | 95 % over seeds | difference to {REFERENCE!r} | 95 % "
        "| smallest that can be detected | verdict | parameters | M MACs a clip | minutes a seed (threads) "
        "| of processor time |",
        "|---" * 12 + "|",
    ]
    for variant, found in finished.items():
        mean = mean_interval([accuracy(by_fold) for by_fold in found.values()])
        comparison = comparisons.get(variant)
        difference, verdict = Estimate(value=None), "reference" if variant == REFERENCE else ""
        if comparison:
            difference = comparison.estimate
            verdict = judged.get(variant, "not decided by one seed")
        runs = [run for by_fold in found.values() for run in by_fold.values()]
        spent = sum(run["minutes"] for run in runs) / len(found)
        processor = [run["processor_minutes"] for run in runs]
        cells = [
            variant,
            str(len(found)),
            f"{mean.value:.4f}",
            interval(mean, sign=""),
            "" if difference.value is None else f"{difference.value:+.4f}",
            interval(difference, sign="+") if comparison and variant in judged else "",
            f"{comparison.smallest:.4f}" if comparison and variant in judged else "",
            verdict,
            f"{runs[-1]['parameters']:,}",
            f"{runs[-1]['macs'] / 1e6:.0f}",
            f"{spent:.0f} ({', '.join(sorted({str(run['threads']) for run in runs}))})",
            "-" if None in processor else f"{sum(processor) / len(found):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def interval(estimate: Estimate, *, sign: str) -> str:
    """The two ends, where there are any."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:{sign}.4f} to {estimate.high:{sign}.4f}"


if __name__ == "__main__":
    main()
