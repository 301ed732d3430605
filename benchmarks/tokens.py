"""What do fewer tokens cost a trained PaSST, and what do they save? No training, no threshold, no choice by a score.

    python benchmarks/tokens.py [--runs RUN ...] [--threads 1]

RUN is a run folder of `benchmarks/esc50.py main`: passt_tiny_s16 on folds 2 to 5 of ESC-50, from random weights. Their
test fold, fold 1, is scored at every method and share in float32, from features that are computed once. Times are of
every tenth clip by itself, the settings taking turns at it: network only, median over clips, in processor time, which
is the time on a machine that does nothing else and less upset by one that does.

Intervals: of accuracy and of the paired difference from all tokens, by bootstrap over source recordings, the seeds
averaged; and of the difference by Student's t over seeds. A network is also timed at 10 s with random weights, because
what a method costs besides weighs less in a larger one.

About 5 minutes a run and 3 for the timing. Writes results/tokens.json, tokens.md and tokens.png; runs accumulate there.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import about_this_run, stored_runs, write_result
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

import ossicle
from ossicle.audio import read_clip
from ossicle.data import Dataset, Item, read_dataset
from ossicle.evaluation import bootstrap_groups
from ossicle.metrics import Estimate, mean_interval
from ossicle.metrics.intervals import bootstrap_weights, percentile_estimate
from ossicle.models.passt import Passt
from ossicle.models.tokens import TokenReduction
from ossicle.report.style import CYCLE

METHODS = ("time", "freq", "grid", "random", "merge")
SHARES = (0.85, 0.7, 0.6, 0.5, 0.35, 0.25)
ALL = TokenReduction(keep=1)
SETTINGS = (ALL, *(TokenReduction(keep=keep, method=method) for method in METHODS for keep in SHARES))
RUNS = [Path(f"runs/esc50/main_patchout_10-3_60_{seed}") for seed in range(3)]
RESAMPLES = 10_000


def main() -> None:
    """Scores every run that is not yet known, times the larger network, and writes what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="*", default=RUNS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc50"))
    parser.add_argument("--timing", default="passt_base_s16", help="network that is timed with random weights")
    parser.add_argument("--rounds", type=int, default=5, help="of this timing")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = stored_runs("tokens")
    known = {run["run"] for run in result["runs"]}
    specs: Tensor | None = None
    for folder in arguments.runs:
        if folder.name in known:
            continue
        recognizer = ossicle.load(folder, device="cpu")
        dataset = read_dataset(arguments.data, labels=recognizer.labels)
        items, targets = test_part(dataset)
        if specs is None:
            specs = torch.cat([features(recognizer, item) for item in items])
        result["runs"].append(
            {
                "run": folder.name,
                "variant": folder.name.rpartition("_")[0],
                **about_this_run(),
                "groups": bootstrap_groups(items) or [str(item.file.name) for item in items],
                "correct": [
                    "".join(map(str, map(int, of_setting))) for of_setting in score(recognizer.model, specs, targets)
                ],
                "seconds": median_seconds(recognizer.model, specs[::10]),
            }
        )
        report(result)
    if arguments.timing not in result.get("timing", {}):
        result.setdefault("timing", {})[arguments.timing] = timing(arguments.timing, rounds=arguments.rounds)
    report(result)


# --- measuring -------------------------------------------------------------------------------------------------------


def test_part(dataset: Dataset) -> tuple[list[Item], list[int]]:
    """The clips of fold 1, and the number of each one's label."""
    chosen = [index for index, item in enumerate(dataset.items) if item.fold == "1"]
    return [dataset.items[index] for index in chosen], dataset.targets()[chosen].argmax(1).tolist()


def features(recognizer: ossicle.Recognizer, item: Item) -> Float[Tensor, "1 mel frame"]:
    """What the network sees of one clip: some are a frame longer, which makes no further column of patches."""
    return recognizer.spectrogram(read_clip(item.file, recognizer.rate).samples[None])[..., :500]


@torch.inference_mode()
def score(model: Passt, specs: Float[Tensor, "clip mel frame"], targets: list[int]) -> list[list[bool]]:
    """Which clips each setting names rightly."""
    wanted = torch.tensor(targets)
    correct = []
    for reduction in SETTINGS:
        logits = torch.cat([model.forward_features(batch, reduction=reduction).logits for batch in specs.split(16)])
        correct.append((logits.argmax(1) == wanted).tolist())
    return correct


@torch.inference_mode()
def median_seconds(model: Passt, specs: Float[Tensor, "clip mel frame"]) -> list[float]:
    """Median processor seconds of a pass over one clip, for each setting; they take turns at every clip."""
    turns = []
    for spec in specs:
        turns.append([])
        for reduction in SETTINGS:
            begun = time.process_time()
            model.forward_features(spec[None], reduction=reduction)
            turns[-1].append(time.process_time() - begun)
    return [statistics.median(of_setting) for of_setting in zip(*turns[1:], strict=True)]  # the first warms up


def timing(name: str, *, rounds: int) -> list[float]:
    """As `median_seconds`, over 10 s of noise, of a network with random weights."""
    model = ossicle.create_model(name).eval()
    generator = torch.Generator().manual_seed(0)
    return median_seconds(model, torch.randn(rounds + 1, model.config.mels, 998, generator=generator))


# --- reporting -------------------------------------------------------------------------------------------------------


