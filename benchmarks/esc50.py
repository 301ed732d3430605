"""Does a small PaSST learn ESC-50 from random weights on a laptop's processor, and what does patchout do to it?

    python benchmarks/esc50.py main    [--seeds 0 1 2]     with and without patchout, equal epochs, official fold 1
    python benchmarks/esc50.py main    --epochs 80 --only "patchout 10/3"     longer, as patchout leaves time for
    python benchmarks/esc50.py recipe                      what each part of the recipe is worth

The main study trains on all 1600 clips of folds 2 to 5 for a fixed number of epochs; nothing is chosen by any score,
and fold 1 is read once, when a run is over. The recipe study never reads fold 1: it compares balanced accuracy on a
validation part cut by source recording from folds 2 to 5. Beside the main study stands a logistic regression on mean
and deviation of the log-mel over time, same fold, its strength chosen by cross-validation inside folds 2 to 5.

Runs are kept in --runs and continued or skipped when the script is called again: results accumulate.
"""

import argparse
import csv
import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import about_this_run, runs_to_add_to, stored_runs, write_result
from matplotlib.figure import Figure

from ossicle.allocator import keep_freed_memory
from ossicle.data import Dataset, read_dataset, split_dataset
from ossicle.data.cache import open_store
from ossicle.frontend import create_frontend
from ossicle.training import TrainConfig, TrainResult, train
from ossicle.training.train_network import pad_to

BASE = TrainConfig(
    model="passt_tiny_s16",
    window=5.0,
    batch_size=16,
    balance="none",
    epochs=60,
    lr=4e-4,
    warmup=2.0,
    patchout_t=10,
    patchout_f=3,
    mixup=0.3,
    roll=2.5,
    freq_mask=0,
    time_mask=0.0,
    label_smoothing=0.0,
)
VARIANTS: dict[str, dict[str, Any]] = {
    "patchout 10/3": {},
    "no patchout": {"patchout_t": 0.0, "patchout_f": 0.0},
}
RECIPE: dict[str, dict[str, Any]] = {
    "full recipe": {},
    "without mixup": {"mixup": 0.0},
    "with SpecAugment 48/80": {"freq_mask": 48, "time_mask": 0.16},
    "without mel jitter": {"jitter": False},
    "with label smoothing": {"label_smoothing": 0.1},
    "without weight averaging": {"average": "none"},
    "without roll": {"roll": 0.0},
    "with drop path": {"drop_path": 0.1},
    "learning rate 1e-3": {"lr": 1e-3},
    "no patchout": {"patchout_t": 0.0, "patchout_f": 0.0},
}


