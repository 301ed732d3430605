"""Density attention: the authors' numbers, what the algebra says, and padding that counts for nothing."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from ossicle.models.density import Density, DensityGate, DensityMixture, DensityProduct

GOLDEN = Path(__file__).parent.parent / "golden"
FORMS = ("gate", "product", "mixture")


def golden(name: str) -> tuple[dict[str, Tensor], dict]:
    with safe_open(GOLDEN / f"density_{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118


def density(form: str, *, dim: int = 3, num_heads: int = 1, num_gaussians: int = 2, axis: int = 1) -> Density:
    """One of the three, in double precision, away from where it starts."""
    torch.manual_seed(0)
    layer: Density
    if form == "gate":
        layer = DensityGate(dim, num_heads=num_heads, axis=axis)
    elif form == "product":
        layer = DensityProduct(num_heads=num_heads, num_gaussians=num_gaussians, axis=axis)
    else:
        layer = DensityMixture(num_heads=num_heads, num_gaussians=num_gaussians, axis=axis)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.double()


@pytest.mark.parametrize("name", ["h1", "h5", "h8", "one_layer_per_head"])
def test_the_gate_is_the_authors(name: str) -> None:
    tensors, config = golden(f"gate_{name}")
    layer = DensityGate(config["dim"], num_heads=config["num_heads"])
    layer.load_state_dict({"offset": tensors["offset"], "log_spread": tensors["spread"].log()})
    # Their one-pass variance cancels.
    torch.testing.assert_close(layer(tensors["x"]), tensors["y"], rtol=5e-4, atol=2e-4)
    torch.testing.assert_close(layer.weights(tensors["x"]).mean(0), tensors["gate_batch_mean"], rtol=5e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["layer_axis", "time_axis", "remainder"])
def test_the_product_is_the_packages(name: str) -> None:
    tensors, config = golden(f"product_{name}")
    layer = DensityProduct(num_heads=config["num_heads"], num_gaussians=config["num_gaussians"], axis=config["axis"])
    layer.load_state_dict({"offset": tensors["offsets"], "log_scale": tensors["scales"].abs().log()})
    torch.testing.assert_close(layer.weights(tensors["x"]), tensors["weights"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(tensors["x"]), tensors["y"], rtol=1e-4, atol=1e-5)


@given(
    num_gaussians=st.integers(1, 64),
    size=st.integers(2, 9),
    heads=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_the_product_of_gaussians_is_the_product_of_gaussians(
    num_gaussians: int, size: int, heads: int, seed: int
) -> None:
    heads = min(heads, size // 2)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, size, 3, dtype=torch.float64, generator=generator)
    layer = DensityProduct(num_heads=heads, num_gaussians=num_gaussians).double()
    with torch.no_grad():
        layer.offset.copy_(torch.randn(heads, num_gaussians, generator=generator))
        layer.log_scale.copy_(1 + torch.randn(heads, num_gaussians, generator=generator))
    wanted, n = [], size // heads
    for h in range(heads):
        part = x[:, h * n : size if h == heads - 1 else (h + 1) * n]
        z = (part - part.mean(1, keepdim=True))[..., None] - layer.offset[h]
        z = z / (part.var(1, keepdim=True) + 1e-8).sqrt()[..., None]
        log_density = (-z.square() / (2 * (2 * layer.log_scale[h]).exp())).sum(-1)
        wanted.append(log_density.softmax(1))
    torch.testing.assert_close(layer.weights(x), torch.cat(wanted, 1))


def test_the_mixture_is_a_sum_of_normal_densities() -> None:
    layer, x = density("mixture", num_gaussians=3), torch.randn(2, 6, 3, dtype=torch.float64)
    z = (x - x.mean(1, keepdim=True)) / x.var(1, correction=0, keepdim=True).sqrt()
    share = layer.logit[0].softmax(0)
    wanted = sum(
        share[k] * torch.distributions.Normal(layer.offset[0, k], layer.log_scale[0, k].exp()).log_prob(z).exp()
        for k in range(3)
    )
    torch.testing.assert_close(layer.weights(x), wanted)
    torch.testing.assert_close(layer(x), x * (1 + layer.alpha * wanted))


@given(size=st.integers(1, 12), heads=st.integers(1, 12), num_gaussians=st.integers(1, 64), axis=st.integers(0, 3))
def test_the_products_weights_sum_to_one_in_every_head(size: int, heads: int, num_gaussians: int, axis: int) -> None:
    heads = min(heads, size)
    shape = [2, 1, 3, 2]
    shape[axis] = size
    layer = density("product", num_heads=heads, num_gaussians=num_gaussians, axis=axis)
    weights = layer.weights(100 * torch.randn(shape, dtype=torch.float64))
    assert weights.shape == tuple(shape)
    torch.testing.assert_close(weights.sum(axis), torch.full_like(weights.sum(axis), heads))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(size=st.integers(1, 7), heads=st.integers(1, 7), axis=st.sampled_from([-3, -2, 0, 1]))
def test_heads_are_stretches_of_the_axis_and_the_last_takes_the_rest(form: str, size: int, heads: int, axis: int):
    heads = min(heads, size)
    shape = [2, 2, 3]
    shape[axis] = size
    layer, x = density(form, num_heads=heads, axis=axis), torch.randn(shape, dtype=torch.float64)
    done, n = [], size // heads
    for h in range(heads):
        one = density(form, axis=axis)
        one.load_state_dict({k: v[h : h + 1] if v.ndim else v for k, v in layer.state_dict().items()})
        done.append(one(x.narrow(axis, h * n, size - h * n if h == heads - 1 else n)))
    torch.testing.assert_close(layer(x), torch.cat(done, axis))


@pytest.mark.parametrize("form", FORMS)
@given(real=st.integers(1, 6), padding=st.integers(0, 5), junk=st.sampled_from([0.0, 7.0, 1e30, math.nan, math.inf]))
def test_padding_counts_for_nothing(form: str, real: int, padding: int, junk: float) -> None:
    layer, x = density(form), torch.randn(2, real, 3, dtype=torch.float64, requires_grad=True)
    padded = torch.cat([x, torch.full((2, padding, 3), junk, dtype=torch.float64)], 1)
    mask = torch.arange(real + padding).lt(real)[None, :, None]
    y = layer(padded, mask)
    torch.testing.assert_close(y[:, :real], layer(x))
    assert (y[:, real:] == 0).all()
    ours, wanted = (torch.autograd.grad(out.square().sum(), [x, *layer.parameters()]) for out in (y, layer(x)))
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_without_anything_real_is_silent(form: str) -> None:
    layer, x = density(form), torch.randn(2, 4, 3, dtype=torch.float64)
    mask = torch.tensor([True, False])[:, None, None]
    y = layer(x, mask)
    assert (y[1] == 0).all() and torch.isfinite(y).all()
    torch.testing.assert_close(y[0], layer(x[:1])[0])


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_meets_no_other(form: str) -> None:
    layer, x = density(form, num_heads=2), torch.randn(5, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]), rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_gradients_are_those_of_the_function(form: str, heads: int) -> None:
    layer = density(form, num_heads=heads)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(max_examples=20)
@given(scale=st.sampled_from([1e-6, 1e-3, 1.0, 300.0, 2e4]), log_scale=st.floats(-7, 7), size=st.integers(1, 5))
def test_half_precision_stays_finite(form: str, dtype: torch.dtype, scale: float, log_scale: float, size: int) -> None:
    layer = density(form, num_gaussians=64).float()
    with torch.no_grad():
        getattr(layer, "log_spread" if form == "gate" else "log_scale").fill_(log_scale)
    x = (scale * torch.randn(2, size, 3).clamp(-3, 3)).to(dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == dtype and torch.isfinite(y).all()
    share = layer.weights(x)
    assert share.dtype == torch.float32 and torch.isfinite(share).all()
    torch.autograd.backward([y, share], [torch.ones_like(y), torch.ones_like(share)])
    # A steep slope may be beyond the range of float16, but it is never nothing.
    assert x.grad is not None and not x.grad.isnan().any()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


def test_the_gate_starts_as_the_paper_says() -> None:
    # n values have z^2 of at most n - 1, so three layers a head start between exp(-1/2) and one.
    three = DensityGate(4, num_heads=8).weights(torch.randn(50, 24, 4))
    assert math.exp(-0.5) - 1e-5 <= three.min() and three.max() <= 1
    # One entry is its own mean: the identity, until an offset is learnt.
    x = torch.randn(3, 1, 4)
    torch.testing.assert_close(DensityGate(4)(x), x, rtol=0, atol=0)
    # Where all layers agree, sigma is at its floor of 3.164e-3, and an offset of 0.01 is three of it.
    layer = DensityGate(4)
    torch.nn.init.constant_(layer.offset, 0.01)
    torch.testing.assert_close(layer.weights(torch.ones(1, 24, 4)), torch.full((1, 24, 4), 0.0823), atol=1e-4, rtol=0)


def test_more_heads_than_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads cannot divide an axis of 4 entries; at most 4 can"):
        DensityGate(3, num_heads=5)(torch.randn(1, 4, 3))
    with pytest.raises(ValueError, match="not the axis of the statistics"):
        DensityGate(3, axis=2)(torch.randn(1, 4, 3))
