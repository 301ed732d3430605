"""What a step does on a device that works on its own: it is never waited for, and does not depend on the batch's size.

The device `meta` has shapes and no values: whatever would have to wait for values is an error there, or is counted.
"""

import math
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ossicle.data.cache import SampleStore
from ossicle.errors import RunRefused
from ossicle.frontend import create_frontend, frontend_config
from ossicle.models import create_model, find_preset
from ossicle.training import TrainConfig
from ossicle.training.averaging import WeightAverage
from ossicle.training.loader import WaveBatches
from ossicle.training.loop import fit
from ossicle.training.module import NetworkTraining
from ossicle.tuning.guard import GradientGuard
from ossicle.weights.state import checkpoints

META = torch.device("meta")
ALL: dict[str, Any] = {
    **{"gain": 7.0, "roll": 0.01, "wave_mixup": 0.5, "mixup": 0.3, "jitter": True, "drop_path": 0.2},
    **{"average": "ema", "label_smoothing": 0.1},
}
SMALL: dict[str, dict[str, Any]] = {
    "passt_tiny_s16": {"depth": 2, "dim": 16, "num_heads": 2, "patchout_t": 1, "patchout_f": 2, "drop_path": 0.2},
    "datar_nano": {"dims": (8, 8, 8, 8), "depths": (1, 1, 2, 1), "num_heads": (2,) * 4, "num_groups": (1,) * 4},
}


class Made(TorchFunctionMode):
    """Counts tensors that are made of Python's numbers on another device, which waits for the copy."""

    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **kwargs or {})
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and found.device.type != "cpu":
            self.waits[function.__name__] += 1
        return found


class Watch(TorchDispatchMode):
    """Counts operations, and those that wait for a device: values that go to the CPU, copies that block."""

    def __init__(self) -> None:
        super().__init__()
        self.all: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.made = Made(self.waits)

    def __enter__(self) -> "Watch":
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        self.all[name] += 1
        found = function(*args, **kwargs)
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        away = bool(tensors) and tensors[0].device != torch.device("cpu")
        if away and name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"):
            self.waits[name] += 1
        if name == "_to_copy" and found.device != tensors[0].device and (away or not kwargs.get("non_blocking")):
            self.waits["to the CPU" if away else "from the CPU"] += 1
        if name == "copy_" and tensors[0].device != tensors[1].device:
            self.waits["copy_"] += 1
        return found


def trainee(model: str, *, clips: int, **changes: Any) -> NetworkTraining:
    frontend = frontend_config(find_preset(model).frontend, freq_mask=16, time_mask=8)
    window = frontend.samples(64)
    lengths = np.linspace(0.6 * window, window, clips).astype(np.int64)
    store = SampleStore(
        items=(),
        rate=frontend.rate,
        samples=np.random.default_rng(0).standard_normal(lengths.sum()).astype(np.float32),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        failures={},
    )
    settings = {"epochs": 2, "batch_size": clips, "device": "cpu", "precision": "float32", **ALL}
    config = TrainConfig(model=model, **settings | changes)
    targets = np.eye(3, dtype=bool)[np.arange(clips) % 3]
    batches = WaveBatches(store, np.arange(clips), targets, window=window, batch_size=config.batch_size, seed=0)
    torch.manual_seed(0)
    network = create_model(model, num_classes=3, frames=64, **SMALL[model])
    return NetworkTraining(
        network, create_frontend(frontend), config, task="single-label", frames=64, batches=batches
    ).train()


def steps(module: NetworkTraining, *, number: int = 1) -> Watch:
    """Whole steps on the device of a module: guard, clipping, optimizer and average with them."""
    module.batches.send_to(module.device)
    optimizer, guard = module.optimizer(), GradientGuard(module.watched())
    average = WeightAverage((p for _, p in module.trained()), decay=0.9)
    for _ in range(number):
        (batch,) = module.batches
        with Watch() as watch:
            module.training_step(batch, 0).backward()
            guard.check()
            module.configure_gradient_clipping(optimizer)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
    return watch


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}], ids=["", "checkpointing"])
def test_a_step_never_waits_for_its_device(model: str, changes: dict[str, Any]) -> None:
    watch = steps(trainee(model, clips=4, **changes).to(META), number=2)
    assert sum(watch.all.values()) > 200 and not watch.waits


def test_waiting_for_the_device_is_noticed() -> None:
    module = trainee("passt_tiny_s16", clips=2).to(META)
    module.batches.send_to(META)
    (batch,) = module.batches
    loss = module.training_step(batch, 0)
    with pytest.raises(RuntimeError, match="meta"):
        module.look()
    with Watch() as watch:
        torch.ones(2).to(META)
        torch.empty(2, device=META).copy_(torch.ones(2)).new_tensor([1.0])
        with pytest.raises(RuntimeError, match="meta"):
            loss.item()
    assert watch.waits == {"from the CPU": 1, "copy_": 1, "new_tensor": 1}


@pytest.mark.parametrize("model", SMALL)
def test_the_operations_of_a_step_do_not_depend_on_the_number_of_clips(model: str) -> None:
    def operations(clips: int) -> tuple[Counter[str], Counter[str]]:
        module = trainee(model, clips=clips).to(META)
        batch = module.batches.peek().to(META)
        with Watch() as before:
            module.augmented(batch, batch.generator())
        with Watch() as whole:
            module.training_step(batch, 0).backward()
        return before.all, whole.all

    few, many = operations(4), operations(64)
    assert few == many
    before, whole = many
    assert before["_fft_r2c"] == 1
    assert sum(before.values()) < 250 and sum(whole.values()) < 2000


