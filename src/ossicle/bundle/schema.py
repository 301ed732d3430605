"""Model bundles: a trained model with front end, labels and thresholds as one folder.

    config.json         network, front end, labels and thresholds (schema below)
    model.safetensors   the weights
    README.md           the model card
    SHA256SUMS          of the other two, as `sha256sum --check` reads it: by it damage is noticed

`config.json`, schema 2; every key is required and no other is allowed:

    schema_version   2
    library_version  version of ossicle that wrote it
    model            {name, options}: arguments of `create_model`
    frontend         every field of `FrontendConfig`
      or, of a head on a frozen encoder (`ossicle tune`), whose weights alone are in the bundle:
    encoder          {name, crop, modality, fingerprint}: arguments of `load_encoder`, and the expected fingerprint
    head, tuner      {name, options}: arguments of `create_head` and `create_tuner`; no tuner without a name
    features         {pool, layers, dim}: pooling over time; numbers of the encoder's layers, from 1; its width
      or, of an ensemble, whose folder has no weights of its own:
    members          folders beside this file, member0, member1, ...: a bundle each, of the same task and labels
    task             "single-label" (softmax) or "multi-label" (sigmoid)
    labels           in the order of the network's outputs
    thresholds       minimum score of each label to be predicted, or null
    temperature      divisor of the logits
    window           {seconds, hop_seconds, pad} of prediction; pad: whether the features of a shorter recording are
                     padded with silence to the window, as in a training on clips of several lengths
    weights_license  null if unknown

A bundle cannot contain code. Keys that are missing, unknown or invalid are refused with their name.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ossicle import __version__
from ossicle.errors import BundleRefused
from ossicle.files import sha256, write_atomically
from ossicle.inference import MAX_WINDOW_SECONDS
from ossicle.types import Task

SCHEMA_VERSION = 2
CONFIG, WEIGHTS, CARD, SUMS = "config.json", "model.safetensors", "README.md", "SHA256SUMS"
TASKS = ("single-label", "multi-label")


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


def read_bundle_config(folder: Path) -> dict[str, Any]:
    """The configuration of a bundle of any kind; a head on a frozen encoder has a key `encoder`.

    Raises: BundleRefused for one that is missing, damaged or of another schema, or not what its SHA-256 says.
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
    check_config(config, path)
    check_sum(path)
    return config


def write_sums(folder: Path) -> None:
    """Writes the SHA-256 of a bundle's files, but for its card, which people may edit."""
    paths = [path for name in (CONFIG, WEIGHTS) if (path := folder / name).exists()]
    write_atomically(folder / SUMS, "".join(f"{sha256(path)}  {path.name}\n" for path in paths))


def check_sum(path: Path, digest: str | None = None) -> None:
    """Compares a file of a bundle with its SHA-256, where there is one: published bundles have none.

    Args:
        digest: of the file, where it is known already

    Raises: BundleRefused for another file than was written, and for damaged sums.
    """
    sums = path.with_name(SUMS)
    try:
        content = sums.read_bytes()
    except FileNotFoundError:
        return
    lines = re.findall(rb"([0-9a-f]{64})  (config\.json|model\.safetensors)\n", content)
    if b"".join(b"%b  %b\n" % line for line in lines) != content:
        raise BundleRefused(f"{sums}: damaged; remove it, and the bundle is read without a check of its files.")
    if (digest or sha256(path)).encode() not in [known for known, name in lines if name == path.name.encode()]:
        raise BundleRefused(
            f"{path}: damaged, or changed since it was written: it is not the file whose SHA-256 {SUMS} has; put back "
            f"a copy, or if the change is yours, remove {SUMS}."
        )


def member_names(count: int) -> list[str]:
    """The folders of an ensemble's members."""
    return [f"member{number}" for number in range(count)]


def check_config(config: Any, path: Path) -> None:
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

    parts = next((parts for key, parts in _KINDS.items() if key in config), _TRAINED)
    _check_keys(config, (*_KEYS[:2], *parts, *_KEYS[2:]), path=path, where="")
    wants("library_version", isinstance(config["library_version"], str), "text")
    if "members" in config:
        count = len(config["members"]) if isinstance(config["members"], list) else 0
        wants("members", config["members"] == member_names(max(count, 2)), "member0, member1, ..., at least two")
        parts = {}
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
_KINDS: dict[str, dict[str, dict[str, type]]] = {"encoder": _TUNED, "members": {"members": {}}}
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
