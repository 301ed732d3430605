"""Importance Factor: which layers of a frozen encoder a density head weights.

Source: "Density Adaptive Attention is All You Need" (arXiv 2401.11143), section 1.5 of version 4: the Importance Factor
is the mean of the density's weights over the clips of the validation set, for each layer and feature, scaled to
0 to 1; a layer's share is its fraction of the sum of all means.

A gate weights a value by its distance to the mean of the layers, also without training. So the map of a trained head
needs a comparison: the map of the same head at its start, the accuracy of a probe on each layer alone, and the rank
correlations of the layers' fractions with both. Their p-values are from a permutation test, which assumes that layers
are exchangeable; neighboring layers are similar, so the p-values are too small. A density of several heads weights a
layer relative to its own head's layers: of three, mostly the middle one. So layers are ranked by a density of one head.

**Deviations** from the authors' code:
- the mean is over the clips of one pass. Theirs averages batch means of all epochs;
- padding is excluded from the mean: the input of a head is averaged over the time without padding.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ossicle.errors import SettingRefused
from ossicle.metrics import balanced_accuracy, mean_average_precision
from ossicle.metrics.arrays import check_scores
from ossicle.models.density import Density
from ossicle.types import Task

EXACT = 7  # up to so many layers all permutations are tried
DRAWS = 10_000

# ---------------------------------------------------------------- the Importance Factor


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityMap:
    """The mean weight of each layer and feature."""

    mean: Float[np.ndarray, "layer dim"]

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or not np.isfinite(self.mean).all() or self.mean.min() < 0 or not self.mean.any():
            raise ValueError("expected a finite map of densities (layer, dim), not negative and not all zero")

    @property
    def factor(self) -> Float[np.ndarray, "layer dim"]:
        """The Importance Factor, 0 to 1 over the whole map; 0 if all values are equal."""
        low, high = self.mean.min(), self.mean.max()
        return (self.mean - low) / (high - low) if high > low else np.zeros_like(self.mean)

    @property
    def share(self) -> Float[np.ndarray, " layer"]:
        """Each layer's fraction of all weights, in percent."""
        return 100 * self.mean.sum(1) / self.mean.sum()


class DensityMean:
    """Accumulates the mean of a density's weights over batches of any size."""

    def __init__(self, density: Density) -> None:
        self.density = density
        self.total: Float[np.ndarray, "layer dim"] | float = 0.0
        self.clips = 0

    @torch.no_grad()
    def add(self, x: Float[Tensor, "clip layer dim"]) -> None:
        """Adds a batch of the head's input."""
        self.total += self.density.weights(x).cpu().double().sum(0).numpy()  # Apple's GPUs have no float64
        self.clips += len(x)

    def result(self) -> DensityMap:
        """Raises: ValueError where no clip was added."""
        return DensityMap(mean=np.atleast_2d(self.total) / max(self.clips, 1))


