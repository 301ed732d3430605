"""Convert a published checkpoint into a bundle: find its network by the shapes, check every tensor, add the labels.

The network is built without storage and only says which names and shapes it needs; tensors stay mapped from their file
until they are written, so the memory needed is about that of the file.
"""

import csv
import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.bundle.card import Card
from ossicle.bundle.folder import check_replaceable, write_bundle
from ossicle.bundle.schema import CONFIG, info_config
from ossicle.errors import WeightsRefused
from ossicle.files import check_writable, existing_folder, read_json
from ossicle.frontend.recipes import FrontendConfig, frontend_config
from ossicle.inference import MAX_WINDOW_SECONDS
from ossicle.models import Preset, find_preset, list_models, network_class
from ossicle.models.base import Network
from ossicle.types import Task
from ossicle.weights.foreign import read_checkpoint
from ossicle.weights.tensors import check_finite, check_fit

FILES = ("model.safetensors", "pytorch_model.bin")  # of a folder of Hugging Face's `transformers`
PREPROCESSOR, EXTRACTOR = "preprocessor_config.json", "ASTFeatureExtractor"
MAX_TEXT = 2**24  # bytes of a list of labels, and of settings
AUDIOSET = 527  # labels of AudioSet, which do not exclude each other

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A bundle made from a checkpoint."""

    folder: Path
    model: str
    """Name of the architecture."""
    labels: tuple[str, ...]
    seconds: float
    notes: tuple[str, ...]
    """What was chosen without being asked for, a sentence each."""
    tensors: int
    unused: tuple[str, ...]
    """Tensors of the file that are not in the bundle: those of blocks that were cut."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint as it was found on disk."""

    source: Path
    tensors: dict[str, Tensor]
    settings: Mapping[str, Any]
    """config.json of a folder of `transformers`, with preprocessor_config.json as `preprocessor`; empty for others."""


def convert_checkpoint(
    file: str | Path,
    *,
    output: str | Path,
    model: str | None = None,
    labels: Sequence[str] | None = None,
    task: Task | None = None,
    frontend: str | FrontendConfig | None = None,
    average: bool | None = None,
    depth: int | None = None,
    window_seconds: float | None = None,
    weights_license: str | None = None,
    card: Card | None = None,
    report: Say = lambda sentence: None,
) -> Converted:
    """Writes a published checkpoint as a bundle, which `load`, `predict` and every other command take.

    Args:
        file: .pt, .pth, .ckpt or .safetensors, or a folder of Hugging Face's `transformers`
        output: folder of the bundle; an older bundle there is replaced
        model: name of its architecture, by default found from the shapes
        labels: in the order of the outputs; by default those of the file, or `class_0` and so on
        task: by default what the file says; else multi-label, but single-label for a folder of `transformers`
        frontend: name or settings; by default those of the file, or of the architecture
        average: of a file with weights and their average, whether to take the average; by default yes, if it fits
        depth: number of blocks to keep, as PaSST-L keeps 7 of 12
        window_seconds: of prediction; by default what the network takes in one pass, in whole seconds
        report: called with a sentence about each thing that was chosen without being asked for

    Raises:
        WeightsRefused: the file cannot be read or does not fit, or labels of another number
        ModelUnknown: an architecture or front end of that name does not exist
        RunRefused: `output` exists and is not a bundle
        OSError: no space
    """
    began, output, notes = time.perf_counter(), Path(output), list[str]()

    def note(sentence: str) -> None:
        notes.append(sentence)
        report(sentence)

    check_replaceable(output)
    check_writable(output)
    found = find(Path(file), average=average, scratch=existing_folder(output.parent), note=note)
    family, options = recognize(found, model=model)
    kept = kept_blocks(found, family, depth=depth, of=options.get("depth", 0))
    options |= {} if kept is None else {"depth": len(kept)}
    preset = choose_preset(found, family, options, model=model, frontend=frontend, cut=kept is not None, note=note)
    features = choose_frontend(found, frontend, preset=preset)
    count = options.pop("num_classes")
    names = choose_labels(found, labels, count=count, note=note)
    network = build(found, family, num_classes=count, frontend=preset.frontend, **{**preset.options, **options})
    tensors, cut = fit(found, network, features, kept=kept, note=note)
    config = info_config(
        task=task or choose_task(found, count=count, note=note),
        labels=names,
        window_seconds=window_seconds or one_pass(network, preset, features),
        weights_license=weights_license,
        model={"name": preset.name, "options": network.options()},
        frontend=features.to_dict(),
    )
    unknown = Card(data=f"Converted from {found.source.name}, which does not say what the network was trained on.")
    write_bundle(output, config, tensors, card=card or unknown)
    return Converted(
        folder=output,
        model=preset.name,
        labels=tuple(names),
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
        tensors=len(tensors),
        unused=cut,
    )


