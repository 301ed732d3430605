"""PaSST against the published numbers, and against what any input may look like."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from ossicle.models import create_model
from ossicle.models.passt import Passt, PasstConfig
from ossicle.models.patches import PatchEmbed, blocks_left
from ossicle.models.tokens import Method, Patchout, TokenReduction
from ossicle.weights.tensors import load_into, load_weights, save_weights

GOLDEN = Path(__file__).parent.parent / "golden"


def small(seed: int = 0, **options: Any) -> Passt:
    """Two blocks of width 16 over 10 x 5 patches, with no parameter left at zero or one."""
    torch.manual_seed(seed)
    fields: dict[str, Any] = {"num_classes": 3, "dim": 16, "num_heads": 2, "depth": 2, "stride": 12, "frames": 64}
    model = Passt(PasstConfig(**(fields | options)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def spec(frames: int = 64, clips: int = 2) -> Tensor:
    return torch.randn(clips, 128, frames, generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["s10", "s14", "s16", "s10_short"])
def test_logits_and_features_are_those_of_the_published_network(case: str) -> None:
    path = GOLDEN / f"passt_net_{case}.safetensors"
    with safe_open(path, "pt") as file:
        made = json.loads(file.metadata()["config"])
    tensors = load_weights(path)
    model = Passt(
        PasstConfig(
            num_classes=made["num_classes"],
            dim=made["embed_dim"],
            num_heads=made["num_heads"],
            depth=made["depth"],
            stride=made["stride"],
            frames=made["input_tdim"],
        )
    ).eval()
    load_into(model, {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}, source=path)
    with torch.inference_mode():
        out = model.forward_features(tensors["spec"])
    torch.testing.assert_close(out.logits, tensors["logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.features, tensors["features"], rtol=1e-4, atol=1e-5)


def test_the_layout_is_the_published_one() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in create_model("passt_base_s10").state_dict().items()}
    assert len(shapes) == 159
    wanted = {
        "cls_token": (1, 1, 768),
        "dist_token": (1, 1, 768),
        "new_pos_embed": (1, 2, 768),
        "freq_new_pos_embed": (1, 768, 12, 1),
        "time_new_pos_embed": (1, 768, 1, 99),
        "patch_embed.proj.weight": (768, 1, 16, 16),
        "blocks.11.attn.qkv.weight": (2304, 768),
        "blocks.0.mlp.fc1.bias": (3072,),
        "norm.bias": (768,),
        "head.0.weight": (768,),
        "head.1.weight": (527, 768),
        "head_dist.weight": (527, 768),
    }
    assert {name: shapes[name] for name in wanted} == wanted


@pytest.mark.parametrize("frames, columns", [(998, 99), (2000, 200), (3000, 300), (3200, 320)])
def test_time_tables_have_the_published_lengths(frames: int, columns: int) -> None:
    assert PasstConfig(num_classes=1, frames=frames).columns == columns


def test_new_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = create_model("passt_tiny_s16", depth=1)
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.time_new_pos_embed.std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.head[1].bias.any()
    assert model.patch_embed.proj.bias.any()


# --- what is dropped -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [5, 10, 16, 20])
def test_gathering_patches_first_is_convolving_and_selecting(stride: int) -> None:
    embed, x = PatchEmbed(8, stride).double(), spec(70).double()
    convolved = F.conv2d(x[:, None], embed.proj.weight, embed.proj.bias, stride).flatten(2).mT
    torch.testing.assert_close(embed(x), convolved)
    kept = torch.tensor([0, 3, 4, convolved.shape[1] - 1])
    torch.testing.assert_close(embed(x, patches=kept), convolved[:, kept])


@pytest.mark.parametrize(
    "patchout, tokens",
    [(Patchout(time=1, freq=4), 6 * 4), (Patchout(unstructured=0.5), 25), (Patchout(time=3, unstructured=19), 1)],
)
def test_patchout_drops_tokens_in_training_alone(patchout: Patchout, tokens: int) -> None:
    model = small(patchout=patchout)
    out = model.train().forward_features(spec(), generator=seeded(), hidden_states=True)
    assert out.hidden_states is not None
    assert out.hidden_states[0].shape == (2, 2 + tokens, 16)
    # What stays is what was there: class tokens and patches with their own positions, in order.
    full = model.eval().forward_features(spec(), hidden_states=True).hidden_states
    assert full is not None and full[0].shape == (2, 52, 16)
    same = (out.hidden_states[0][:, :, None] - full[0][:, None]).abs().amax((0, 3)) < 1e-4
    assert (same.sum(1) == 1).all()
    assert (same.int().argmax(1).diff() > 0).all()


def test_evaluation_draws_nothing() -> None:
    model, generator = small(patchout=Patchout(time=1), dropout=0.5, drop_path=0.5).eval(), seeded()
    states = torch.random.get_rng_state(), generator.get_state()
    first = model(spec(40), generator=generator)
    assert torch.equal(first, model(spec(40)))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])


@pytest.mark.parametrize("options", [{"patchout": Patchout(time=1)}, {"dropout": 0.1}, {"drop_path": 0.1}, {}])
def test_training_draws_from_the_generator_alone(options: dict) -> None:
    model, x = small(**options).train(), spec(40)
    before = torch.random.get_rng_state()
    assert torch.equal(model(x, generator=seeded(3)), model(x, generator=seeded(3)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_drop_path_keeps_the_mean() -> None:
    model, generator = small(drop_path=0.3).double(), seeded()
    block, x = model.blocks[1].train(), torch.ones(4000, 1, 16, dtype=torch.float64)
    mean = block.drop_branch(x, generator).mean()
    assert mean.item() == pytest.approx(1, abs=0.04)


def test_drop_path_rises_from_none_at_the_first_block_to_its_rate_at_the_last() -> None:
    wanted = torch.linspace(0, 0.3, 7).tolist()
    assert [block.drop_path for block in small(depth=7, drop_path=0.3).blocks] == pytest.approx(wanted)
    assert [block.drop_path for block in small(depth=1, drop_path=0.3).blocks] == [0.0]
    pyramid = create_model("datar_nano", num_classes=2, drop_path=0.3)
    found = [block.drop_path for stage in pyramid.stages for block in stage.blocks]
    assert found == pytest.approx(torch.linspace(0, 0.3, len(found)).tolist())


# --- any length ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(16, 400),
    stride=st.integers(4, 20),
    table=st.integers(16, 80),
    clips=st.integers(1, 3),
    train=st.booleans(),
    interpolate=st.booleans(),
    time=st.sampled_from([0, 0.3, 0.9]),
    unstructured=st.sampled_from([0, 0.5]),
)
def test_every_length_gets_finite_scores(frames, stride, table, clips, train, interpolate, time, unstructured) -> None:
    model = small(
        stride=stride,
        frames=table,
        depth=1,
        interpolate_positions=interpolate,
        patchout=Patchout(time=time, unstructured=unstructured),
    ).train(train)
    with torch.no_grad():
        logits = model(spec(frames, clips), generator=seeded())
    assert logits.shape == (clips, 3)
    assert logits.isfinite().all()


def test_a_short_clip_takes_the_first_positions_and_in_training_any() -> None:
    model, x = small(frames=100).eval(), spec(40)
    table = model.time_new_pos_embed
    assert table.shape[3] == 8
    with torch.no_grad():
        at = {}
        for offset in range(6):  # three columns fit at six offsets
            shifted = small(frames=40).eval()
            state = model.state_dict() | {"time_new_pos_embed": table[..., offset : offset + 3].clone()}
            shifted.load_state_dict(state)
            at[offset] = shifted(x)
        torch.testing.assert_close(model(x), at[0])
        model.train()
        generator, seen = seeded(), set()
        for _ in range(60):
            logits = model(x, generator=generator)
            near = {offset for offset, wanted in at.items() if torch.allclose(logits, wanted, rtol=0, atol=1e-4)}
            assert len(near) == 1  # offsets differ by more than rounding does
            seen |= near
    assert seen == set(range(6))


def test_a_long_clip_is_the_mean_over_windows_that_cover_it() -> None:
    model, x = small().eval(), spec(150)
    span = 64  # five columns
    assert model.max_frames == span + 11
    x.requires_grad_()
    logits = model(x)
    windows = [x[..., start : start + span] for start in (0, 43, 86)]
    torch.testing.assert_close(logits, torch.stack([model(w) for w in windows]).mean(0))
    logits.square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum((0, 1)) > 0).all(), "a frame was cut"


def test_at_the_longest_length_of_one_pass_nothing_changes_hands() -> None:
    model = small().eval()
    one = model.forward_features(spec(model.max_frames), hidden_states=True).hidden_states
    two = model.forward_features(spec(model.max_frames + 1), hidden_states=True).hidden_states
    assert one is not None and two is not None
    assert len(one[0]) == 2 and len(two[0]) == 4


def test_interpolated_positions_see_a_long_clip_in_one_pass() -> None:
    model = small(interpolate_positions=True).eval()
    with torch.no_grad():
        model.time_new_pos_embed.copy_(torch.linspace(0, 1, 5).expand_as(model.time_new_pos_embed))
        states = model.forward_features(spec(16 + 12 * 9), hidden_states=True).hidden_states
        plain = small().eval()
        plain.load_state_dict(model.state_dict() | {"time_new_pos_embed": torch.zeros(1, 16, 1, 5)})
        plain.config = model.config
        without = plain.forward_features(spec(16 + 12 * 9), hidden_states=True).hidden_states
    assert states is not None and without is not None
    assert states[0].shape == (2, 2 + 10 * 10, 16)
    positions = (states[0] - without[0])[0, 2:12, 0]
    # A ramp stays a ramp, twice as long; its ends stand still.
    assert (positions.diff() >= -1e-5).all()
    assert positions[0].item() == pytest.approx(0, abs=1e-5) and positions[-1].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "shape, says",
    [
        ((2, 64, 60), "64 mel bins; this network takes 128"),
        ((2, 128, 15), "pad the sound by 1 frames"),
        ((2, 3, 128, 60), r"\(clip, mel, frame\)"),
    ],
)
def test_a_spectrogram_that_does_not_fit_is_refused_in_a_sentence(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small().check(torch.zeros(shape))


# --- fewer tokens in a trained network -------------------------------------------------------------------------------

METHODS = get_args(Method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bf16", [False, True])
def test_keeping_everything_changes_no_bit(method: Method, bf16: bool) -> None:
    model = small().eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model.forward_features(spec(), reduction=TokenReduction(keep=1, method=method))
        assert torch.equal(out.logits, model(spec()))


def test_selected_patches_have_their_own_positions_and_the_rest_is_never_embedded() -> None:
    model = small().eval()
    reduction = TokenReduction(keep=0.54, method="strided")
    x = spec()
    full = model.forward_features(x, hidden_states=True).hidden_states
    few = model.forward_features(x, hidden_states=True, reduction=reduction).hidden_states
    patches = reduction.select((10, 5))
    assert full is not None and few is not None and patches is not None
    assert [state.shape[1] for state in few] == [2 + 7 * 4] * 3
    torch.testing.assert_close(few[0], full[0][:, [0, 1, *(2 + patches)]])


def test_merging_thins_the_tokens_block_by_block() -> None:
    model = small(depth=5).eval()
    reduction = TokenReduction(keep=0.6, method="merge")
    out = model.forward_features(spec(), hidden_states=True, attention=True, reduction=reduction)
    assert out.hidden_states is not None and out.attention is not None
    entering = [state.shape[1] - 2 for state in out.hidden_states[:-1]]
    assert entering[0] == 50 and sum(entering) / 5 == pytest.approx(30, abs=1)
    assert all(before > after for before, after in zip(entering[:-1], entering[1:], strict=True))
    for matrix, patches in zip(out.attention, entering, strict=True):
        assert matrix.shape == (2, 2, 2 + patches, 2 + patches)
        torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 2, 2 + patches))
    torch.testing.assert_close(out.logits, model.forward_features(spec(), reduction=reduction).logits)


@pytest.mark.parametrize("copies, depth", [(2, 2), (4, 3)])
def test_merging_equal_tokens_is_the_identity(copies: int, depth: int) -> None:
    model = small(depth=depth, stride=16, frames=16 * 8).double().eval()
    with torch.no_grad():
        model.time_new_pos_embed.zero_()  # or the copies would differ by where they are
    x = torch.randn(2, 128, 8 // copies, 16, generator=seeded()).double()
    x = x[:, :, :, None].expand(-1, -1, -1, copies, -1).flatten(2)  # each column of patches, copied to the next ones
    keep = sum(0.5**block for block in range(depth)) / depth  # each block merges half of its tokens
    wanted = model.forward_features(x, hidden_states=True)
    got = model.forward_features(x, hidden_states=True, reduction=TokenReduction(keep=keep, method="merge"))
    assert wanted.hidden_states is not None and got.hidden_states is not None
    assert got.hidden_states[-1].shape[1] - 2 == 64 // copies
    torch.testing.assert_close(got.logits, wanted.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.hidden_states[-1][:, 2:], wanted.hidden_states[-1][:, 2::copies])


def test_without_proportional_attention_it_would_not_be() -> None:
    block = small().double().eval().blocks[0]
    x = torch.randn(1, 6, 16, generator=seeded()).double()
    twice = torch.cat([x, x[:, 5:]], 1)
    sizes = torch.tensor([[1.0, 1, 1, 1, 1, 2]]).double()
    wanted = block(twice)[:, :6]
    torch.testing.assert_close(block.merge(x, sizes=sizes, count=0, fixed=2)[0], wanted)
    assert not torch.allclose(block(x), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_a_reduced_clip_does_not_hear_its_neighbors(method: Method) -> None:
    model, reduction = small(depth=4).eval(), TokenReduction(keep=0.5, method=method)
    x = spec(clips=3)
    batch = model.forward_features(x, reduction=reduction).logits
    alone = torch.cat([model.forward_features(x[i : i + 1], reduction=reduction).logits for i in range(3)])
    torch.testing.assert_close(batch, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_long_clip_is_reduced_in_each_of_its_windows(method: Method) -> None:
    model, reduction = small(depth=4).eval(), TokenReduction(keep=0.5, method=method)
    x = spec(150)
    windows = [model.forward_features(x[..., s : s + 64], reduction=reduction).logits for s in (0, 43, 86)]
    got = model.forward_features(x, reduction=reduction).logits
    torch.testing.assert_close(got, torch.stack(windows).mean(0), rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(16, 70), st.floats(0.4, 1), st.sampled_from(METHODS), st.booleans())
def test_a_reduction_answers_at_every_length_down_to_one_patch(frames, keep, method, bf16) -> None:
    model = small(depth=4, mels=16).eval()
    x = torch.randn(2, 16, frames, generator=seeded())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = model.forward_features(x, reduction=TokenReduction(keep=max(keep, 0.47), method=method))
        full = model(x)
    assert out.logits.isfinite().all()
    if frames < 28:  # one patch
        assert torch.equal(out.logits, full)


@pytest.mark.parametrize("method", METHODS)
def test_reduced_scores_under_autocast_are_close(method: Method) -> None:
    model, reduction = small(depth=4).eval(), TokenReduction(keep=0.5, method=method)
    with torch.inference_mode():
        wanted = model.double().forward_features(spec().double(), reduction=reduction).logits
        with torch.autocast("cpu", torch.bfloat16):
            got = model.float().forward_features(spec(), reduction=reduction).logits
    # Merging may pair other tokens where two pairs agree nearly as well, so no tight bound holds.
    torch.testing.assert_close(got.double(), wanted, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_a_reduction_writes_no_state_and_lets_gradients_through(method: Method) -> None:
    model, reduction = small(depth=4).eval(), TokenReduction(keep=0.5, method=method)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain, x = model(spec()), spec().requires_grad_()
    model.forward_features(x, reduction=reduction).logits.sum().backward()
    assert x.grad is not None and x.grad.any()
    assert torch.equal(model(spec()), plain)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_training_refuses_a_reduction() -> None:
    with pytest.raises(ValueError, match="a reduction is for evaluation"):
        small().train().forward_features(
            spec(), generator=seeded(), reduction=TokenReduction(keep=0.5, method="strided")
        )


# --- what comes out --------------------------------------------------------------------------------------------------


def test_intermediates_do_not_change_the_scores() -> None:
    model = small().eval()
    plain = model.forward_features(spec())
    full = model.forward_features(spec(), hidden_states=True, attention=True)
    torch.testing.assert_close(plain.logits, full.logits)
    torch.testing.assert_close(plain.features, full.features)
    assert plain.hidden_states is None and plain.attention is None
    assert full.hidden_states is not None and full.attention is not None
    assert [tuple(h.shape) for h in full.hidden_states] == [(2, 52, 16)] * 3
    torch.testing.assert_close(full.features, model.norm(full.hidden_states[-1])[:, :2].mean(1))


def test_attention_is_what_the_block_used() -> None:
    model = small().eval()
    out = model.forward_features(spec(), hidden_states=True, attention=True)
    assert out.hidden_states is not None and out.attention is not None
    block, x = model.blocks[0], out.hidden_states[0]
    torch.testing.assert_close(out.attention[0].sum(-1), torch.ones(2, 2, 52))
    v = block.attn.qkv(block.norm1(x))[..., 32:].unflatten(2, (2, 8)).transpose(1, 2)
    mixed = (out.attention[0] @ v).transpose(1, 2).flatten(2)
    after = x + block.attn.proj(mixed)
    torch.testing.assert_close(after + block.mlp(block.norm2(after)), out.hidden_states[1])


def test_a_channel_axis_changes_nothing() -> None:
    model = small().eval()
    assert torch.equal(model(spec()), model(spec()[:, None]))


def test_a_clip_does_not_hear_its_neighbors() -> None:
    model = small().eval()
    torch.testing.assert_close(model(spec(clips=3))[1:2], model(spec(clips=3)[1:2]), rtol=1e-5, atol=1e-5)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("patchout", [Patchout(), Patchout(time=1, freq=2, unstructured=0.2)])
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(bf16: bool, patchout: Patchout) -> None:
    model, generator = small(patchout=patchout, drop_path=0.01), seeded()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        model.eval()(spec())
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(spec(clips=8), generator=generator)
        logits.float().square().sum().backward()
        optimizer.step()
    # Each must have moved in some entry: of the position tables, only the kept rows and columns can.
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {"head_dist.weight", "head_dist.bias"}
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == without


def test_gradients_under_autocast_point_where_the_exact_ones_do() -> None:
    exact, half = small(dim=32, num_heads=4).double(), small(dim=32, num_heads=4)
    exact(spec().double()).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        logits = half(spec())
    logits.float().square().sum().backward()
    for (name, a), b in zip(exact.named_parameters(), half.parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            assert F.cosine_similarity(a.grad.flatten(), b.grad.flatten().double(), 0) > 0.99, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_give_the_same_scores_to_rounding(dtype: torch.dtype) -> None:
    model = small().eval()
    with torch.no_grad():
        wanted = model(spec())
        got = small().eval().to(dtype)(spec().to(dtype))
    assert got.dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(got.float(), wanted, rtol=tolerance, atol=tolerance)


# --- keeping, cutting ------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_gives_the_same_bits(tmp_path: Path) -> None:
    model, other = small(seed=0).eval(), small(seed=1).eval()
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    load_into(other, load_weights(tmp_path / "w.safetensors"), source="w")
    with torch.inference_mode():
        assert torch.equal(model(spec()), other(spec()))


def test_cutting_the_depth_leaves_the_blocks_of_the_paper() -> None:
    assert blocks_left(12, -2) == [0, 1, 3, 5, 7, 9, 11]
    assert blocks_left(12, 5) == [0, 6, 7, 8, 9, 10, 11]
    assert blocks_left(12, 0) == list(range(12))
    for cut in (12, 13):
        with pytest.raises(ValueError, match="cutting the depth"):
            blocks_left(12, cut)


def test_a_cut_network_saves_as_one_of_its_depth() -> None:
    model = small(depth=4)
    last = model.blocks[3].mlp.fc1.weight.clone()
    model.cut_depth(-2)
    shallow = small(depth=model.config.depth)
    assert model.config.depth == 3
    shallow.load_state_dict(model.state_dict())
    assert torch.equal(shallow.blocks[2].mlp.fc1.weight, last)


def test_a_stem_has_the_patches_of_the_kernel_that_it_replaces() -> None:
    torch.manual_seed(0)
    plain = create_model("passt_tiny_s16", num_classes=3, dim=12, num_heads=2, depth=1)
    stemmed = create_model("passt_tiny_conv", num_classes=3, dim=12, num_heads=2, depth=1, stem=(4, 6, 8))
    for frames in (16, 31, 32, 47, 100, 998):
        spec = torch.randn(2, 128, frames)
        one, other = plain.patch_embed(spec), stemmed.patch_embed(spec)
        assert one.shape == other.shape
        patches = torch.tensor([0, one.shape[1] - 1])
        torch.testing.assert_close(stemmed.patch_embed(spec, patches=patches), other[:, patches])


@pytest.mark.parametrize("changes", [{"stem": (4, 0)}, {"stem": (4,) * 5}, {"stem": (4, 4), "stride": 10}])
def test_a_stem_that_does_not_fit_the_patches_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stem"):
        create_model("passt_tiny_conv", num_classes=3, **changes)
