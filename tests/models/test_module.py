"""Every family is an ordinary `nn.Module`: of torch's own parts, for torch's own tools, in anybody's training loop."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ossicle.kernels import operators, using_kernels
from ossicle.models import create_model, list_models, network_class
from ossicle.models.base import Network, drawing_from

SMALL: dict[str, dict[str, Any]] = {
    "passt_tiny_s16": {"depth": 2, "frames": 100},
    "ast_base_s16": {"depth": 2, "frames": 100, "dim": 192, "num_heads": 3},
    "datar_nano": {"depths": (1, 1, 2, 2), "frames": 96},
}
DRAWING: dict[str, dict[str, Any]] = {
    "passt_tiny_s16": {"patchout_t": 0.3, "patchout_f": 1, "patchout_u": 2, "dropout": 0.1, "drop_path": 0.5},
    "ast_base_s16": {"patchout_t": 0.3, "patchout_f": 1, "patchout_u": 2, "dropout": 0.1, "drop_path": 0.5},
    "datar_nano": {"drop_path": 0.5},
}
OPERATORS: dict[str, set[str]] = {
    "passt_tiny_s16": set(),
    "ast_base_s16": set(),
    "datar_nano": {"aten.grid_sampler_2d_backward", "aten._embedding_bag_per_sample_weights_backward"},
}
every = pytest.mark.parametrize("name", SMALL)


def network(name: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, **{**SMALL[name], **options})


def spec(clips: int = 2) -> Tensor:
    """Shorter than the tables of positions, so that training draws where they begin."""
    return torch.randn(clips, 128, 70, generator=torch.Generator().manual_seed(1))


def loss_of(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.arange(len(logits)) % 3)


def gradients(model: Network, x: Tensor) -> dict[str, Tensor]:
    """The logits, and the gradient of every parameter that has one."""
    model.zero_grad()
    logits = model(x)
    loss_of(logits.float()).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **found}


def assert_near(found: dict[str, Tensor], wanted: dict[str, Tensor], *, bound: float) -> None:
    """Each tensor within a bound relative to its largest number."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert float((found[name] - tensor).abs().max()) <= bound * float(tensor.abs().max()) + 1e-7, name


def test_every_family_of_the_house_is_here() -> None:
    families = {network_class(name) for name in list_models()}
    assert {network_class(name) for name in SMALL} == {one for one in families if one.__module__.startswith("ossicle.")}


# --- in anybody's program ---------------------------------------------------------------------------------------------


@every
def test_training_without_a_generator_draws_from_torchs_own(name: str) -> None:
    model = network(name, **DRAWING[name]).train()

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(spec())

    assert torch.equal(logits(1), logits(1)) and not torch.equal(logits(1), logits(2))


@every
def test_the_same_stream_gives_the_same_numbers_whoever_holds_it(name: str) -> None:
    model, passed, lent = network(name, **DRAWING[name]).train(), *(torch.Generator().manual_seed(3) for _ in range(2))
    before = torch.get_rng_state()
    for _ in range(2):
        wanted = model(spec(), generator=passed)
        with drawing_from(lent):
            assert torch.equal(model(spec()), wanted)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_a_foreign_loop_trains_it_in_a_sequence(name: str) -> None:
    model = nn.Sequential(nn.InstanceNorm1d(128), network(name, drop_path=0.1)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(spec(3)), torch.arange(3))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


COMPILE = """
import torch
from ossicle.kernels import using_kernels
from ossicle.models import create_model
from ossicle.models.base import drawing_from
x = torch.randn(2, 128, 70)
for name, options in {networks!r}.items():
    for training in (False, True):
        for kernels in ("plain", "onednn"):
            torch._dynamo.reset()
            model = create_model(name, num_classes=3, **options).train(training)
            wanted, drawn = (torch.Generator().manual_seed(3) for _ in range(2))
            with using_kernels(kernels):
                with drawing_from(drawn):
                    y = torch.compile(model, fullgraph=True, backend="eager")(x)
                torch.nn.functional.cross_entropy(y, torch.tensor([0, 2])).backward()
                torch.testing.assert_close(y, model(x, generator=wanted), rtol=1e-4, atol=1e-5)
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
"""


def test_a_compiler_sees_one_graph() -> None:
    """In a process of its own: what checks types in these tests is no part of the package, and breaks graphs."""
    networks = {name: SMALL[name] | DRAWING[name] for name in SMALL}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE.format(networks=networks)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@every
