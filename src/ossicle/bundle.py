"""Model bundles: a trained model with front end, labels and thresholds as one folder.

    config.json         network, front end, labels and thresholds (schema below)
    model.safetensors   the weights
    README.md           the model card

`config.json`, schema 2; every key is required and no other is allowed:

    schema_version   2
    library_version  version of ossicle that wrote it
    model            {name, options}: arguments of `create_model`
    frontend         every field of `FrontendConfig`
      or, of a head on a frozen encoder (`ossicle tune`), whose weights alone are in the bundle:
    encoder          {name, crop, modality, fingerprint}: arguments of `load_encoder`, and the expected fingerprint
    head, tuner      {name, options}: arguments of `create_head` and `create_tuner`; no tuner without a name
    features         {pool, layers, dim}: pooling over time; numbers of the encoder's layers, from 1; its width
    task             "single-label" (softmax) or "multi-label" (sigmoid)
    labels           in the order of the network's outputs
    thresholds       minimum score of each label to be predicted, or null
    temperature      divisor of the logits
    window           {seconds, hop_seconds, pad} of prediction; pad: whether the features of a shorter recording are
                     padded with silence to the window, as in a training on clips of several lengths
    weights_license  null if unknown

A bundle cannot contain code. Keys that are missing, unknown or invalid are refused with their name.
"""

import difflib
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import nn

from ossicle import __version__
from ossicle.data import modality_of
from ossicle.errors import BundleRefused, ModelUnknown, OssicleError, RunRefused, WeightsRefused
from ossicle.files import sha256, sync_folder, write_atomically, write_json
from ossicle.frontend import FrontendConfig, LogMel, create_frontend
from ossicle.inference import MAX_WINDOW_SECONDS, ModelInfo
from ossicle.models import create_model, list_models
from ossicle.models.base import Network
from ossicle.types import Task
from ossicle.weights.tensors import load_into, load_weights, save_weights

SCHEMA_VERSION = 2
# Configurations are not trusted: these limit the memory that is allocated before a tensor has been compared.
MAX_FILTERBANK = 2**24
MAX_RATE = 768_000
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
HUB_ID = r"[\w][\w.-]*/[\w][\w.-]*"  # user/name
TASKS = ("single-label", "multi-label")


@dataclass(frozen=True, kw_only=True)
class Card:
    """The model card, written to README.md. Empty parts are left out."""

    title: str = ""
    data: str = ""  # the training data, in a sentence
    fingerprint: str = ""  # of the training data
    protocol: str = ""  # how the test data were selected, in a sentence
    metrics: Sequence[str] = ()  # of the test data, one line each
    limits: str = ""  # what it was not tested on


@dataclass(frozen=True, kw_only=True)
class Bundle(ModelInfo):
    """A loaded bundle. Network and front end are on the CPU and in evaluation mode."""

    model: Network
    frontend: LogMel


def save_bundle(
    folder: str | Path,
    *,
    model: nn.Module,
    model_name: str,
    frontend: FrontendConfig,
    task: Task,
    labels: Sequence[str],
    window_seconds: float,
    hop_seconds: float | None = None,
    pad: bool = False,
    thresholds: Float[np.ndarray, " label"] | Sequence[float] | None = None,
    temperature: float = 1.0,
    weights_license: str | None = None,
    card: Card | None = None,
) -> None:
    """Writes a bundle; the folder is replaced atomically.

    An older bundle in `folder` is replaced; a folder with anything else is refused. Replacing takes two renames: a
    process that is killed between them leaves the older bundle as `.NAME.*.old`.

    Args:
        model: made by `create_model(model_name, ...)`; its options are read from `model.config`
        hop_seconds: by default the window
        pad: whether a recording shorter than the window is padded with silence

    Raises:
        RunRefused: `folder` exists and is not a bundle
        ValueError: values that `load_bundle` would refuse
    """
    folder = Path(folder)
    config = info_config(
        task=task,
        labels=labels,
        window_seconds=window_seconds,
        hop_seconds=hop_seconds,
        pad=pad,
        thresholds=thresholds,
        temperature=temperature,
        weights_license=weights_license,
        model={"name": model_name, "options": _options(model, labels)},
        frontend=frontend.to_dict(),
    )
    write_bundle(folder, config, model.state_dict(), card=card)