def test_batches_arrive_on_the_device_and_their_position_is_that_of_the_next_one() -> None:
    module = trainee("passt_tiny_s16", clips=6).to(META)
    batches = module.batches
    batches.batch_size = 2
    expected = [batch.clips.tolist() for batch in batches]
    batches.load_state_dict({"epoch": 0, "batch": 0})
    batches.send_to(META)
    for number, batch in enumerate(batches, start=1):
        assert batch.waves.device == batch.targets.device == META and batch.clips.tolist() == expected[number - 1]
        assert batches.state_dict() == ({"epoch": 0, "batch": number} if number < 3 else {"epoch": 1, "batch": 0})


# Losses that nobody has looked at yet


class Spoiler(Callback):
    """Spoils the weights before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            next(module.parameters()).data.fill_(math.nan)


def weights_after(module: NetworkTraining, folder: Path, *, resume: bool = False, **how: Any) -> list[torch.Tensor]:
    fit(module, None, targets=module.batches.targets, device=torch.device("cpu"), folder=folder, resume=resume, **how)
    return [p.detach().clone() for p in module.model.parameters()]


@pytest.mark.parametrize("save_minutes", [0.0, 10.0])
def test_a_loss_that_is_no_number_ends_the_run_when_it_is_seen_and_nothing_is_kept_of_it(
    save_minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetworkTraining, "sees_at_once", False)  # as on a GPU

    def module() -> NetworkTraining:
        return trainee("passt_tiny_s16", clips=6, batch_size=2, save_minutes=save_minutes)

    expected = weights_after(module(), tmp_path / "whole")
    with pytest.raises(RunRefused, match="the loss became nan at step 4; begin another run with a lower learning rate"):
        weights_after(module(), tmp_path / "run", callbacks=[Spoiler(4)])
    newest = checkpoints(tmp_path / "run" / "checkpoints")[0].name
    assert newest == ("step-00000003" if save_minutes else "step-00000004")
    found = weights_after(module(), tmp_path / "run", resume=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_losses_are_looked_at_after_some_steps_and_before_they_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkTraining, "sees_at_once", False)
    monkeypatch.setattr("ossicle.training.module.UNSEEN", 2)
    module = trainee("passt_tiny_s16", clips=4)
    (batch,) = module.batches
    seen = []
    for _ in range(5):
        module.training_step(batch, 0)
        seen.append(len(module.losses))
    assert seen == [0, 2, 2, 4, 4]
    state: dict[str, Any] = {}
    module.on_save_checkpoint(state)
    assert len(state["losses"]) == 5 and module.last_loss == state["losses"][-1]


# Less memory


@pytest.mark.parametrize("model", SMALL)
def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradients(model: str) -> None:
    found = []
    for checkpointing in (False, True):
        module = trainee(model, clips=4, gradient_checkpointing=checkpointing)
        batch, kept = module.batches.peek(), 0
        generator = batch.generator()

        def note(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits, targets, _ = module.train_logits(batch, generator)
            of_forward = kept
        (logits * targets).sum().backward()
        gradients = [p.grad for p in module.model.parameters() if p.grad is not None]
        found.append((of_forward, gradients, torch.rand(3, generator=generator)))
    (much, expected, after), (little, gradients, again) = found
    assert len(gradients) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))
    assert torch.equal(after, again)  # the second pass draws nothing of what comes later
    assert little < 0.7 * much


# Scaled losses


def test_the_gradient_is_clipped_without_its_scale() -> None:
    module = trainee("passt_tiny_s16", clips=2, clip_gradient=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))
    parameters = [p for _, p in module.trained() if p.requires_grad]
    for p in parameters:
        p.grad = torch.full_like(p, 1024.0)
    direction = torch.nn.utils.get_total_norm([torch.ones_like(p) for p in parameters])
    module.configure_gradient_clipping(None)
    for p in parameters:
        torch.testing.assert_close(p.grad, torch.full_like(p, 1024.0 * 0.5 / float(direction)))
    parameters[0].grad.fill_(math.inf)
    module.configure_gradient_clipping(None)
    assert not parameters[0].grad.isfinite().any()  # so that the scaler skips the step


class Scales(Callback):
    def __init__(self) -> None:
        self.each: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.each.append(trainer.precision_plugin.scaler.get_scale())


def test_a_run_in_float16_continues_with_the_scale_of_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU as on a GPU; `choose_dtype` refuses it there, as it is slow.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**12, growth_interval=1))
    whole, resumed = Scales(), Scales()

    def module() -> NetworkTraining:
        return trainee("passt_tiny_s16", clips=6, batch_size=2)

    expected = weights_after(module(), tmp_path / "whole", precision="float16", callbacks=[whole])
    assert whole.each[0] == 2.0**13 and len(set(whole.each)) > 3
    first = tmp_path / "whole" / "checkpoints" / "step-00000003"
    shutil.copytree(first, tmp_path / "run" / "checkpoints" / first.name)
    found = weights_after(module(), tmp_path / "run", resume=True, precision="float16", callbacks=[resumed])
    assert resumed.each == whole.each[3:]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
