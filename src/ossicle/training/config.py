"""What a training run is made of: one frozen value that is stored whole in the run folder.

A field that is None is filled in from the data (`resolve`), and every value so chosen is printed.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ossicle.errors import SettingRefused
from ossicle.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of a training run.

    The defaults are the recipe `scratch`: a model from random weights on one machine.
    """

    model: str = "passt_tiny_s16"
    weights: str | None = None  # bundle, published checkpoint or safetensors to start from; None is random
    depth: int | None = None  # blocks of a PaSST; None is the model's own
    network: dict[str, Any] = field(default_factory=dict)  # options of the model beyond its preset, by name
    seed: int = 0

    # Data
    window: float | None = None  # seconds of a training clip; longer recordings are cropped at random, anew each epoch
    development: float = (
        0.15  # share of the training part that chooses the epoch, thresholds and temperature; 0 is none
    )
    balance: Literal["none", "class"] | None = None  # class: rare labels are drawn more often
    balance_offset: float = 0.0  # label weight 1 / (count + offset); the AudioSet recipe of PaSST has 100
    epoch_clips: int | None = None  # clips per epoch; None is every clip once

    # Optimisation
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1  # batches per optimiser step
    lr: float = 4e-4  # peak learning rate of AdamW
    weight_decay: float = 0.05
    warmup: float = 2.0  # epochs
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    hold: float = 0.0  # share of the run at the peak before the decay starts
    final_lr: float = 0.01  # learning rate at the end, as a share of the peak
    clip_gradient: float = 1.0  # largest norm of the gradient; 0 is no limit
    label_smoothing: float = 0.1  # single-label only
    average: Literal["none", "ema", "swa"] = "ema"
    ema_decay: float = 0.998  # per optimiser step
    swa_start: float = 0.5  # share of the run before the first snapshot
    swa_every: int = 1  # epochs between snapshots
    patience: int = 0  # epochs without a better development score before the run stops; 0 runs to the end

    # Patchout and augmentation
    patchout_t: float | int | None = None  # columns of patches dropped: a count, or below 1 a share
    patchout_f: float | int | None = None  # rows of patches dropped
    patchout_u: float | int = 0  # further patches dropped anywhere
    drop_path: float = 0.0
    gain: float = 7.0  # decibels, either way
    roll: float = 0.0  # seconds, either way, around the end
    wave_mixup: float = 0.0  # probability of mixing two waveforms, Beta(2, 2)
    mixup: float = 0.3  # Beta parameter of spectrogram mixing; 0 is none
    freq_mask: int = 48  # widest SpecAugment mask, in mel bins
    time_mask: float = 0.16  # widest SpecAugment mask, as a share of the window
    jitter: bool = True  # draw the ends of the mel filterbank anew for every batch

    # Machine
    device: str = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 where this machine multiplies faster in it
    compile: bool = False
    workers: int = 2  # threads that prepare batches
    save_minutes: float = 10.0  # between checkpoints inside an epoch; one is always written at its end
    cache_gigabytes: float = 16.0  # decoded samples kept on disk

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SettingRefused(f"{name}={value} lies outside its range, {low:g} to {high:g}.")


_RANGES = {
    "depth": (1, 1000),
    "window": (0.05, 60.0),
    "development": (0.0, 0.5),
    "balance_offset": (0, 1e9),
    "epoch_clips": (1, 1e9),
    "epochs": (1, 100_000),
    "batch_size": (1, 65_536),
    "accumulate": (1, 65_536),
    "lr": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "warmup": (0.0, 1e5),
    "hold": (0.0, 1.0),
    "final_lr": (0.0, 1.0),
    "clip_gradient": (0.0, 1e9),
    "label_smoothing": (0.0, 0.9),
    "ema_decay": (0.0, 0.999999),
    "swa_start": (0.0, 1.0),
    "swa_every": (1, 1e6),
    "patience": (0, 100_000),
    "patchout_t": (0, 1e5),
    "patchout_f": (0, 1e5),
    "patchout_u": (0, 1e6),
    "drop_path": (0.0, 0.9),
    "gain": (0.0, 60.0),
    "roll": (0.0, 60.0),
    "wave_mixup": (0.0, 1.0),
    "mixup": (0.0, 10.0),
    "freq_mask": (0, 1000),
    "time_mask": (0.0, 1.0),
    "workers": (1, 256),
    "save_minutes": (0.0, 1e6),
    "cache_gigabytes": (0.0, 1e6),
}


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Returns `config` with values replaced; text is read as YAML, so `--set lr=1e-4` and `--set window=null` work.

    `network.NAME` sets one option of the network and keeps the others.

    Raises:
        SettingRefused: an unknown name (the nearest are shown), a value of the wrong type, or one out of range.
    """
    hints = get_type_hints(TrainConfig)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name.startswith("network."):
            option = yaml.safe_load(value) if isinstance(value, str) else value
            values["network"] = {**values.get("network", config.network), name.removeprefix("network."): option}
            continue
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=3) or sorted(hints)
            raise SettingRefused(f"there is no setting {name!r}; did you mean {', '.join(near)}?")
        values[name] = _typed(name, value, hints[name])
    return dataclasses.replace(config, **values)


def _typed(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, str):
        value = yaml.safe_load(value) if value else ""
    if get_origin(hint) is dict:
        if isinstance(value, dict):
            return value
        raise SettingRefused(f"{name}={value!r} is no mapping of names to values.")
    kinds = get_args(hint) or (hint,)
    choices = [c for kind in kinds for c in (get_args(kind) or ([kind] if isinstance(kind, str) else []))]
    if choices:
        if value in choices or (value is None and type(None) in kinds):
            return value
        raise SettingRefused(f"{name}={value!r} is not one of {', '.join(map(str, choices))}.")
    if value is None and type(None) in kinds:
        return None
    if bool in kinds:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif float in kinds:
        with_number = _number(value)
        if with_number is not None:
            return with_number
    elif int in kinds:
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    elif str in kinds and value is not None:
        return str(value)
    wanted = " or ".join("nothing (null)" if kind is type(None) else kind.__name__ for kind in kinds)
    raise SettingRefused(f"{name}={value!r} is not {wanted}.")


def _number(value: Any) -> float | None:
    """A float of a YAML scalar; YAML 1.1 takes `1e-4` for text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def write_config(path: Path, config: TrainConfig, *, data: Mapping[str, Any]) -> None:
    """Writes the resolved settings, with what is needed to find the data again, as YAML."""
    content = {"data": dict(data), "training": dataclasses.asdict(config)}
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_config(path: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Reads what `write_config` wrote: the settings, and the data's location and columns."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        training, data = content["training"], content.get("data", {})
    except FileNotFoundError:
        raise SettingRefused(f"{path}: there is no such configuration file.") from None
    except (yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise SettingRefused(
            f"{path}: not a run's config.yaml, which has the keys data and training ({error})."
        ) from None
    return with_settings(TrainConfig(), training), data
