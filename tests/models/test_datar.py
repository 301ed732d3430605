"""DATAR: its size, its maps, its windows, its adaptors, and what it gives back."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ossicle import create_model
from ossicle.models import list_models, summarize_model
from ossicle.models.datar import (
    Datar,
    DatarConfig,
    Merge,
    TrainableSignal,
    WindowAttention,
    from_windows,
    stretch,
    to_windows,
)

SMALL: dict[str, Any] = {
    "dims": (8, 16, 16, 32),
    "depths": (2, 2, 2, 2),
    "num_heads": (1, 2, 2, 4),
    "num_groups": (1, 1, 2, 2),
    "frames": 96,
}
ADAPTORS = ("spectrogram", "feature", "bottleneck", "position_table")


def small(seed: int = 0, **options: Any) -> Datar:
    torch.manual_seed(seed)
    return Datar(DatarConfig(num_classes=5, **{**SMALL, **options}))


# --- size ------------------------------------------------------------------------------------------------------------


def test_tiny_has_the_size_of_dat_t_on_a_log_mel() -> None:
    with torch.device("meta"):
        model = create_model("datar_tiny", num_classes=309)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(27.8e6, rel=0.01)
    assert summarize_model("datar_tiny").macs == pytest.approx(12.37e9, rel=0.01)


@pytest.mark.parametrize(
    "name, parameters, gmacs",
    [("datar_small", 49.3, 24.6), ("datar_base", 87.4, 42.7), ("datar_tiny_segmented", 28.0, 11.43)],
)
def test_the_other_sizes(name: str, parameters: float, gmacs: float) -> None:
    summary = summarize_model(name)
    assert summary.parameters / 1e6 == pytest.approx(parameters, rel=0.01)
    assert summary.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_nano_fits_a_device() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model = create_model("datar_nano").eval()
        model(torch.empty(1, 128, 1000))
    assert sum(p.numel() for p in model.parameters()) < 3e6
    assert counter.get_total_flops() / 2 <= 0.6e9


def test_the_segmented_cost_grows_with_the_length_and_no_faster() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def macs(frames: int) -> int:
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            create_model("datar_tiny_segmented").eval()(torch.empty(1, 128, frames))
        return counter.get_total_flops()

    assert macs(32 * 1024) <= 32 * macs(1024) * 1.001


# --- any map ---------------------------------------------------------------------------------------------------------


@given(
    mels=st.sampled_from([1, 5, 128]),
    frames=st.integers(4, 200),
    hop=st.booleans(),
    segment=st.sampled_from([None, 32]),
)
def test_any_length_is_scored(mels: int, frames: int, hop: bool, segment: int | None) -> None:
    everywhere = {"deform": (True,) * 4, "key_strides": (8, 4, 2, 1)} if segment else {}
    model = small(mels=mels, hop_features=hop, segment=segment, **everywhere).eval()
    with torch.inference_mode():
        out = model.forward_features(torch.randn(2, mels, frames), hidden_states=True, points=True)
    assert out.logits.shape == (2, 5)
    assert torch.isfinite(out.logits).all()
    columns = -(-frames // 4)
    assert out.hidden_states[0].shape == (2, -(-mels // 4), columns, 8)
    assert len(out.hidden_states) == 1 + sum(SMALL["depths"])
    assert len(out.points) == (4 if segment else 2)
    for stage, points in zip(range(4) if segment else (2, 3), out.points, strict=True):
        rows, columns = -(-mels // (4 * 2**stage)), -(-frames // (4 * 2**stage))
        assert (points >= 0).all()
        assert (points <= torch.tensor([rows - 1, columns - 1])).all()
    if hop:
        assert out.hop_features.shape == (2, -(-frames // 16), 32)
        with torch.inference_mode():
            torch.testing.assert_close(model.head(out.hop_features).mean(1), out.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in list_models("datar*") if "nano" in name or "segmented" in name])
@pytest.mark.parametrize("frames", [97, 500])
def test_a_clip_alone_and_in_a_batch_has_the_same_scores(name: str, frames: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).eval()
    specs = torch.randn(3, 128, frames)
    with torch.inference_mode():
        together = model(specs)
        alone = torch.cat([model(spec[None]) for spec in specs])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_short_input_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match="has 3 frames.*pad the sound by 1"):
        small()(torch.randn(1, 128, 3))
    with pytest.raises(ValueError, match="64 mel bins"):
        small()(torch.randn(1, 64, 30))


@pytest.mark.parametrize(
    "options, says",
    [
        ({"dims": (8, 16)}, "each of 4 stages"),
        ({"depths": (2, 2, 0, 2)}, "each of 4 stages"),
        ({"segment": 100}, "multiple of 32"),
        ({"frames": 0}, "at least 1"),
        ({"num_groups": (1, 1, 3, 2)}, "do not divide"),
        ({"num_heads": (3, 2, 4, 8)}, "do not divide dims"),
        ({"drop_path": 1.0}, "drop_path is 1.0; expected a fraction from 0 to below 1"),
    ],
)
def test_what_makes_no_network_is_refused(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small(**options)


@pytest.mark.parametrize(("name", "value"), [("adaptor", "spec"), ("offsets", False)])
def test_a_word_that_names_no_variant_is_refused(name: str, value: Any) -> None:
    config = small().config
    object.__setattr__(config, name, value)  # the tests' type checker would refuse it first
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected one of .*none"):
        config.__post_init__()


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptor", ["none", *ADAPTORS])
def test_every_parameter_gets_a_gradient(adaptor: Any) -> None:
    model = small(adaptor=adaptor, hop_features=True, drop_path=0.1).train()
    for block in model.modules():  # what is zero at first keeps what lies before it without a gradient
        if type(block).__name__ == "Bottleneck":
            torch.nn.init.normal_(block.up.weight)
    logits = model(torch.randn(4, 128, 96), generator=torch.Generator().manual_seed(1))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_drop_path_draws_from_its_generator_and_no_other() -> None:
    model = small(drop_path=0.5).train()
    spec = torch.randn(2, 128, 96)
    state = torch.get_rng_state()
    first = model(spec, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, model(spec, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(first, model(spec, generator=torch.Generator().manual_seed(4)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_cast_to_half_precision_runs(
    dtype: torch.dtype, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, spec = small().eval(), torch.randn(2, 128, 96)
    if plain:  # the way of other devices, and of compilers
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.inference_mode():
        exact, half = model(spec), model.to(dtype)(spec.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < 0.02 * exact.abs().max() + 0.02


def test_bfloat16_is_near_float32() -> None:
    model = small().eval()
    spec = torch.randn(2, 128, 96)
    with torch.inference_mode():
        exact = model(spec)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.forward_features(spec, points=True)
    assert all(points.dtype == torch.float32 for points in half.points)
    assert (half.logits.float() - exact).abs().max() < 0.02 * exact.abs().max() + 0.02


# --- adaptors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptor", ADAPTORS)
@pytest.mark.parametrize("frames", [96, 60, 131])
def test_an_adaptor_changes_nothing_at_first_and_learns(adaptor: Any, frames: int) -> None:
    plain, adapted = small().eval(), small(adaptor=adaptor).eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    spec = torch.randn(2, 128, frames)
    torch.testing.assert_close(adapted(spec), plain(spec), rtol=0, atol=1e-6)
    new = [p for name, p in adapted.named_parameters() if name not in dict(plain.named_parameters())]
    adapted(spec).square().sum().backward()
    assert new
    assert all(p.grad is not None for p in new)
    assert any(p.grad.abs().sum() > 0 for p in new)


def test_a_signal_on_the_spectrogram_is_a_position_table_after_the_stem() -> None:
    """Section 1.4 of the specification: through a linear stem the one is a case of the other."""
    torch.manual_seed(0)
    stem, theta = Merge(1, 8, side=4, bias=True), torch.randn(1, 8, 12)
    spec = torch.randn(2, 8, 12)
    with_signal = stem.proj(squares(spec + theta))
    as_table = stem.proj(squares(spec)) + squares(theta) @ stem.proj.weight.T
    torch.testing.assert_close(with_signal, as_table)


def squares(spec: Tensor) -> Tensor:
    return spec.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).transpose(2, 3).flatten(3)


def test_a_signal_is_stretched_along_time_alone() -> None:
    signal = TrainableSignal(3, 4)
    signal.theta.data.copy_(torch.arange(4.0).expand(1, 3, 4))
    assert torch.equal(signal(torch.zeros(2, 3, 4))[0], torch.arange(4.0).expand(3, 4))
    longer = signal(torch.zeros(2, 3, 8))
    assert longer.shape == (2, 3, 8)
    assert (longer.diff(dim=2) >= 0).all()
    assert torch.equal(longer[0, 0], longer[1, 2])
    on_maps = stretch(torch.randn(1, 3, 4, 5), 9)
    assert on_maps.shape == (1, 3, 9, 5)


# --- windows ---------------------------------------------------------------------------------------------------------


def window_attention(net: WindowAttention, x: Tensor) -> Tensor:
    """Place by place, by the definition: who shares its window, and no other."""
    _, rows, columns, _ = x.shape
    window = [min(w, s) for w, s in zip(net.window, (rows, columns), strict=True)]
    shift = [w // 2 if net.shift and s > w else 0 for w, s in zip(window, (rows, columns), strict=True)]
    q, k, v = net.qkv(x).unflatten(-1, (3, net.num_heads, -1)).unbind(3)
    y = torch.zeros_like(q)
    number = [[(i - s) // w for i in range(n)] for n, w, s in zip((rows, columns), window, shift, strict=True)]
    for r in range(rows):
        for c in range(columns):
            mates = [
                (i, j)
                for i in range(rows)
                for j in range(columns)
                if number[0][i] == number[0][r] and number[1][j] == number[1][c]
            ]
            bias = torch.stack(
                [
                    net.relative_position_bias_table[:, r - i + net.window[0] - 1, c - j + net.window[1] - 1]
                    for i, j in mates
                ]
            )
            keys, values = (torch.stack([t[:, i, j] for i, j in mates], 1) for t in (k, v))
            logits = torch.einsum("bhd,bnhd->bnh", q[:, r, c], keys) * q.shape[-1] ** -0.5 + bias
            y[:, r, c] = torch.einsum("bnh,bnhd->bhd", logits.softmax(1), values)
    return net.proj(y.flatten(3))


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 9),
    window=st.sampled_from([(1, 1), (2, 3), (4, 4), (8, 8)]),
    shift=st.booleans(),
    plain=st.booleans(),
)
def test_windows_are_those_of_the_definition(rows, columns, window, shift, plain) -> None:
    torch.manual_seed(0)
    net = WindowAttention(8, 2, window=window, shift=shift).double()
    torch.nn.init.normal_(net.relative_position_bias_table)
    x = torch.randn(2, rows, columns, 8, dtype=torch.double, requires_grad=True)
    dy = torch.randn_like(x)
    leaves = [x, *net.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        ours = net(x)
        of_ours = torch.autograd.grad(ours, leaves, dy)
    wanted = window_attention(net, x)
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)
    for a, b in zip(of_ours, torch.autograd.grad(wanted, leaves, dy), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_windows_are_put_back_where_they_were(down: int, across: int, rows: int, columns: int) -> None:
    x = torch.randn(2, down * rows, across * columns, 3)
    windows = to_windows(x, (rows, columns))
    assert windows.shape == (2 * down * across, rows * columns, 3)
    assert torch.equal(from_windows(windows, (rows, columns), full=[down * rows, across * columns]), x)


# --- options ---------------------------------------------------------------------------------------------------------


def test_the_ablations_are_switches() -> None:
    attentions = {
        "all local": small(deform=(False,) * 4),
        "global": small(offsets="none"),
        "strided": small(key_strides=(8, 4, 2, 1)),
        "without a bias": small(position_bias=False),
        "unbounded": small(offset_range=None),
    }
    names = {what: {name for name, _ in model.named_parameters()} for what, model in attentions.items()}
    assert not any("offset" in name for name in names["all local"] | names["global"])
    assert any("offset" in name for name in names["strided"])
    outs = {what: model.eval()(torch.ones(1, 128, 96)) for what, model in attentions.items()}
    assert all(torch.isfinite(out).all() for out in outs.values())


def test_every_second_block_of_a_deforming_stage_deforms() -> None:
    model = small(depths=(1, 2, 4, 2))
    kinds = [
        ["deform" if hasattr(block.attn, "offset") else "window" for block in stage.blocks] for stage in model.stages
    ]
    assert kinds == [["window"], ["window"] * 2, ["window", "deform"] * 2, ["window", "deform"]]
    assert [block.attn.shift for block in model.stages[1].blocks] == [False, True]


def test_lists_are_taken_for_tuples_and_options_survive_a_round_trip() -> None:
    options = {**dataclasses.asdict(DatarConfig(num_classes=5)), **SMALL}
    options.pop("num_classes")
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    assert create_model("datar_tiny", num_classes=5, **listed).config == DatarConfig(num_classes=5, **SMALL)
