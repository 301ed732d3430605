"""The gradient guard: what it lets pass, and what it names."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from ossicle import create_model
from ossicle.errors import RunRefused
from ossicle.training.callbacks import Guard
from ossicle.training.module import TrainingModule
from ossicle.tuning.guard import PASSES, GradientGuard, bit_sums

DATAR: dict[str, Any] = {
    "dims": (8, 16, 32, 64),
    "depths": (1, 1, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "num_groups": (1, 1, 2, 2),
    "drop_path": 0.3,
}
# Name, options, frames of a clip: patchout, clips shorter than the positions, skipped branches, parts zero at first.
OURS: list[tuple[str, dict[str, Any], int]] = [
    ("passt_tiny_s16", {"depth": 3, "frames": 200, "patchout_t": 4, "patchout_f": 2, "drop_path": 0.5}, 150),
    ("passt_tiny_s10", {"depth": 1, "frames": 998, "patchout_u": 0.5, "dropout": 0.3}, 40),
    *[
        ("datar_nano", {**DATAR, "adaptor": adaptor, "frames": 100}, 40)
        for adaptor in ("spectrogram", "feature", "bottleneck", "position_table")
    ],
    ("datar_nano", {**DATAR, "offsets": "time", "segment": 32, "frames": 100}, 100),
    ("datar_nano", {**DATAR, "offsets": "none", "position_bias": False, "frames": 100}, 32),
    ("datar_nano", {**DATAR, "offset_range": None, "frames": 1024}, 20),
    ("datar_tiny_segmented", {**DATAR, "frames": 100}, 40),
    ("datar_nano_hop", {**DATAR, "frames": 100}, 100),
]


class Toy(nn.Module):
    """Two linear maps, one that nobody calls, one behind a gate that is zero at first, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.behind = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.gate = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.frozen(self.used(x))
        return h + self.gate * self.behind(h)

    def trained(self, *without: str) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.named_parameters() if name.partition(".")[0] not in without]


