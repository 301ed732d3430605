"""AST against transformers, under every name that its weights have."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ossicle
from ossicle.bundle import convert_checkpoint, load_bundle
from ossicle.errors import WeightsRefused
from ossicle.export import export_model
from ossicle.frontend import create_frontend, frontend_config
from ossicle.models import create_model
from ossicle.models.ast import Ast, AstConfig
from ossicle.weights.foreign import load_checkpoint
from ossicle.weights.tensors import save_weights

# The published front end says so of its own filters.
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values:UserWarning")

SMALL: dict[str, Any] = {"dim": 64, "num_heads": 1, "depth": 2}
LABELS = {0: "bell", 1: "drum", 2: "voice"}


def rng_wave(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).normal(size=round(16_000 * seconds)).astype(np.float32)


def drawn(module: torch.nn.Module) -> None:
    """No parameter stays at zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0.0, 0.15)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as `save_pretrained` writes it, and the network."""
    library = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'ossicle[hf]'")
    folder = tmp_path_factory.mktemp("published") / "ast"
    config = library.ASTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, id2label=LABELS
    )
    model = library.ASTForAudioClassification(config).eval()
    drawn(model)
    model.save_pretrained(folder)
    library.ASTFeatureExtractor().save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def bundle(published: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_checkpoint(published[0], output=tmp_path_factory.mktemp("bundle") / "out").folder


def extracted(wave: np.ndarray) -> Tensor:
    """(clip, frame, mel) as the published front end makes it."""
    from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]


@pytest.mark.parametrize("seconds", [0.5, 4.0, 10.0, 10.25])
def test_features_and_logits_are_those_of_transformers(
    published: tuple[Path, Any], bundle: Path, seconds: float
) -> None:
    wave = rng_wave(seconds)
    wanted_features = extracted(wave)
    with torch.inference_mode():
        wanted = published[1](wanted_features).logits
    recognizer = ossicle.load(bundle, device="cpu")
    features = recognizer.spectrogram(wave[None])
    torch.testing.assert_close(features.mT, wanted_features[:, : features.shape[-1]], rtol=0, atol=1e-3)
    # The front ends round differently where there is nearly no power; the networks are held closer.
    np.testing.assert_allclose(recognizer.scores(wave[None]), wanted, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(recognizer.model(wanted_features.mT), wanted, rtol=1e-4, atol=1e-5)


def test_the_folder_gives_labels_task_front_end_and_sizes(bundle: Path) -> None:
    made = load_bundle(bundle)
    assert made.labels == ("bell", "drum", "voice") and made.task == "single-label" and made.window_seconds == 10
    assert made.frontend.config == frontend_config("ast")
    assert (made.model.config.num_heads, made.model.config.norm_eps) == (4, 1e-12)
    assert isinstance(made.model, Ast) and made.model_name == "ast_base_s10"


def test_another_front_end_and_kind_of_labels_come_from_the_folder(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'ossicle[hf]'")
    config = library.ASTConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=256,
        max_length=128,
        frequency_stride=16,
        time_stride=16,
        problem_type="multi_label_classification",
        id2label=LABELS,
    )
    model = library.ASTForAudioClassification(config).eval()
    drawn(model)
    model.save_pretrained(tmp_path / "ast")
    library.ASTFeatureExtractor(max_length=128, mean=-6.0, std=3.0).save_pretrained(tmp_path / "ast")
    done = convert_checkpoint(tmp_path / "ast" / "model.safetensors", output=tmp_path / "out")
    recognizer, wave = ossicle.load(done.folder, device="cpu"), rng_wave(0.6)
    assert recognizer.task == "multi-label" and recognizer.bundle.window_seconds == 1
    given = library.ASTFeatureExtractor.from_pretrained(tmp_path / "ast")(wave, sampling_rate=16_000)["input_values"]
    with torch.inference_mode():
        wanted = model(torch.from_numpy(np.stack(given))).logits
    np.testing.assert_allclose(recognizer.scores(wave[None]), wanted, rtol=1e-4, atol=1e-4)


# --- names ------------------------------------------------------------------------------------------------------------


def small(**options: Any) -> Ast:
    model = create_model("ast_base_s16", num_classes=3, **{**SMALL, **options})
    assert isinstance(model, Ast)
    drawn(model)
    return model.eval()


def as_hugging(state: dict[str, Tensor], *, new: bool) -> dict[str, Tensor]:
    """The names of transformers, in its published files or since version 5."""
    made = {}
    for name, tensor in state.items():
        name = re.sub(r"^blocks\.(\d+)", r"layers.\1" if new else r"encoder.layer.\1", name)
        name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        name = name.replace("attn.proj", "attention.o_proj" if new else "attention.output.dense")
        if not new:
            name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("dist_token", "embeddings.distillation_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ):
            name = name.replace(ours, theirs)
        name = re.sub(r"^norm\.", "layernorm.", name)
        name = re.sub(r"^head\.0", "classifier.layernorm", re.sub(r"^head\.1", "classifier.dense", name))
        name = name if name.startswith("classifier") else f"audio_spectrogram_transformer.{name}"
        if "attn.qkv" not in name:
            made[name] = tensor
            continue
        parts = ("attention.{}_proj", "qkv") if new else ("attention.attention.{}", ("query", "key", "value"))
        made |= {
            name.replace("attn.qkv", parts[0].format(part)): t
            for part, t in zip(parts[1], tensor.chunk(3), strict=True)
        }
    return made


def as_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the authors' files, with the head of the image network that is still in them."""
    made = {name if name.startswith("head.") else f"v.{name}": tensor for name, tensor in state.items()}
    made = {f"module.{name.replace('head.', 'mlp_head.')}": tensor for name, tensor in made.items()}
    return made | {"module.v.head.weight": torch.ones(1000, 64), "module.v.head_dist.bias": torch.ones(1000)}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "of published files": lambda state: as_hugging(state, new=False),
    "of transformers 5": lambda state: as_hugging(state, new=True),
    "of the authors": as_authors,
    "our own": dict,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_network(tmp_path: Path, layout: str) -> None:
    model = small()
    torch.save(LAYOUTS[layout](dict(model.state_dict())), tmp_path / "w.pth")
    made = load_bundle(convert_checkpoint(tmp_path / "w.pth", output=tmp_path / "out").folder).model
    assert (made.config.stride, made.config.frames, made.config.depth) == (16, 1024, 2)
    assert all(torch.equal(made.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert made.config.head_eps == (1e-5 if layout == "of the authors" else 1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_tensor_missing_misshapen_or_too_much_is_named(tmp_path: Path, layout: str) -> None:
    whole = LAYOUTS[layout](dict(small().state_dict()))

    def said(tensors: dict[str, Tensor]) -> str:
        save_weights(tmp_path / "w.safetensors", tensors)
        with pytest.raises(WeightsRefused) as error:
            convert_checkpoint(tmp_path / "w.safetensors", output=tmp_path / "out")
        return str(error.value)

    for name, tensor in whole.items():
        if "pos" in name or ".v.head" in name:  # the first is known by it; the second is not used
            continue
        assert "missing (" in said({key: t for key, t in whole.items() if key != name}), name
        wrong = torch.cat([tensor, tensor])
        # Of the head, which tells the number of labels, it may be the other half that is called wrong.
        shape = "(6, 64)" if re.search(r"head\.1|classifier\.dense", name) else str(tuple(wrong.shape))
        assert shape in said(whole | {name: wrong}), name
    assert "1 unexpected" in said(whole | {"extra": torch.ones(2)})


def test_a_table_of_no_published_network_wants_its_settings(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", as_hugging(dict(small(frames=700).state_dict()), new=False))
    with pytest.raises(WeightsRefused, match="a table of 346 positions is of no published AST; put its config.json"):
        convert_checkpoint(tmp_path / "w.safetensors", output=tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_stride": 16}, "time_stride=16; an Ast has 10"),
        ({"patch_size": 8}, "patch_size=8; an Ast has 16"),
        ({"hidden_act": "relu"}, "hidden_act=relu; an Ast has gelu"),
        ({"intermediate_size": 100}, "intermediate_size=100; an Ast has 256"),
        ({"num_mel_bins": 64}, "num_mel_bins=64, preprocessor_config.json 128; they must agree"),
        ({"max_length": "long"}, "max_length is 'long'; expected a whole number"),
        ({"max_length": 2**62}, "preprocessor_config.json 1024; they must agree"),
        ({"frequency_stride": 0}, "frequency_stride is 0; expected a whole number"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'; expected a number"),
        ({"num_attention_heads": 7}, "dim 64 is not a multiple of num_heads 7"),
        ({"id2label": {"a": "bell", "1": "drum", "2": "voice"}}, "id2label has keys that are no numbers"),
        ({"id2label": {"0": "bell", "1": "drum"}}, "the network has 3 outputs; got 2 labels"),
    ],
)
def test_settings_of_another_network_are_refused(
    published: tuple[Path, Any], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(published[0], tmp_path / "ast")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(WeightsRefused, match=re.escape(said)):
        convert_checkpoint(folder, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "a WhisperFeatureExtractor; expected ASTFeatureExtractor",
        ),
        ({"sampling_rate": "16 kHz"}, "not a front end"),
        ({"sampling_rate": 0}, "not a front end"),
        ({"sampling_rate": 1e300}, "not a front end"),
        ({"std": 0}, "std=0; expected more than 0"),
        ({"mean": None}, "mean is None; expected a number"),
        ({"num_mel_bins": 64}, "num_mel_bins=128, preprocessor_config.json 64; they must agree"),
    ],
)
def test_another_front_end_is_refused(
    published: tuple[Path, Any], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(published[0], tmp_path / "ast")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(WeightsRefused, match=re.escape(said)):
        convert_checkpoint(folder, output=tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "[1]", "\ud800".encode("utf-8", "surrogatepass")])
def test_damaged_settings_are_refused(published: tuple[Path, Any], tmp_path: Path, content: str | bytes) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        folder = shutil.copytree(published[0], tmp_path / name)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(WeightsRefused, match=rf"{name}: (not valid JSON|expected a JSON object)"):
            convert_checkpoint(folder, output=tmp_path / "out")


# --- the network ------------------------------------------------------------------------------------------------------


def test_a_short_input_is_filled_to_the_length_of_the_table() -> None:
    model, spec = small(frames=128), torch.randn(2, 128, 50, generator=torch.Generator().manual_seed(1))
    filled = torch.nn.functional.pad(spec, (0, 78), value=model.config.fill)
    with torch.inference_mode():
        assert torch.equal(model(spec), model(filled))
        assert not torch.allclose(model(spec), model(torch.nn.functional.pad(spec, (0, 78))))


def test_a_long_input_is_the_mean_of_windows_or_one_pass() -> None:
    spec = torch.randn(1, 128, 256, generator=torch.Generator().manual_seed(1))
    model = small(frames=128)
    with torch.inference_mode():
        halves = (model(spec[..., :128]) + model(spec[..., 128:])) / 2
        torch.testing.assert_close(model(spec), halves)
        whole = small(frames=128, interpolate_positions=True).forward_features(spec, hidden_states=True)
    assert whole.hidden_states[0].shape == (1, 2 + 8 * 16, 64)


def test_the_states_of_a_layer_leave_out_what_was_filled() -> None:
    model, spec = small(frames=128), torch.randn(2, 128, 50)
    with torch.inference_mode():
        states = model.layer_states(spec, 2)
    assert states.shape == (2, 2, model.layer_times(50), 64) and model.layer_times(50) == 3


def test_patchout_keeps_positions_with_their_patches() -> None:
    """In a network without blocks' influence: a kept patch is embedded as without patchout."""
    model, spec = small(frames=128, patchout_t=4, patchout_f=2).train(), torch.randn(1, 128, 128)
    tokens = model.embed(spec, generator=torch.Generator().manual_seed(0))
    every = model.eval().embed(spec, generator=None).detach()
    assert tokens.shape[1] == 2 + 6 * 4 and every.shape[1] == 2 + 8 * 8
    distances = torch.cdist(tokens[0].detach(), every[0])
    assert float(distances.min(1).values.max()) < 0.1 < float(torch.cdist(every[0], every[0]).median())


def test_other_labels_get_a_new_head(tmp_path: Path) -> None:
    torch.save(as_hugging(dict(small().state_dict()), new=False), tmp_path / "w.pth")
    model = create_model("ast_base_s16", num_classes=9, **SMALL)
    own = model.state_dict()["head.1.weight"].clone()
    load_checkpoint(model, tmp_path / "w.pth")
    assert torch.equal(model.state_dict()["head.1.weight"], own)
    state = dict(small().state_dict())
    assert Ast.options_of(state) == {"frames": 1024, "depth": 2}
    authors = {name.removeprefix("module."): tensor for name, tensor in as_authors(state).items()}
    assert Ast.options_of(authors) == {"frames": 1024, "depth": 2, "norm_eps": 1e-6, "head_eps": 1e-5}


def test_the_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="frames 10 are at least the patch size"):
        AstConfig(num_classes=1, frames=10)
    assert create_frontend("ast").config.mean == pytest.approx(-4.2677393)


def test_it_is_exported_with_the_same_scores(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ossicle[export]'")
    done = export_model(bundle, to="onnx", output=tmp_path / "ast.onnx")
    assert (tmp_path / "ast.onnx").exists() and done is not None
