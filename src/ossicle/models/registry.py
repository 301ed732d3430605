"""Models by name: list them, describe them, build them. Importing this loads no torch; building does."""

import difflib
import fnmatch
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ossicle.errors import ModelUnknown
from ossicle.models.presets import PRESETS, Preset

if TYPE_CHECKING:
    from ossicle.models.datar import Datar
    from ossicle.models.passt import Passt


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What `ossicle models show` prints."""

    preset: Preset
    parameters: int
    macs: int  # multiplications in a pass over the preset's `counted_frames` that computes every token
    tokens: int  # in that pass, at the first block
    seconds: float | None  # that one pass sees; None for any length


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, sorted.

    >>> list_models("passt_tiny_s1[06]")
    ['passt_tiny_s10', 'passt_tiny_s16']
    """
    return sorted(fnmatch.filter(PRESETS, pattern))


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ModelUnknown: no such name; the nearest ones are shown.
    """
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
    hint = f"the nearest are {', '.join(near)}" if near else "`ossicle models list` shows all"
    raise ModelUnknown(f"there is no model {name!r}; {hint}")


def create_model(name: str, *, num_classes: int | None = None, **options: Any) -> "Passt | Datar":
    """Builds the network of that name with new random weights.

    Args:
        num_classes: labels; by default those of the preset.
        options: fields of the family's configuration, `PasstConfig` (depth, frames, dropout, drop_path,
            interpolate_positions, ...) or `DatarConfig` (adaptor, offsets, key_strides, drop_path, ...). For PaSST also
            `patchout_t`, `patchout_f`, `patchout_u`: patch columns, rows and single patches dropped in training, each a
            count, or a fraction below 1.

    Raises:
        ModelUnknown: no such name.
        ValueError: an option that no such network has, or a value outside its range.
    """
    preset = find_preset(name)
    allowed = allowed_options(name)
    if unknown := sorted(options.keys() - allowed):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")
    options = {**preset.options, **options}
    num_classes = preset.num_classes if num_classes is None else num_classes
    if preset.family == "datar":
        from ossicle.models.datar import Datar, DatarConfig

        # What comes from JSON or YAML has lists.
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
        }
        return Datar(DatarConfig(num_classes=num_classes, **values), frontend=preset.frontend)
    from ossicle.models.passt import Passt, PasstConfig
    from ossicle.models.tokens import Patchout

    patchout = Patchout(**{field: options.pop(key, 0) for key, field in PATCHOUT.items()})
    return Passt(PasstConfig(num_classes=num_classes, patchout=patchout, **options), frontend=preset.frontend)


PATCHOUT = {"patchout_t": "time", "patchout_f": "freq", "patchout_u": "unstructured"}


def allowed_options(name: str) -> set[str]:
    """What `create_model` takes besides the number of labels."""
    preset = find_preset(name)
    if preset.family == "datar":
        from ossicle.models.datar import DatarConfig

        return {field.name for field in fields(DatarConfig)} - {"num_classes"}
    from ossicle.models.passt import PasstConfig

    return {field.name for field in fields(PasstConfig)} - {"num_classes", "patchout"} | set(PATCHOUT)


def model_info(name: str) -> ModelInfo:
    """Counts parameters, tokens and multiplications of one pass, on a network without storage."""
    preset = find_preset(name)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode():
        model = create_model(name).eval()
        spec = torch.empty(1, model.config.mels, preset.counted_frames)
        with FlopCounterMode(display=False) as counter:
            out = model.forward_features(spec, hidden_states=True)
    assert out.hidden_states is not None
    return ModelInfo(
        preset=preset,
        parameters=sum(p.numel() for p in model.parameters()),
        macs=counter.get_total_flops() // 2,
        tokens=out.hidden_states[0][0, ..., 0].numel(),
        seconds=None if model.max_frames is None else model.max_frames * preset.frame_seconds,
    )
