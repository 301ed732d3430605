"""Heads: the authors' logits, the paper's parameter counts, and every head as a function of one clip."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from ossicle.errors import SettingRefused
from ossicle.tuning.guard import PASSES, GradientGuard
from ossicle.tuning.heads import HEADS, ConvDecoder, Head, create_head, grid_of

GOLDEN = Path(__file__).parent.parent / "golden"


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_density_head_is_the_authors() -> None:
    with safe_open(GOLDEN / "density_head.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    head = create_head(
        "density",
        layers=config["layers"],
        dim=config["dim"],
        num_classes=config["num_classes"],
        options={"num_heads": config["num_heads"], "hidden": config["hidden"]},
    )
    state = {f"decode.{name.removeprefix('state.')}": t for name, t in tensors.items() if name.startswith("state.")}
    theirs = [f"decode.daam.gcts.{h}" for h in range(config["num_heads"])]
    state["weigh.offset"] = torch.cat([state.pop(f"{name}.mean_offset") for name in theirs])
    state["weigh.log_spread"] = torch.cat([state.pop(f"{name}.c") for name in theirs]).log()
    head.load_state_dict(state)
    assert tuple(config["grid"]) == grid_of(config["dim"])
    torch.testing.assert_close(head(tensors["x"].mean(2)), tensors["logits"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, options, layers, dim, classes, wanted, without_classifier",
    [
        ("density", {"num_heads": 8}, 24, 1024, 4, 336_412, 238_104),  # speech, DAAMv1
        ("density", {"num_heads": 1}, 24, 1024, 4, 322_076, 223_768),  # DAAMv2
        ("gq_density", {"num_heads": 8}, 24, 1024, 4, None, 1_223_192),
        ("density", {"num_heads": 8}, 24, 1024, 100, 2_695_804, 238_104),  # vision
        ("density", {"num_heads": 8}, 40, 5120, 4, 1_270_316, 451_112),  # text
        ("density", {"num_heads": 1}, 40, 5120, 4, 1_198_636, 379_432),
        ("gq_density", {"num_heads": 8}, 40, 5120, 4, None, 3_533_352),
        ("weighted_sum", {}, 25, 1024, 4, 25 + 1024 * 256 + 256 + 256 * 4 + 4, None),  # SUPERB's 0.26 M
    ],
)
def test_parameters_are_those_of_the_paper(
    name: str, options: dict, layers: int, dim: int, classes: int, wanted: int | None, without_classifier: int | None
) -> None:
    with torch.device("meta"):
        head = create_head(name, layers=layers, dim=dim, num_classes=classes, options=options)
    if wanted is not None:
        assert count(head) == wanted
    if without_classifier is not None:
        assert count(head) - count(head.decode.fc) == without_classifier


def test_attention_before_batch_normalization_has_the_parameters_of_the_paper_and_a_norm() -> None:
    with torch.device("meta"):
        head = create_head("mha_bn", layers=24, dim=1024, num_classes=4)
    assert count(head) - count(head.decode.fc) == 4_420_168 + 2 * 1024


def test_a_sigmoid_gate_is_of_the_size_of_the_density_and_knows_no_neighbors() -> None:
    gate, density = (create_head(name, layers=6, dim=8, num_classes=2).weigh for name in ("sigmoid", "density"))
    assert count(gate) == count(density) == 2 * 2 * 8
    x = torch.randn(3, 6, 8)
    other = x.clone()
    other[:, 1:] = 5.0
    assert torch.equal(gate(x)[:, 0], gate(other)[:, 0]) and not torch.equal(density(x)[:, 0], density(other)[:, 0])
    assert torch.equal(gate(torch.zeros(1, 6, 8)), torch.zeros(1, 6, 8))
    with pytest.raises(SettingRefused, match="num_heads=7 over 6 layers; at most 6 heads are possible"):
        create_head("sigmoid", layers=6, dim=8, num_classes=2, options={"num_heads": 7})


@pytest.mark.parametrize("rows, grid", [(None, (16, 32)), (8, (8, 64)), (64, (64, 8))])
def test_the_values_of_a_layer_are_laid_out_in_the_rows_that_are_asked_for(
    rows: int | None, grid: tuple[int, int]
) -> None:
    options = {} if rows is None else {"rows": rows}
    with torch.device("meta"):
        head = create_head("gq_density", layers=24, dim=1024, num_classes=4, options=options)
    assert head.decode.grid == grid
    with pytest.raises(SettingRefused, match="rows=3 does not divide the 512 values of a layer"):
        create_head("gq_density", layers=3, dim=8, num_classes=4, options={"rows": 3})
    with pytest.raises(SettingRefused, match="rows=8 is of the image for decoder=conv, and the decoder is linear"):
        create_head("density", layers=3, dim=8, num_classes=4, options={"rows": 8, "decoder": "linear"})


@pytest.mark.parametrize("name", ["density", "mha", "sigmoid"])
def test_the_random_weights_of_a_head_are_drawn_for_its_own_decoder_alone(name: str) -> None:
    torch.manual_seed(3)
    decoder = ConvDecoder(6, 16, num_classes=3, hidden=8)
    torch.manual_seed(3)
    head = create_head(name, layers=6, dim=16, num_classes=3, options={"hidden": 8})
    assert all(torch.equal(tensor, head.decode.state_dict()[key]) for key, tensor in decoder.state_dict().items())


def test_a_product_of_four_gaussians_in_eight_heads_has_64_parameters() -> None:
    assert count(create_head("density", layers=24, dim=16, num_classes=2, options={"form": "product"}).weigh) == 64


@pytest.mark.parametrize("layers, heads", [(3, 1), (4, 1), (6, 2), (12, 4), (24, 8)])
def test_by_default_every_head_has_three_layers(layers: int, heads: int) -> None:
    assert create_head("density", layers=layers, dim=8, num_classes=2).weigh.num_heads == heads


@pytest.mark.parametrize("layers, options", [(2, {}), (4, {"num_heads": 2}), (24, {"num_heads": 9})])
def test_heads_of_fewer_than_three_layers_are_refused_with_the_reason(layers: int, options: dict) -> None:
    with pytest.raises(SettingRefused, match="layers per head, where the density is constant"):
        create_head("density", layers=layers, dim=8, num_classes=2, options=options)


def test_what_is_refused_is_refused_by_name() -> None:
    with pytest.raises(SettingRefused, match="Head 'desnity' is not available. Available: density, gq_density"):
        create_head("desnity", layers=3, dim=8, num_classes=2)
    with pytest.raises(SettingRefused, match="the head mean has no option 'form'; it has none"):
        create_head("mean", layers=3, dim=8, num_classes=2, options={"form": "gate"})
    with pytest.raises(SettingRefused, match=r"no option 'heads'; it has form, num_heads, num_gaussians, decoder"):
        create_head("density", layers=3, dim=8, num_classes=2, options={"heads": 1})
    with pytest.raises(SettingRefused, match="form='gat' is not one of gate, product, mixture"):
        create_head("density", layers=3, dim=8, num_classes=2, options={"form": "gat"})
    with pytest.raises(SettingRefused, match="num_gaussians=65"):
        create_head("density", layers=3, dim=8, num_classes=2, options={"num_gaussians": 65})
    for option in ("layers", "dim", "num_classes"):
        with pytest.raises(SettingRefused, match=f"the head density has no option '{option}'; it has form"):
            create_head("density", layers=3, dim=8, num_classes=2, options={option: 3})
    for head, option in (("mha", "num_heads"), ("layers", "hidden"), ("gq_density", "width")):
        with pytest.raises(SettingRefused, match=f"{option}=0 lies outside its range, 1 or more"):
            create_head(head, layers=3, dim=8, num_classes=2, options={option: 0})
    with pytest.raises(SettingRefused, match="num_heads=8 does not divide the encoder's width of 12"):
        create_head("mha", layers=3, dim=12, num_classes=2)


def made(name: str, layers: int = 4) -> Head:
    torch.manual_seed(0)
    options = {"gq_density": {"width": 16, "hidden": 4}}
    options |= {name: {"num_heads": 2, "hidden": 4} for name in ("mha", "mha_bn")}
    small = {name: {"hidden": 4} for name in ("density", "layers", "sigmoid")}
    return create_head(name, layers=layers, dim=8, num_classes=3, options={**options, **small}.get(name)).double()


def features(head: Head, clips: int, layers: int, times: int) -> torch.Tensor:
    shape = (clips, layers, times, 8) if head.takes_time else (clips, layers, 8)
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("name", list(HEADS))
@given(clips=st.integers(1, 4), layers=st.integers(3, 7), times=st.integers(1, 5))
def test_a_clip_is_answered_alone_as_among_others(name: str, clips: int, layers: int, times: int) -> None:
    head = made(name, layers).eval()  # batch normalization takes the clips of a batch together in training
    x = features(head, clips, layers, times)
    y = head(x)
    assert y.shape == (clips, 3)
    torch.testing.assert_close(y[:1], head(x[:1]))


@pytest.mark.parametrize("name", list(HEADS))
def test_every_parameter_receives_a_gradient(name: str) -> None:
    head = made(name)
    head(features(head, 5, 4, 6)).square().sum().backward()
    silent = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    # What adds the same to every logit of a softmax leaves it as it was.
    assert silent in ([], ["score.2.bias"], ["weigh.2.k.bias"])


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("density", "gq_density")])
def test_a_head_on_one_layer_passes_the_guard(name: str) -> None:
    head = made(name, layers=1).float()
    guard = GradientGuard(head.named_parameters())
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(PASSES):
        optimizer.zero_grad()
        F.cross_entropy(head(features(head, 5, 1, 6).float()), torch.tensor([0, 1, 2, 0, 1])).backward()
        guard.check()
        optimizer.step()
    guard.finish()


@given(real=st.integers(1, 5), padding=st.integers(0, 4), junk=st.sampled_from([0.0, 1e30, float("nan")]))
def test_attentive_statistics_hear_no_padding(real: int, padding: int, junk: float) -> None:
    head, x = made("attentive_stats"), torch.randn(2, 4, real, 8, dtype=torch.float64)
    padded = torch.cat([x, torch.full((2, 4, padding, 8), junk, dtype=torch.float64)], 2)
    mask = torch.arange(real + padding).lt(real).expand(2, -1)
    torch.testing.assert_close(head(padded, mask), head(x))
