"""What do fewer tokens cost a trained PaSST, and what do they save? No training, no threshold, no choice by a score.

    python benchmarks/tokens.py [--runs RUN ...] [--threads 1] [--again]

RUN is a run folder of `benchmarks/esc50.py main`: passt_tiny_s16 on folds 2 to 5 of ESC-50, from random weights. Their
test fold, fold 1, is scored at every method and share in float32, from features that are computed once.

The network hears the first 5 s, as in `ossicle evaluate`.

Times are of the same network with random weights, and of a larger one, over noise, network only, batch 1: the settings
take turns in every round, medians over the rounds. They are processor time, which is the time on a machine that does
nothing else and is less upset by one that does. --again measures them anew.

Intervals: of accuracy and of the paired difference from all tokens, by bootstrap over source recordings, the seeds
averaged; and of the difference by Student's t over seeds.

About 4 minutes a run and 3 for the times. Writes results/tokens.json, tokens.md and tokens.png; runs accumulate there.
"""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import about_this_run, in_turns, stored_runs, write_result
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

import ossicle
from ossicle.allocator import keep_freed_memory
from ossicle.audio import read_clip
from ossicle.data import Item, read_dataset
from ossicle.evaluation import bootstrap_groups
from ossicle.metrics import Estimate, mean_interval
from ossicle.metrics.intervals import bootstrap_weights, percentile_estimate
from ossicle.models.tokens import Patchout, TokenReduction, evenly, select_patches, subgrid
from ossicle.report.style import CYCLE


