"""Find the folder or the weights that a model reference means."""

import logging
import re
from pathlib import Path

from ossicle.bundle.hub import HUB_ID, hub_bundle
from ossicle.bundle.published import published_folder
from ossicle.bundle.schema import CONFIG, WEIGHTS, read_bundle_config
from ossicle.catalog import checkpoint, default_checkpoint, find_checkpoint, similar_names
from ossicle.catalog.download import offline
from ossicle.errors import BundleRefused, WeightsRefused
from ossicle.models import list_models

logger = logging.getLogger(__name__)


def find_bundle(model: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Finds the bundle folder of a model reference: a bundle, a run, published weights or a Hugging Face Hub id.

    Published weights that are not in the local store are fetched.

    Args:
        revision: of a Hub id; "user/name@revision" says the same
        local_files_only: no network access: what the local store and the cache of the Hub have

    Raises:
        WeightsRefused: the name of an architecture, which has no weights, or published weights that cannot be had
        BundleRefused: no bundle of that name, locally or on the Hub
        ModelUnknown: an architecture with the tag of no published weights
    """
    name, folder = str(model), Path(model).expanduser()
    row = find_checkpoint(name)
    own = next((place for place in (folder, folder / "model") if (place / CONFIG).is_file()), None)
    if own is not None:
        if row is not None:
            logger.warning(f"{name} is a folder here and published weights as well; the folder is used.")
        return own
    if row is not None:
        if row.is_start:
            raise WeightsRefused(
                f"{row.name} is a network of images that predicts nothing here; start a training from it: "
                f"`ossicle train DATA --init {row.name}`."
            )
        return published_folder(row, local_files_only=local_files_only)
    if folder.is_dir():
        # Two levels, as in the folds of a run or the rounds of the demo, and no further: it may be a home folder.
        floors = (folder.glob(f"{above}/model/{CONFIG}") for above in ("*", "*/*"))
        below = sorted(str(path.parent.parent) for floor in floors for path in floor)
        there = f"; models found in {', '.join(below[:5])}" if below else ""
        raise BundleRefused(f"{folder}: neither a bundle ({CONFIG}) nor a finished run (model/{CONFIG}){there}.")
    if folder.suffix == ".onnx":
        raise BundleRefused(f"{name}: this is an exported model; run it with python -m ossicle.runtime {name}")
    if name in list_models():
        published = default_checkpoint(name)
        or_else = f", or use published weights, such as {published.name}" if published else ""
        raise WeightsRefused(
            f"{name} is an architecture without trained weights, so its scores would be random; "
            f"train it with `ossicle train DATA --model {name}` and use the run's folder{or_else}."
        )
    if re.fullmatch(HUB_ID, name):
        local_files_only = local_files_only or offline() is not None
        return hub_bundle(name, revision=revision, local_files_only=local_files_only)
    if name.partition(".")[0] in list_models():
        checkpoint(name)  # raises, with similar names
    if near := similar_names(name, cutoff=0.8):
        raise BundleRefused(f"{name}: there is no such folder; did you mean {' or '.join(near)}?")
    raise BundleRefused(
        f"{name}: there is no such folder; expected a bundle, a run folder, published weights "
        "(`ossicle models list --weights`), or a Hugging Face Hub id such as user/name."
    )


def find_weights(name: str | Path, *, local_files_only: bool = False) -> Path:
    """The tensors of a network: of a model reference, or of a network of images to start from.

    Raises: as `find_bundle`, and BundleRefused for an ensemble or a head on a frozen encoder.
    """
    row = find_checkpoint(str(name))
    if row is not None and row.is_start:
        return published_folder(row, local_files_only=local_files_only) / WEIGHTS
    folder = find_bundle(name, local_files_only=local_files_only)
    config = read_bundle_config(folder)
    if "members" in config:
        raise BundleRefused(f"{name} is an ensemble of several networks; start from one, such as {folder / 'member0'}.")
    if "encoder" in config:
        raise BundleRefused(
            f"{name} is a head on a frozen encoder, which starts no network; `ossicle tune` trains one."
        )
    return folder / WEIGHTS
