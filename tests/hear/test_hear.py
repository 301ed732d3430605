"""HEAR embeddings: those of the published package in every variant, at any length, alone as among others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ossicle import hear
from ossicle.bundle import Bundle
from ossicle.errors import SettingRefused
from ossicle.frontend import create_frontend
from ossicle.models import create_model
from ossicle.recognizer import Recognizer
from ossicle.weights.tensors import load_into, load_weights

GOLDEN = Path(__file__).parent.parent / "golden" / "hear.safetensors"
# Front end, frames of the position table and seconds of the window of the published weights.
PUBLISHED = {
    "base20sec": ("passt", 2000, 20.0),
    "base30sec": ("passt", 3000, 30.0),
    "hop100": ("passt_hop100", 3200, 10.0),
    "hop160": ("passt_hop160", 2000, 10.0),
    "": ("passt", 998, 10.0),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_weights(GOLDEN)


def published(variant: str, golden: dict[str, Tensor], **options: Any) -> hear.HearModel:
    """The narrow network of the stored numbers, as the published weights would be loaded."""
    frontend, frames, seconds = next(how for name, how in PUBLISHED.items() if variant.startswith(name))
    with safe_open(GOLDEN, "pt") as file:
        sizes = json.loads(file.metadata()["network"])
    del sizes["deviation"]
    network = create_model("passt_base_s10", frames=frames, **sizes).eval()
    state = {name.removeprefix("state."): tensor for name, tensor in golden.items() if name.startswith("state.")}
    state["time_new_pos_embed"] = golden[f"{variant}.state.time_new_pos_embed"]
    load_into(network, state, source=GOLDEN)
    bundle = Bundle(
        model=network,
        frontend=create_frontend(frontend).eval(),
        model_name="passt_base_s10",
        task="multi-label",
        labels=tuple("abcde"),
        window_seconds=seconds,
        hop_seconds=seconds,
        library_version="",
        version="",
    )
    return hear.load_model(Recognizer(bundle, device="cpu"), variant=variant, **options)


def sounds(samples: int) -> Tensor:
    """Two sounds made of integers, as benchmarks/hear.py makes them."""
    n = torch.arange(samples)
    rows = [(n * n * step + n * 104729) % 65537 for step in (7919, 3)]
    return ((torch.stack(rows) - 32768) / 131072).float()


@pytest.mark.parametrize("variant", hear.VARIANTS)
def test_embeddings_are_those_of_the_published_package(variant: str, golden: dict[str, Tensor]) -> None:
    model = published(variant, golden)
    # Of quiet mel bins float32 leaves 2.5e-3 in natural log units, a fifth of it in features.
    atol = 5e-4 if "mel" in variant else 1e-4
    embeddings, times = hear.get_timestamp_embeddings(sounds(16_000), model)
    assert torch.equal(times, golden[f"{variant}.times"])
    torch.testing.assert_close(embeddings, golden[f"{variant}.timestamps"], rtol=0, atol=atol)
    assert embeddings.shape[2] == model.timestamp_embedding_size
    short = hear.get_scene_embeddings(sounds(32_000), model)
    torch.testing.assert_close(short, golden[f"{variant}.scene_short"], rtol=0, atol=atol)
    assert short.shape[1] == model.scene_embedding_size == 29
    seconds = model.scene_window // 32_000
    if variant in ("base", "base20sec", "base30sec", "hop160base"):  # the others have the scenes of these
        long = hear.get_scene_embeddings(sounds((seconds + 1) * 32_000), model)
        torch.testing.assert_close(long, golden[f"{variant}.scene_long"], rtol=0, atol=1e-4)


def test_another_window_hop_or_order_would_be_noticed(golden: dict[str, Tensor]) -> None:
    model = published("base2levelmel", golden)
    stored = golden["base2levelmel.timestamps"]
    wave = sounds(16_000)

    def differs(embeddings: Tensor) -> bool:
        return float((embeddings - stored).abs().max()) > 1e-2

    assert differs(hear.get_timestamp_embeddings(wave.flip(0), model)[0])
    assert differs(hear.get_timestamp_embeddings(wave.roll(160, 1), model)[0])
    model.timestamp_windows = (model.timestamp_windows[0], 5 * model.timestamp_windows[0])
    assert differs(hear.get_timestamp_embeddings(wave, model)[0])
    model = published("base", golden)
    model.scene_hop = model.scene_window // 5
    long = hear.get_scene_embeddings(sounds(11 * 32_000), model)
    assert float((long - golden["base.scene_long"]).abs().max()) > 1e-3


def test_a_mode_chooses_logits_or_features(golden: dict[str, Tensor]) -> None:
    wave = sounds(32_000)
    both = hear.get_scene_embeddings(wave, published("base", golden))
    for mode, part in (("logits", both[:, :5]), ("embed_only", both[:, 5:])):
        model = published("base", golden, mode=mode)
        assert torch.equal(hear.get_scene_embeddings(wave, model), part)
        assert model.scene_embedding_size == model.timestamp_embedding_size == part.shape[1]


@pytest.mark.parametrize("samples", [1, 300, 5_119, 5_121, 33_333])
def test_every_length_has_embeddings(samples: int, golden: dict[str, Tensor]) -> None:
    model = published("base2levelmel", golden)
    embeddings, times = hear.get_timestamp_embeddings(sounds(samples), model)
    assert embeddings.shape == (2, samples // 1600 + 1, model.timestamp_embedding_size)
    assert times.shape == embeddings.shape[:2] and times[0, 0] == 0
    scene = hear.get_scene_embeddings(sounds(samples), model)
    assert embeddings.isfinite().all() and scene.isfinite().all()


def test_a_sound_is_embedded_alone_as_among_others(golden: dict[str, Tensor]) -> None:
    model, wave = published("base2level", golden), sounds(48_000)
    together = hear.get_timestamp_embeddings(wave, model)[0]
    assert torch.equal(together[1:], hear.get_timestamp_embeddings(wave[1:], model)[0])
    assert torch.equal(hear.get_scene_embeddings(wave, model)[1:], hear.get_scene_embeddings(wave[1:].numpy(), model))


def test_batches_of_windows_change_nothing(golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model, wave = published("base", golden), sounds(16_000)
    at_once = hear.get_timestamp_embeddings(wave, model)[0]
    monkeypatch.setattr("ossicle.hear.model.BATCH_SECONDS", 0.5)
    torch.testing.assert_close(hear.get_timestamp_embeddings(wave, model)[0], at_once, rtol=0, atol=1e-5)


def test_a_model_is_a_module_that_its_kit_can_move(golden: dict[str, Tensor]) -> None:
    model = published("base", golden)
    assert isinstance(model, torch.nn.Module) and isinstance(model.sample_rate, int)
    assert len(list(model.parameters())) == len(list(model.recognizer.model.parameters()))
    before = model(sounds(8_000))
    assert torch.equal(model.to("cpu")(sounds(8_000)), before) and model.recognizer.device.type == "cpu"


@pytest.mark.parametrize("frontend", ["kaldi_fbank", "passt_hop160"])
def test_any_network_of_ours_is_a_model(frontend: str, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    from ossicle.bundle import save_bundle
    from ossicle.frontend import frontend_config

    network = create_model("datar_nano", num_classes=2)
    save_bundle(
        tmp_path / "datar",
        model=network,
        model_name="datar_nano",
        frontend=frontend_config(frontend),
        task="single-label",
        labels=("a", "b"),
        window_seconds=1.0,
    )
    model = hear.load_model(tmp_path / "datar", variant="base2levelmel", device="cpu")
    embeddings, times = hear.get_timestamp_embeddings(sounds(model.sample_rate // 2), model)
    assert embeddings.shape == (2, 11, model.timestamp_embedding_size) and times[0, -1] == 500
    assert hear.get_scene_embeddings(sounds(3 * model.sample_rate), model).shape == (2, model.scene_embedding_size)


def test_a_layer_takes_the_place_of_the_features(shared_bundle: Path) -> None:
    model = hear.load_model(shared_bundle, layer=1, device="cpu")
    assert model.scene_embedding_size == 192
    with pytest.raises(SettingRefused, match="layer 2 is not available; expected 1 to 1"):
        hear.load_model(shared_bundle, layer=2, device="cpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "base3level"}, r"variant 'base3level' is not available; available: base, base2level, "),
        ({"mode": "scores"}, r"mode 'scores' is not available; available: all, embed_only, logits\."),
    ],
)
def test_what_does_not_exist_is_refused(
    options: dict[str, str], says: str, shared_bundle: Path, untyped: Callable
) -> None:
    with untyped(), pytest.raises(SettingRefused, match=says):
        hear.load_model(shared_bundle, device="cpu", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("audio", [np.zeros(100, "f4"), np.zeros((1, 0), "f4"), np.zeros((2, 9), "i2")])
def test_audio_of_another_shape_or_type_is_refused(audio: np.ndarray, golden: dict[str, Tensor]) -> None:
    model = published("base", golden)
    for function in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(ValueError, match=r"expected floats \(sound, sample\)"):
            function(audio, model)
    with pytest.raises(ValueError, match="NaN or infinity"):
        hear.get_scene_embeddings(np.full((1, 9), np.nan), model)


# --- the identity of an embedding ------------------------------------------------------------------------------------


def test_equal_settings_have_one_identity_and_others_another(golden: dict[str, Tensor]) -> None:
    first = published("base", golden).identity
    assert first == published("base", golden).identity and len(first) == 16
    assert published("openmic2008", golden).identity == first  # it is made in the same way
    others = {published(variant, golden).identity for variant in ("base2level", "base20sec", "hop160base")}
    others |= {published("base", golden, mode="logits").identity, published("base", golden, layer=1).identity}
    model = published("base", golden)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    others.add(model.identity)
    assert len(others - {first}) == 6
