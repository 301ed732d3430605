"""What a run goes on with when it is resumed, and what it refuses."""

import json
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.data import Dataset, Split
from ossicle.data.parts import PARTS, read_split
from ossicle.errors import RunRefused, SettingRefused
from ossicle.evaluation import CONFIG, SPLIT
from ossicle.jobs.store import HIDDEN
from ossicle.kernels import resolve_kernels
from ossicle.training.callbacks import BEST
from ossicle.training.config import NO_OUTPUT, Config, FitConfig, TrainConfig, read_config
from ossicle.training.digests import Digests
from ossicle.weights.state import checkpoints

ENVIRONMENT = "environment.json"  # in a run folder
NEEDED = (CONFIG, SPLIT, ENVIRONMENT, BEST.name)  # a run does not go on without them
UNDECIDED = (("precision", "auto"), ("kernels", "auto"))  # settings that the machine decides
LENGTH = ("epochs", "patience", "min_delta")  # settings that a run can be continued with other values of
OTHERS = (
    "a run continues with the data and the fold that it began with, and these are others; choose another folder with "
    "-o."
)


def refuse_taken(output: Path, *, resume: bool) -> None:
    """Refuses a folder that holds a run, unless that is to be continued, and one that holds anything else."""
    if resume:
        return
    if (output / CONFIG).exists():
        raise RunRefused(f"{output}: holds a run already; continue it with --resume or choose another folder with -o.")
    # Beside the lock a process that was killed may have begun a file.
    if output.is_dir() and any(not path.name.startswith(HIDDEN) for path in output.iterdir()):
        raise RunRefused(f"{output}: holds files that belong to no run; choose another folder with -o.")


def starting_point(
    config: Config | None,
    kind: type[Config],
    *,
    default: Callable[[], Config] | None = None,
    output: str | os.PathLike[str] | None,
    resume: bool,
) -> tuple[Config, dict[str, Any]]:
    """The settings that a run starts with: those given, or those of the run to resume, or the default, or those of
    `kind` as it comes; and where the data of the run to resume are.

    Raises:
        RunRefused: a run to resume is not named.
        TypeError: settings of another kind.
    """
    if config is not None and not isinstance(config, kind):
        raise TypeError(f"config must be a {kind.__name__}, got a {type(config).__name__}")
    if resume:
        if output is None:
            raise RunRefused(NO_OUTPUT)
        if (begun := Path(output) / CONFIG).exists():
            refuse_damaged(Digests(Path(output)))
            stored, data = read_config(begun, kind)
            return config or stored, data
    return config or (default or kind)(), {}


def refuse_damaged(digests: Digests) -> None:
    """Raises RunRefused where a file that a run goes on from is not what the run wrote."""
    for file in digests.damaged(NEEDED):
        raise RunRefused(
            f"{file}: damaged, or changed since the run wrote it: its SHA-256 is another; put back a copy, or choose "
            f"another folder with -o (if the change is yours, remove {digests.file})."
        )


def continued(config: Config, folder: Path, *, later: Collection[str] = ()) -> tuple[Config, Config | None]:
    """The settings that a fold goes on with, and if these make it longer, those that it had.

    They are those that it was begun with, if it was: also what the data and the machine decided then. More epochs are
    taken, and what stops a run before its last.

    Args:
        later: settings that are compared later, when the run has what decides them.

    Raises:
        SettingRefused: other settings, or fewer epochs.
        RunRefused: more epochs of a run that cannot have them.
    """
    if not (folder / CONFIG).exists():
        return config, None
    stored, _ = read_config(folder / CONFIG, type(config))
    asked = json.loads(json.dumps(asdict(config)))
    differ = {
        name: there
        for name, there in asdict(stored).items()
        if name not in later and (name, asked[name]) not in UNDECIDED and not is_same(name, asked[name], there)
    }
    new: dict[str, Any] = {}
    if isinstance(stored, TrainConfig):
        new = {
            name: asked[name] for name in LENGTH if name in differ and (name != "epochs" or asked[name] > differ[name])
        }
    if refused := [f"{name}={there} there and {asked[name]} here" for name, there in differ.items() if name not in new]:
        raise SettingRefused(
            f"{folder}: a run continues with the settings that it has: {', '.join(refused)}; begin another with -o"
            + (f" (--init {folder} starts it from these weights)." if isinstance(stored, TrainConfig) else ".")
        )
    if "epochs" in new:
        refuse_longer(stored, folder)
    return replace(stored, **new), stored if new else None


def is_same(name: str, asked: Any, there: Any) -> bool:
    """Whether a setting is what a run has, or is left to it; kernels are named, or spelled out as a run stores them."""
    if name == "kernels":
        asked, there = (str(resolve_kernels(one)) for one in (asked, there))
    return asked in (there, None)


def refuse_longer(config: FitConfig, folder: Path) -> None:
    """Raises RunRefused for a run that more epochs would not continue."""
    why = None
    if config.average == "swa":
        why = "average=swa is the mean over a part of a run whose length is known from its start"
    elif not checkpoints(folder / "checkpoints"):
        why = "there is no checkpoint in it"
    if why is not None:
        raise RunRefused(
            f"{folder}: this run cannot be made longer, as {why}; --init {folder} and another folder with -o begin a "
            "run from its weights."
        )


def longer(before: Config, after: Config) -> str:
    """The sentence on a run that continues for longer than it was begun for."""
    if before.epochs == after.epochs:
        return "what stops it before its last epoch is changed"
    rate = "the learning rate stays at its peak"
    if after.schedule == "plateau":
        rate = "the learning rate goes on as it is"
    elif after.schedule != "constant":
        rate = (
            f"from here on the learning rate is that of a {after.schedule} schedule over {after.epochs} epochs, so "
            "it rises again, and the result is not that of a run which had them from its start"
        )
    return f"{before.epochs} epochs become {after.epochs}; {rate}; the test part is read again"


def begun_with(dataset: Dataset, split: Split, folder: Path) -> Split | None:
    """The parts that a fold was begun with, if it was.

    Raises: RunRefused where these are others: it might be tested on what it has learnt.
    """
    if not (folder / SPLIT).exists():
        return None
    begun = read_split(folder / SPLIT, dataset)
    if begun is None or any(not np.array_equal(getattr(begun, part), getattr(split, part)) for part in PARTS):
        raise RunRefused(f"{folder}: {OTHERS}")
    return begun


def refuse_other_data(dataset: Dataset, output: Path) -> None:
    """Raises RunRefused where a fold of a run was begun with other data, even one that these data do not have."""
    for path in sorted(output.glob(f"fold_*/{SPLIT}")):
        if read_split(path, dataset) is None:
            raise RunRefused(f"{path.parent}: {OTHERS}")