# --- the file --------------------------------------------------------------------------------------------------------


def find(file: Path, *, average: bool | None, scratch: Path, note: Say) -> Found:
    """The tensors and the settings of a checkpoint, or of a folder of Hugging Face's `transformers`."""
    source = file
    if file.is_dir():
        inside = [file / name for name in FILES if (file / name).is_file()]
        if not inside:
            raise WeightsRefused(f"{file}: this folder has no {' or '.join(FILES)}; expected a checkpoint.")
        source = inside[0]
    settings = read_settings(source.with_name(CONFIG)) if source.name in FILES else {}
    if "schema_version" in settings:
        raise WeightsRefused(f"{source.parent}: this is a bundle already; use it as it is.")
    if "model_type" in settings:
        settings["preprocessor"] = read_settings(source.with_name(PREPROCESSOR))
    tensors = read_checkpoint(source, average=average, report=note, scratch=scratch)
    return Found(source=source, tensors=tensors, settings=settings)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file.

    Raises: WeightsRefused for anything else.
    """
    if path.exists() and path.stat().st_size > MAX_TEXT:
        raise WeightsRefused(f"{path}: {path.stat().st_size:,} bytes are no settings of a network.")
    return read_json(path, refused=WeightsRefused)


def read_labels(path: Path) -> list[str]:
    """Labels in the order of the outputs: one a line, or the column `display_name` of a table as AudioSet has it.

    Raises: WeightsRefused for a file that is missing or not UTF-8, or whose column `index` does not count from 0.
    """
    try:
        if path.stat().st_size > MAX_TEXT:
            raise WeightsRefused(f"{path}: {path.stat().st_size:,} bytes are no list of labels; expected one a line.")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise WeightsRefused(f"{path}: there is no such file; expected one label a line.") from None
    except UnicodeDecodeError:
        raise WeightsRefused(f"{path}: the labels are not UTF-8 text.") from None
    if not lines or "display_name" not in lines[0].split(","):
        return [line.strip() for line in lines if line.strip()]
    rows = list(csv.DictReader(lines))
    for number, row in enumerate(rows):
        if row.get("index", str(number)) != str(number):
            raise WeightsRefused(f"{path}: line {number + 2} has the index {row['index']}; expected {number}.")
    return [row["display_name"] or "" for row in rows]


# --- the network -----------------------------------------------------------------------------------------------------


def recognize(found: Found, *, model: str | None) -> tuple[type[Network], dict[str, Any]]:
    """The family of a checkpoint, and the options that follow from its shapes.

    Raises: WeightsRefused if there is none, or another than that of `model`.
    """
    wanted = None if model is None else network_class(model)
    settings = {**({} if model is None else find_preset(model).options), **found.settings}
    for family in families():
        try:
            options = family.recognize(found.tensors, settings=settings)
        except (WeightsRefused, TypeError, ValueError) as error:
            raise WeightsRefused(f"{found.source}: {error}") from None
        if options is not None and wanted in (None, family):
            return family, options
        if options is not None:
            raise WeightsRefused(f"{found.source}: these are the weights of a {family.__name__}, not of {model}.")
    for family in families():
        if kind := family.image_network(found.tensors):
            raise WeightsRefused(
                f"{found.source}: the weights of {kind}, a network of images, have no labels of sounds; they start a "
                f"training: ossicle train DATA --model {model or started(found, family)} --init {found.source}"
            )
    first = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(found.tensors.items())[:3])
    known = ", ".join(family.__name__ for family in families())
    raise WeightsRefused(f"{found.source}: not the weights of a network that ossicle has ({known}); found {first}, ...")


def started(found: Found, family: type[Network]) -> str:
    """The first architecture that can start from these weights."""
    for preset in architectures(family):
        network = build(found, family, num_classes=1, frontend=preset.frontend, **preset.options)
        try:
            check_fit(network, network.adapted(found.tensors, source=found.source), source=found.source)
        except WeightsRefused:
            continue
        return preset.name
    return "NAME"


def architectures(family: type[Network]) -> list[Preset]:
    """The architectures of a family."""
    return [find_preset(name) for name in list_models() if network_class(name) is family]


def families() -> list[type[Network]]:
    """Every family of networks that is registered."""
    return list(dict.fromkeys(network_class(name) for name in list_models()))


def build(found: Found, family: type[Network], **options: Any) -> Network:
    """The network without storage."""
    try:
        with torch.device("meta"):
            return family.from_options(**options)
    except (TypeError, ValueError, RuntimeError) as error:  # the last for sizes beyond any memory
        raise WeightsRefused(f"{found.source}: {str(error).splitlines()[0]}") from None


def fit(
    found: Found, network: Network, features: FrontendConfig, *, kept: list[int] | None, note: Say
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a network as it needs them, and the names of those of blocks that were cut.

    Raises: WeightsRefused for tensors or a front end that do not fit, and for NaN or infinity.
    """
    if features.mels != network.config.mels:
        raise WeightsRefused(
            f"{found.source}: the network takes {network.config.mels} mel bins; the front end has {features.mels}."
        )
    if kept is not None:
        note(f"Kept blocks {', '.join(map(str, kept))}; fine-tune the network before you rely on its scores.")
    adapted = network.adapted(found.tensors, source=found.source, new_head=False, report=note)
    tensors, cut = without_blocks(adapted, kept)
    check_fit(network, tensors, source=found.source)
    check_finite(tensors, source=found.source)
    wanted = network.state_dict()
    return {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}, cut


