"""What a training leaves: a model and its test scores for each fold, and the metrics of all of them."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from ossicle.bundle import read_bundle_config
from ossicle.data import Dataset, Split
from ossicle.errors import RunRefused
from ossicle.evaluation import Evaluation
from ossicle.files import write_atomically, write_json
from ossicle.inference import csv_line, probabilities, seconds_text
from ossicle.metrics import Estimate, mean_over_folds
from ossicle.report import evaluation_lines, fold_lines, fold_section
from ossicle.training.ranks import ALONE, Ranks
from ossicle.weights.tensors import load_weights, save_weights

logger = logging.getLogger(__name__)
TEST_SCORES, REPORT, FAILURES = "test_scores.safetensors", "report.html", "failures.csv"  # in a run folder


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """One trained model, its folder, and its scores on the test part, which were read once."""

    folder: Path
    split: Split
    evaluation: Evaluation  # of the test clips that could be used

    @property
    def tested(self) -> Int64[np.ndarray, " clip"]:
        """Positions of these clips in the data set."""
        return self.evaluation.positions


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """What a training leaves: the run folder, a result per fold, and the evaluation of all test clips together."""

    folder: Path
    folds: tuple[FoldResult, ...]
    evaluation: Evaluation
    failures: tuple[str, ...]  # one sentence for each recording that was left out


def fold_result(
    dataset: Dataset,
    split: Split,
    *,
    folder: Path,
    tested: Int64[np.ndarray, " clip"],
    logits: Float[np.ndarray, "clip label"],
    temperature: float,
    thresholds: Float[np.ndarray, " label"] | None,
) -> FoldResult:
    """What a fold's model is worth, by its logits of the test clips."""
    evaluation = Evaluation.of(
        dataset,
        tested,
        scores=probabilities(logits, task=dataset.task, temperature=temperature),
        thresholds=thresholds,
        protocol=split.protocol,
    )
    return FoldResult(folder=folder, split=split, evaluation=evaluation)


def save_test_scores(
    folder: Path, *, tested: Int64[np.ndarray, " clip"], logits: Float[np.ndarray, "clip label"]
) -> None:
    """Keeps the logits of the test part, so that it is never read again."""
    save_weights(folder / TEST_SCORES, {"clips": torch.from_numpy(tested), "logits": torch.from_numpy(logits)})


def load_finished(folder: Path, dataset: Dataset, split: Split | None) -> FoldResult | None:
    """The result of a fold that was tested already, on the parts that it was begun with, or None."""
    if split is None or not (folder / TEST_SCORES).exists() or not (folder / REPORT).exists():
        return None
    stored = load_weights(folder / TEST_SCORES)
    decisions = read_bundle_config(folder / "model")
    thresholds = decisions["thresholds"]
    try:
        tested, logits = stored["clips"].numpy(), stored["logits"].numpy()
        if logits.shape != (len(tested), len(dataset.labels)) or not np.isin(tested, split.test).all():
            raise ValueError(f"{logits.shape} scores of {len(tested)} clips")
    except (KeyError, ValueError, TypeError) as error:
        raise RunRefused(
            f"{folder / TEST_SCORES}: not the scores of this fold's test part ({error}); remove it, and --resume makes "
            "them again."
        ) from None
    return fold_result(
        dataset,
        split,
        folder=folder,
        tested=tested,
        logits=logits,
        temperature=decisions["temperature"],
        thresholds=None if thresholds is None else np.asarray(thresholds),
    )


def pooled(dataset: Dataset, results: Sequence[FoldResult], *, folder: Path, ranks: Ranks = ALONE) -> Evaluation:
    """Writes the metrics of all folds' test clips together and the mean over folds; each clip was scored by the model
    that trained without it."""
    own = [result.evaluation for result in results]
    evaluation = Evaluation.of(
        dataset,
        np.concatenate([one.positions for one in own]),
        scores=np.concatenate([one.scores for one in own]),
        decided=np.concatenate([one.decided for one in own]),
        protocol=f"{len(results)} folds, each tested on the model that trained without it",
    )
    by_fold = {f"fold_{result.split.fold}": result.evaluation.metrics for result in results}
    means = mean_over_folds(list(by_fold.values()))
    content = {
        "mean_over_folds": {name: estimate.to_json() for name, estimate in means.items()},
        "folds": {name: metrics.to_json()["headline"] for name, metrics in by_fold.items()},
    }

    def write() -> None:
        evaluation.write(folder, title=f"{dataset.root.name}, all folds", sections=[fold_section(by_fold)])
        write_json(folder / "folds.json", content)

    ranks.first(write)
    logger.info(f"All {len(results)} folds together:")
    for line in (*evaluation_lines(evaluation.metrics), *fold_lines(means, folds=len(results))):
        logger.info(line)
    return evaluation


def write_failures(folder: Path, dataset: Dataset, failures: Mapping[int, str]) -> tuple[str, ...]:
    """Writes `failures.csv`, a row for each example that could not be used, and gives the reasons.

    Those that were there when the run was stopped stay: what was lost then may not be asked for again.
    """
    rows: dict[tuple[str, ...], str] = {}
    for position in sorted(failures):
        item = dataset.items[position]
        until = "" if item.end is None else seconds_text(item.end)
        rows[dataset.relative(item), seconds_text(item.start), until] = failures[position]
    path = folder / FAILURES
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            for *clip, reason in list(csv.reader(file))[1:]:
                rows.setdefault(tuple(clip), reason)
    if rows:
        lines = [("file", "start", "end", "error"), *((*clip, reason) for clip, reason in rows.items())]
        write_atomically(path, "".join(map(csv_line, lines)))
    return tuple(rows.values())


def sentences(metrics: Mapping[str, Estimate]) -> list[str]:
    """Each metric with its interval, for people."""
    return [
        f"{name.replace('_', ' ')} {estimate.value:.4f}"
        + ("" if estimate.low is None else f" ({estimate.low:.4f} to {estimate.high:.4f})")
        for name, estimate in metrics.items()
        if estimate.value is not None
    ]