class Correlation(NamedTuple):
    """Spearman's rank correlation; None where all values of one side are equal."""

    value: float | None
    layers: int
    p: float | None  # two-sided, by permutation


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance:
    """The densities of a trained head and of the same head at its start, over the same clips."""

    trained: DensityMap
    initial: DensityMap
    layers: tuple[int, ...]
    """The encoder's hidden layers that the maps describe, ascending, counted from 1."""
    clips: int
    heads: int = 1
    """Number of heads of the density, each over a part of the layers; a fraction compares layers within a head."""
    probes: Float[np.ndarray, " layer"] | None = None
    """A metric of each layer alone, as from `probe_layers`."""

    def __post_init__(self) -> None:
        count = len(self.layers)
        if list(self.layers) != sorted(set(self.layers)) or not count or self.layers[0] < 1:
            raise ValueError(f"layers are {self.layers}; expected ascending numbers from 1")
        if self.trained.mean.shape != self.initial.mean.shape or len(self.trained.mean) != count:
            shapes = f"{self.trained.mean.shape} and {self.initial.mean.shape}"
            raise ValueError(f"the maps are {shapes}; expected both (layer, dim) with {count} layers")
        if self.probes is not None and (self.probes.shape != (count,) or not np.isfinite(self.probes).all()):
            raise ValueError(f"probes are {self.probes}; expected one finite number for each of {count} layers")

    @property
    def against_initial(self) -> Correlation:
        """Correlation of the layers' fractions with those of the untrained head."""
        return rank_correlation(self.trained.share, self.initial.share)

    @property
    def against_probes(self) -> Correlation | None:
        """Correlation of the layers' fractions with the probes, if there are any."""
        return None if self.probes is None else rank_correlation(self.trained.share, self.probes)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of numbers, never NaN; all but densities and probes follow from them."""
        return {
            "layers": list(self.layers),
            "clips": self.clips,
            "heads": self.heads,
            "shares_compare": "all layers" if self.heads == 1 else "the layers of one head, a stretch of all",
            **{
                name: {"density": one.mean.tolist(), "factor": one.factor.tolist(), "share": one.share.tolist()}
                for name, one in (("trained", self.trained), ("initial", self.initial))
            },
            "probes": None if self.probes is None else self.probes.tolist(),
            "against_initial": self.against_initial._asdict(),
            "against_probes": None if self.against_probes is None else self.against_probes._asdict(),
        }


def measure_importance(
    batches: Iterable[Float[Tensor, "_ layer dim"]],
    *,
    trained: Density,
    initial: Density,
    layers: Sequence[int] | None = None,
    probes: Float[np.ndarray, " layer"] | None = None,
) -> Importance:
    """The mean densities over batches of the head's input.

    Args:
        initial: density of a new, untrained head.
        layers: numbers, from 1, of the encoder's layers in the batches; by default 1, 2, 3, ...
    """
    means = DensityMean(trained), DensityMean(initial)
    for x in batches:
        for mean in means:
            mean.add(x)
    maps = [mean.result() for mean in means]
    return Importance(
        trained=maps[0],
        initial=maps[1],
        layers=tuple(range(1, len(maps[0].mean) + 1) if layers is None else layers),
        clips=means[0].clips,
        heads=trained.num_heads,
        probes=probes,
    )


def least_p(layers: int) -> float:
    """The smallest p that `rank_correlation` can give for so many layers."""
    return 2 / math.factorial(layers) if layers <= EXACT else 1 / (DRAWS + 1)


def rank_correlation(a: Shaped[np.ndarray, " layer"], b: Shaped[np.ndarray, " layer"], *, seed: int = 0) -> Correlation:
    """Spearman's correlation, ties at their mean rank, with the p-value of a permutation test.

    Up to 7 layers all permutations are tried; else 10000 are drawn, and the observed one is added.
    """
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"cannot correlate {a} and {b}; expected finite numbers, one for each layer")
    # Twice the rank less its mean: whole numbers, so that permutations that tie do so exactly.
    a, b = (np.sign(v[:, None] - v).sum(1).astype(np.int64) for v in (a, b))
    found, most = int(a @ b), math.sqrt(int(a @ a) * int(b @ b))
    if not most:
        return Correlation(None, len(a), None)
    if len(a) <= EXACT:
        extreme = np.abs(np.array(list(permutations(b))) @ a) >= abs(found)
        return Correlation(found / most, len(a), float(extreme.mean()))
    drawn = np.random.default_rng(seed).permuted(np.tile(b, (DRAWS, 1)), axis=1)
    extreme = np.abs(drawn @ a) >= abs(found)
    return Correlation(found / most, len(a), float((1 + extreme.sum()) / (1 + DRAWS)))


class Ranking(NamedTuple):
    """A choice of layers by a ranking."""

    by: Literal["best", "IF"]  # single-layer probes, or Importance Factor
    number: int


def read_choice(choice: str | None, *, layers: int) -> Ranking | tuple[int, ...]:
    """Parses `keep_layers`: a ranking, or numbers of layers, ascending and from 1; None is all layers.

    Args:
        choice: "best:K" or "IF:K"; or numbers, as "1,3,5".
        layers: number of layers of the encoder.

    Raises:
        SettingRefused: an invalid choice, or layers out of range.
    """
    if choice is None:
        return tuple(range(1, layers + 1))
    setting = f"keep_layers={choice!r}"
    if ranked := re.fullmatch(r"(best|IF):([0-9]{1,9})", choice):
        number = int(ranked[2])
        if not 1 <= number <= layers:
            raise SettingRefused(f"{setting} selects {number} of {layers} layers; expected 1 to {layers}.")
        return Ranking("best" if ranked[1] == "best" else "IF", number)
    if not re.fullmatch(r" *[0-9]{1,9} *(, *[0-9]{1,9} *)*", choice):
        raise SettingRefused(f"{setting}: expected best:K, IF:K, or numbers such as 1,3,5.")
    kept = sorted(int(part) for part in choice.split(","))
    if wrong := [number for number in kept if not 1 <= number <= layers]:
        raise SettingRefused(f"{setting} has layer {wrong[0]}; expected 1 to {layers}.")
    if len(set(kept)) < len(kept):
        raise SettingRefused(f"{setting} has a layer twice.")
    return tuple(kept)


def largest(values: Float[np.ndarray, " layer"], number: int) -> tuple[int, ...]:
    """Numbers of the layers with the largest values, ascending and from 1; ties go to earlier layers."""
    return tuple(sorted((np.argsort(-values, kind="stable")[:number] + 1).tolist()))


# ---------------------------------------------------------------- probes


def probe_layers(
    features: Float[Tensor, "clip layer dim"] | Float[np.ndarray, "clip layer dim"],
    targets: Bool[np.ndarray, "clip label"],
    *,
    val_features: Float[Tensor, "val_clip layer dim"] | Float[np.ndarray, "val_clip layer dim"],
    val_targets: Bool[np.ndarray, "val_clip label"],
    task: Task,
    known: Bool[np.ndarray, "clip label"] | None = None,
    val_known: Bool[np.ndarray, "val_clip label"] | None = None,
    l2: float = 1.0,
) -> Float[np.ndarray, " layer"]:
    """The validation score of a logistic regression on each layer alone.

    Balanced accuracy for single-label tasks, mAP for multi-label ones. Features are standardized by the training data.
    The result is deterministic, and the layers do not depend on each other.

    Args:
        known, val_known: of which labels it is known whether a clip has them; the others do not count. None is all.
        l2: see `fit_logistic`.

    Raises:
        ValueError: features and targets that do not match, or validation data without labels.
    """
    x, val_x = torch.as_tensor(features), torch.as_tensor(val_features)
    for clips, truth in ((x, targets), (val_x, val_targets)):
        check_scores(np.zeros((len(clips), truth.shape[1])), truth, task)
    if not val_targets.any():
        raise ValueError("the probes need validation clips with labels; there are none")
    results = []
    for layer in range(x.shape[1]):
        own, dev = x[:, layer].double(), val_x[:, layer].double()
        mean, deviation = own.mean(0), own.std(0, correction=0)
        deviation = deviation.where(deviation > 1e-9 * mean.abs(), 1)  # constant up to rounding
        counted = None if known is None else torch.from_numpy(known)
        weight, bias = fit_logistic(
            (own - mean) / deviation, torch.from_numpy(targets), task=task, known=counted, l2=l2
        )
        scores = ((dev - mean) / deviation @ weight + bias).numpy()
        single = task == "single-label"
        results.append(
            balanced_accuracy(scores, val_targets)
            if single
            else mean_average_precision(scores, val_targets, val_known)[0]
        )
    return np.array(results)


# About p (1 - p) of well-classified clips. It scales the steps of the optimizer and does not change the minimum.
CURVATURE = 0.003


def fit_logistic(
    x: Float[Tensor, "clip dim"],
    targets: Bool[Tensor, "clip label"],
    *,
    task: Task,
    known: Bool[Tensor, "clip label"] | None = None,
    l2: float = 1.0,
) -> tuple[Float[Tensor, "dim label"], Float[Tensor, " label"]]:
    """Weight and bias of the softmax regression, or of one logistic regression a label, by full-batch L-BFGS.

    They minimize the cross-entropy, summed over the clips, plus l2 / 2 |weight|^2: scikit-learn's with C = 1 / l2, but
    for two labels of a single-label task, where it has one vector of weights and this has two.
    """
    # In the eigenbasis of x^T x, scaled by axis, the loss is well-conditioned, and a tenth of the steps is enough.
    values, axes = torch.linalg.eigh(x.T @ x)
    scale = (CURVATURE * values.clamp(min=0) + l2).rsqrt()
    rotated = x @ (axes * scale)
    truth = targets.to(x.dtype)
    v = x.new_zeros(x.shape[1], targets.shape[1], requires_grad=True)
    bias = x.new_zeros(targets.shape[1], requires_grad=True)
    descent = torch.optim.LBFGS(
        [v, bias],
        max_iter=1000,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        descent.zero_grad()
        logits = rotated @ v + bias
        if task == "single-label":
            entropy = F.cross_entropy(logits, truth, reduction="sum")
        else:
            counted = None if known is None else known.to(x.dtype)
            entropy = F.binary_cross_entropy_with_logits(logits, truth, weight=counted, reduction="sum")
        mean = (entropy + l2 / 2 * (scale[:, None] * v).square().sum()) / len(x)
        mean.backward()
        return mean

    descent.step(loss)
    return (axes * scale) @ v.detach(), bias.detach()
