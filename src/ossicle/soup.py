"""Model soups: one model whose weights are the mean of those of several runs.

The runs have the same network, labels and front end: trainings that began at the same weights, with other seeds or
settings. A soup costs no more than one of them in prediction.

Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time" (ICML 2022, arXiv 2203.05482); `greedy` is its algorithm 1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ossicle.bundle import (
    Card,
    find_bundle,
    fingerprints_of,
    open_bundle,
    read_bundle_config,
    read_card,
    write_bundle,
)
from ossicle.data import Item
from ossicle.errors import DataRefused, SettingRefused
from ossicle.evaluation.model import score_items
from ossicle.evaluation.parts import Part, choose_part, known_to, read_labeled
from ossicle.inference.predictor import probabilities
from ossicle.loading import load
from ossicle.metrics import balanced_accuracy, fit_temperature, fit_thresholds, mean_average_precision
from ossicle.recognizer import Recognizer
from ossicle.types import Task

# Keys of a bundle that do not keep two runs apart.
FREE = ("library_version", "thresholds", "temperature", "window", "weights_license", "encoder.name")


@dataclass(frozen=True, kw_only=True)
class Soup:
    """A soup as it was written."""

    folder: Path
    used: tuple[str, ...]
    """The runs whose weights are in it."""
    score: float | None
    """On the validation data, if there were any."""
    alone: Mapping[str, float]
    """That of each run."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Labeled examples that choose, and how they are described."""

    recognizer: Recognizer
    items: Sequence[Item]
    targets: Bool[np.ndarray, "item label"]
    protocol: str

    def logits(self, tensors: Mapping[str, Tensor], *, source: str) -> tuple[np.ndarray, np.ndarray]:
        """The logits of these weights, and the targets of the examples that could be used."""
        self.recognizer.take(tensors, source=source)
        scored = score_items(self.recognizer, self.items)
        if not len(scored.used):
            raise DataRefused(f"not one of the examples that choose can be used; the first: {scored.failures[0]}")
        return scored.logits, self.targets[scored.used]

    def score(self, tensors: Mapping[str, Tensor], *, source: str) -> float:
        """Balanced accuracy of these weights; of several labels the mAP."""
        logits, targets = self.logits(tensors, source=source)
        scores = probabilities(logits, task=self.recognizer.task)
        if self.recognizer.task == "single-label":
            return balanced_accuracy(scores, targets)
        return mean_average_precision(scores, targets)[0]


