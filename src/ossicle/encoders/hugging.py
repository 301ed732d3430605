"""Networks of Hugging Face's `transformers` as encoders: the supported families and their inputs.

A hidden state is the output of a block; the norm after the last block (stable-norm wav2vec2, HuBERT and WavLM, Whisper,
the Llama family, ViT, DeiT, BEiT, DINOv2) is not applied, unlike in some `hidden_states[-1]` of the library.

- Speech from samples: a clip is normalized to zero mean and unit variance if the files of the front end say so (see
  `processor`), or by default. A time is a frame of the feature extractor, 20 ms for the published models.
- Text: a time is a token, including the special tokens, also in the mean. A text with more tokens than the network has
  positions is truncated, on the side given in the tokenizer's files.
- Images: a time is a token, the class token (with DeiT the distillation token too) first, then the patches row by row.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ossicle.bundle import CONFIG
from ossicle.devices import DTYPES
from ossicle.encoders.hidden import Encoder, EncoderPrecision, Hidden
from ossicle.encoders.pretrained import (
    count_blocks,
    import_transformers,
    load_network,
    read_config,
    recorded,
    silent,
)
from ossicle.encoders.processor import FrontEnd, image_class, read_front_end, refuse_other_extractor, whole
from ossicle.encoders.sound import MAX_SECONDS, SoundEncoder
from ossicle.encoders.whisper import WhisperEncoder
from ossicle.errors import BundleRefused, ModelUnknown, first_line
from ossicle.files import read_json


@dataclass(frozen=True, kw_only=True)
class Family:
    """Properties of a family needed for loading, besides its configuration."""

    encoder: type[Encoder]
    pooler: bool = False  # the network has one unless disabled
    processor: str = ""  # of images: the class, by its name before "Pil" was appended
    first_position: bool = False  # of text: positions start after the padding token's id


# Keys of a configuration that do not affect hidden states: names, versions, labels, data type on disk, generation.
WITHOUT_EFFECT = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
        *("dtype", "torch_dtype", "id2label", "label2id", "problem_type"),
        *("use_cache", "output_attentions", "output_hidden_states", "return_dict"),
        *("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_decoder_ids", "suppress_tokens"),
    }
)


def hugging_encoder(
    folder: Path, *, model_type: str, name: str, crop: bool, precision: EncoderPrecision = "float32"
) -> Encoder:
    """Loads the encoder in a folder of `transformers`.

    Raises:
        ModelUnknown: an unsupported family
        ExtraMissing: `transformers` is absent
        BundleRefused: a configuration, a tokenizer or an image processor that cannot be read
        WeightsRefused: see `load_network`
    """
    family = FAMILIES.get(model_type)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ModelUnknown(f"{name}: encoder family {model_type!r} is not available; available: {known}")
    library = import_transformers()
    config = read_config(folder)
    settings: dict[str, Any] = {
        "family": model_type,
        "library": f"transformers {library.__version__.split('.')[0]}",
        "network": network_settings(folder),
        # Only if not the default, so that the fingerprints of all others do not change.
        **({"precision": precision} if precision != "float32" else {}),
    }
    if family.encoder is WhisperEncoder:
        return WhisperEncoder(folder, config=config, crop=crop, name=name, settings=settings)
    if family.encoder is TextEncoder and not family.first_position:
        config.pad_token_id = padding_of(config)
    options = {"add_pooling_layer": False} if family.pooler else {}
    network = load_network(library.AutoModel, folder, config=config, dtype=DTYPES[precision], **options)
    make: Callable[..., Encoder] = family.encoder
    return make(
        network,
        folder=folder,
        family=family,
        name=name,
        num_layers=count_blocks(network),
        dim=config.hidden_size,
        settings=settings,
    )


def network_settings(folder: Path) -> dict[str, Any]:
    """The settings of a network that do not follow from the shapes of its weights: heads, activations, norms.

    They are read from the file, as the defaults of the library differ between versions.

    Raises: BundleRefused for values that are not valid JSON, such as NaN.
    """
    settings = {
        key: value
        for key, value in read_json(folder / CONFIG, refused=BundleRefused).items()
        if key not in WITHOUT_EFFECT
    }
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except ValueError as error:
        raise BundleRefused(f"{folder / CONFIG}: not a valid configuration ({error}).") from error


class WaveEncoder(SoundEncoder):
    """wav2vec2 and related networks, which take samples."""

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        front = read_front_end(folder, modality="sound")
        refuse_other_extractor(front, wanted=("Wav2Vec2FeatureExtractor",))
        rate = read_rate(front, config=folder / CONFIG)
        normalize = front.switch("do_normalize", True)
        silence = front.number("padding_value", 0.0)
        # Only if not the default, so that the fingerprints of all others do not change.
        padding = {"padding": silence} if silence else {}
        super().__init__(
            network,
            rate=rate,
            max_samples=MAX_SECONDS * rate,
            settings={**settings, "normalize": normalize, "states": "frames", **padding},
            **about,
        )
        self.normalize = normalize
        self.silence = silence
        self.assumed = front.sentences()
        self.convolutions = list(zip(network.config.conv_kernel, network.config.conv_stride, strict=True))
        self.min_samples = 1  # receptive field of a frame of the last convolution
        for kernel, stride in reversed(self.convolutions):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "frame"]:
        if self.normalize:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + np.float32(1e-7))
        short = max(0, self.min_samples - len(wave))
        return torch.from_numpy(np.pad(wave, (0, short), constant_values=self.silence))

    def places(self, samples: int) -> int:
        samples = max(samples, self.min_samples)
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return samples

    def states(self, rows: Float[Tensor, "row sample"], layers: int) -> Float[Tensor, "row layer time dim"]:
        with recorded(self.network, layers) as states:
            self.network(rows)
        return torch.stack(states, dim=1)


def read_rate(front: FrontEnd, *, config: Path) -> int:
    """The sampling rate of a network in hertz, from its front end's file or its own.

    Raises: BundleRefused if the two differ.
    """
    own = read_json(config, refused=BundleRefused).get("sampling_rate")
    if own is None:
        return front.count("sampling_rate", 16_000)
    own = whole(config, "sampling_rate", own)
    rate = whole(front.file, "sampling_rate", (front.settings or {}).get("sampling_rate", own))
    if rate != own:
        raise BundleRefused(f"{front.file}: sampling_rate is {rate}, and {own} in {config.name}; they must agree.")
    return rate


class TextEncoder(Encoder):
    """BERT, Llama and related networks."""

    modality = "text"

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        config = network.config
        tokenizer, files = read_tokenizer(folder, most=config.vocab_size)
        padding = padding_of(config) or 0
        positions = config.max_position_embeddings - (padding + 1 if family.first_position else 0)
        sentences = folder / "sentence_bert_config.json"
        stated = read_json(sentences, refused=BundleRefused)
        limit = whole(sentences, "max_seq_length", stated.get("max_seq_length") or positions)
        max_tokens = min(positions, tokenizer.model_max_length, limit)
        digest = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files))
        # Only if not the defaults, so that the fingerprints of all others do not change.
        unusual: dict[str, Any] = {"lower_case": True} if stated.get("do_lower_case") else {}
        unusual |= {"truncation": "left"} if tokenizer.truncation_side == "left" else {}
        super().__init__(
            network,
            settings={
                **settings,
                "tokenizer": digest.hexdigest()[:16],
                "max_tokens": max_tokens,
                "states": "all tokens",
                **unusual,
            },
            **about,
        )
        self.lower_case = "lower_case" in unusual
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.padding = padding

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        if not inputs or not all(isinstance(text, str) for text in inputs):
            raise ValueError("expected at least one text of type str")
        given = self.tokenizer(self.cased(inputs), truncation=True, max_length=self.max_tokens)["input_ids"]
        # Padding goes to the right, whatever the tokenizer's default; a text without tokens is one padding token.
        tokens = [torch.tensor(row or [self.padding]) for row in given]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.padding),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        }

    def shortened(self, inputs: Sequence[Any]) -> str | None:
        with silent():  # the library warns about the first one only
            longer = sum(len(self.tokenizer(text)["input_ids"]) > self.max_tokens for text in self.cased(inputs))
        if not longer:
            return None
        lost = "beginning" if self.tokenizer.truncation_side == "left" else "end"
        return f"{longer} of {len(inputs)} texts are longer than {self.max_tokens} tokens and lose their {lost}"

    def cased(self, inputs: Sequence[str]) -> list[str]:
        """The texts for the tokenizer, in lower case if set in `sentence_bert_config.json`."""
        return [text.lower() if self.lower_case else text for text in inputs]

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        with recorded(self.network, layers) as states:
            self.network(**batch)
        return Hidden(features=torch.stack(states, dim=1), mask=batch["attention_mask"].bool())


def padding_of(config: Any) -> int | None:
    """The id of the padding token; None if there is none, as -1 in old conversions of Llama."""
    number = config.pad_token_id
    return number if isinstance(number, int) and 0 <= number < config.vocab_size else None


def read_tokenizer(folder: Path, *, most: int) -> tuple[Any, list[Path]]:
    """The tokenizer of a folder, and its files.

    Args:
        most: number of tokens of the network

    Raises: BundleRefused for a folder without a vocabulary, for which the library would make an empty tokenizer, and
        for a tokenizer of another network.
    """
    words = {file for pattern in ("tokenizer.json", "vocab*", "*.model") for file in folder.glob(pattern)}
    if not words:
        raise BundleRefused(f"{folder}: no tokenizer found; expected tokenizer.json, a vocabulary or a .model file.")
    try:
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # errors of many formats: no common base class
        raise BundleRefused(f"{folder}: the tokenizer cannot be read ({first_line(error)})") from error
    if len(tokenizer) > most:
        raise BundleRefused(f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the network only {most}.")
    return tokenizer, sorted(words | {*folder.glob("*token*.json"), *folder.glob("merges.txt")})


class ImageEncoder(Encoder):
    """ViT and related networks."""

    modality = "image"

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        front = read_front_end(folder, modality="image")
        kind = image_class(front, default=family.processor)
        side = network.config.image_size
        size = {"height": side, "width": side}
        processor = front.make(kind, size=size, do_center_crop=False)
        processing = {key: value for key, value in processor.to_dict().items() if key != "image_processor_type"}
        processing = json.loads(json.dumps(processing, default=str))
        super().__init__(network, settings={**settings, "processing": processing, "states": "all tokens"}, **about)
        self.processor = processor
        for key in ("size", "resample", "image_mean", "image_std"):
            front.get(key, processing.get(key))
        self.assumed = front.sentences()
        self.refuse_other_size(front, config=network.config)

    def refuse_other_size(self, front: FrontEnd, *, config: Any) -> None:
        """Raises BundleRefused if the processor's image size is not the network's."""
        black = np.zeros((64, 64, 3), np.uint8)
        try:
            made = tuple(self.prepare([black])["pixel_values"].shape[-2:])
        except Exception as error:  # inconsistent settings raise various errors
            raise BundleRefused(f"{front.file}: {first_line(error)}") from error
        side = config.image_size
        if made != (side, side) and config.model_type != "dinov2":  # DINOv2 interpolates positions
            raise BundleRefused(
                f"{front.file}: images have {made[0]} x {made[1]} pixels; the network takes {side} x {side}."
            )

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        for image in inputs:
            if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                raise ValueError(f"expected an image as uint8 array (row, column, 3), got {_described(image)}")
        if not inputs:
            raise ValueError("expected at least one image")
        return dict(self.processor(list(inputs), return_tensors="pt", input_data_format="channels_last"))

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        with recorded(self.network, layers) as states:
            self.network(**batch)
        features = torch.stack(states, dim=1)
        mask = torch.ones(features.shape[0], features.shape[2], dtype=torch.bool, device=features.device)
        return Hidden(features=features, mask=mask)


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


FAMILIES = {
    "wav2vec2": Family(encoder=WaveEncoder),
    "hubert": Family(encoder=WaveEncoder),
    "wavlm": Family(encoder=WaveEncoder),
    "data2vec-audio": Family(encoder=WaveEncoder),
    "whisper": Family(encoder=WhisperEncoder),
    "bert": Family(encoder=TextEncoder, pooler=True),
    "roberta": Family(encoder=TextEncoder, pooler=True, first_position=True),
    "xlm-roberta": Family(encoder=TextEncoder, pooler=True, first_position=True),
    "mpnet": Family(encoder=TextEncoder, pooler=True, first_position=True),
    "distilbert": Family(encoder=TextEncoder),
    "electra": Family(encoder=TextEncoder),
    "llama": Family(encoder=TextEncoder),
    "mistral": Family(encoder=TextEncoder),
    "qwen2": Family(encoder=TextEncoder),
    "vit": Family(encoder=ImageEncoder, pooler=True, processor="ViTImageProcessor"),
    "deit": Family(encoder=ImageEncoder, pooler=True, processor="DeiTImageProcessor"),
    "beit": Family(encoder=ImageEncoder, pooler=True, processor="BeitImageProcessor"),
    "dinov2": Family(encoder=ImageEncoder, processor="BitImageProcessor"),
}