def kept_blocks(found: Found, family: type[Network], *, depth: int | None, of: int) -> list[int] | None:
    """The blocks to keep, for a network of `depth` blocks; None keeps all."""
    if depth is None or depth == of:
        return None
    try:
        return family.kept_blocks(of, depth)
    except ValueError as error:
        raise WeightsRefused(f"{found.source}: {error}") from None


def without_blocks(tensors: Mapping[str, Tensor], kept: list[int] | None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors with only these blocks, counted anew; and the names of the others."""
    if kept is None:
        return dict(tensors), ()
    place = {str(block): str(number) for number, block in enumerate(kept)}
    left, cut = {}, []
    for name, tensor in tensors.items():
        block = re.match(r"blocks\.(\d+)\.", name)
        if block is None:
            left[name] = tensor
        elif block[1] in place:
            left[f"blocks.{place[block[1]]}.{name[block.end() :]}"] = tensor
        else:
            cut.append(name)
    return left, tuple(cut)


def choose_preset(
    found: Found,
    family: type[Network],
    options: Mapping[str, Any],
    *,
    model: str | None,
    frontend: str | FrontendConfig | None,
    cut: bool,
    note: Say,
) -> Preset:
    """The architecture of that name, or the one with these options; else the nearest.

    Raises: WeightsRefused for one with other options, and for several that differ in their front end.
    """
    if model is not None:
        return check_preset(found, find_preset(model), options, cut=cut)
    presets = architectures(family)
    defaults = {field.name: field.default for field in dataclasses.fields(family.config_class)}

    def differing(preset: Preset) -> list[str]:
        own = {**defaults, **preset.options}
        return [name for name, value in options.items() if name != "num_classes" and own[name] != value]

    exact = [preset for preset in presets if not differing(preset)]
    if frontend is not None:
        exact = [preset for preset in exact if preset.frontend == frontend] or exact[:1]
    if len({preset.frontend for preset in exact}) > 1:
        names = " and ".join(f"{preset.name} (front end {preset.frontend})" for preset in exact)
        raise WeightsRefused(f"{found.source}: the shapes are those of {names}; choose with --model.")
    if exact:
        return exact[0]
    nearest = min(presets, key=lambda preset: len(differing(preset)))
    changed = ", ".join(f"{name}={options[name]}" for name in differing(nearest))
    note(f"No architecture has exactly these shapes; taken as {nearest.name} with {changed}.")
    return nearest


def check_preset(found: Found, preset: Preset, options: Mapping[str, Any], *, cut: bool) -> Preset:
    """The architecture, if the shapes are its own; the depth may differ if it was cut.

    Raises: WeightsRefused with both options.
    """
    stated = {name: value for name, value in preset.options.items() if not (cut and name == "depth")}
    if other := [name for name, value in stated.items() if options.get(name, value) != value]:
        shapes = ", ".join(f"{name}={options[name]}" for name in other)
        wanted = ", ".join(f"{name}={stated[name]}" for name in other)
        raise WeightsRefused(f"{found.source}: the shapes are those of {shapes}; {preset.name} has {wanted}.")
    return preset


def choose_frontend(found: Found, frontend: str | FrontendConfig | None, *, preset: Preset) -> FrontendConfig:
    """The front end that was asked for, that of the file, or that of the architecture."""
    config = frontend_config(frontend or preset.frontend)
    given = found.settings.get("preprocessor")
    if frontend is not None or not given:
        return config
    kind = given.get("feature_extractor_type", EXTRACTOR)
    if kind != EXTRACTOR:
        raise WeightsRefused(f"{found.source.with_name(PREPROCESSOR)}: a {kind}; expected {EXTRACTOR}.")
    try:
        rate = given.get("sampling_rate", config.rate)
        window = round(rate * config.window_samples / config.rate)
        normal = given.get("do_normalize", True)
        return dataclasses.replace(
            config,
            rate=rate,
            mels=given.get("num_mel_bins", config.mels),
            window_samples=window,
            fft_samples=2 ** (window - 1).bit_length(),
            hop_samples=round(rate * config.hop_samples / config.rate),
            max_hertz=rate / 2,
            mean=float(given.get("mean", config.mean)) if normal else 0.0,
            deviation=float(given.get("std", config.deviation)) if normal else 0.5,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise WeightsRefused(f"{found.source.with_name(PREPROCESSOR)}: not a front end ({error}).") from None


def one_pass(network: Network, preset: Preset, features: FrontendConfig) -> float:
    """The length of a pass in seconds, in whole seconds where it has one."""
    frames = network.max_frames or preset.counted_frames
    seconds = min((features.samples(frames + 1) - 1) / features.rate, MAX_WINDOW_SECONDS)
    return float(int(seconds)) or seconds


# --- the labels ------------------------------------------------------------------------------------------------------


def choose_labels(found: Found, labels: Sequence[str] | None, *, count: int, note: Say) -> list[str]:
    """The labels that were given, those of the file, or numbers.

    Raises: WeightsRefused for labels of another number, empty or twice.
    """
    named = found.settings.get("id2label")
    if labels is None and isinstance(named, dict):
        try:
            labels = [str(named[key]) for key in sorted(named, key=int)]
        except ValueError:
            raise WeightsRefused(f"{found.source.with_name(CONFIG)}: id2label has keys that are no numbers.") from None
    if labels is None:
        note(f"The file has no labels: they are called class_0 to class_{count - 1}; name them with --labels.")
        return [f"class_{number}" for number in range(count)]
    if len(labels) != count:
        raise WeightsRefused(f"{found.source}: the network has {count} outputs; got {len(labels)} labels.")
    if twice := [label for number, label in enumerate(labels) if not label or label in labels[:number]]:
        raise WeightsRefused(f"{found.source}: the label {twice[0]!r} is empty or occurs twice; each output needs one.")
    return list(labels)


def choose_task(found: Found, *, count: int, note: Say) -> Task:
    """Whether the labels exclude each other, as the file says or its number of outputs suggests."""
    stated: dict[str, Task] = {
        "single_label_classification": "single-label",
        "multi_label_classification": "multi-label",
    }
    if (problem := str(found.settings.get("problem_type"))) in stated:
        return stated[problem]
    if count == AUDIOSET:
        return "multi-label"
    # Without a statement transformers trains with a softmax.
    task: Task = "single-label" if "model_type" in found.settings else "multi-label"
    note(f"The file does not say whether its labels exclude each other; taken as {task}, which --task changes.")
    return task
