"""The Importance Factor: means that no batches change, statistics against brute force, probes against theirs."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ossicle.errors import SettingRefused
from ossicle.metrics import balanced_accuracy, mean_average_precision
from ossicle.models.density import Density, DensityGate, DensityMixture, DensityProduct
from ossicle.tuning.importance import (
    Correlation,
    DensityMap,
    DensityMean,
    Importance,
    fit_logistic,
    largest,
    measure_importance,
    probe_layers,
    rank_correlation,
    read_choice,
)


def moved(density: Density) -> Density:
    """The density away from where it starts."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return density


def features(clips: int, layers: int, dim: int) -> torch.Tensor:
    return torch.randn(clips, layers, dim, generator=torch.Generator().manual_seed(0)).cumsum(1)


def measured(layers: int = 6, *, probes: bool = True) -> Importance:
    return measure_importance(
        features(20, layers, 4).split(8),
        trained=moved(DensityGate(4)),
        initial=DensityGate(4),
        layers=range(2, layers + 2),
        probes=np.linspace(0.2, 0.5, layers) ** 2 if probes else None,
    )


# ---------------------------------------------------------------- the Importance Factor


@pytest.mark.parametrize("density", [DensityGate(4, num_heads=2), DensityProduct(num_heads=2), DensityMixture()])
@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_how_clips_are_divided_into_batches_changes_nothing(density: Density, sizes: list[int]) -> None:
    x = features(sum(sizes), 7, 4)
    whole, parts = DensityMean(density), DensityMean(density)
    whole.add(x)
    for part in x.split(sizes):
        parts.add(part)
    np.testing.assert_allclose(parts.result().mean, whole.result().mean, rtol=1e-6)
    assert parts.clips == whole.clips == sum(sizes)


def test_the_mean_is_that_of_the_weights() -> None:
    density, x = moved(DensityGate(4)), features(5, 6, 4)
    mean = DensityMean(density)
    mean.add(x)
    np.testing.assert_allclose(mean.result().mean, density.weights(x).double().mean(0).detach().numpy(), rtol=1e-6)
    assert mean.result().mean.dtype == np.float64


def test_the_gate_means_are_the_authors() -> None:
    tensors = load_file(Path(__file__).parent.parent / "golden" / "density_gate_h1.safetensors")
    x = tensors["x"]
    gate = DensityGate(x.shape[-1])
    gate.load_state_dict({"offset": tensors["offset"], "log_spread": tensors["spread"].log()})
    mean = DensityMean(gate)
    for part in x.split(1):
        mean.add(part)
    np.testing.assert_allclose(mean.result().mean, tensors["gate_batch_mean"].numpy(), rtol=5e-4, atol=2e-4)


def test_the_factor_runs_from_zero_to_one_and_the_shares_sum_to_a_hundred() -> None:
    one = DensityMap(mean=np.array([[1.0, 2.0], [3.0, 5.0], [5.0, 4.0]]))
    np.testing.assert_array_equal(one.factor, [[0, 0.25], [0.5, 1], [1, 0.75]])
    np.testing.assert_allclose(one.share, [15, 40, 45])
    assert measured().trained.share.sum() == pytest.approx(100, abs=1e-9)


def test_a_map_without_differences_has_the_factor_zero() -> None:
    np.testing.assert_array_equal(DensityMap(mean=np.ones((2, 3))).factor, np.zeros((2, 3)))


def test_an_untrained_head_weighs_the_layers_in_the_middle_of_a_residual_stream() -> None:
    """The authors' figure, without a label: a bow over the layers."""
    share = measure_importance([features(200, 12, 16)], trained=DensityGate(16), initial=DensityGate(16)).initial.share
    assert share[4:8].min() > 1.1 * share[[0, -1]].max()


def test_the_start_against_itself_is_perfect_and_training_moves_it() -> None:
    still = measure_importance([features(20, 6, 4)], trained=DensityGate(4), initial=DensityGate(4))
    assert still.against_initial.value == 1 and still.against_probes is None and still.layers == (1, 2, 3, 4, 5, 6)
    assert np.abs(measured().trained.share - measured().initial.share).max() > 0.1


def test_nothing_seen_has_no_mean() -> None:
    mean = DensityMean(DensityGate(2))
    with pytest.raises(ValueError, match="not all zero"):
        mean.result()


# ---------------------------------------------------------------- to disk


@pytest.mark.parametrize("probes", [True, False])
def test_what_is_written_holds_every_number_and_how_many_heads_there_were(probes: bool) -> None:
    one = measured(probes=probes)
    told = json.loads(json.dumps(one.to_json(), allow_nan=False))
    for name, written in (("trained", one.trained), ("initial", one.initial)):
        assert np.array(told[name]["density"]).tobytes() == written.mean.tobytes()
        assert told[name]["share"] == written.share.tolist()
    assert (told["layers"], told["clips"], told["heads"]) == ([2, 3, 4, 5, 6, 7], 20, 1)
    assert told["against_initial"]["layers"] == 6 and (told["against_probes"] is not None) == probes
    several = dataclasses.replace(one, heads=2).to_json()
    assert several["heads"] == 2 and "one head" in several["shares_compare"] and "all" in told["shares_compare"]


