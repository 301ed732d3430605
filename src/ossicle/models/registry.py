"""Model registry: register, list, describe and build networks by name. Only building a network imports torch.

`register_network` registers the presets of a family: ours in `ossicle.models.presets`, those of an installed package in
a module given by an entry point of the group `ossicle.networks`, which is imported on first use.

    [project.entry-points."ossicle.networks"]
    mine = "my_package.networks"
"""

import difflib
import fnmatch
import functools
import importlib
import importlib.metadata
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ossicle.errors import ModelUnknown
from ossicle.models.heads import HeadSpec

if TYPE_CHECKING:
    from ossicle.models.base import Network

ENTRY_POINTS = "ossicle.networks"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One name in the registry: an architecture and its front end."""

    name: str
    options: Mapping[str, Any]
    """Fields of the network's configuration."""
    num_classes: int = 527
    frontend: str = "passt"
    """Recipe by name."""
    frame_seconds: float = 0.01
    """Hop of that recipe."""
    counted_frames: int = 1000
    """Input length for which the cost is counted: 10 s, or the 1024 frames that papers on filterbanks take."""
    width: str = ""
    """Channels of a token; of each stage in a pyramid."""
    depth: str = ""
    """Blocks; of each stage in a pyramid."""
    stride: str = ""
    """Frames and mel bins from token to token."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What `ossicle models show` prints."""

    preset: Preset
    parameters: int
    macs: int  # multiplications in a pass over the preset's `counted_frames` that computes every token
    tokens: int  # in that pass, at the first block
    seconds: float | None  # longest input of one pass; None for any length
    reduces_tokens: bool  # whether it can be run on fewer tokens


_registered: dict[str, tuple[Preset, "str | type[Network]"]] = {}


def register_network(network: "str | type[Network]", *, presets: Iterable[Preset]) -> None:
    """Registers a family of networks under the names of its presets.

    Args:
        network: the subclass of `Network`; or "module:Class", which is imported when a network is built.

    Raises:
        ValueError: a name of another family; then nothing is registered.
    """
    new = {preset.name: (preset, network) for preset in presets}
    if taken := sorted(name for name in new.keys() & _registered.keys() if not is_same(_registered[name][1], network)):
        raise ValueError(f"model {taken[0]} is already registered; choose another name")
    _registered.update(new)


def is_same(one: "str | type[Network]", other: "str | type[Network]") -> bool:
    """Whether both have the same module and name, as a class that is defined again in a notebook."""
    first, second = (n if isinstance(n, str) else f"{n.__module__}:{n.__qualname__}" for n in (one, other))
    return first == second


@functools.cache
def load_entry_points() -> None:
    """Imports what installed packages register; a package that fails is left out and logged."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        # Modules of other packages can raise any exception; the other models do not depend on them.
        except Exception as error:
            logging.getLogger("ossicle").warning("The networks of %s are left out: %s", point.value, error)


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, sorted.

    >>> list_models("passt_tiny_s1[06]")
    ['passt_tiny_s10', 'passt_tiny_s16']
    """
    load_entry_points()
    return sorted(fnmatch.filter(_registered, pattern))


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ModelUnknown: unknown name; the message has similar ones.
    """
    names = list_models()
    if name in _registered:
        return _registered[name][0]
    if (architecture := name.partition(".")[0]) in _registered:
        raise ModelUnknown(f"{name} is the name of weights; expected that of an architecture, such as {architecture}")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"similar names: {', '.join(near)}" if near else "`ossicle models list` lists all"
    raise ModelUnknown(f"model {name!r} is not available; {hint}")


def network_class(name: str) -> "type[Network]":
    """The class of the model of that name, imported on first use.

    Raises:
        ModelUnknown: unknown name.
    """
    find_preset(name)
    network = _registered[name][1]
    if not isinstance(network, str):
        return network
    module, _, attribute = network.partition(":")
    return getattr(importlib.import_module(module), attribute)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    head: HeadSpec | None = None,
    **options: Any,
) -> "Network":
    """Builds the network of that name with new random weights.

    Args:
        num_classes: labels; by default those of the preset.
        head: in place of `num_classes`.
        options: fields of the network's configuration: of a PaSST `PasstConfig` (depth, frames, dropout, drop_path,
            interpolate_positions, ...) and `patchout_t`, `patchout_f`, `patchout_u`, each a count or a fraction below
            1; of a DATAR `DatarConfig` (adaptor, offsets, key_strides, drop_path, ...).

    Raises:
        ModelUnknown: unknown name.
        ValueError: an unknown option, a value outside its range, or an unsupported head.
    """
    preset, network = find_preset(name), network_class(name)
    if head is not None:
        network.check_head(head)
        num_classes = head.outputs
    allowed = network.option_types()
    if unknown := sorted(options.keys() - allowed.keys()):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")
    return network.from_options(
        num_classes=preset.num_classes if num_classes is None else num_classes,
        frontend=preset.frontend,
        **{**preset.options, **options},
    )


def summarize_model(name: str) -> ModelSummary:
    """Counts parameters, tokens and multiplications of one pass, on a network without storage."""
    preset = find_preset(name)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ossicle.kernels import using_kernels

    # With a choice that is still to be measured, the measurement would be counted as well.
    with torch.device("meta"), torch.inference_mode(), using_kernels("torch"):
        model = create_model(name).eval()
        spec = torch.empty(1, model.config.mels, preset.counted_frames)
        with FlopCounterMode(display=False) as counter:
            out = model.forward_features(spec, hidden_states=True)
    return ModelSummary(
        preset=preset,
        parameters=sum(p.numel() for p in model.parameters()),
        macs=counter.get_total_flops() // 2,
        tokens=out.hidden_states[0][0, ..., 0].numel(),
        seconds=None if model.max_frames is None else model.max_frames * preset.frame_seconds,
        reduces_tokens=model.reduces_tokens,
    )
