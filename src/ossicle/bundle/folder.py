"""Save bundles and load them; see `ossicle.bundle.schema` for their files."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from ossicle.bundle.card import Card, card_text
from ossicle.bundle.schema import (
    CARD,
    CONFIG,
    SUMS,
    WEIGHTS,
    check_config,
    check_sum,
    info_config,
    read_bundle_config,
    write_sums,
)
from ossicle.errors import BundleRefused, ModelUnknown, OssicleError, RunRefused
from ossicle.files import sha256, sync_folder, write_atomically, write_json
from ossicle.frontend import FrontendConfig, LogMel, create_frontend
from ossicle.inference import ModelInfo
from ossicle.models import create_model
from ossicle.models.base import Network
from ossicle.types import Task
from ossicle.weights.tensors import check_finite, load_into, load_weights, save_weights

# Configurations are not trusted: these limit the memory that is allocated before a tensor has been compared.
MAX_FILTERBANK = 2**24
MAX_RATE = 768_000


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


def write_bundle(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], *, card: Card | str | None = None
) -> None:
    """Writes the files of a bundle; the folder is replaced atomically.

    Raises:
        RunRefused: `folder` exists and is not a bundle
        ValueError: a configuration that `load_bundle` would refuse
    """
    with replacing_bundle(folder, config, card=card) as beside:
        save_weights(beside / WEIGHTS, tensors)


@contextlib.contextmanager
def replacing_bundle(folder: Path, config: Mapping[str, Any], *, card: Card | str | None = None) -> Iterator[Path]:
    """Yields a new folder with configuration and card, to write the rest to; at the end it takes the name atomically.

    Raises: as `write_bundle`.
    """
    try:
        check_config(config, folder / CONFIG)
    except BundleRefused as error:
        raise ValueError(f"this cannot be saved as a bundle: {error}") from error
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        write_json(beside / CONFIG, config)
        write_atomically(beside / CARD, card if isinstance(card, str) else card_text(config, card or Card()))
        yield beside
        write_sums(beside)
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
    path = Path(folder) / CONFIG
    if "model" not in read_bundle_config(Path(folder)):
        raise BundleRefused(f"{path}: this bundle is a head on a frozen encoder, or an ensemble; use `ossicle.load`.")
    config, tensors, info = open_bundle(folder)
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
    check_finite(tensors, source=folder / WEIGHTS)
    weights = sha256(folder / WEIGHTS)
    check_sum(folder / WEIGHTS, weights)
    digest = hashlib.sha256((folder / CONFIG).read_bytes() + weights.encode())
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
            return create_model(model["name"], num_classes=len(labels), **model["options"])
    except ModelUnknown as error:
        raise BundleRefused(f"model.name: {error}") from error


def check_replaceable(folder: Path) -> None:
    """Raises RunRefused if there is something in place of a bundle's folder; an empty folder may be replaced."""
    if folder.exists() and not _may_be_replaced(folder):
        raise RunRefused(f"{folder}: this folder has files that are not part of a bundle; choose another folder.")


def _may_be_replaced(folder: Path) -> bool:
    """Whether a folder is empty or has only a bundle, apart from hidden files."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if not names or names == {CONFIG, WEIGHTS, CARD, SUMS}:  # also where one of them is damaged
        return True
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict) or "schema_version" not in config:
        return False
    members = {str(name) for name in config["members"]} if isinstance(config.get("members"), list) else set()
    if not names <= {CONFIG, WEIGHTS, CARD, SUMS, *members}:
        return False
    return all(_may_be_replaced(folder / name) for name in names & members)