def test_of_three_layers_a_head_the_middle_one_has_the_largest_share_and_one_head_ranks_them_all() -> None:
    """Why shares of several heads rank no layers."""
    x = features(200, 12, 16)
    several, single = (
        measure_importance([x], trained=DensityGate(16, num_heads=n), initial=DensityGate(16, num_heads=n))
        for n in (4, 1)
    )
    assert (several.heads, single.heads) == (4, 1)
    assert largest(several.trained.share, 4) == (2, 5, 8, 11)
    assert largest(single.trained.share, 4) == (5, 6, 7, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"trained": DensityMap(mean=np.ones((5, 4)))},
        {"layers": (1, 2, 3, 4, 5, 5)},
        {"layers": (0, 1, 2, 3, 4, 5)},
        {"probes": np.ones(1)},
        {"probes": np.full(6, math.inf)},
    ],
    ids=str,
)
def test_maps_layers_and_probes_must_fit(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected both|ascending|one finite number"):
        dataclasses.replace(measured(), **changes)


@pytest.mark.parametrize("mean", [[[1.0, math.nan]], [[-1.0, 2.0]], [[0.0, 0.0]], [1.0, 2.0]])
def test_a_map_of_densities_is_finite_and_positive(mean: list[Any]) -> None:
    with pytest.raises((ValueError, TypeError), match="not negative|mean"):
        DensityMap(mean=np.array(mean))


# ---------------------------------------------------------------- rank correlation

values = st.lists(st.integers(0, 3), min_size=2, max_size=6)


@given(a=values, seed=st.integers(0, 2**32 - 1))
def test_correlation_and_p_are_those_of_brute_force(a: list[int], seed: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy, which scikit-learn brings, is not installed")
    b = np.random.default_rng(seed).integers(0, 4, len(a)).tolist()
    found = rank_correlation(np.array(a), np.array(b, float))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found == Correlation(None, len(a), None)
        return
    ranks, others = stats.rankdata(a), stats.rankdata(b)
    all_of_them = [np.corrcoef(ranks, other)[0, 1] for other in itertools.permutations(others)]
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    extreme = np.mean(np.abs(all_of_them) >= abs(found.value) - 1e-9)
    assert found.p == pytest.approx(extreme, abs=1e-12) and found.layers == len(a)


def test_beyond_seven_layers_p_is_drawn_and_near_the_exact_one() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy, which scikit-learn brings, is not installed")
    a, b = np.arange(8), np.array([2.0, 1, 4, 3, 8, 5, 5, 6])
    found = rank_correlation(a, b)
    ranks = 2 * stats.rankdata(b)
    orders = np.array(list(itertools.permutations(ranks)))
    exact = np.mean(np.abs((orders - 9) @ (2 * a - 7)) >= abs((ranks - 9) @ (2 * a - 7)))
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))
    assert found == rank_correlation(a, b) != rank_correlation(a, b, seed=2)
    # The least p that so many draws can give is not 0.
    assert rank_correlation(np.arange(24), -np.arange(24)) == Correlation(-1.0, 24, 1 / 10_001)


def test_a_single_layer_has_no_correlation_and_nan_no_rank() -> None:
    assert rank_correlation(np.ones(1), np.ones(1)) == Correlation(None, 1, None)
    with pytest.raises(ValueError, match="finite"):
        rank_correlation(np.array([1.0, np.nan]), np.ones(2))


# ---------------------------------------------------------------- a choice of layers


def test_a_choice_is_a_ranking_or_numbers() -> None:
    assert read_choice("best:2", layers=5) == ("best", 2) and read_choice("IF:5", layers=5) == ("IF", 5)
    assert read_choice("5, 1,4", layers=5) == (1, 4, 5) and read_choice(None, layers=3) == (1, 2, 3)


