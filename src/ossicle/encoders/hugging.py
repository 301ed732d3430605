"""Networks of Hugging Face's `transformers` as encoders: the families, and what each is given.

A hidden state is what leaves a block; the norm behind the last block (stable-norm wav2vec2, HuBERT and WavLM, Whisper,
the Llama family, ViT, DeiT, BEiT, DINOv2) is not applied, whatever `hidden_states[-1]` of the library holds.

- Speech from samples: a clip's mean is subtracted and its deviation divided out where the files of the front end say so
  (see `processor`) or none does. A time is a frame of the feature extractor, 20 ms for the published models.
- Text: a time is a token, those that the tokenizer adds at the ends among them, and so in the mean. A text of more
  tokens than the network has positions loses its end, or its beginning where the tokenizer's files say so.
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
from ossicle.encoders.hidden import Encoder, Hidden
from ossicle.encoders.pretrained import (
    count_blocks,
    import_transformers,
    load_network,
    read_config,
    reason,
    recorded,
    silent,
)
from ossicle.encoders.processor import FrontEnd, image_class, read_front_end, read_json, refuse_other_extractor, whole
from ossicle.encoders.sound import MAX_SECONDS, SoundEncoder
from ossicle.encoders.whisper import WhisperEncoder
from ossicle.errors import BundleRefused, ModelUnknown


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the loading of a family needs to know besides its configuration."""

    encoder: type[Encoder]
    pooler: bool = False  # the network has one unless it is left out
    processor: str = ""  # of images: the class, by its name before "Pil" was appended
    first_position: bool = False  # of text: positions count from behind the padding token's number


# Of a configuration what no hidden state depends on: names, versions, labels, the number format on disk, generation.
WITHOUT_EFFECT = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
        *("dtype", "torch_dtype", "id2label", "label2id", "problem_type"),
        *("use_cache", "output_attentions", "output_hidden_states", "return_dict"),
        *("bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_decoder_ids", "suppress_tokens"),
    }
)


def hugging_encoder(folder: Path, *, model_type: str, name: str, crop: bool) -> Encoder:
    """The encoder in a folder that `transformers` wrote.

    Raises:
        ModelUnknown: a family that is not read here
        ExtraMissing: `transformers` is absent
        BundleRefused: a configuration, a tokenizer or an image processor that cannot be read
        WeightsRefused: see `load_network`
    """
    family = FAMILIES.get(model_type)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ModelUnknown(f"{name}: encoders of the family {model_type!r} are not read here; there are {known}")
    library = import_transformers()
    config = read_config(folder)
    settings: dict[str, Any] = {
        "family": model_type,
        "library": f"transformers {library.__version__.split('.')[0]}",
        "network": network_settings(folder),
    }
    if family.encoder is WhisperEncoder:
        return WhisperEncoder(folder, config=config, crop=crop, name=name, settings=settings)
    if family.encoder is TextEncoder and not family.first_position:
        config.pad_token_id = padding_of(config)
    options = {"add_pooling_layer": False} if family.pooler else {}
    network = load_network(library.AutoModel, folder, config=config, **options)
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
    """What a configuration says of its network: heads, activations, norms; all that weights of one shape leave open.

    As the file has it: what the library adds to it differs from version to version.

    Raises: BundleRefused for values that are no JSON, such as NaN.
    """
    settings = {key: value for key, value in read_json(folder / CONFIG).items() if key not in WITHOUT_EFFECT}
    try:
        return json.loads(json.dumps(settings, allow_nan=False))
    except ValueError as error:
        raise BundleRefused(f"{folder / CONFIG}: not what a configuration holds ({error}).") from error


class WaveEncoder(SoundEncoder):
    """wav2vec2 and its kin, which take samples."""

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        front = read_front_end(folder, modality="sound")
        refuse_other_extractor(front, wanted=("Wav2Vec2FeatureExtractor",))
        rate = read_rate(front, config=folder / CONFIG)
        normalize = front.switch("do_normalize", True)
        silence = front.number("padding_value", 0.0)
        # Only where it is not the usual one, so that the fingerprints of all others stay.
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
        self.min_samples = 1  # what one frame of the last convolution sees
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
    """The rate that a network of samples takes, in hertz, from its front end's file or its own.

    Raises: BundleRefused where the two name different ones.
    """
    own = read_json(config).get("sampling_rate")
    if own is None:
        return front.count("sampling_rate", 16_000)
    own = whole(config, "sampling_rate", own)
    rate = whole(front.file, "sampling_rate", (front.settings or {}).get("sampling_rate", own))
    if rate != own:
        raise BundleRefused(f"{front.file}: sampling_rate is {rate}, and {own} in {config.name}; they must agree.")
    return rate