def run(
    model: nn.Module,
    guard: GradientGuard,
    *,
    passes: int = PASSES,
    every: int = 1,
    loss: Callable[[int], Tensor] | None = None,
) -> None:
    """Passes with a check after each and a step after so many."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, fused=True)
    for number in range(passes):
        (model(torch.randn(4, 3)).square().sum() if loss is None else loss(number)).backward()
        guard.check()
        if (number + 1) % every == 0:
            optimizer.step()
            optimizer.zero_grad()


def test_a_healthy_network_passes_and_is_no_longer_looked_at() -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    run(model, guard)
    guard.finish()
    model.frozen.weight.grad = torch.ones(3, 3)
    guard.check()  # looks at nothing any more


@pytest.mark.parametrize("name, options, frames", OURS)
def test_every_network_of_ours_passes_in_every_variant(name: str, options: dict[str, Any], frames: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options).train()
    generator = torch.Generator().manual_seed(0)

    def loss(number: int) -> Tensor:
        logits = model(torch.randn(2, 128, frames, generator=generator), generator=generator)
        return nn.functional.cross_entropy(logits, torch.tensor([0, 1]))

    guard = GradientGuard(model.named_parameters())
    run(model, guard, loss=loss)
    guard.finish()


def test_a_weight_without_any_gradient_is_named_after_ten_passes_and_not_before() -> None:
    model = Toy()
    guard = GradientGuard(model.named_parameters())
    run(model, guard, passes=PASSES - 1)
    said = (
        r"^unused.weight, unused.bias: 2 of 7 parameters that should train, and their gradient was absent or zero in "
        r"each of the first 10 passes; the network may read these weights without calling the layer or the adapter"
    )
    with pytest.raises(RunRefused, match=said):
        run(model, guard, passes=1)


def test_a_weight_whose_gradients_are_all_zero_is_named_and_nan_is_no_zero() -> None:
    for factor, silent in ((0.0, True), (float("nan"), False)):
        weight = nn.Parameter(torch.ones(2))
        guard = GradientGuard([("w", weight)])
        for _ in range(PASSES - 1):
            (weight * factor).sum().backward()
            guard.check()
        (weight * factor).sum().backward()
        if silent:
            with pytest.raises(RunRefused, match="^w: 1 of 1 parameters that should train"):
                guard.check()
        else:
            guard.check()


def test_of_many_a_few_are_named_and_all_are_counted() -> None:
    guard = GradientGuard((f"w{number}", nn.Parameter(torch.ones(1))) for number in range(5))
    for _ in range(PASSES - 1):
        guard.check()
    with pytest.raises(RunRefused, match="^w0, w1, w2 and 2 more: 5 of 5 parameters"):
        guard.check()


def test_a_parameter_that_is_listed_twice_is_one() -> None:
    weight = nn.Parameter(torch.ones(1))
    guard = GradientGuard([("tuner.w", weight), ("encoder.w", weight)])
    guard.check()
    guard.check()
    with pytest.raises(RunRefused, match="^tuner.w: 1 of 1"):
        guard.finish()


def test_a_block_that_runs_once_in_ten_passes_is_no_dead_one() -> None:
    model = Toy()
    guard = GradientGuard(model.named_parameters())

    def loss(number: int) -> Tensor:
        x = torch.randn(4, 3)
        return (model(x) + (model.unused(x) if number == 7 else 0)).square().sum()

    run(model, guard, loss=loss)


@pytest.mark.parametrize("every", [1, 4])
def test_what_lies_behind_a_zero_at_the_start_is_no_dead_weight(every: int) -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    run(model, guard, every=every)


def test_a_parameter_that_has_lost_its_wish_for_a_gradient_is_named_at_once() -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    run(model, guard, passes=2)
    model.behind.weight.requires_grad_(False)
    with pytest.raises(RunRefused, match="^behind.weight: 1 of 5 parameters that should train and no longer require"):
        guard.check()


def test_a_frozen_parameter_with_a_gradient_is_named_at_once() -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    model.frozen.requires_grad_(True)
    with pytest.raises(RunRefused, match="^frozen.weight, frozen.bias: 2 of 2 parameters that are frozen and received"):
        run(model, guard, passes=1)


@pytest.mark.parametrize("passes", [1, PASSES])
def test_a_frozen_parameter_that_changed_is_named_whatever_changed_it(passes: int) -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    run(model, guard, passes=passes - 1)
    model.frozen.weight.data[1, 2] += 1e-6
    with pytest.raises(RunRefused, match="^frozen.weight: 1 of 2 parameters that are frozen and changed"):
        run(model, guard, passes=1)
        guard.finish()


def test_a_frozen_parameter_that_changes_later_is_named_at_the_end() -> None:
    model = Toy()
    guard = GradientGuard(model.trained("unused"))
    run(model, guard)
    model.frozen.bias.data.neg_()
    with pytest.raises(RunRefused, match="^frozen.bias: 1 of 2 parameters that are frozen and changed"):
        guard.finish()


def test_a_short_run_is_judged_by_the_passes_that_it_had() -> None:
    model = Toy()
    guard = GradientGuard(model.named_parameters())
    guard.finish()  # no pass, no judgement
    run(model, guard, passes=1)
    with pytest.raises(RunRefused, match="^unused.weight, unused.bias: .* in the only pass"):  # and not what is behind
        guard.finish()
    run(model, guard, passes=2)
    with pytest.raises(RunRefused, match="^unused.weight, unused.bias: .* in each of the first 3 passes"):
        guard.finish()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_the_sum_of_the_bits_tells_two_tensors_apart(dtype: torch.dtype) -> None:
    one = torch.arange(6).reshape(2, 3).T.to(dtype)
    other = one.clone()
    assert bit_sums([one, other, torch.tensor(3).to(dtype)])[0] == bit_sums([other])[0]
    other[1, 1] += 1
    assert bit_sums([one]) != bit_sums([other])
    assert bit_sums([]).tolist() == []


# --- in a run --------------------------------------------------------------------------------------------------------


class Bare(TrainingModule):
    """A module without data or front end."""

    def __init__(self, model: Toy) -> None:
        lightning.LightningModule.__init__(self)
        self.model = model

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.model(batch[0]).square().sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-3, fused=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("steps", [3, PASSES])
@pytest.mark.parametrize("accumulate", [1, 12])
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_a_run_with_a_dead_weight_is_stopped_and_a_healthy_one_ends(
    steps: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(model: Toy) -> None:
        data: Iterable[Any] = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.randn(4 * steps * accumulate, 3)), batch_size=4
        )
        lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            accumulate_grad_batches=accumulate,
            callbacks=[Guard()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Bare(model), data)

    monkeypatch.setattr(Bare, "configure_gradient_clipping", lambda self, *_, **__: None)
    with pytest.raises(RunRefused, match="^unused.weight, unused.bias: 2 of 7"):
        fit(Toy())
    healthy = Toy()
    healthy.unused.requires_grad_(False)
    fit(healthy)
