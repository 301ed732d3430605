"""Models by name: list them, describe them, build them. Importing this loads no torch; building does."""

import difflib
import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ossicle.errors import ModelUnknown
from ossicle.models.presets import PRESETS, Preset

if TYPE_CHECKING:
    from ossicle.models.passt import Passt


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What `ossicle models show` prints."""

    preset: Preset
    parameters: int
    macs: int  # multiplications in a pass over 10 s that computes every token, as the papers count them
    tokens: int  # in that pass
    seconds: float  # that one pass sees


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


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    patchout_t: int | float = 0,
    patchout_f: int | float = 0,
    patchout_u: int | float = 0,
    **options: Any,
) -> "Passt":
    """Builds the network of that name with new random weights.

    Args:
        num_classes: labels; by default those of the preset.
        patchout_t: patch columns dropped in training, a count or a fraction below 1.
        patchout_f: patch rows, likewise.
        patchout_u: single patches, likewise.
        options: other fields of `PasstConfig`: depth, frames, dropout, drop_path, interpolate_positions, ...

    Raises:
        ModelUnknown: no such name.
        ValueError: an option that no such network has, or a value outside its range.
    """
    preset = find_preset(name)
    from dataclasses import fields

    from ossicle.models.passt import Passt, PasstConfig
    from ossicle.models.tokens import Patchout

    allowed = {field.name for field in fields(PasstConfig)} - {"num_classes", "patchout"}
    if unknown := sorted(options.keys() - allowed):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")
    shape = {field: getattr(preset, field) for field in ("dim", "num_heads", "depth", "stride", "frames")}
    config = PasstConfig(
        num_classes=preset.num_classes if num_classes is None else num_classes,
        patchout=Patchout(time=patchout_t, freq=patchout_f, unstructured=patchout_u),
        **(shape | options),
    )
    return Passt(config, frontend=preset.frontend)


def model_info(name: str) -> ModelInfo:
    """Counts parameters, tokens and the multiplications of one pass over 10 s, on a network without storage."""
    preset = find_preset(name)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.inference_mode():
        model = create_model(name).eval()
        spec = torch.empty(1, model.config.mels, round(10 / preset.frame_seconds))
        with FlopCounterMode(display=False) as counter:
            out = model.forward_features(spec, hidden_states=True)
    assert out.hidden_states is not None
    return ModelInfo(
        preset=preset,
        parameters=sum(p.numel() for p in model.parameters()),
        macs=counter.get_total_flops() // 2,
        tokens=out.hidden_states[0].shape[1],
        seconds=model.max_frames * preset.frame_seconds,
    )
