"""Settings of front ends: under every file name that the library writes, and what is said where none has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ossicle.encoders import load_encoder
from ossicle.errors import BundleRefused

Save = Callable[..., Path]
Load = Callable[[str], Any]
Inputs = Callable[[Any], list[Any]]
WAVE = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000, "do_normalize": False}
IMAGE = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 0,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def write(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "name, content",
    [
        ("preprocessor_config.json", WAVE),
        ("preprocessor_config.json", {"feature_extractor": WAVE}),
        ("processor_config.json", {"processor_class": "Wav2Vec2Processor", "feature_extractor": WAVE}),
        ("processor_config.json", {"audio_processor": WAVE, "image_processor": IMAGE}),
        ("processor_config.json", WAVE),
    ],
)
def test_the_front_end_of_sound_is_read_from_every_file_that_has_it(
    name: str, content: Any, save: Save, tmp_path: Path
) -> None:
    encoder: Any = load_encoder(write(save("wavlm", tmp_path), name, content))
    assert (encoder.rate, encoder.normalize, encoder.assumed) == (8000, False, ())


def test_a_whole_processor_is_read_as_the_library_reads_it(save: Save, tmp_path: Path, transformers: Any) -> None:
    folder = save("wavlm", tmp_path)
    (tmp_path / "words").mkdir()
    write(tmp_path / "words", "vocab.json", {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3})
    transformers.Wav2Vec2Processor(
        feature_extractor=transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=False),
        tokenizer=transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "words" / "vocab.json")),
    ).save_pretrained(folder)
    encoder: Any = load_encoder(folder)
    theirs = transformers.AutoFeatureExtractor.from_pretrained(folder)
    assert (encoder.rate, encoder.normalize) == (theirs.sampling_rate, theirs.do_normalize) == (8000, False)
    wave = np.random.default_rng(0).normal(scale=0.01, size=8000).astype(np.float32)
    prepared = theirs(wave, sampling_rate=8000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(encoder.prepare([wave])["rows"], prepared)


def test_the_section_of_a_processor_comes_before_a_lone_file_as_in_the_library(save: Save, tmp_path: Path) -> None:
    folder = write(save("hubert", tmp_path), "preprocessor_config.json", {**WAVE, "sampling_rate": 16_000})
    write(folder, "processor_config.json", {"processor_class": "Wav2Vec2Processor"})  # as older versions wrote it
    assert load_encoder(folder).rate == 16_000
    write(folder, "processor_config.json", {"feature_extractor": WAVE})
    assert load_encoder(folder).rate == 8000


def test_which_file_has_the_settings_does_not_change_the_fingerprint(save: Save, tmp_path: Path) -> None:
    settings = {**WAVE, "sampling_rate": 16_000, "do_normalize": True}
    folder = save("hubert", tmp_path)
    assumed = load_encoder(folder).fingerprint
    lone = load_encoder(write(folder, "preprocessor_config.json", settings)).fingerprint
    (folder / "preprocessor_config.json").unlink()
    section = load_encoder(write(folder, "processor_config.json", {"feature_extractor": settings})).fingerprint
    assert assumed == lone == section


@pytest.mark.parametrize(
    "name, parts",
    [
        ("wavlm", ["sampling_rate=16000", "do_normalize=true", "no preprocessor_config.json or processor_config.json"]),
        ("whisper", ["sampling_rate=16000", "hop_length=160", "n_fft=400"]),
        ("vit", ['size={"height": 32, "width": 32}', "image_mean=[0.5, 0.5, 0.5]"]),
    ],
)
def test_what_no_file_says_is_said_to_be_assumed(name: str, parts: list[str], save: Save, tmp_path: Path) -> None:
    (sentence,) = load_encoder(save(name, tmp_path)).assumed
    assert all(part in sentence for part in parts)


def test_a_file_that_leaves_one_setting_out_has_that_one_assumed(save: Save, tmp_path: Path) -> None:
    folder = write(save("wavlm", tmp_path), "preprocessor_config.json", {"sampling_rate": 8000})
    (sentence,) = load_encoder(folder).assumed
    assert "do_normalize=true" in sentence and "sampling_rate" not in sentence


@pytest.mark.parametrize(
    "name, file, content, words",
    [
        ("wavlm", "processor_config.json", "{", "processor_config.json: not valid JSON"),
        ("vit", "processor_config.json", "[]", "processor_config.json: expected a JSON object"),
        ("wavlm", "processor_config.json", {"feature_extractor": 3}, "feature_extractor is 3; a JSON object"),
        ("wavlm", "processor_config.json", {"feature_extractor": {"sampling_rate": -1}}, "sampling_rate is -1"),
        ("wavlm", "preprocessor_config.json", {"do_normalize": "no"}, "do_normalize is 'no'; true or false"),
        ("wavlm", "preprocessor_config.json", {"padding_value": "x"}, "padding_value is 'x'; a finite number"),
        (
            "wavlm",
            "preprocessor_config.json",
            {"feature_extractor_type": "ASTFeatureExtractor"},
            "AST.*expected Wav2",
        ),
        ("whisper", "processor_config.json", {"feature_extractor": {"hop_length": 0}}, "hop_length is 0"),
        ("whisper", "preprocessor_config.json", {"feature_size": 128}, "feature_size is 128; the network takes 80"),
        ("whisper", "preprocessor_config.json", {"chunk_length": 30}, "1500 positions; the network has 50"),
        ("vit", "preprocessor_config.json", {"size": {"height": 8, "width": 8}}, "8 x 8 pixels; the network takes 32"),
        (
            "vit",
            "preprocessor_config.json",
            {"image_processor_type": "Trainer"},
            "not an image processor of transformers",
        ),
        ("vit", "processor_config.json", {"video_processor": {}}, "only a processor of video"),
        ("vit", "video_preprocessor_config.json", {"size": 8}, "only a processor of video"),
    ],
)
def test_a_front_end_that_does_not_fit_is_refused(
    name: str, file: str, content: Any, words: str, save: Save, tmp_path: Path
) -> None:
    folder = save(name, tmp_path)
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BundleRefused, match=words):
        load_encoder(folder)


def test_a_rate_in_the_network_s_own_file_is_read_and_must_agree(save: Save, tmp_path: Path) -> None:
    folder = save("wavlm", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", {**config, "sampling_rate": 8000})
    encoder = load_encoder(folder)
    assert encoder.rate == 8000 and "sampling_rate" not in encoder.assumed[0]
    write(folder, "preprocessor_config.json", {"sampling_rate": 16_000})
    with pytest.raises(BundleRefused, match=r"sampling_rate is 16000, and 8000 in config\.json"):
        load_encoder(folder)


@torch.inference_mode()
def test_the_transform_of_whisper_is_that_of_its_section(save: Save, tmp_path: Path, transformers: Any) -> None:
    settings = {"feature_size": 80, "sampling_rate": 16_000, "hop_length": 320, "n_fft": 512, "chunk_length": 2}
    folder = write(
        save("whisper", tmp_path), "processor_config.json", {"feature_extractor": {**settings, "dither": 0.1}}
    )
    encoder: Any = load_encoder(folder)
    wave = np.random.default_rng(0).normal(scale=0.1, size=4000).astype(np.float32)
    theirs = transformers.WhisperFeatureExtractor(**settings)(wave, sampling_rate=16_000, return_tensors="pt")
    assert torch.equal(encoder.prepare([wave])["rows"], theirs["input_features"])
    assert "dither=0 (the file has 0.1)" in encoder.assumed[0]


@pytest.mark.parametrize(
    "content, options",
    [
        ({"image_processor": IMAGE, "feature_extractor": WAVE}, {}),
        ({"image_processor": {**IMAGE, "image_processor_type": "ViTImageProcessorFast"}}, {}),
        ({"image_processor": {**IMAGE, "do_normalize": False, "do_rescale": False}}, {}),
        ({"image_processor": {**IMAGE, "do_resize": False}}, {"sides": (32, 32)}),
    ],
)
def test_images_are_prepared_by_the_section_of_a_processor(
    content: Any, options: Any, save: Save, tmp_path: Path, transformers: Any
) -> None:
    if options:  # nothing is resized: then the black image of the check has another size
        with pytest.raises(BundleRefused, match="64 x 64 pixels"):
            load_encoder(write(save("vit", tmp_path), "processor_config.json", content))
        return
    encoder = load_encoder(write(save("vit", tmp_path), "processor_config.json", content))
    images = [np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)]
    theirs = transformers.ViTImageProcessorPil(**content["image_processor"])(images, return_tensors="pt")
    assert torch.equal(encoder.prepare(images)["pixel_values"], theirs["pixel_values"]) and encoder.assumed == ()


@pytest.mark.parametrize(
    "named", [{"image_processor_type": "DeiTImageProcessor"}, {"feature_extractor_type": "DeiTFeatureExtractor"}]
)
def test_the_class_of_images_is_the_one_that_the_file_names(
    named: Any, save: Save, tmp_path: Path, transformers: Any
) -> None:
    settings = {**{k: v for k, v in IMAGE.items() if k != "image_processor_type"}, "size": 40, "crop_size": 32}
    folder = write(save("vit", tmp_path), "preprocessor_config.json", {**settings, **named})
    images = [np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)]
    theirs = transformers.DeiTImageProcessorPil(**settings)(images, return_tensors="pt")
    assert torch.equal(load_encoder(folder).prepare(images)["pixel_values"], theirs["pixel_values"])


def test_what_sentence_transformers_says_of_letters_is_obeyed(save: Save, tmp_path: Path, load: Load) -> None:
    folder = write(save("bert", tmp_path), "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    encoder: Any = load_encoder(folder)
    small = encoder.prepare(["two dogs bark"])["input_ids"]
    assert encoder.max_tokens == 12 and torch.equal(encoder.prepare(["Two DOGS bark"])["input_ids"], small)
    assert encoder.fingerprint != load("bert").fingerprint


def test_a_tokenizer_that_drops_the_beginning_is_obeyed(save: Save, tmp_path: Path) -> None:
    folder = save("bert", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, "tokenizer_config.json", {**settings, "truncation_side": "left", "model_max_length": 5})
    encoder: Any = load_encoder(folder)
    words = encoder.tokenizer.convert_ids_to_tokens(encoder.prepare(["a man plays the drum"])["input_ids"][0])
    assert words == ["<s>", "plays", "the", "drum", "</s>"]
    assert encoder.shortened(["a man plays the drum"]).endswith("lose their beginning")
