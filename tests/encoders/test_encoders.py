"""Every family: what is taken of it, from which blocks, and that neither a batch nor a mode changes it."""

import copy
import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ossicle.bundle import load_bundle
from ossicle.encoders import Encoder, Hidden, load_encoder
from ossicle.encoders.pretrained import stack_of
from ossicle.encoders.sound import cut

Load = Callable[[str], Encoder]
Inputs = Callable[[Encoder], list[Any]]
# Families whose `hidden_states[-1]` in transformers 5 is behind the final norm; ours never is.
NORMED_AT_THE_END = {"whisper", "llama", "mistral", "qwen2"}


def blocks_of(encoder: Encoder) -> list[nn.Module]:
    """The blocks whose outputs are the encoder's layers."""
    network: Any = encoder.network
    if encoder.settings["family"].startswith("datar"):
        return list(network.stages[2].blocks)
    if encoder.settings["family"].startswith("passt"):
        return list(network.blocks)
    holder, name = stack_of(network)
    return list(getattr(holder, name))


def stir(network: nn.Module) -> None:
    """Moves every weight that wants a gradient, as a step of training does."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))


@torch.inference_mode()
def test_inputs_of_any_length_become_hidden_states(every: str, load: Load, inputs: Inputs) -> None:
    encoder = load(every)
    given = inputs(encoder)
    hidden = encoder.encode(encoder.prepare(given))
    clips, layers, time, dim = hidden.features.shape
    assert (clips, layers, dim) == (len(given), encoder.num_layers, encoder.dim) and encoder.num_layers == 3
    assert hidden.mask.shape == (clips, time) and hidden.mask.any(0).all() and hidden.mask[:, 0].all()
    assert hidden.mean().shape == (clips, layers, dim) and hidden.mean().isfinite().all()
    assert (encoder.rate is not None) == (encoder.modality == "sound")
    longest = max(range(clips), key=lambda clip: len(given[clip]))
    assert encoder.modality == "image" or hidden.mask.sum(1).argmax() == longest


@torch.inference_mode()
def test_an_input_has_the_same_features_alone_and_in_a_batch(every: str, load: Load, inputs: Inputs) -> None:
    encoder = load(every)
    given = inputs(encoder)
    together = encoder.encode(encoder.prepare(given))
    for place, one in enumerate(given):
        alone = encoder.encode(encoder.prepare([one]))
        assert alone.mask.all()
        kept = together.features[place][:, together.mask[place]]
        torch.testing.assert_close(alone.features[0], kept, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.mean()[0], together.mean()[place], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_no_block_runs_behind_the_layers_that_were_asked_for(every: str, load: Load, inputs: Inputs) -> None:
    encoder = load(every)
    batch = encoder.prepare(inputs(encoder))
    ran: set[int] = set()
    for number, block in enumerate(blocks_of(encoder), 1):
        block.register_forward_hook(lambda *_, number=number: ran.add(number))
    first = encoder.encode(batch, layers=2)
    assert ran == {1, 2}
    whole = encoder.encode(batch)
    assert ran == {1, 2, 3}
    assert torch.equal(first.features, whole.features[:, :2]) and torch.equal(first.mask, whole.mask)
    for layers in (0, 4):
        with pytest.raises(ValueError, match=f"layers is {layers}; expected 1 to 3"):
            encoder.encode(batch, layers=layers)


@torch.inference_mode()
def test_a_layer_is_what_leaves_its_block_before_any_final_norm(hugging: str, load: Load, inputs: Inputs) -> None:
    encoder = load(hugging)
    batch = encoder.prepare(inputs(encoder)[:1])
    ours = encoder.encode(batch).features
    given = {"rows": "input_features" if hugging == "whisper" else "input_values"}
    network: Any = encoder.network
    theirs = network(
        **{given.get(key, key): value for key, value in batch.items() if key not in ("frames", "places", "pieces")},
        output_hidden_states=True,
    )
    states = torch.stack(theirs.hidden_states, 1)[:, 1:, : ours.shape[2]]  # the first one is the embedding
    if hugging in NORMED_AT_THE_END:
        norm = network.norm if hasattr(network, "norm") else network.layer_norm
        torch.testing.assert_close(norm(ours[:, -1]), states[:, -1])
        assert not torch.allclose(ours[:, -1], states[:, -1], atol=1e-2)
        ours, states = ours[:, :-1], states[:, :-1]
    torch.testing.assert_close(ours, states)


def test_an_encoder_stays_frozen_and_in_evaluation_until_it_is_adapted(every: str, load: Load, inputs: Inputs) -> None:
    encoder = load(every)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    for mode in (True, False):
        encoder.train(mode)
        assert encoder.training == mode and not any(module.training for module in encoder.network.modules())
    batch = encoder.prepare(inputs(encoder))
    assert not encoder.encode(batch).features.requires_grad
    encoder.adapted = True
    encoder.network.add_module("extra", nn.Dropout())
    assert encoder.train().network.get_submodule("extra").training
    encoder.encode(batch)  # training asks for nothing that is not there
    assert not any(module.training for module in encoder.eval().network.modules())


def test_gradients_reach_the_blocks_that_want_them(every: str, load: Load, inputs: Inputs) -> None:
    encoder = load(every)
    first, last = blocks_of(encoder)[0], blocks_of(encoder)[-1]
    first.requires_grad_(True)
    batch = encoder.prepare(inputs(encoder)[:2])
    with torch.inference_mode():  # as a pass for the cache is made; it must leave nothing behind
        assert not encoder.encode(batch).features.requires_grad
    encoder.encode(batch, layers=1).mean().square().sum().backward()
    stir(first)
    encoder.zero_grad()
    encoder.encode(batch).mean().square().sum().backward()
    lacking = [name for name, parameter in first.named_parameters() if parameter.grad is None]
    assert not lacking
    assert all(parameter.grad is None for parameter in last.parameters())


@pytest.mark.parametrize("name", ["hubert", "whisper", "whisper cropped", "bert", "vit"])
def test_threads_on_one_encoder_get_each_its_own_answer(name: str, load: Load, inputs: Inputs) -> None:
    encoder = load(name)
    batches = [encoder.prepare(inputs(encoder)[:1]), encoder.prepare(inputs(encoder)[1:2])]
    wanted = [encoder.encode(batch, layers=layers).features for batch, layers in zip(batches, (3, 2), strict=True)]
    inside, other = threading.Event(), threading.Event()

    def linger(*_: Any) -> None:
        """Holds the first pass in its first block until the second one has ended, if it ever does."""
        if not inside.is_set():
            inside.set()
            other.wait(0.3)

    blocks_of(encoder)[0].register_forward_hook(linger)

    def second() -> Tensor:
        inside.wait(120)
        try:
            return encoder.encode(batches[1], layers=2).features
        finally:
            other.set()

    with ThreadPoolExecutor(2) as pool:
        first, later = pool.submit(encoder.encode, batches[0], layers=3), pool.submit(second)
        assert torch.equal(first.result(120).features, wanted[0]) and torch.equal(later.result(120), wanted[1])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_of_an_encoder_has_a_lock_of_its_own(
    copied: Callable[[Encoder], Encoder], load: Load, inputs: Inputs
) -> None:
    encoder = load("bert")
    batch = encoder.prepare(inputs(encoder))
    with encoder.pass_lock.lock:
        other = copied(encoder)
        features = other.encode(batch).features
    assert torch.equal(features, encoder.encode(batch).features)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_adapters_inside_the_network_take_effect(load: Load, inputs: Inputs) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'ossicle[peft]'")
    for name, targets in {"hubert": ["q_proj"], "whisper cropped": ["q_proj"], "bert": ["query"]}.items():
        encoder = load(name)
        batch = encoder.prepare(inputs(encoder)[:2])
        before = encoder.encode(batch).features
        encoder.network = peft.get_peft_model(encoder.network, peft.LoraConfig(target_modules=targets)).eval()
        torch.testing.assert_close(encoder.encode(batch).features, before)  # LoRA begins as the identity
        stir(encoder.network)
        after = encoder.encode(batch, layers=2)
        assert not torch.allclose(after.features, before[:, :2], atol=1e-4)
        after.mean().sum().backward()
        gave = [name for name, p in encoder.network.named_parameters() if p.requires_grad and p.grad is not None]
        assert gave and not any(".2." in name for name in gave)


# --- means and masks -------------------------------------------------------------------------------------------------


def test_a_mean_counts_real_time_alone() -> None:
    features = torch.tensor([[1.0, 3.0, float("nan")], [2.0, 4.0, 6.0]]).view(2, 1, 3, 1)
    hidden = Hidden(features=features, mask=torch.tensor([[True, True, False], [True, True, True]]))
    assert hidden.mean().flatten().tolist() == [2.0, 4.0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_on_which_a_tokenizer_pads_changes_nothing(side: str, load: Load, inputs: Inputs) -> None:
    encoder: Any = load("llama")
    encoder.tokenizer.padding_side = side
    batch = encoder.prepare(["a man plays", "rain"])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["input_ids"][1].tolist()[-2:] == [1, 1]


@pytest.mark.parametrize("name", ["llama", "bert", "distilbert"])
@pytest.mark.parametrize("number", [-1, 40, 32_000])
def test_a_padding_token_that_does_not_exist_is_none(
    name: str, number: int, save: Callable[..., Path], load: Load, tmp_path: Path
) -> None:
    folder = save(name, tmp_path / "network")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": number}))
    encoder = load_encoder(folder)
    texts = ["a man plays", "rain"]
    features = encoder.encode(encoder.prepare(texts)).mean()
    torch.testing.assert_close(features, load(name).encode(load(name).prepare(texts)).mean())


def test_a_text_longer_than_the_network_has_positions_loses_its_end(load: Load) -> None:
    for name, most in {"bert": 24, "roberta": 22}.items():  # roberta counts from behind its padding token
        encoder = load(name)
        batch = encoder.prepare(["drum " * 100, "drum"])
        assert batch["input_ids"].shape == (2, most) and encoder.settings["max_tokens"] == most
        assert encoder.encode(batch).mask.sum(1).tolist() == [most, 3]


def test_a_text_without_tokens_is_encoded_as_padding(load: Load) -> None:
    encoder: Any = load("llama")
    encoder.tokenizer.backend_tokenizer.post_processor = None
    hidden = encoder.encode(encoder.prepare(["", "rain falls"]))
    assert hidden.mask.tolist() == [[True, False], [True, True]] and hidden.mean().isfinite().all()


@pytest.mark.parametrize("samples", [1, 1000, 1001, 2000, 2345, 3001])
def test_the_pieces_of_a_long_clip_are_equal_and_cover_it(samples: int) -> None:
    wave = np.arange(samples, dtype=np.float32)
    pieces = cut(wave, max_samples=1000)
    assert {len(piece) for piece in pieces} == {len(pieces[0])} and len(pieces[0]) <= 1000
    assert len(pieces) == -(-samples // 1000)
    assert np.array_equal(np.unique(np.concatenate(pieces)), wave)
    assert sum(map(len, pieces)) - samples < len(pieces)


@torch.inference_mode()
def test_a_long_clip_is_its_pieces_joined_in_time(load: Load, ours: str) -> None:
    for name in (ours, "whisper", "whisper cropped"):
        encoder: Any = load(name)
        wave = np.random.default_rng(1).normal(scale=0.1, size=2 * encoder.max_samples).astype(np.float32)
        whole = encoder.encode(encoder.prepare([wave]))
        halves = encoder.encode(encoder.prepare(np.split(wave, 2)))
        assert torch.equal(whole.features[0], torch.cat(list(halves.features), dim=1))


@pytest.mark.parametrize("name", ["wav2vec2", "wavlm stable", "whisper", "whisper cropped", "passt", "datar"])
def test_without_gradients_a_long_clip_passes_in_few_pieces_at_a_time(
    name: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = load(name)
    encoder.max_samples = min(encoder.max_samples, encoder.rate)
    rng = np.random.default_rng(1)
    clips = [rng.normal(scale=0.1, size=round(n * encoder.max_samples)).astype(np.float32) for n in (4.5, 0.5, 6.7)]
    batch = encoder.prepare(clips)
    seen: list[int] = []
    states = encoder.states
    monkeypatch.setattr(encoder, "states", lambda rows, layers: seen.append(rows.nbytes) or states(rows, layers))
    whole = encoder.encode(batch)
    assert len(seen) == len(set(batch["frames"].tolist()))  # with gradients all of one length at once
    one = max(row.nbytes for row in batch["rows"])
    for most in (1, 2.5 * one):
        monkeypatch.setattr("ossicle.encoders.sound.PASS_BYTES", round(most), raising=False)
        seen.clear()
        with torch.no_grad():
            parts = encoder.encode(batch)
        assert max(seen) <= max(most, one) and len(seen) > len(set(batch["frames"].tolist()))
        torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-5)
        assert torch.equal(parts.mask, whole.mask)


def test_ten_minutes_never_pass_at_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load("wav2vec2")
    seen: list[float] = []
    length = encoder.places(encoder.max_samples)

    def states(rows: Tensor, layers: int) -> Tensor:
        seen.append(rows.numel() / encoder.rate)
        return torch.zeros(len(rows), layers, length, encoder.dim)

    monkeypatch.setattr(encoder, "states", states)
    with torch.inference_mode():
        hidden = encoder.encode(encoder.prepare([np.zeros(600 * encoder.rate, np.float32)]))
    assert sum(seen) == 600 and max(seen) <= 66
    assert hidden.mask.shape == (1, 20 * length)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["wav2vec2", "wavlm stable", "whisper", "whisper cropped", "passt", "datar"])
def test_one_sample_is_a_clip(name: str, load: Load) -> None:
    encoder = load(name)
    hidden = encoder.encode(encoder.prepare([np.zeros(1, np.float32)]))
    shortest = 2 if name == "datar" else 1  # times of the shortest pass
    assert hidden.mask.tolist() == [[True] * shortest] and hidden.features.isfinite().all()


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("hubert", [np.zeros(100)]),
        ("hubert", [np.zeros((2, 100), np.float32)]),
        ("hubert", [np.zeros(0, np.float32)]),
        ("passt", ["a text"]),
        ("bert", [np.zeros(100, np.float32)]),
        ("vit", [np.zeros((3, 32, 32), np.uint8)]),
        ("vit", [np.zeros((32, 32, 3), np.float32)]),
        ("hubert", []),
        ("bert", []),
        ("vit", []),
    ],
)
def test_an_input_of_another_kind_is_a_callers_slip(name: str, wrong: list[Any], load: Load) -> None:
    with pytest.raises(ValueError, match="expected"):
        load(name).prepare(wrong)


# --- ours ------------------------------------------------------------------------------------------------------------


def mel(encoder: Any, wave: np.ndarray) -> Tensor:
    return encoder.frontend(torch.from_numpy(wave)[None])


@torch.inference_mode()
def test_passt_gives_the_patch_tokens_of_every_block(saved: Callable[[str], Path], load: Load) -> None:
    encoder: Any = load("passt")
    model: Any = load_bundle(saved("passt")).model
    wave = np.random.default_rng(2).normal(scale=0.1, size=encoder.rate // 2).astype(np.float32)
    states = model.forward_features(mel(encoder, wave), hidden_states=True).hidden_states[1:]
    wanted = torch.stack([state[:, 2:].unflatten(1, (model.config.rows, -1)).mean(1) for state in states], 1)
    torch.testing.assert_close(encoder.encode(encoder.prepare([wave])).features, wanted)


@torch.inference_mode()
def test_datar_gives_the_blocks_of_its_deepest_stage(saved: Callable[[str], Path], load: Load) -> None:
    encoder: Any = load("datar")
    model: Any = load_bundle(saved("datar")).model
    wave = np.random.default_rng(2).normal(scale=0.1, size=encoder.rate // 2).astype(np.float32)
    states = model.forward_features(mel(encoder, wave), hidden_states=True).hidden_states
    wanted = torch.stack([state.mean(1) for state in states[3:6]], 1)  # behind the embedding and two stages of one
    torch.testing.assert_close(encoder.encode(encoder.prepare([wave])).features, wanted)


def test_the_last_stage_of_datar_never_runs(load: Load, inputs: Inputs) -> None:
    encoder: Any = load("datar")
    encoder.network.stages[3].register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    encoder.network.stages[3].merge.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    encoder.encode(encoder.prepare(inputs(encoder)))


@torch.inference_mode()
def test_silence_that_a_bundle_appends_is_seen_and_masked(save: Callable[..., Path], tmp_path: Path, ours: str) -> None:
    plain: Any = load_encoder(save(ours, tmp_path / "plain"))
    padding: Any = load_encoder(save(ours, tmp_path / "padding", pad=True))
    wave = np.random.default_rng(2).normal(scale=0.1, size=plain.rate // 2).astype(np.float32)
    short, long = plain.prepare([wave]), padding.prepare([wave])
    assert long["frames"] > short["frames"] and torch.equal(long["places"], short["places"])
    assert torch.equal(long["rows"][..., : short["rows"].shape[-1]], short["rows"])
    assert padding.encode(long).features.shape == plain.encode(short).features.shape
    assert padding.fingerprint != plain.fingerprint


# --- front ends of the library ---------------------------------------------------------------------------------------


def test_samples_are_normalized_as_the_library_does(load: Load, transformers: Any) -> None:
    wave = np.random.default_rng(3).normal(loc=0.2, scale=0.1, size=8000).astype(np.float32)
    theirs = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)(wave, sampling_rate=16_000)["input_values"][0]
    np.testing.assert_allclose(load("wav2vec2").prepare([wave])["rows"][0], theirs, rtol=1e-5, atol=1e-5)


def test_a_preprocessor_that_does_not_normalize_is_obeyed(
    save: Callable[..., Path], tmp_path: Path, transformers: Any
) -> None:
    folder = save("wavlm", tmp_path / "wavlm")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000).save_pretrained(folder)
    encoder = load_encoder(folder)
    wave = np.full(4000, 0.5, np.float32)
    assert encoder.rate == 8000 and torch.equal(encoder.prepare([wave])["rows"][0], torch.from_numpy(wave))


def test_the_frames_of_a_convolutional_front_end_are_counted(load: Load) -> None:
    encoder: Any = load("hubert")
    for samples in (encoder.min_samples, encoder.min_samples + 79, encoder.min_samples + 80, 5000):
        wave = np.random.default_rng(4).normal(size=samples).astype(np.float32)
        assert encoder.states(encoder.front(wave)[None], 1).shape[2] == encoder.places(samples)


def test_images_are_processed_as_the_library_does(
    save: Callable[..., Path], tmp_path: Path, inputs: Inputs, load: Load, transformers: Any
) -> None:
    folder = save("vit", tmp_path / "vit")
    options = {"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    transformers.ViTImageProcessorPil(**options).save_pretrained(folder)
    encoder = load_encoder(folder)
    images = inputs(encoder)
    theirs = transformers.ViTImageProcessorPil(**options)(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(encoder.prepare(images)["pixel_values"], theirs)
    assert encoder.fingerprint != load("vit").fingerprint  # which has no such file, and another mean