def figures(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each setting: accuracy, difference from all tokens, and time, over the runs of one variant."""
    right = np.array([[[int(c) for c in clips] for clips in run["correct"]] for run in runs])  # (seed, setting, clip)
    _, units = np.unique(runs[0]["groups"], return_inverse=True)
    # The same draws for all, so that a difference is that of pairs.
    draws = list(bootstrap_weights(units, resamples=RESAMPLES, generator=np.random.default_rng(0)))

    def over_clips(values: Float[np.ndarray, "clip"]) -> Estimate:
        drawn = np.concatenate([values @ weights / weights.sum(0) for weights in draws])
        return percentile_estimate(float(values.mean()), drawn)

    seconds = np.array([run["seconds"] for run in runs])
    return [
        {
            "reduction": reduction,
            "accuracy": over_clips(right[:, number].mean(0)),
            "each": right[:, number].mean(1),
            "difference": over_clips((right[:, number] - right[:, 0]).mean(0)),
            "over_seeds": mean_interval((right[:, number].mean(1) - right[:, 0].mean(1)).tolist()),
            "seconds": float(np.median(seconds[:, number])),
            "time": float(np.median(seconds[:, number] / seconds[:, 0])),
        }
        for number, reduction in enumerate(SETTINGS)
    ]


def report(result: dict[str, Any]) -> None:
    """Writes tables, sentences and figure of all runs so far."""
    lines, variants = [], {}
    for variant in sorted({run["variant"] for run in result["runs"]}):
        runs = [run for run in result["runs"] if run["variant"] == variant]
        variants[variant] = rows = figures(runs)
        lines += [
            f"## {variant}, {len(runs)} seeds, {len(runs[0]['groups'])} clips of "
            f"{len(set(runs[0]['groups']))} source recordings",
            "",
            "| method | keep | ms a clip | of the time | accuracy [95 % over recordings] | each seed | "
            "difference from all tokens [over recordings] | [over seeds] |",
            "|---|---|---|---|---|---|---|---|",
            *map(row, rows),
            "",
            *sentences(rows),
            "",
        ]
    for name, seconds in result.get("timing", {}).items():
        lines += [
            f"## {name}, random weights, 10 s: seconds a pass, and of the time with all tokens ({seconds[0]:.4f} s)",
            "",
            "| method | " + " | ".join(f"keep {keep:g}" for keep in SHARES) + " |",
            "|---" * (len(SHARES) + 1) + "|",
        ]
        for number, method in enumerate(METHODS):
            of_method = seconds[1 + number * len(SHARES) :][: len(SHARES)]
            cells = (f"{value:.4f} ({value / seconds[0]:.2f})" for value in of_method)
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "Fold 1 is the test fold of these runs. Nothing was tuned on it: no threshold, no share and no method was "
        "chosen by these figures, and a method picked from this table has yet to be confirmed on other data."
    ]
    title = "Fewer tokens in a trained PaSST, ESC-50 fold 1"
    write_result("tokens", {**result, **about_this_run()}, lines, title=title, figure=draw(variants))


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    reduction = found["reduction"]
    method = "all tokens" if reduction is ALL else reduction.method
    each = ", ".join(f"{value:.4f}" for value in found["each"])
    cells = f"| {method} | {reduction.keep:g} | {1e3 * found['seconds']:.2f} | {found['time']:.2f} | "
    cells += f"{interval(found['accuracy'])} | {each} | "
    if reduction is ALL:
        return cells + "| |"
    over_seeds = found["over_seeds"]
    reach = "" if over_seeds.low is None else f"[{over_seeds.low:+.3f}, {over_seeds.high:+.3f}]"
    return cells + f"{interval(found['difference'], signed=True)} | {reach} |"


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """The value and its ends."""
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """What the intervals over recordings support, for each method."""

    def shares(method: str, holds: Callable[[Estimate], bool]) -> str:
        found = [r["reduction"].keep for r in rows[1:] if r["reduction"].method == method and holds(r["difference"])]
        return ", ".join(f"{keep:g}" for keep in found) or "no share"

    return [
        f"- `{method}`: worse than all tokens beyond its interval at {shares(method, lambda e: (e.high or 0) < 0)}; "
        f"a loss of more than 0.05 is ruled out at {shares(method, lambda e: (e.low or 0) > -0.05)}."
        for method in METHODS
    ]


def draw(variants: dict[str, list[dict[str, Any]]]) -> Figure:
    """Accuracy against time, a panel for each variant, a line for each method."""
    figure = Figure(figsize=(5.5 * max(1, len(variants)), 4.2), layout="constrained")
    panels = figure.subplots(1, max(1, len(variants)), sharey=True, squeeze=False)[0]
    for axes, (variant, rows) in zip(panels, variants.items(), strict=False):
        for method, colour in zip(METHODS, CYCLE, strict=False):
            line = [rows[0], *(r for r in rows[1:] if r["reduction"].method == method)]
            times, values = [r["time"] for r in line], [r["accuracy"].value for r in line]
            reach = [[r["accuracy"].value - r["accuracy"].low, r["accuracy"].high - r["accuracy"].value] for r in line]
            axes.errorbar(
                times, values, np.array(reach).T, color=colour, label=method, marker="o", ms=3, lw=1, elinewidth=0.4
            )
        axes.set_title(variant, fontsize=9)
        axes.set_xlabel("time of a pass, of that with all tokens")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on fold 1")
    panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