def main() -> None:
    """Runs the study that was asked for and writes what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("main", "recipe"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/esc50"))
    parser.add_argument("--runs", type=Path, default=Path("runs/esc50"))
    parser.add_argument("--epochs", type=int, help="by default 60 for main, 20 for recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    dataset = read_dataset(arguments.data)
    main_study = arguments.study == "main"
    variants = VARIANTS if main_study else RECIPE
    epochs = arguments.epochs or (60 if main_study else 20)
    name = f"esc50_{arguments.study}"
    # Finished runs live in the result file, which is committed: a run folder may be gone.
    for seed in arguments.seeds:
        for variant, changes in variants.items():
            key = {"variant": variant, "epochs": epochs, "seed": seed}
            known = stored_runs(name)["runs"]
            if (arguments.only and variant not in arguments.only) or any(key.items() <= r.items() for r in known):
                continue
            config = dataclasses.replace(
                BASE, seed=seed, epochs=epochs, validation=0.0 if main_study else 0.15, **changes
            )
            folder = arguments.runs / f"{arguments.study}_{variant.replace(' ', '_').replace('/', '-')}_{epochs}_{seed}"
            trained, curve, minutes = train_once(dataset, config, fold="1", folder=folder)
            run = {
                **key,
                **about_this_run(),
                # The recipe study does not look at fold 1, also not here.
                "score": trained.evaluation.metrics.accuracy.value if main_study else max(curve["val_score"]),
                **minutes,
                "curve": [round(v, 4) for v in curve["train_loss" if main_study else "val_score"]],
            }
            with runs_to_add_to(name) as result:
                result["runs"].append(run)
                if main_study and "logistic_regression" not in result:
                    result["logistic_regression"] = baseline(dataset)
                report(arguments.study, {**result, **about_this_run()}, variants=variants)


def train_once(
    dataset: Dataset, config: TrainConfig, *, fold: str, folder: Path
) -> tuple[TrainResult, dict[str, list[float]], dict[str, float | None]]:
    """Trains on the other folds and tests on this one, or continues where a call before was interrupted.

    Gives the result, the columns of metrics.csv, and the minutes: of training, and of processor time if it ran through.
    """
    resume = (folder / "config.yaml").exists()
    started = time.process_time()
    trained = train(dataset, config, output=folder, folds=fold, resume=resume)
    processor_minutes = None if resume else round((time.process_time() - started) / 60, 1)
    curve = read_curve(folder / "metrics.csv")
    return trained, curve, {"minutes": curve["seconds"][-1] / 60, "processor_minutes": processor_minutes}


def report(study: str, result: dict[str, Any], *, variants: dict[str, Any]) -> None:
    """Writes the table and the curves of all runs so far, those of most epochs last."""
    measure = "accuracy on fold 1" if study == "main" else "best balanced accuracy on the validation part"
    lines = [
        f"| variant | epochs | runs | mean {measure} | each | minutes (threads) | of processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    lengths = sorted({run["epochs"] for run in result["runs"]})
    for epochs, variant in itertools.product(lengths, variants):
        runs = [run for run in result["runs"] if run["variant"] == variant and run["epochs"] == epochs]
        if runs:
            each = ", ".join(f"{run['score']:.4f}" for run in runs)
            minutes = ", ".join(f"{run['minutes']:.0f} ({run['threads']})" for run in runs)
            processor = ", ".join(f"{m:.0f}" if (m := run.get("processor_minutes")) else "-" for run in runs)
            mean = float(np.mean([run["score"] for run in runs]))
            lines.append(f"| {variant} | {epochs} | {len(runs)} | {mean:.4f} | {each} | {minutes} | {processor} |")
    if "logistic_regression" in result:
        accuracy = result["logistic_regression"]["accuracy"]
        lines.append(f"| logistic regression on the log-mel's mean and deviation | | | {accuracy:.4f} | | | |")
    quantity = "training loss" if study == "main" else "validation balanced accuracy"
    figure = curve_figure(result["runs"], variants, quantity=quantity)
    write_result(f"esc50_{study}", result, lines, figure=figure, title="ESC-50 from random weights")


def read_curve(path: Path) -> dict[str, list[float]]:
    """The columns of a run's metrics.csv."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def curve_figure(runs: list[dict[str, Any]], variants: dict[str, Any], *, quantity: str) -> Figure:
    """One line per run, one color per variant and number of epochs."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    lengths = sorted({run["epochs"] for run in runs})
    for number, (epochs, variant) in enumerate(itertools.product(lengths, variants)):
        curves = [run["curve"] for run in runs if run["variant"] == variant and run["epochs"] == epochs]
        for position, curve in enumerate(curves):
            label = f"{variant}, {epochs} epochs" if position == 0 else None
            axes.plot(range(1, len(curve) + 1), curve, color=f"C{number}", label=label, linewidth=1)
    axes.set_xlabel("epoch")
    axes.set_ylabel(quantity)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return figure


def baseline(dataset: Dataset) -> dict[str, Any]:
    """Logistic regression on mean and deviation over time of each mel bin."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frontend = create_frontend("passt").eval()
    store = open_store(dataset.items, frontend.rate)
    features = []
    for index in range(len(dataset)):
        wave = torch.from_numpy(pad_to(store.read(index)[: 5 * frontend.rate], 5 * frontend.rate))
        spec = frontend(wave[None])[0]
        features.append(torch.cat([spec.mean(-1), spec.std(-1)]).numpy())
    table, labels = np.stack(features), dataset.targets().argmax(1)
    split = split_dataset(dataset, fold="1", validation=0.0)
    folds = np.array([item.fold for item in dataset.items])[split.train]
    inner = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=8, cv=inner, max_iter=2000, scoring="accuracy"))
    model.fit(table[split.train], labels[split.train])
    return {"accuracy": float(model.score(table[split.test], labels[split.test]))}


if __name__ == "__main__":
    main()