class TextEncoder(Encoder):
    """BERT, Llama and their kin."""

    modality = "text"

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        config = network.config
        tokenizer, files = read_tokenizer(folder, most=config.vocab_size)
        padding = padding_of(config) or 0
        positions = config.max_position_embeddings - (padding + 1 if family.first_position else 0)
        sentences = folder / "sentence_bert_config.json"
        stated = read_json(sentences)
        limit = whole(sentences, "max_seq_length", stated.get("max_seq_length") or positions)
        max_tokens = min(positions, tokenizer.model_max_length, limit)
        digest = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files))
        # Only where they are not the usual ones, so that the fingerprints of all others stay.
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
            raise ValueError("a text is a str, and one or more are needed")
        given = self.tokenizer(self.cased(inputs), truncation=True, max_length=self.max_tokens)["input_ids"]
        # Padding goes behind whatever side the tokenizer prefers; a text without any token is one of padding.
        tokens = [torch.tensor(row or [self.padding]) for row in given]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.padding),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        }

    def shortened(self, inputs: Sequence[Any]) -> str | None:
        with silent():  # the library has a line of its own about the first one
            longer = sum(len(self.tokenizer(text)["input_ids"]) > self.max_tokens for text in self.cased(inputs))
        if not longer:
            return None
        lost = "beginning" if self.tokenizer.truncation_side == "left" else "end"
        return f"{longer} of {len(inputs)} texts are longer than {self.max_tokens} tokens and lose their {lost}"

    def cased(self, inputs: Sequence[str]) -> list[str]:
        """The texts as the tokenizer takes them: in lower case where `sentence_bert_config.json` says so."""
        return [text.lower() if self.lower_case else text for text in inputs]

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        with recorded(self.network, layers) as states:
            self.network(**batch)
        return Hidden(features=torch.stack(states, dim=1), mask=batch["attention_mask"].bool())


def padding_of(config: Any) -> int | None:
    """The number of the padding token; None also where there is no such token, as -1 in old conversions of Llama."""
    number = config.pad_token_id
    return number if isinstance(number, int) and 0 <= number < config.vocab_size else None


def read_tokenizer(folder: Path, *, most: int) -> tuple[Any, list[Path]]:
    """The tokenizer of a folder, and the files that it is made of.

    Args:
        most: how many tokens the network knows

    Raises: BundleRefused for a folder without a vocabulary, of which the library makes a tokenizer without words, and
        for one of another network.
    """
    words = {file for pattern in ("tokenizer.json", "vocab*", "*.model") for file in folder.glob(pattern)}
    if not words:
        raise BundleRefused(f"{folder}: no tokenizer: tokenizer.json, a vocabulary or a .model file is needed.")
    try:
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many formats: no common root
        raise BundleRefused(f"{folder}: no tokenizer can be read from it ({reason(error)})") from error
    if len(tokenizer) > most:
        raise BundleRefused(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the network knows {most}.")
    return tokenizer, sorted(words | {*folder.glob("*token*.json"), *folder.glob("merges.txt")})


class ImageEncoder(Encoder):
    """ViT and its kin."""

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
        """Raises BundleRefused where the processor makes images of a size that the network does not take."""
        black = np.zeros((64, 64, 3), np.uint8)
        try:
            made = tuple(self.prepare([black])["pixel_values"].shape[-2:])
        except Exception as error:  # settings that do not go together, in many ways
            raise BundleRefused(f"{front.file}: {reason(error)}") from error
        side = config.image_size
        if made != (side, side) and config.model_type != "dinov2":  # whose positions are interpolated
            raise BundleRefused(
                f"{front.file}: it makes images of {made[0]} x {made[1]} pixels; the network takes {side} x {side}."
            )

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        for image in inputs:
            if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                raise ValueError(f"an image is a uint8 array (row, column, 3), not {_described(image)}")
        if not inputs:
            raise ValueError("there is no image to prepare; one or more are needed")
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
