"""Networks of Hugging Face's `transformers` as encoders: the families, and what each is given.

A hidden state is what leaves a block; the norm behind the last block (stable-norm wav2vec2, HuBERT and WavLM, Whisper,
the Llama family, ViT, DeiT, BEiT, DINOv2) is not applied, whatever `hidden_states[-1]` of the library holds.

- Speech from samples: a clip's mean is subtracted and its deviation divided out where `preprocessor_config.json` says
  so or is absent. A time is a frame of the feature extractor, 20 ms for the published models.
- Text: a time is a token, those that the tokenizer adds at the ends among them, and so in the mean. A text of more
  tokens than the network has positions loses its end.
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
from ossicle.encoders.hidden import Encoder, Hidden, Modality
from ossicle.encoders.pretrained import (
    PREPROCESSOR,
    count_blocks,
    import_transformers,
    load_network,
    read_config,
    read_preprocessor,
    reason,
    recorded,
    silent,
)
from ossicle.encoders.sound import MAX_SECONDS, SoundEncoder
from ossicle.encoders.whisper import WhisperEncoder
from ossicle.errors import BundleRefused, ModelUnknown


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the loading of a family needs to know besides its configuration."""

    modality: Modality
    pooler: bool = False  # the network has one unless told otherwise
    processor: str = ""  # of images: the class, by its name before "Pil" was appended
    first_position: bool = False  # of text: positions count from behind the padding token's number


FAMILIES = {
    "wav2vec2": Family(modality="sound"),
    "hubert": Family(modality="sound"),
    "wavlm": Family(modality="sound"),
    "data2vec-audio": Family(modality="sound"),
    "whisper": Family(modality="sound"),
    "bert": Family(modality="text", pooler=True),
    "roberta": Family(modality="text", pooler=True, first_position=True),
    "xlm-roberta": Family(modality="text", pooler=True, first_position=True),
    "mpnet": Family(modality="text", pooler=True, first_position=True),
    "distilbert": Family(modality="text"),
    "electra": Family(modality="text"),
    "llama": Family(modality="text"),
    "mistral": Family(modality="text"),
    "qwen2": Family(modality="text"),
    "vit": Family(modality="image", pooler=True, processor="ViTImageProcessor"),
    "deit": Family(modality="image", pooler=True, processor="DeiTImageProcessor"),
    "beit": Family(modality="image", pooler=True, processor="BeitImageProcessor"),
    "dinov2": Family(modality="image", processor="BitImageProcessor"),
}


# Of a configuration what no hidden state depends on: names, versions, labels, the number format on disk, generation.
UNHEARD = frozenset(
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
        "network": told_of(folder),
    }
    if model_type == "whisper":
        return WhisperEncoder(folder, config=config, crop=crop, name=name, settings=settings)
    if family.modality == "text" and not family.first_position:
        config.pad_token_id = padding_of(config)
    options = {"add_pooling_layer": False} if family.pooler else {}
    network = load_network(library.AutoModel, folder, config=config, **options)
    make: Callable[..., Encoder] = {"sound": WaveEncoder, "text": TextEncoder, "image": ImageEncoder}[family.modality]
    return make(
        network,
        folder=folder,
        family=family,
        name=name,
        num_layers=count_blocks(network),
        dim=config.hidden_size,
        settings=settings,
    )


def told_of(folder: Path) -> dict[str, Any]:
    """What a configuration says of its network: heads, activations, norms; all that weights of one shape leave open.

    As the file has it: what the library adds to it differs from version to version.

    Raises: BundleRefused for values that are no JSON, such as NaN.
    """
    told = {key: value for key, value in read_json(folder / CONFIG).items() if key not in UNHEARD}
    try:
        return json.loads(json.dumps(told, allow_nan=False))
    except ValueError as error:
        raise BundleRefused(f"{folder / CONFIG}: not what a configuration holds ({error}).") from error


