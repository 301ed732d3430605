"""What a step does on a device that works on its own: it is never waited for, and does not depend on the batch's size.

The device `meta` has shapes and no values: whatever would have to wait for values is an error there, or is counted.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ossicle.data.cache import SampleStore
from ossicle.frontend import create_frontend, frontend_config
from ossicle.models import create_model, find_preset
from ossicle.training import TrainConfig
from ossicle.training.averaging import WeightAverage
from ossicle.training.loader import WaveBatches
from ossicle.training.module import NetworkTraining
from ossicle.tuning.guard import GradientGuard

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


def trainee(model: str, *, clips: int, equal: bool = False, **changes: Any) -> NetworkTraining:
    frontend = frontend_config(find_preset(model).frontend, freq_mask=16, time_mask=8)
    window = frontend.samples(64)
    lengths = np.full(clips, window) if equal else np.linspace(0.6 * window, window, clips).astype(np.int64)
    store = SampleStore(
        items=(),
        rate=frontend.rate,
        samples=np.random.default_rng(0).standard_normal(lengths.sum()).astype(np.float32),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        stored=clips,
        failures={},
    )
    config = TrainConfig(model=model, epochs=2, batch_size=clips, device="cpu", precision="float32", **ALL | changes)
    targets = np.eye(3, dtype=bool)[np.arange(clips) % 3]
    batches = WaveBatches(store, np.arange(clips), targets, window=window, batch_size=clips, seed=0)
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