@dataclass(frozen=True, kw_only=True)
class Columns(TokenReduction):
    """Evenly spaced columns, every row."""

    def select(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = grid
        return subgrid(torch.arange(rows), evenly(columns, max(1, round(self.keep * columns))), columns=columns)


@dataclass(frozen=True, kw_only=True)
class Rows(TokenReduction):
    """Evenly spaced rows, every column."""

    def select(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = grid
        return subgrid(evenly(rows, max(1, round(self.keep * rows))), torch.arange(columns), columns=columns)


@dataclass(frozen=True, kw_only=True)
class Drawn(TokenReduction):
    """As many rows and columns as `strided` selects, drawn as in training, once for all clips."""

    def select(self, grid: tuple[int, int]) -> Tensor | None:
        patches = TokenReduction(keep=self.keep, method="strided").select(grid)
        assert patches is not None
        rows, columns = len((patches // grid[1]).unique()), len((patches % grid[1]).unique())
        patchout = Patchout(freq=grid[0] - rows, time=grid[1] - columns)
        return select_patches(grid, patchout, generator=torch.Generator().manual_seed(0))


METHODS: dict[str, Callable[[float], TokenReduction]] = {
    "columns": lambda keep: Columns(keep=keep, method="strided"),
    "rows": lambda keep: Rows(keep=keep, method="strided"),
    "strided": lambda keep: TokenReduction(keep=keep, method="strided"),
    "drawn": lambda keep: Drawn(keep=keep, method="strided"),
    "merge": lambda keep: TokenReduction(keep=keep, method="merge"),
}
SHARES = (0.85, 0.7, 0.6, 0.5, 0.35, 0.25)
NAMES = [("all tokens", 1.0), *((method, keep) for method in METHODS for keep in SHARES)]
SETTINGS = [None, *(make(keep) for make in METHODS.values() for keep in SHARES)]
RUNS = [Path(f"runs/esc50/main_patchout_10-3_60_{seed}") for seed in range(3)]
TIMED = {"passt_tiny_s16": (500, 20), "passt_base_s16": (998, 3)}  # frames, rounds; the first is that of the runs
RESAMPLES = 10_000


def main() -> None:
    """Scores every run that is not yet known, times the larger network, and writes what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="*", default=RUNS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc50"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure the times again")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    result = stored_runs("tokens")
    if arguments.again or "times" not in result:
        result["times"] = {name: median_seconds(name, frames=n, rounds=m) for name, (n, m) in TIMED.items()}
    known = {run["run"] for run in result["runs"]}
    specs: Tensor | None = None
    for folder in arguments.runs:
        if folder.name in known:
            continue
        recognizer = ossicle.load(folder, device="cpu")
        dataset = read_dataset(arguments.data, labels=recognizer.labels)
        chosen = np.array([index for index, item in enumerate(dataset.items) if item.fold == "1"])
        items, targets = [dataset.items[index] for index in chosen], dataset.targets()[chosen].argmax(1).tolist()
        if specs is None:
            specs = torch.cat([features(recognizer, item) for item in items])
        result["runs"].append(
            {
                "run": folder.name,
                "variant": folder.name.rpartition("_")[0],
                **about_this_run(),
                "groups": bootstrap_groups(dataset, chosen) or [str(item.file.name) for item in items],
                "correct": [
                    "".join(map(str, map(int, of_setting))) for of_setting in score(recognizer.model, specs, targets)
                ],
            }
        )
        report(result)
    report(result)


# --- measuring -------------------------------------------------------------------------------------------------------


def features(recognizer: ossicle.Recognizer, item: Item) -> Float[Tensor, "1 mel frame"]:
    """What the network sees of one clip: some are a frame longer, which makes no further column of patches."""
    return recognizer.spectrogram(read_clip(item.file, recognizer.rate).samples[None])[..., :500]


@torch.inference_mode()
def score(model: Any, specs: Float[Tensor, "clip mel frame"], targets: list[int]) -> list[list[bool]]:
    """Which clips each setting names rightly."""
    wanted = torch.tensor(targets)
    correct = []
    for reduction in SETTINGS:
        logits = torch.cat([model.forward_features(batch, reduction=reduction).logits for batch in specs.split(16)])
        correct.append((logits.argmax(1) == wanted).tolist())
    return correct


@torch.inference_mode()
def median_seconds(name: str, *, frames: int, rounds: int) -> list[float]:
    """Median processor seconds of a pass over one clip, for each setting; they take turns in every round."""
    model: Any = ossicle.create_model(name, frames=frames).eval()
    spec = torch.randn(1, model.config.mels, frames, generator=torch.Generator().manual_seed(0))
    passes = {
        number: functools.partial(model.forward_features, spec, reduction=reduction)
        for number, reduction in enumerate(SETTINGS)
    }
    return list(in_turns(passes, rounds=rounds, clock=time.process_time).values())


# --- reporting -------------------------------------------------------------------------------------------------------


def figures(runs: list[dict[str, Any]], *, seconds: list[float]) -> list[dict[str, Any]]:
    """Of each setting: accuracy, difference from all tokens, and time, over the runs of one variant."""
    right = correctness(runs)
    estimate = over_recordings(runs)
    return [
        {
            "method": method,
            "keep": keep,
            "accuracy": estimate(right[:, number].mean(0)),
            "each": right[:, number].mean(1),
            "difference": estimate((right[:, number] - right[:, 0]).mean(0)),
            "over_seeds": mean_interval((right[:, number].mean(1) - right[:, 0].mean(1)).tolist()),
            "seconds": seconds[number],
            "time": seconds[number] / seconds[0],
        }
        for number, (method, keep) in enumerate(NAMES)
    ]


def correctness(runs: list[dict[str, Any]]) -> Int[np.ndarray, "seed setting clip"]:
    """1 where the clip was named rightly."""
    return np.array([[[int(c) for c in clips] for clips in run["correct"]] for run in runs])


def over_recordings(runs: list[dict[str, Any]]) -> Callable[[Float[np.ndarray, " clip"]], Estimate]:
    """The mean over clips with its interval; the draws are the same for all, so that a difference is that of pairs."""
    _, units = np.unique(runs[0]["groups"], return_inverse=True)
    draws = list(bootstrap_weights(units, resamples=RESAMPLES, generator=np.random.default_rng(0)))

    def estimate(values: Float[np.ndarray, " clip"]) -> Estimate:
        drawn = np.concatenate([values @ weights / weights.sum(0) for weights in draws])
        return percentile_estimate(float(values.mean()), drawn)

    return estimate


def equal_times(rows: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[str]:
    """Merging beside the strides that take most nearly the same time: lines of a table."""
    right, estimate = correctness(runs), over_recordings(runs)
    lines = []
    for number, (method, keep) in enumerate(NAMES):
        if method == "merge":
            others = [i for i, (other, _) in enumerate(NAMES) if other in ("all tokens", "strided")]
            nearest = min(others, key=lambda i: abs(rows[i]["time"] - rows[number]["time"]))
            difference = estimate((right[:, number] - right[:, nearest]).mean(0))
            lines.append(
                f"| keep {keep:g}, {rows[number]['time']:.2f} of the time | "
                f"keep {NAMES[nearest][1]:g}, {rows[nearest]['time']:.2f} | {interval(difference, signed=True)} |"
            )
    return lines


def report(result: dict[str, Any]) -> None:
    """Writes tables, sentences and figure of all runs so far."""
    lines, variants = [], {}
    for variant in sorted({run["variant"] for run in result["runs"]}):
        runs = [run for run in result["runs"] if run["variant"] == variant]
        variants[variant] = rows = figures(runs, seconds=result["times"][next(iter(TIMED))])
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
            "| merge | strided of the nearest time | merge less strided [over recordings] |",
            "|---|---|---|",
            *equal_times(rows, runs),
            "",
        ]
    for name, seconds in result["times"].items():
        lines += [
            f"## {name}, {TIMED[name][0]} frames: ms a pass (of that with all tokens, {1e3 * seconds[0]:.1f} ms)",
            "",
            "| method | " + " | ".join(f"keep {keep:g}" for keep in SHARES) + " |",
            "|---" * (len(SHARES) + 1) + "|",
        ]
        for number, method in enumerate(METHODS):
            of_method = seconds[1 + number * len(SHARES) :][: len(SHARES)]
            cells = (f"{1e3 * value:.1f} ({value / seconds[0]:.2f})" for value in of_method)
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
    method, keep = found["method"], found["keep"]
    each = ", ".join(f"{value:.4f}" for value in found["each"])
    cells = f"| {method} | {keep:g} | {1e3 * found['seconds']:.2f} | {found['time']:.2f} | "
    cells += f"{interval(found['accuracy'])} | {each} | "
    if keep == 1:
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
        found = [r["keep"] for r in rows if r["method"] == method and holds(r["difference"])]
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
        for method, color in zip(METHODS, CYCLE, strict=False):
            line = [rows[0], *(r for r in rows if r["method"] == method)]
            times, values = [r["time"] for r in line], [r["accuracy"].value for r in line]
            reach = [[r["accuracy"].value - r["accuracy"].low, r["accuracy"].high - r["accuracy"].value] for r in line]
            axes.errorbar(
                times, values, np.array(reach).T, color=color, label=method, marker="o", ms=3, lw=1, elinewidth=0.4
            )
        axes.set_title(variant, fontsize=9)
        axes.set_xlabel("time of a pass, of that with all tokens")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on fold 1")
    panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
