"""What a run is made of: one frozen value that is stored whole in the run folder.

`TrainConfig` is that of `ossicle train`, `TuneConfig` that of `ossicle tune`. A field that is None is filled in from
the data, and every value so chosen is printed.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

import yaml

from ossicle.devices import Precision
from ossicle.encoders import EncoderPrecision
from ossicle.errors import RunRefused, SettingRefused
from ossicle.evaluation import CONFIG
from ossicle.files import write_atomically
from ossicle.models.tokens import PATCHOUT
from ossicle.settings import from_yaml, typed
from ossicle.training.losses import LOSSES
from ossicle.training.schedules import SCHEDULES
from ossicle.tuning.heads import HEADS


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The settings that every training has: of the data, the optimization and the machine."""

    seed: int = 0

    # Data
    validation: float = 0.15  # fraction of the training part that chooses epoch, thresholds, temperature; 0 is none
    balance: Literal["none", "class"] | None = None  # class: rare labels are drawn more often
    balance_offset: float = 0.0  # label weight 1 / (count + offset); the AudioSet recipe of PaSST has 100

    # Optimization
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int = 1  # batches per optimizer step
    lr: float = 4e-4  # peak learning rate of AdamW
    weight_decay: float = 0.05
    weight_decay_on: Literal["matrices", "all"] = "matrices"  # all: biases, norms, positions and gates decay too
    warmup: float = 2.0  # epochs
    schedule: str = "cosine"  # cosine, linear, constant or plateau
    hold: float = 0.0  # fraction of the run before the decay starts
    decay_until: float = 1.0  # fraction of the run at which the decay has ended
    final_lr: float = 0.01  # learning rate from there on, as a fraction of the peak
    plateau_patience: int = 10  # epochs without a better validation score before the rate falls
    plateau_factor: float = 0.1  # by which it falls
    clip_gradient: float = 1.0  # largest norm of the gradient; 0 is no limit
    loss: str = "cross_entropy"  # cross_entropy or focal
    focal_gamma: float = 2.5  # of the focal loss: how much less a clip counts that is predicted well
    focal_alpha: float = 1.0  # of the focal loss: factor of the whole
    label_smoothing: float = 0.0  # single-label only
    average: Literal["none", "ema", "swa"] = "none"
    ema_decay: float = 0.998  # per optimizer step
    swa_start: float = 0.5  # fraction of the run before the first snapshot
    swa_every: int = 1  # epochs between snapshots
    patience: int = 0  # epochs without a better validation score before the run stops; 0 runs to the end
    min_delta: float = 0.001  # rise of that score from which on it counts as better for patience

    # Machine
    device: str = "auto"
    kernels: str = "auto"  # routines on a processor; auto: those that are faster on this machine
    save_minutes: float = 10.0  # between checkpoints inside an epoch
    cache_gigabytes: float = 16.0  # decoded samples kept on disk

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def name(self) -> str:
        """What trains."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrainConfig(FitConfig):
    """Every setting of a training run.

    The defaults are the recipe `scratch`: a model from random weights on one machine.
    """

    model: str = "passt_tiny_s16"
    weights: str | None = None  # bundle, published checkpoint or safetensors to start from; None is random
    weights_average: bool | None = None  # of a checkpoint with both: the average, or what it is of; None prefers it
    depth: int | None = None  # blocks of a PaSST; None is the model's own
    network: dict[str, Any] = field(default_factory=dict)  # options of the model beyond its preset, by name
    layer_decay: float = 1.0  # learning rate of a block as a fraction of that of the next; the head has `lr`
    freeze_epochs: int = 0  # epochs at the start in which the head alone trains

    # Distillation
    teachers: Sequence[str] = field(
        default_factory=list
    )  # models, ONNX files or stored outputs that the network learns from
    unlabeled: bool = False  # the network has the labels of the first teacher; those of the data are not read
    label_weight: float = 1.0  # of the loss on the labels of the data
    teacher_weight: float = 1.0  # of the loss on each teacher's logits
    embedding_weight: float = 1.0  # of the loss on each teacher's embeddings
    teacher_loss: Literal["auto", "bce", "kl", "mse"] = (
        "auto"  # on logits; auto: kl of a single-label teacher, else bce
    )
    teacher_temperature: float = 2.0  # of the loss kl

    window: float | None = None  # seconds of a training clip; longer recordings are cropped at random, anew each epoch
    epoch_clips: int | None = None  # clips per epoch; None is every clip once
    label_smoothing: float = 0.1
    average: Literal["none", "ema", "swa"] = "ema"

    # Patchout and augmentation
    patchout_t: float | int | None = None  # columns of patches dropped: a whole count, or below 1 a fraction
    patchout_f: float | int | None = None  # rows of patches dropped
    patchout_u: float | int = 0  # further patches dropped anywhere
    drop_path: float = 0.0  # fraction of branches skipped at the last block, rising from 0 at the first
    gain: float = 7.0  # decibels, either way
    roll: float = 0.0  # seconds, either way, around the end
    wave_mixup: float = 0.0  # probability of mixing two waveforms, Beta(2, 2)
    mixup: float = 0.3  # Beta parameter of spectrogram mixing; 0 is none
    freq_mask: int = 0  # widest SpecAugment mask, in mel bins
    time_mask: float = 0.0  # widest SpecAugment mask, as a fraction of the window
    jitter: bool = True  # draw the ends of the mel filterbank anew for every batch

    devices: int = 1  # processes on a machine, one a GPU; on processors as many as wanted
    nodes: int = 1  # machines
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # how several processes share the network; auto is ddp
    precision: Precision = "auto"  # auto: bfloat16 where this machine multiplies faster in it
    compile: bool = False
    gradient_checkpointing: bool = False  # compute the blocks a second time for the gradient; less memory
    workers: int = 2  # threads that prepare batches

    @property
    def name(self) -> str:
        """The architecture."""
        return self.model


@dataclass(frozen=True, kw_only=True)
class TuneConfig(FitConfig):
    """Every setting of a tuning: a head, and perhaps a tuner, on a frozen encoder."""

    encoder: str = ""
    encoder_precision: EncoderPrecision = "float32"  # of the encoder's weights and passes; the head is float32
    crop: bool = False  # of Whisper: encode the clip alone, not 30 s
    head: str = "density"
    options: dict[str, Any] = field(default_factory=dict)  # of the head, by name
    tuner: str | None = None  # few parameters inside the encoder: lora, ia3, density, ...
    tuner_options: dict[str, Any] = field(default_factory=dict)
    lora_plus: float = 1.0  # of lora: learning rate of B as a multiple of that of A
    keep_layers: str | None = None  # best:K by probes, IF:K by the Importance Factor, or numbers; None is all
    pool: Literal["mean", "statistics"] = "mean"  # over time, for heads that take no time: mean, or mean and deviation
    standardize: bool = True  # features by mean and deviation of the training part, for every layer and feature

    balance: Literal["none", "class"] = "class"
    epochs: int = 35
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01

    @property
    def name(self) -> str:
        """The head."""
        return self.head


Config = TypeVar("Config", TrainConfig, TuneConfig)


def check_values(config: FitConfig) -> None:
    """Refuses a value of the wrong type, out of its range or that would have to be rounded, and a name that is none."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        read = typed(name, value, hint)
        if isinstance(value, str) and read != value:
            raise SettingRefused(f"{name}={value!r} is text; expected {read!r}.")
    for name, known in (("loss", LOSSES), ("schedule", SCHEDULES)):
        if (value := getattr(config, name)) not in known:
            raise SettingRefused(f"{name}={value} is not available; available: {', '.join(known)}.")
    for name, (low, high) in _RANGES.items():
        value = getattr(config, name, None)
        if value is not None and not low <= value <= high:
            raise SettingRefused(f"{name}={value} lies outside its range, {low:g} to {high:g}.")
    for name in PATCHOUT:
        value = getattr(config, name, None)
        if value is not None and value > 1 and value != int(value):
            raise SettingRefused(f"{name}={value:g}: above 1 it is a count, and whole; below 1 it is a fraction.")
    if getattr(config, "compile", False) and getattr(config, "gradient_checkpointing", False):
        raise SettingRefused(
            "gradient_checkpointing=true does not go with compile=true, where it would draw other numbers the second "
            "time; leave one of the two out."
        )
    if config.decay_until < config.hold:
        raise SettingRefused(
            f"the decay ends at decay_until={config.decay_until:g} of the run, before it starts at "
            f"hold={config.hold:g}; decay_until is no less than hold."
        )


