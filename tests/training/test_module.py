"""One step: losses, rates, averages, gradients."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ossicle.data import Dataset
from ossicle.data.cache import open_store
from ossicle.errors import RunRefused
from ossicle.frontend import create_frontend
from ossicle.training import TrainConfig
from ossicle.training.averaging import WeightAverage
from ossicle.training.callbacks import clip_logits, is_snapshot, validation_score
from ossicle.training.initial import start_from
from ossicle.training.loader import WaveBatches
from ossicle.training.losses import mean_loss
from ossicle.training.module import NetworkTraining
from ossicle.training.optimizers import decays
from ossicle.training.schedules import learning_rate

Tiny = Callable[..., TrainConfig]
Make = Callable[..., NetworkTraining]


@pytest.fixture
def trainee(dataset: Dataset, tiny: Tiny, tmp_path: Path) -> Callable[..., NetworkTraining]:
    def build(**changes: object) -> NetworkTraining:
        config = tiny(**changes)
        frontend = create_frontend("passt", freq_mask=config.freq_mask, time_mask=int(40 * config.time_mask))
        store = open_store(dataset.items, 32_000, folder=tmp_path / "cache")
        batches = WaveBatches(
            store, np.arange(24), dataset.targets(), window=12_800, batch_size=4, seed=0, min_samples=4801
        )
        model = start_from(config, num_classes=2, frames=40)
        return NetworkTraining(model, frontend, config, task="single-label", frames=40, batches=batches).train()

    return build


def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one_does(
    trainee: Make,
) -> None:
    module = trainee(patchout_t=1, mixup=0.3, gain=7.0, wave_mixup=0.5, roll=0.1, freq_mask=20, time_mask=0.2)
    with torch.no_grad():
        module.training_step(next(iter(module.batches)), 0)  # nothing may be kept from a pass without gradients
    optimizer = torch.optim.SGD(module.model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module.training_step(next(iter(module.batches)), 0).backward()
        optimizer.step()
    for name, parameter in module.model.named_parameters():
        if name.startswith("head_dist"):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_labels_are_mixed_in_the_parts_in_which_the_sounds_are(trainee: Make) -> None:
    module = trainee(mixup=0.5, wave_mixup=0.5)
    batch = next(iter(module.batches))
    spec, targets, known = module.augmented(batch, torch.Generator().manual_seed(0))
    assert spec.shape == (4, 128, 40) and known is None
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert ((targets > 0) & (targets < 1)).any()
    assert set(batch.targets.unique().tolist()) == {0.0, 1.0}  # the batch itself is left alone


@pytest.mark.parametrize("mixing", [{"mixup": 0.5}, {"wave_mixup": 1.0}, {"mixup": 0.5, "wave_mixup": 0.5}])
def test_the_loss_of_a_mix_is_that_of_its_parts_each_over_what_is_known_of_it(
    trainee: Make, mixing: dict[str, float]
) -> None:
    module = trainee(**mixing)
    known = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    batch = dataclasses.replace(next(iter(module.batches)), known=known)
    _, targets, weights = module.augmented(batch, torch.Generator().manual_seed(0))
    # The parts of each clip in the mix: what the same draws make of one clip after another.
    parts = torch.stack(
        [
            module.augmented(
                dataclasses.replace(batch, targets=row.expand(2, 4).T.contiguous(), known=None),
                torch.Generator().manual_seed(0),
            )[1][:, 0]
            for row in torch.eye(4)
        ],
        dim=1,
    )
    torch.testing.assert_close(parts.sum(1), torch.ones(4))
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    each = torch.stack(
        [
            torch.nn.functional.binary_cross_entropy_with_logits(logits, row.expand(4, 2), reduction="none")
            for row in batch.targets
        ],
        dim=1,
    )  # (clip, part, label)
    by_hand = (parts[:, :, None] * known * each).sum() / (parts[:, :, None] * known).sum()
    found = mean_loss(logits, targets, task="multi-label", settings=TrainConfig(), known=weights)
    torch.testing.assert_close(found, by_hand)


def test_what_is_said_of_an_unknown_label_enters_no_loss(trainee: Make) -> None:
    module = trainee(mixup=0.5, wave_mixup=0.5)
    known = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    batch = dataclasses.replace(next(iter(module.batches)), known=known)
    module.task = "multi-label"
    other = dataclasses.replace(batch, targets=torch.where(known > 0, batch.targets, 1 - batch.targets))
    losses = [module.training_step(one, 0).item() for one in (batch, other, dataclasses.replace(other, known=None))]
    assert losses[0] == losses[1] != losses[2]
    nothing = dataclasses.replace(batch, known=torch.zeros(4, 2))
    assert module.training_step(nothing, 0).item() == 0


def test_waves_of_any_lengths_are_mixed_and_one_filterbank_is_drawn_for_them(
    trainee: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = trainee(wave_mixup=1.0, mixup=0.0, jitter=True)
    batch = next(iter(module.batches))
    batch = dataclasses.replace(batch, lengths=batch.lengths - 1000 * torch.arange(4))
    for wave, length in zip(batch.waves, batch.lengths.tolist(), strict=True):
        wave[length:] = 0
    _, targets, _ = module.augmented(batch, torch.Generator().manual_seed(0))
    assert ((targets > 0) & (targets < 1)).any()
    drawn = []
    draw = module.frontend.draw_bank
    monkeypatch.setattr(module.frontend, "draw_bank", lambda generator: drawn.append(draw(generator)) or drawn[-1])
    module.frontend(batch.waves, lengths=batch.lengths, generator=torch.Generator().manual_seed(0))
    assert len(drawn) == 1 and not torch.equal(drawn[0], module.frontend.bank)


def test_a_loss_that_is_no_number_stops_the_run_with_advice(trainee: Make) -> None:
    module = trainee()
    module.model.head[1].bias.data.fill_(math.nan)
    with pytest.raises(RunRefused, match=r"loss became nan at step 0; begin another run with a lower learning rate"):
        module.training_step(next(iter(module.batches)), 0)


def test_the_losses_are_those_of_the_textbook() -> None:
    logits, hard = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    by_hand = -logits.log_softmax(1)[0, 0]
    settings = TrainConfig(label_smoothing=0.0)
    torch.testing.assert_close(mean_loss(logits, hard, task="single-label", settings=settings), by_hand)
    both = torch.tensor([[1.0, 1.0, 0.0]])
    p = logits.sigmoid()
    binary = -(both * p.log() + (1 - both) * (1 - p).log()).mean()
    torch.testing.assert_close(mean_loss(logits, both, task="multi-label", settings=settings), binary)


@given(
    progress=st.floats(0, 1),
    warmup=st.floats(0, 0.5),
    hold=st.floats(0, 1),
    until=st.floats(0, 1),
    final=st.floats(0, 1),
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
)
def test_the_rate_stays_between_nothing_and_its_peak(
    progress: float, warmup: float, hold: float, until: float, final: float, schedule: str
) -> None:
    hold, until = sorted((hold, until))  # the decay begins before it ends
    config = TrainConfig(hold=hold, decay_until=until, final_lr=final, schedule=schedule)  # type: ignore[arg-type]
    assert 0 <= learning_rate(progress, config, warmup=warmup) <= 1 + 1e-9


def test_the_rate_rises_holds_and_falls_to_its_end() -> None:
    config = TrainConfig(hold=0.5, final_lr=0.1, schedule="linear")
    rates = [learning_rate(p, config, warmup=0.2) for p in (0.1, 0.2, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.55, 0.1])
    early = dataclasses.replace(config, decay_until=0.75)
    rates = [learning_rate(p, early, warmup=0.2) for p in (0.5, 0.625, 0.75, 1.0)]
    assert rates == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_decay_pulls_on_matrices_alone(trainee: Make) -> None:
    decayed = {name for name, p in trainee().model.named_parameters() if p.requires_grad and decays(name, p)}
    assert "blocks.0.attn.qkv.weight" in decayed and "patch_embed.proj.weight" in decayed
    assert not any("bias" in name or "norm" in name or "token" in name or "pos_embed" in name for name in decayed)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_the_plain_average_is_the_mean_of_all_updates_and_swapping_twice_restores(values: list[float]) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(module.parameters(), decay=None)
    for value in values:
        module.weight.data.fill_(value)
        average.update()
    average.swap()
    assert module.weight.item() == pytest.approx(float(np.mean(values)), abs=1e-4)
    average.swap()
    assert module.weight.item() == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize("private", [True, False])
def test_the_exponential_average_forgets_at_its_rate(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not private:  # a torch without its operator for many tensors
        monkeypatch.delattr(torch, "_foreach_lerp_")
    module = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(module.parameters(), decay=0.9)
    for value in [0.0] * 20 + [1.0] * 5:
        module.weight.data.fill_(value)
        average.update()
    average.swap()
    assert module.weight.item() == pytest.approx(1 - 0.9**5, abs=1e-6)


def test_snapshots_begin_where_they_should_and_the_last_epoch_is_always_one() -> None:
    config = TrainConfig(epochs=10, average="swa", swa_start=0.5, swa_every=3)
    assert [epoch for epoch in range(10) if is_snapshot(epoch, config)] == [5, 8, 9]
    assert [e for e in range(2) if is_snapshot(e, TrainConfig(epochs=2, average="swa", swa_start=1.0))] == [1]


def test_windows_are_joined_as_prediction_joins_them() -> None:
    outputs = [
        (torch.tensor([7, 3]), torch.tensor([[1.0, 5.0], [2.0, 2.0]])),
        (torch.tensor([7]), torch.tensor([[3.0, 1.0]])),
    ]
    logits, clips = clip_logits(outputs, task="single-label")
    assert clips.tolist() == [3, 7] and logits.tolist() == [[2.0, 2.0], [2.0, 3.0]]
    assert clip_logits(outputs, task="multi-label")[0].tolist() == [[2.0, 2.0], [3.0, 5.0]]
    assert validation_score(logits, np.array([[True, False], [False, True]]), task="single-label") == 1.0
