"""Tiny networks of every family with random weights, saved as their library saves them, and inputs for each."""

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ossicle.encoders import Encoder, load_encoder

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'ossicle[hf]'")

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
WAVE = {
    **SIZE,
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
TEXT = {**SIZE, "vocab_size": 40, "max_position_embeddings": 24, "pad_token_id": 1}
IMAGE = {**SIZE, "image_size": 32, "patch_size": 8}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 40,
    "max_source_positions": 50,
    "max_target_positions": 20,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
}
# Name of the test's network: class of the library, options of its configuration. Some carry a head, as checkpoints do.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2ForCTC", {**WAVE, "vocab_size": 20}),
    "wav2vec2 stable": ("Wav2Vec2Model", WAVE | STABLE),
    "hubert": ("HubertModel", WAVE),
    "hubert stable": ("HubertModel", WAVE | STABLE),
    "wavlm": ("WavLMForSequenceClassification", WAVE),
    "wavlm stable": ("WavLMModel", WAVE | STABLE),
    "data2vec-audio": ("Data2VecAudioModel", {**WAVE, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}),
    "whisper": ("WhisperForConditionalGeneration", WHISPER),
    "bert": ("BertForSequenceClassification", TEXT),
    "roberta": ("RobertaForMaskedLM", TEXT),
    "xlm-roberta": ("XLMRobertaModel", TEXT),
    "mpnet": ("MPNetModel", TEXT),
    "distilbert": (
        "DistilBertModel",
        {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "vocab_size": 40, "max_position_embeddings": 24},
    ),
    "electra": ("ElectraForPreTraining", {**TEXT, "embedding_size": 16}),
    "llama": ("LlamaForCausalLM", TEXT),
    "mistral": ("MistralModel", {**TEXT, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2ForCausalLM", {**TEXT, "num_key_value_heads": 2}),
    "vit": ("ViTForImageClassification", IMAGE),
    "deit": ("DeiTModel", IMAGE),
    "beit": ("BeitForImageClassification", {**IMAGE, "use_relative_position_bias": True}),
    "dinov2": ("Dinov2Model", IMAGE),
}
OURS = ("passt", "datar")
EVERY = (*NETWORKS, "whisper cropped", *OURS)
WORDS = "a man plays the drum while two dogs bark at night and rain falls on an old tin roof".split()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `hugging` runs for every network of the library, one that asks for `every` for ours too."""
    for argument, names in (("hugging", tuple(NETWORKS)), ("every", EVERY), ("ours", OURS)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names)


def save_network(name: str, folder: Path) -> Path:
    """Saves the tiny network of that name, with a tokenizer if it reads text, and gives the folder."""
    kind, options = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cls = getattr(transformers, kind)
        model = cls(cls.config_class(**options))
        with torch.no_grad():
            for parameter in model.parameters():  # as initialized, blocks hardly change what passes through them
                parameter.add_(0.05 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    if "vocab_size" in options and name not in ("wav2vec2", "whisper"):
        save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, with a token at either end."""
    library = importlib.import_module("tokenizers")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Whitespace()
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)


def save_ours(family: str, folder: Path, **changes: Any) -> Path:
    """Saves a bundle of a tiny PaSST or DATAR with random weights."""
    from ossicle.bundle import save_bundle
    from ossicle.frontend import frontend_config
    from ossicle.models import create_model

    preset = {"passt": "passt_tiny_s16", "datar": "datar_tiny"}[family]
    options: dict[str, Any] = {
        "passt": {"depth": 3, "frames": 100},
        "datar": {
            "dims": (8, 16, 32, 64),
            "depths": (1, 1, 3, 1),
            "num_heads": (1, 2, 4, 8),
            "num_groups": (1, 1, 2, 4),
            "frames": 128,
        },
    }[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(preset, num_classes=2, **options)
    frontend = frontend_config(model.frontend)
    settings = {"task": "single-label", "window_seconds": 1.0, **changes}
    save_bundle(folder, model=model, model_name=preset, frontend=frontend, labels=("a", "b"), **settings)
    return folder


@pytest.fixture(scope="session", autouse=True)
def steady() -> Iterator[None]:
    """One thread, since these networks are too small to share; and a library that does not report."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a network, for reading only."""

    @functools.cache
    def folder(name: str) -> Path:
        path = tmp_path_factory.mktemp("encoders") / name.replace(" ", "_")
        return save_ours(name, path) if name in OURS else save_network(name, path)

    return folder


@pytest.fixture
def save() -> Callable[..., Path]:
    """Saves a network of that name at a path, to be damaged."""
    return lambda name, folder, **changes: (
        save_ours(name, folder, **changes) if name in OURS else save_network(name, folder)
    )


@pytest.fixture
def load(saved: Callable[[str], Path]) -> Callable[[str], Encoder]:
    """Loads the encoder of that name."""

    def encoder(name: str) -> Encoder:
        return load_encoder(saved(name.removesuffix(" cropped")), crop=name.endswith("cropped"))

    return encoder


@pytest.fixture
def inputs() -> Callable[[Encoder], list[Any]]:
    """Four inputs for an encoder, of different lengths where the modality has any, one of them longer than a piece."""

    def make(encoder: Encoder) -> list[Any]:
        rng = np.random.default_rng(0)
        if encoder.modality == "text":
            return [" ".join(WORDS[:count]) for count in (3, 9, 1, 5)]
        if encoder.modality == "image":
            return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 30, 3), (32, 32, 3), (64, 50, 3))]
        rate = encoder.rate or 0
        return [rng.normal(scale=0.1, size=round(s * rate)).astype(np.float32) for s in (0.4, 0.55, 0.4, 2.5)]

    return make


@pytest.fixture(name="transformers")
def library() -> Any:
    """The library itself."""
    return transformers