def make_soup(
    runs: Sequence[str | Path],
    *,
    output: str | Path,
    data: str | Path | None = None,
    device: str = "auto",
    weights_license: str | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> Soup:
    """Writes the bundle of a soup: of all runs, or with `data` of those that improve it.

    With `data` the runs are tried from the best to the worst, and each stays in the soup if the score does not fall;
    temperature and thresholds are fitted on the same examples. Without, there are none.

    Args:
        runs: run folders, bundles or Hub ids
        data: labeled examples: those of the training, whose validation part is taken, or others, which are taken whole
        weights_license: by default that of the runs, if they have one in common
        report: called with a sentence for each run that is tried

    Raises:
        SettingRefused: fewer than two runs, or runs of another network, front end or labels
        DataRefused: runs with other validation parts of the data
    """
    folders = {str(run): find_bundle(run) for run in runs}
    configs = {name: read_bundle_config(folder) for name, folder in folders.items()}
    check_alike(configs)
    versions: dict[str, str] = {}

    def read(name: str) -> dict[str, Tensor]:
        _, tensors, info = open_bundle(folders[name])
        versions[name] = info["version"]
        return tensors

    names = list(folders)
    config = {**configs[names[0]], "thresholds": None, "temperature": 1.0}
    licenses = {one["weights_license"] for one in configs.values()}
    config["weights_license"] = weights_license or (licenses.pop() if len(licenses) == 1 else None)
    alone: dict[str, float] = {}
    score, protocol = None, ""
    if data is None:
        used = names
        tensors = mean_of(map(read, names))
    else:
        judge = validation_of(folders, data, device=device)
        for name in names:
            alone[name] = judge.score(read(name), source=name)
            report(f"{name}: {alone[name]:.4f}")
        used, tensors, score = greedy(read, judge.score, alone=alone, report=report)
        config |= decisions(*judge.logits(tensors, source="the soup"), task=config["task"])
        protocol = f"Its runs, temperature and thresholds were chosen {judge.protocol}; there it scores {score:.4f}."
    listed = ", ".join(f"`{Path(name).name}` (version {versions[name]})" for name in used)
    trained = sorted({one for name in used for one in fingerprints_of(read_card(folders[name]))})
    card = Card(
        title=f"Soup of {len(used)} runs",
        data=f"The mean of the weights of {listed}.",
        fingerprint=", ".join(trained),
        protocol=protocol,
    )
    write_bundle(Path(output), config, tensors, card=card)
    return Soup(folder=Path(output), used=tuple(used), score=score, alone=alone)


def greedy(
    read: Callable[[str], dict[str, Tensor]],
    judge: Callable[..., float],
    *,
    alone: Mapping[str, float],
    report: Callable[[str], None],
) -> tuple[list[str], dict[str, Tensor], float]:
    """The runs that improve a soup, the mean of their weights, and its score.

    Args:
        read: the weights of a run, by its name
        judge: (weights, source=name): the score of weights
        alone: that of each run
    """
    first, *others = sorted(alone, key=lambda name: -alone[name])
    used, best, soup = [first], alone[first], read(first)
    for name in others:
        tried = mean_of((soup, read(name)), weights=(len(used), 1))
        score = judge(tried, source=name)
        report(f"with {name}: {score:.4f}{'' if score >= best else ', left out'}")
        if score >= best:
            used, soup, best = [*used, name], tried, score
    return used, soup, best


def mean_of(
    states: Iterator[dict[str, Tensor]] | Sequence[dict[str, Tensor]], *, weights: Sequence[int] = ()
) -> dict[str, Tensor]:
    """The mean of weights of the same names and shapes, computed in double precision; one after the other is held.

    Args:
        weights: of each, by default equal. Tensors that are not of floating point are those of the first.
    """
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    count = 0
    for number, state in enumerate(states):
        weight = weights[number] if weights else 1
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                total.setdefault(name, tensor)
                continue
            kinds[name] = tensor.dtype
            part = tensor.double() * weight
            total[name] = total[name] + part if name in total else part
        count += weight
    return {name: (tensor / count).to(kinds[name]) if name in kinds else tensor for name, tensor in total.items()}


def validation_of(folders: Mapping[str, Path], data: str | Path, *, device: str) -> Validation:
    """The examples that choose: the validation part that all runs left out, or all of data that none has seen.

    Raises: DataRefused if a run was trained on examples that would choose.
    """
    recognizer = load(next(iter(folders.values())), device=device)
    dataset, same = read_labeled(recognizer, data, folder=recognizer.folder)
    known = {name: known_to(folder, dataset)[1] for name, folder in folders.items()}
    trained = {name: seen for name, seen in known.items() if seen is not None and seen.any}
    first = next(iter(trained or folders))
    part: Part = "validation" if trained else "all"
    chosen, how = choose_part(dataset, folders[first], part=part, model=first, same=same)
    for name, seen in trained.items():
        if seen.of("train")[chosen].any():
            raise DataRefused(
                f"{dataset.path}: the {part} part of {first} has {dataset.noun}s that {name} was trained on; take runs "
                "of one split, or data that none has seen."
            )
    items = [dataset.items[index] for index in chosen]
    return Validation(recognizer=recognizer, items=items, targets=dataset.label_rows[chosen], protocol=how)


def decisions(
    logits: Float[np.ndarray, "item label"], targets: Bool[np.ndarray, "item label"], *, task: Task
) -> dict[str, Any]:
    """Temperature and thresholds, as a training fits them."""
    temperature = fit_temperature(logits, targets, task=task)
    thresholds = fit_thresholds(probabilities(logits, task=task, temperature=temperature), targets)
    return {"temperature": float(temperature), "thresholds": [float(value) for value in thresholds]}


def check_alike(configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses runs whose weights have no mean.

    Raises: SettingRefused, with the first difference.
    """
    if len(configs) < 2:
        raise SettingRefused(f"a soup has at least two different runs; got {len(configs)}.")
    first, *others = configs
    if "members" in configs[first]:
        raise SettingRefused(f"{first} is an ensemble, whose members have weights of their own.")
    for other in others:
        for place, one, two in differences(configs[first], configs[other]):
            raise SettingRefused(f"{other} has another {place} than {first}: {_short(two)} and {_short(one)}.")


def differences(one: Any, two: Any, *, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What differs between two configurations, but for the free keys: where, and both values."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        for key in {**one, **two}:
            if (inner := f"{place}.{key}" if place else key) not in FREE:
                yield from differences(one.get(key), two.get(key), place=inner)
    elif one != two:
        yield place, one, two


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