# Settings that do something only where another one has one of some values.
_ACTING: dict[str, tuple[str, tuple[Any, ...]]] = {
    "balance_offset": ("balance", ("class", None)),
    "ema_decay": ("average", ("ema",)),
    "swa_start": ("average", ("swa",)),
    "swa_every": ("average", ("swa",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "plateau_factor": ("schedule", ("plateau",)),
    "hold": ("schedule", ("cosine", "linear")),
    "decay_until": ("schedule", ("cosine", "linear")),
    "final_lr": ("schedule", ("cosine", "linear")),
    "focal_gamma": ("loss", ("focal",)),
    "focal_alpha": ("loss", ("focal",)),
    "label_weight": ("unlabeled", (False,)),
    "teacher_temperature": ("teacher_loss", ("auto", "kl")),
    "lora_plus": ("tuner", ("lora",)),
    "pool": ("head", tuple(name for name, head in HEADS.items() if not head.takes_time)),
}
_NEEDING = {
    "weights_average": "weights",
    "patience": "validation",
    "min_delta": "patience",
    "tuner_options": "tuner",
    "label_weight": "teachers",
    "teacher_weight": "teachers",
    "embedding_weight": "teachers",
    "teacher_loss": "teachers",
    "teacher_temperature": "teachers",
}


def short_warmup(config: FitConfig) -> list[str]:
    """Says where the warm-up is cut to half of a short run."""
    epochs = config.epochs or 1
    if config.warmup <= epochs / 2:
        return []
    return [f"warmup={epochs / 2:g} epochs, not {config.warmup:g}: half of a run of {epochs} is the most"]


def check_acting(config: FitConfig, given: Iterable[str]) -> None:
    """Refuses settings that were given and would do nothing beside the others.

    Args:
        given: their names; `PART.NAME` counts as its part.
    """
    for setting in given:
        name = setting.partition(".")[0]
        other, values = _ACTING.get(name, (None, ()))
        if other is not None and getattr(config, other) not in values:
            wanted = " or ".join(text_of(value) for value in values if value is not None)
            found = text_of(getattr(config, other))
            raise SettingRefused(f"{name} does nothing with {other}={found}; it needs {other}={wanted}.")
        needed = _NEEDING.get(name)
        if needed is not None and getattr(config, name) not in (None, 0) and not getattr(config, needed):
            raise SettingRefused(f"{name} does nothing without {needed}: give that as well, or leave this out.")


def text_of(value: Any) -> str:
    """A value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


_RANGES = {
    "seed": (0, 2**32 - 1),
    "depth": (1, 1000),
    "layer_decay": (0.01, 1.0),
    "label_weight": (0.0, 1e6),
    "teacher_weight": (0.0, 1e6),
    "embedding_weight": (0.0, 1e6),
    "teacher_temperature": (0.01, 1000.0),
    "freeze_epochs": (0, 100_000),
    "window": (0.05, 60.0),
    "validation": (0.0, 0.5),
    "balance_offset": (0, 1e9),
    "epoch_clips": (1, 1e9),
    "epochs": (1, 100_000),
    "batch_size": (1, 65_536),
    "accumulate": (1, 65_536),
    "lr": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "warmup": (0.0, 1e5),
    "hold": (0.0, 1.0),
    "decay_until": (0.0, 1.0),
    "final_lr": (0.0, 1.0),
    "clip_gradient": (0.0, 1e9),
    "plateau_patience": (0, 100_000),
    "plateau_factor": (0.001, 1.0),
    "focal_gamma": (0.0, 100.0),
    "focal_alpha": (0.0, 100.0),
    "lora_plus": (0.01, 1000.0),
    "label_smoothing": (0.0, 0.9),
    "ema_decay": (0.0, 0.999999),
    "swa_start": (0.0, 1.0),
    "swa_every": (1, 1e6),
    "patience": (0, 100_000),
    "min_delta": (0.0, 1.0),
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
    "devices": (1, 1024),
    "nodes": (1, 65_536),
    "save_minutes": (0.0, 1e6),
    "cache_gigabytes": (0.0, 1e6),
}


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Returns `config` with values replaced; text is read as YAML, so `--set lr=1e-4` and `--set window=null` work.

    `network.NAME` sets one option of the network and keeps the others; so do `options.NAME` and `tuner_options.NAME`.

    Raises:
        SettingRefused: an unknown name (the nearest are shown), a value of the wrong type, or one out of range.
    """
    hints = get_type_hints(type(config))
    values: dict[str, Any] = {}
    for name, value in settings.items():
        part, dot, option = name.partition(".")
        if dot and get_origin(hints.get(part)) is dict:
            values[part] = {**values.get(part, getattr(config, part)), option: from_yaml(name, value)}
            continue
        if name in RENAMED:
            raise SettingRefused(f"the setting {name} is now called {RENAMED[name]}.")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=3) or sorted(hints)
            raise SettingRefused(f"there is no setting {name!r}; did you mean {', '.join(near)}?")
        values[name] = typed(name, value, hints[name])
    return dataclasses.replace(config, **values)


def write_config(path: Path, config: FitConfig, *, data: Mapping[str, Any]) -> None:
    """Writes the resolved settings, with what is needed to find the data again, as YAML."""
    content = {"data": dict(data), _KEYS[type(config)]: dataclasses.asdict(config)}
    write_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_config(path: Path, kind: type[Config]) -> tuple[Config, dict[str, Any]]:
    """Reads what `write_config` wrote: the settings, and the data's location and columns."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings, data = dict(content[_KEYS[kind]]), dict(content.get("data") or {})
    except FileNotFoundError:
        raise SettingRefused(f"{path}: there is no such configuration file.") from None
    except (yaml.YAMLError, TypeError, KeyError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise SettingRefused(
            f"{path}: not a run's config.yaml, which has the keys data and {_KEYS[kind]} ({why})."
        ) from None
    try:
        return with_settings(kind(), settings), data
    except (SettingRefused, TypeError, AttributeError) as error:
        raise SettingRefused(f"{path}: {error}") from None


NO_OUTPUT = "--resume continues the run in a folder, and none is given: -o RUN names it."
_KEYS: dict[type, str] = {TrainConfig: "training", TuneConfig: "tuning"}
RENAMED = {"development": "validation", "standardise": "standardize"}  # in runs of an older version


def settle_config(
    start: Config,
    settings: Mapping[str, Any],
    *,
    columns: Mapping[str, Any],
    folds: str | None = None,
    config: Path | None = None,
    output: Path | None = None,
    resume: bool = False,
) -> tuple[Config, dict[str, Any], str | None]:
    """Settings, columns and folds of a run: of a stored run or a file where one is named, then those given one by one.

    Args:
        start: where nothing is stored
        settings: text is read as YAML; None is not given
        columns: of the table, by name; None is not given

    Raises:
        RunRefused: there is no run to continue in `output`.
        SettingRefused: a configuration that cannot be read, or a setting that is refused or would do nothing.
    """
    if resume:
        if output is None:
            raise RunRefused(NO_OUTPUT)
        if not (output / CONFIG).exists():
            raise RunRefused(f"{output}: no run to continue; --resume needs -o RUN, a folder that holds config.yaml.")
        config = config or output / CONFIG
    stored: dict[str, Any] = {}
    if config is not None:
        start, stored = read_config(config, type(start))
    given = {name: value for name, value in settings.items() if value is not None}
    settled = with_settings(start, given)
    check_acting(settled, given)
    columns = {name: value or stored.get(name) for name, value in columns.items()}
    return settled, columns, folds or stored.get("folds")