def test_the_largest_are_kept_and_of_equals_the_earlier() -> None:
    values = np.array([0.1, 0.5, 0.5, 0.3, 0.5])
    assert largest(values, 2) == (2, 3) and largest(values, 4) == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("best:6", "selects 6 of 5 layers; expected 1 to 5"),
        ("IF:0", "selects 0 of 5"),
        ("best:-1", "expected best:K"),
        ("best:two", "expected best:K"),
        ("best:" + "9" * 5000, "expected best:K"),
        ("worst:2", "expected best:K"),
        ("BEST:2", "expected best:K"),
        ("", "expected best:K"),
        ("0,,3", "expected best:K"),
        ("0 3", "expected best:K"),
        ("1.5", "expected best:K"),
        ("0,5", "has layer 0; expected 1 to 5"),
        ("1,6", "has layer 6; expected 1 to 5"),
        ("3,1,3", "twice"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(choice: str, reason: str) -> None:
    with pytest.raises(SettingRefused, match=reason) as caught:
        read_choice(choice, layers=5)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and ". " not in message


# ---------------------------------------------------------------- probes


def clips(count: int, *, layers: int = 3, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features whose later layers tell more of the label, on scales far apart; with a constant one."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, labels, count)
    centers = np.random.default_rng(99).normal(size=(labels, 12))
    signal = np.linspace(0, 0.6, layers)[:, None] * centers[truth][:, None]
    x = (signal + generator.normal(size=(count, layers, 12))) * np.logspace(-2, 2, 12) + 5
    x[:, :, 3] = 0.1
    return x.astype(np.float32), np.eye(labels, dtype=bool)[truth]


@pytest.mark.parametrize("l2", [0.1, 1.0, 100.0])
def test_a_probe_is_scikit_learns_regression(l2: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    (x, truth), (dev, dev_truth) = clips(150), clips(100, seed=1)
    figures = probe_layers(x, truth, val_features=dev, val_targets=dev_truth, task="single-label", l2=l2)
    for layer, figure in enumerate(figures):
        mean, deviation = x[:, layer].mean(0, np.float64), x[:, layer].std(0, dtype=np.float64)
        deviation[3] = 1
        own, other = (x[:, layer] - mean) / deviation, (dev[:, layer] - mean) / deviation
        theirs = linear.LogisticRegression(C=1 / l2, tol=1e-9, max_iter=10_000).fit(own, truth.argmax(1))
        weight, bias = fit_logistic(torch.from_numpy(own), torch.from_numpy(truth), task="single-label", l2=l2)
        np.testing.assert_allclose(weight.numpy().T, theirs.coef_, atol=2e-3)
        # Of a softmax the common part of all biases is free.
        np.testing.assert_allclose(
            (bias - bias.mean()).numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3
        )
        assert figure == balanced_accuracy(theirs.decision_function(other), dev_truth)
    assert figures[-1] > figures[0] + 0.2


def test_a_probe_of_several_labels_is_scikit_learns_one_a_label() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    (x, truth), (dev, dev_truth) = clips(150, layers=2), clips(100, layers=2, seed=1)
    truth, dev_truth = truth | np.roll(truth, 1, axis=1) & (x[:, :1, 0] > 5), dev_truth | (dev[:, :1, 1] > 5)
    figures = probe_layers(x, truth, val_features=dev, val_targets=dev_truth, task="multi-label")
    for layer, figure in enumerate(figures):
        mean, deviation = x[:, layer].mean(0, np.float64), x[:, layer].std(0, dtype=np.float64)
        deviation[3] = 1
        own, other = (x[:, layer] - mean) / deviation, (dev[:, layer] - mean) / deviation
        theirs = [linear.LogisticRegression(tol=1e-9, max_iter=10_000).fit(own, truth[:, i]) for i in range(4)]
        weight, _ = fit_logistic(torch.from_numpy(own), torch.from_numpy(truth), task="multi-label")
        np.testing.assert_allclose(weight.numpy().T, np.concatenate([one.coef_ for one in theirs]), atol=2e-3)
        scores = np.stack([one.decision_function(other) for one in theirs], 1)
        assert figure == pytest.approx(mean_average_precision(scores, dev_truth)[0], abs=1e-3)


def test_probes_are_the_same_each_time_and_their_layers_alone() -> None:
    (x, truth), (dev, dev_truth) = clips(60), clips(40, seed=1)
    with torch.no_grad():
        figures = probe_layers(x, truth, val_features=dev, val_targets=dev_truth, task="single-label")
    last = probe_layers(
        torch.from_numpy(x[:, 2:]), truth, val_features=dev[:, 2:], val_targets=dev_truth, task="single-label"
    )
    assert figures.shape == (3,) and figures[2:].tolist() == last.tolist()


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_more_features_than_clips_and_a_label_that_is_never_seen_are_borne(task: str) -> None:
    x, truth = clips(6)
    truth = np.concatenate([truth, np.zeros((6, 1), bool)], 1)
    figures = probe_layers(x, truth, val_features=x, val_targets=truth, task=task)
    assert np.isfinite(figures).all() and figures.max() == 1


def test_probes_without_anything_to_be_measured_on_are_refused() -> None:
    x, truth = clips(10)
    with pytest.raises(ValueError, match="validation part"):
        probe_layers(x, truth, val_features=x, val_targets=np.zeros_like(truth), task="multi-label")
    with pytest.raises(ValueError, match="exactly one"):
        probe_layers(x, truth, val_features=x, val_targets=np.zeros_like(truth), task="single-label")