def info_config(
    *,
    task: Task,
    labels: Sequence[str],
    window_seconds: float,
    hop_seconds: float | None = None,
    pad: bool = False,
    thresholds: Float[np.ndarray, " label"] | Sequence[float] | None = None,
    temperature: float = 1.0,
    weights_license: str | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """The configuration of a bundle: the keys of its kind, then those of every kind."""
    return {
        "schema_version": SCHEMA_VERSION,
        "library_version": __version__,
        **parts,
        "task": task,
        "labels": list(labels),
        "thresholds": None if thresholds is None else [float(value) for value in thresholds],
        "temperature": float(temperature),
        "window": {
            "seconds": float(window_seconds),
            "hop_seconds": float(window_seconds if hop_seconds is None else hop_seconds),
            "pad": pad,
        },
        "weights_license": weights_license,
    }


def write_bundle(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, card: Card | None = None
) -> None:
    """Writes the three files of a bundle; the folder is replaced atomically.

    Raises:
        RunRefused: `folder` exists and is not a bundle
        ValueError: a configuration that `load_bundle` would refuse
    """
    try:
        _check_config(config, folder / CONFIG)
    except BundleRefused as error:
        raise ValueError(f"this cannot be saved as a bundle: {error}") from error
    if folder.exists() and not _may_be_replaced(folder):
        raise RunRefused(f"{folder}: this folder has files that are not part of a bundle; choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        write_json(beside / CONFIG, config)
        save_weights(beside / WEIGHTS, tensors)
        write_atomically(beside / CARD, _card_text(config, card or Card()))
        older = beside.with_name(f"{beside.name}.old")
        if folder.exists():
            os.replace(folder, older)  # a rename cannot replace a folder with files
        try:
            os.replace(beside, folder)
        except BaseException:
            if older.exists():
                os.replace(older, folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_bundle(folder: str | Path) -> Bundle:
    """Reads a bundle and builds its network, in evaluation mode on the CPU.

    Raises:
        BundleRefused: the configuration is missing, damaged, has another schema or an unknown network
        WeightsRefused: the weights are missing or damaged, or a tensor does not fit or has NaN or infinity
    """
    config, tensors, info = open_bundle(folder)
    path = Path(folder) / CONFIG
    if "model" not in config:
        raise BundleRefused(f"{path}: this bundle is a head on a frozen encoder; use `ossicle.load`.")
    try:
        frontend = _build_frontend(config["frontend"])
        numbers = sum(tensor.numel() for tensor in tensors.values())
        model = _build(config["model"], labels=info["labels"], numbers=numbers)
    except (ValueError, TypeError, OssicleError) as error:
        raise BundleRefused(f"{path}: {error}") from error
    load_into(model, tensors, source=path.with_name(WEIGHTS))
    return Bundle(model=model.eval(), frontend=frontend.eval(), model_name=config["model"]["name"], **info)


def open_bundle(folder: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
    """The configuration of a bundle of any kind, its tensors, and the fields of `ModelInfo` except the model's name.

    Raises: as `load_bundle`, for the common keys.
    """
    folder = Path(folder)
    config = read_bundle_config(folder)
    tensors = load_weights(folder / WEIGHTS)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsRefused(f"{folder / WEIGHTS}: tensor {name} has NaN or infinity.")
    digest = hashlib.sha256((folder / CONFIG).read_bytes() + sha256(folder / WEIGHTS).encode())
    thresholds = config["thresholds"]
    info = {
        "task": config["task"],
        "labels": tuple(config["labels"]),
        "thresholds": None if thresholds is None else np.asarray(thresholds, dtype=np.float64),
        "temperature": float(config["temperature"]),
        "window_seconds": float(config["window"]["seconds"]),
        "hop_seconds": float(config["window"]["hop_seconds"]),
        "pad": config["window"]["pad"],
        "weights_license": config["weights_license"],
        "library_version": config["library_version"],
        "version": digest.hexdigest()[:12],
    }
    return config, tensors, info


def find_bundle(model: str | Path, *, local_files_only: bool = False) -> Path:
    """Finds the bundle folder of a model reference: a bundle, a run folder or a Hugging Face Hub id.

    Args:
        local_files_only: read a Hub id from the local cache, without network access

    Raises:
        WeightsRefused: the name of an architecture, which has no weights
        BundleRefused: no bundle of that name, locally or on the Hub
    """
    folder = Path(model).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    if (folder / "model" / CONFIG).is_file():
        return folder / "model"
    if folder.is_dir():
        # Two levels, as in the folds of a run or the rounds of the demo, and no further: it may be a home folder.
        floors = (folder.glob(f"{above}/model/{CONFIG}") for above in ("*", "*/*"))
        below = sorted(str(path.parent.parent) for floor in floors for path in floor)
        there = f"; models found in {', '.join(below[:5])}" if below else ""
        raise BundleRefused(f"{folder}: neither a bundle ({CONFIG}) nor a finished run (model/{CONFIG}){there}.")
    name = str(model)
    if folder.suffix == ".onnx":
        raise BundleRefused(f"{name}: this is an exported model; run it with python -m ossicle.runtime {name}")
    if name in list_models():
        raise WeightsRefused(
            f"{name} is an architecture without trained weights; "
            f"train it with `ossicle train DATA --model {name}` and use the run's folder."
        )
    if re.fullmatch(HUB_ID, name):
        return hub_folder(name, files=(CONFIG, WEIGHTS, CARD), local_files_only=local_files_only)
    raise BundleRefused(
        f"{name}: there is no such folder; expected a bundle, a run folder, or a Hugging Face Hub id such as user/name."
    )


def push_to_hub(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Uploads a bundle to the Hugging Face Hub as `repository` ("user/name") and returns its address.

    For a tuned head the configuration and the tensors are checked; its encoder is not uploaded and not needed.

    Raises: BundleRefused or WeightsRefused for a folder that is not a valid bundle, before the upload.
    """
    if "encoder" in read_bundle_config(Path(folder)):
        open_bundle(folder)
    else:
        load_bundle(folder)
    import huggingface_hub

    api = huggingface_hub.HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repository, allow_patterns=[CONFIG, WEIGHTS, CARD]))


def hub_folder(repository: str, *, files: Sequence[str], local_files_only: bool) -> Path:
    """These files of a Hugging Face Hub repository, in the local cache.

    Args:
        files: names, or patterns of names

    Raises: BundleRefused if they cannot be downloaded, or if the user's name is a local folder.
    """
    user, name = repository.split("/")
    if Path(user).is_dir():
        near = difflib.get_close_matches(name, (path.name for path in Path(user).iterdir() if path.is_dir()), n=3)
        meant = f"; did you mean {', '.join(f'{user}/{other}' for other in near)}?" if near else "."
        raise BundleRefused(f"{repository}: there is no such folder in {user}{meant}")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repository, allow_patterns=list(files), local_files_only=local_files_only
        )
    # Errors of the Hub, of HTTP and of the cache have no common base class below Exception.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BundleRefused(
            f"{repository}: there is no such folder, and the download from the Hugging Face Hub failed: {reason}"
        ) from error
    return Path(folder)


def _options(model: nn.Module, labels: Sequence[str]) -> dict[str, Any]:
    """The arguments of `create_model` besides the name."""
    if not isinstance(model, Network):
        raise ValueError(f"a {type(model).__name__} was not made by create_model: it has no configuration to save")
    if model.config.num_classes != len(labels):
        raise ValueError(f"{len(labels)} labels are named for a network with {model.config.num_classes} outputs")
    return model.options()


def _build_frontend(frontend: Mapping[str, Any]) -> LogMel:
    config = FrontendConfig.from_dict(frontend)
    if config.mels * config.fft_samples > MAX_FILTERBANK or config.rate > MAX_RATE:
        raise BundleRefused(
            f"frontend: a rate of {config.rate} Hz, fft_samples {config.fft_samples} and mels {config.mels} exceed "
            f"the limits of {MAX_RATE} Hz and {MAX_FILTERBANK} for the product of the other two."
        )
    return create_frontend(config)


def _build(model: Mapping[str, Any], *, labels: tuple[str, ...], numbers: int) -> Network:
    # A network has at least as many weights as layers or channels; this limits the memory for invalid options.
    for name, value in model["options"].items():
        if any(isinstance(one, int) and one > numbers for one in (value if isinstance(value, list) else [value])):
            raise BundleRefused(f"model.options.{name} is {value}, but there are only {numbers} weights.")
    try:
        with torch.random.fork_rng(devices=[]):  # the random weights are overwritten, so the generators are restored
            return create_model(model["name"], num_classes=len(labels), pretrained=False, **model["options"])
    except ModelUnknown as error:
        raise BundleRefused(f"model.name: {error}") from error


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or has only a bundle, apart from hidden files."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if not names:
        return True
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "schema_version" in config and names <= {CONFIG, WEIGHTS, CARD}


# --- the configuration ---------------------------------------------------------------------------------------------


def read_bundle_config(folder: Path) -> dict[str, Any]:
    """The configuration of a bundle of any kind; a head on a frozen encoder has a key `encoder`.

    Raises: BundleRefused for one that is missing, damaged or of another schema.
    """

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a number")

    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes(), parse_constant=refuse)
    except (FileNotFoundError, NotADirectoryError):
        raise BundleRefused(f"{folder}: this is not a bundle: it has no {CONFIG}.") from None
    except (ValueError, RecursionError) as error:  # includes invalid UTF-8
        raise BundleRefused(f"{path}: not valid JSON ({error}).") from error
    _check_config(config, path)
    return config


def _check_config(config: Any, path: Path) -> None:
    """Refuses a configuration that differs from the schema, with the file and the key."""
    if not isinstance(config, dict):
        raise BundleRefused(f"{path}: a bundle's configuration is a JSON object, not a {type(config).__name__}.")
    version = config.get("schema_version")
    if version == 1 and not isinstance(version, bool):
        raise BundleRefused(
            f"{path}: written by ossicle {config.get('library_version')}, in schema 1; ossicle {__version__} supports "
            f"schema {SCHEMA_VERSION}. Train the model again, or load it with the version that wrote it."
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleRefused(f"{path}: schema_version is {version!r}; ossicle {__version__} supports {SCHEMA_VERSION}.")

    def wants(key: str, holds: bool, allowed: str) -> None:
        if not holds:
            value: Any = config
            for part in key.split("."):
                value = value[part]
            raise BundleRefused(f"{path}: {key} is {_shortened(value)}; it must be {allowed}.")

    parts = _TUNED if "encoder" in config else _TRAINED
    _check_keys(config, (*_KEYS[:2], *parts, *_KEYS[2:]), path=path, where="")
    wants("library_version", isinstance(config["library_version"], str), "text")
    for part, keys in parts.items():
        wants(part, isinstance(config[part], dict), "an object")
        if keys:
            _check_keys(config[part], tuple(keys), path=path, where=f"{part}.")
        for key in keys:
            wants(f"{part}.{key}", isinstance(config[part][key], keys[key]), _ALLOWED[keys[key]])
    wants("task", config["task"] in TASKS, " or ".join(TASKS))
    labels = config["labels"]
    wants(
        "labels",
        isinstance(labels, list)
        and len(labels) > 0
        and all(isinstance(label, str) and label for label in labels)
        and len(set(labels)) == len(labels),
        "a list of different texts, one for each output of the network",
    )
    thresholds = config["thresholds"]
    wants(
        "thresholds",
        thresholds is None
        or (isinstance(thresholds, list) and len(thresholds) == len(labels) and all(map(_is_number, thresholds))),
        f"null, or one number for each of the {len(labels)} labels",
    )
    wants("temperature", _is_number(config["temperature"]) and config["temperature"] > 0, "a positive number")
    wants("window", isinstance(config["window"], dict), "an object")
    _check_keys(config["window"], ("seconds", "hop_seconds", "pad"), path=path, where="window.")
    seconds, hop_seconds = config["window"]["seconds"], config["window"]["hop_seconds"]
    wants(
        "window.seconds",
        _is_number(seconds) and 0 < seconds <= MAX_WINDOW_SECONDS,
        f"more than 0 and at most {MAX_WINDOW_SECONDS:g}",
    )
    wants(
        "window.hop_seconds",
        _is_number(hop_seconds) and 0 < hop_seconds <= seconds,
        "more than 0 and at most window.seconds",
    )
    wants("window.pad", isinstance(config["window"]["pad"], bool), "true or false")
    wants("weights_license", isinstance(config["weights_license"], str | None), "text or null")


# The parts of each kind of bundle, and the types of their keys; a front end checks its own.
_TRAINED: dict[str, dict[str, type]] = {"model": {"name": str, "options": dict}, "frontend": {}}
_TUNED: dict[str, dict[str, type]] = {
    "encoder": {"name": str, "crop": bool, "modality": str, "settings": dict, "fingerprint": str},
    "head": {"name": str, "options": dict},
    "tuner": {"name": str, "options": dict},
    "features": {"pool": str, "layers": list, "dim": int},
}
_ALLOWED = {str: "text", dict: "an object", list: "a list", bool: "true or false", int: "a whole number"}
_KEYS = (
    "schema_version",
    "library_version",
    "task",
    "labels",
    "thresholds",
    "temperature",
    "window",
    "weights_license",
)


def _check_keys(found: Mapping[str, Any], wanted: Sequence[str], *, path: Path, where: str) -> None:
    if missing := [where + key for key in wanted if key not in found]:
        raise BundleRefused(f"{path}: {', '.join(missing)} is missing.")
    if unknown := [where + key for key in found if key not in wanted]:
        raise BundleRefused(f"{path}: {', '.join(unknown)} is unknown; allowed are {', '.join(wanted)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# --- the model card ------------------------------------------------------------------------------------------------


def _card_text(config: Mapping[str, Any], card: Card) -> str:
    license = config["weights_license"]
    if "model" in config:
        name, modality = config["model"]["name"], modality_of("sound")
        what = f"a `{name}` at {config['frontend']['rate']} Hz"
    else:
        name, modality = config["head"]["name"], modality_of(config["encoder"]["modality"])
        what = f"a `{name}` head on the frozen encoder `{Path(config['encoder']['name']).name}`, which is not included"
    header = {
        "license": license.lower() if license else "other",
        "library_name": "ossicle",
        "pipeline_tag": modality.hub_task,
        "tags": [*modality.hub_tags, modality.hub_task, name],
    }
    labels = config["labels"]
    count = f"one of {len(labels)} labels" if config["task"] == "single-label" else f"any of {len(labels)} labels"
    if modality.timed:
        count += f" in windows of {config['window']['seconds']:g} s"
    parts = [
        f"# {card.title or name}",
        f"Predicts {count} ({what}, written by ossicle {config['library_version']}).",
        '## Use\n\n```python\nimport ossicle\n\nmodel = ossicle.load("this folder")\n'
        f'prediction = model.predict("{modality.example}")\nprint(prediction.top, prediction.rows)\n```\n\n'
        f"```\nossicle predict THIS_FOLDER {modality.example_file}\n```",
        "## Training data\n\n" + _joined(card.data, f"Fingerprint: `{card.fingerprint}`" if card.fingerprint else ""),
        f"## Protocol\n\n{card.protocol}",
        "## Metrics\n\n" + "\n".join(f"- {line}" for line in card.metrics),
        "## Labels\n\n" + _label_table(config["labels"], config["thresholds"]),
        f"## Limits\n\n{card.limits}",
        "## License\n\n"
        + (f"The weights: {license}." if license else "No license is stated for these weights.")
        + " The code that runs them, ossicle, is Apache-2.0.",
    ]
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if not part.endswith("\n\n")) + "\n"


def _label_table(labels: Sequence[str], thresholds: Sequence[float] | None) -> str:
    if thresholds is None:
        return "\n".join(f"- {_cell(label)}" for label in labels)
    lines = [f"| {_cell(label)} | {threshold:.4f} |" for label, threshold in zip(labels, thresholds, strict=True)]
    return "\n".join(["| label | threshold |", "|---|---|", *lines])


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