class WaveEncoder(SoundEncoder):
    """wav2vec2 and its kin, which hear samples."""

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        rate = read_count(folder / PREPROCESSOR, "sampling_rate", default=16_000)
        normalise = bool(read_json(folder / PREPROCESSOR).get("do_normalize", True))
        super().__init__(
            network,
            rate=rate,
            max_samples=MAX_SECONDS * rate,
            settings={**settings, "normalise": normalise, "states": "frames"},
            **about,
        )
        self.normalise = normalise
        self.convolutions = list(zip(network.config.conv_kernel, network.config.conv_stride, strict=True))
        self.min_samples = 1  # what one frame of the last convolution sees
        for kernel, stride in reversed(self.convolutions):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def front(self, wave: Float32[np.ndarray, "time"]) -> Float[Tensor, "frame"]:
        if self.normalise:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + np.float32(1e-7))
        return torch.from_numpy(np.pad(wave, (0, max(0, self.min_samples - len(wave)))))

    def places(self, samples: int) -> int:
        samples = max(samples, self.min_samples)
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return samples

    def states(self, rows: Float[Tensor, "row sample"], layers: int) -> Float[Tensor, "row layer time dim"]:
        with recorded(self.network, layers) as states:
            self.network(rows)
        return torch.stack(states, dim=1)


class TextEncoder(Encoder):
    """BERT, Llama and their kin."""

    modality = "text"

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        config = network.config
        tokenizer, files = read_tokenizer(folder, most=config.vocab_size)
        padding = padding_of(config) or 0
        positions = config.max_position_embeddings - (padding + 1 if family.first_position else 0)
        limit = read_count(folder / "sentence_bert_config.json", "max_seq_length", default=positions)
        max_tokens = min(positions, tokenizer.model_max_length, limit)
        digest = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files))
        super().__init__(
            network,
            settings={
                **settings,
                "tokenizer": digest.hexdigest()[:16],
                "max_tokens": max_tokens,
                "states": "all tokens",
            },
            **about,
        )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.padding = padding

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        if not inputs or not all(isinstance(text, str) for text in inputs):
            raise ValueError("a text is a str, and one or more are needed")
        given = self.tokenizer(list(inputs), truncation=True, max_length=self.max_tokens)["input_ids"]
        # Padding goes behind whatever side the tokenizer prefers; a text without any token is heard as one of padding.
        tokens = [torch.tensor(row or [self.padding]) for row in given]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.padding),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        }

    def shortened(self, inputs: Sequence[Any]) -> str | None:
        with silent():  # the library has a line of its own about the first one
            longer = sum(len(self.tokenizer(text)["input_ids"]) > self.max_tokens for text in inputs)
        if not longer:
            return None
        return f"{longer} of {len(inputs)} texts are longer than {self.max_tokens} tokens and lose their end"

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
    tokenizer.truncation_side = "right"
    return tokenizer, sorted(words | {*folder.glob("*token*.json"), *folder.glob("merges.txt")})


class ImageEncoder(Encoder):
    """ViT and its kin."""

    modality = "image"

    def __init__(self, network: Any, *, folder: Path, family: Family, settings: dict[str, Any], **about: Any) -> None:
        library = import_transformers()
        # The plain name wants torchvision where a class has a variant that does with Pillow.
        kind = getattr(library, f"{family.processor}Pil", None) or getattr(library, family.processor)
        side = network.config.image_size
        size = {"height": side, "width": side}
        processor = read_preprocessor(kind, folder, size=size, do_center_crop=False)
        processing = {key: value for key, value in processor.to_dict().items() if key != "image_processor_type"}
        processing = json.loads(json.dumps(processing, default=str))
        super().__init__(network, settings={**settings, "processing": processing, "states": "all tokens"}, **about)
        self.processor = processor

    def prepare(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        for image in inputs:
            if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
                raise ValueError(f"an image is a uint8 array (row, column, 3), not {_told(image)}")
        if not inputs:
            raise ValueError("there is no image to prepare; one or more are needed")
        return dict(self.processor(list(inputs), return_tensors="pt", input_data_format="channels_last"))

    def _encode(self, batch: dict[str, Tensor], layers: int) -> Hidden:
        with recorded(self.network, layers) as states:
            self.network(**batch)
        features = torch.stack(states, dim=1)
        mask = torch.ones(features.shape[0], features.shape[2], dtype=torch.bool, device=features.device)
        return Hidden(features=features, mask=mask)


def _told(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def read_count(file: Path, key: str, *, default: int) -> int:
    """A number of 1 or more in a JSON file; `default` where there is none.

    Raises: BundleRefused for any other value.
    """
    value = read_json(file).get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BundleRefused(f"{file}: {key} is {value!r}; a whole number of 1 or more is allowed.")
    return value


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file.

    Raises: BundleRefused for a file that holds no JSON object.
    """
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BundleRefused(f"{file}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise BundleRefused(f"{file}: a JSON object is needed, not a {type(value).__name__}.")
    return value
