"""Find the bundle folder that a model reference means."""

import re
from pathlib import Path

from ossicle.bundle.hub import HUB_ID, hub_bundle
from ossicle.bundle.schema import CONFIG
from ossicle.errors import BundleRefused, WeightsRefused
from ossicle.models import list_models


def find_bundle(model: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Finds the bundle folder of a model reference: a bundle, a run folder or a Hugging Face Hub id.

    Args:
        revision: of a Hub id; "user/name@revision" says the same
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
            f"{name} is an architecture without trained weights, so its scores would be random; "
            f"train it with `ossicle train DATA --model {name}` and use the run's folder."
        )
    if re.fullmatch(HUB_ID, name):
        return hub_bundle(name, revision=revision, local_files_only=local_files_only)
    raise BundleRefused(
        f"{name}: there is no such folder; expected a bundle, a run folder, or a Hugging Face Hub id such as user/name."
    )