@pytest.mark.parametrize("kernels", ["plain", "onednn"])
def test_hooks_are_called_in_every_linear_layer(name: str, kernels: str) -> None:
    model, called = network(name), set()
    layers = {key: layer for key, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for key, layer in layers.items():
        layer.register_forward_hook(lambda *_, key=key: called.add((key, "forward")))
        layer.register_full_backward_hook(lambda *_, key=key: called.add((key, "backward")))
    with using_kernels(kernels):
        loss_of(model(spec().requires_grad_())).backward()
    unused = {"head_dist"}  # that the published PaSST carries and never uses
    assert called == {(key, way) for key in layers.keys() - unused for way in ("forward", "backward")}


@every
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_functions_of_functions_are_taken_of_it(name: str, untyped: Callable[..., Any]) -> None:
    model, x, y = network(name).eval(), spec(), torch.tensor([0, 2])
    parameters = {key: p.detach() for key, p in model.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    with using_kernels("plain"), untyped():
        each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        for clip in range(2):
            model.zero_grad()
            F.cross_entropy(model(x[clip : clip + 1]), y[clip : clip + 1]).backward()
            wanted = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
            assert_near({key: tensor[clip] for key, tensor in each.items()}, wanted, bound=1e-4)


@every
def test_the_gradient_has_a_gradient(name: str) -> None:
    model, x = network(name).double().eval(), spec().double().requires_grad_()
    with using_kernels("plain"):
        (first,) = torch.autograd.grad(loss_of(model(x)), x, create_graph=True)
        first.square().sum().backward()
    assert all(
        p.grad is not None for name, p in model.named_parameters() if name.endswith("weight") and p.requires_grad
    )


def functions_behind(y: Tensor) -> set[str]:
    """The names of the functions that the gradient of y runs through."""
    names: set[str] = set()
    waiting, seen = [y.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(type(node).__name__)
            waiting.extend(following for following, _ in node.next_functions)
    return names


HAND_WRITTEN = {f"{name}Backward" for name in ("LinearFunction", "TiledAttention", "BiasedAttention", "GridSample")}


@every
def test_one_switch_turns_off_all_that_is_written_by_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(name)
    assert functions_behind(model(spec())) & HAND_WRITTEN
    with using_kernels("plain"):
        assert not functions_behind(model(spec())) & HAND_WRITTEN
    monkeypatch.setenv("OSSICLE_KERNELS", "plain")
    assert not functions_behind(model(spec())) & HAND_WRITTEN


@every
def test_off_the_processor_nothing_is_written_by_hand(name: str) -> None:
    model = network(name).to("meta")
    assert not functions_behind(model(spec().to("meta"))) & HAND_WRITTEN


# --- by hand and plainly ----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("kernels", ["onednn", "torch"])
def test_by_hand_and_plainly_it_is_the_same_network(name: str, kernels: str) -> None:
    model = network(name).train()
    model.eval()
    with using_kernels("plain"):
        wanted = gradients(model, spec())
    with using_kernels(kernels):
        assert_near(gradients(model, spec()), wanted, bound=1e-4)
    # The bound tells networks apart.
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(other.stack()[0].parameters())).mul_(1.01)
    with pytest.raises(AssertionError), using_kernels(kernels):
        assert_near(gradients(other, spec()), wanted, bound=1e-4)


@every
@pytest.mark.parametrize("half", [False, True])
def test_a_torch_without_its_private_operators_computes_the_same(
    name: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(name).eval()

    def found() -> dict[str, Tensor]:
        with using_kernels("onednn"), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return gradients(model, spec())

    wanted = found()
    asked: list[str] = []
    monkeypatch.setattr(operators, "find", lambda name: asked.append(name))  # and gives None
    monkeypatch.setattr(operators, "LINEAR_POINTWISE", None)
    monkeypatch.setattr(operators, "HAS_ONEDNN", False)
    assert_near(found(), wanted, bound=0.05 if half else 1e-4)
    assert set(asked) >= {"aten.gelu_backward"} | ({"aten._softmax_backward_data"} if half else set()) | OPERATORS[name]


def test_an_operator_that_is_not_there_is_none() -> None:
    assert operators.find("aten.gelu_backward") is not None
    assert operators.find("aten.nothing_of_this_name") is None and operators.find("nowhere.at_all") is None
