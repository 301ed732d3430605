"""What the data decide where the user did not: window, epochs, batch size, balance, patchout."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64

from ossicle.errors import SettingRefused
from ossicle.frontend import FrontendConfig
from ossicle.models.passt import patches_along
from ossicle.models.registry import find_preset
from ossicle.models.tokens import drop_count
from ossicle.training.config import TrainConfig, short_warmup
from ossicle.training.initial import amount

CLIPS_SEEN = 96_000  # by a model that starts at random: about 60 epochs of 1600 clips
LONGEST_WINDOW = 10.0  # seconds


def resolve(
    config: TrainConfig,
    *,
    seconds: Float[np.ndarray, "clip"],
    counts: Int64[np.ndarray, "label"],
    frontend: FrontendConfig,
) -> tuple[TrainConfig, list[str]]:
    """Fills in every setting that is None, and says in a sentence each why it is what it is.

    Args:
        seconds: length of each clip of the training part.
        counts: clips of each label in the training part.

    Raises:
        SettingRefused: patchout that leaves nothing of a clip.
    """
    chosen: dict[str, object] = {}
    said: list[str] = []

    def choose(name: str, value: object, why: str) -> None:
        if getattr(config, name) is None:
            chosen[name] = value
            said.append(f"{name}={value} ({why})")

    shortest = (frontend.min_samples + frontend.hop_samples) / frontend.rate
    typical = float(np.quantile(seconds, 0.9))
    choose(
        "window",
        round(min(max(typical, shortest), LONGEST_WINDOW), 2),
        f"seconds; 90 % of the clips are no longer than {typical:.2f} s",
    )
    clips = len(seconds)
    if config.weights is None:
        choose("epochs", int(np.clip(round(CLIPS_SEEN / clips), 20, 200)), f"{clips} clips, from random weights")
    else:
        choose("epochs", int(np.clip(round(CLIPS_SEEN / 6 / clips), 5, 30)), f"{clips} clips, from given weights")
    choose("batch_size", 16 if clips >= 64 else max(2, clips // 4), f"{clips} clips")
    uneven = counts.max() / max(counts[counts > 0].min(), 1)
    choose(
        "balance",
        "class" if uneven >= 2 else "none",
        f"the commonest label has {uneven:.1f} times the clips of the rarest",
    )
    preset = find_preset(config.model)
    window = config.window if config.window is not None else float(str(chosen["window"]))
    if preset.family == "passt":
        stride = config.network.get("stride", preset.options["stride"])
        samples = max(round(window * frontend.rate), frontend.min_samples)
        columns, rows = patches_along(frontend.frames(samples), stride), patches_along(frontend.mels, stride)
        choose("patchout_t", 0.3 if columns >= 8 else 0.0, f"a clip has {columns} columns of patches")
        choose("patchout_f", 0.3 if columns >= 4 else 0.0, "rows of patches")
    settled = dataclasses.replace(config, **chosen)  # type: ignore[arg-type]
    if preset.family == "passt":
        check_patchout(settled, columns=columns, rows=rows)
    return settled, said + short_warmup(settled)


def check_patchout(config: TrainConfig, *, columns: int, rows: int) -> None:
    """Refuses patchout that leaves nothing of a clip."""
    left = 1
    for name, total, what in (("patchout_t", columns, "patch columns"), ("patchout_f", rows, "patch rows")):
        left *= total - check_amount(config, name, total=total, what=what)
    check_amount(config, "patchout_u", total=left, what="patches that these leave")


def check_amount(config: TrainConfig, name: str, *, total: int, what: str) -> int:
    """How many of `total` a setting of patchout drops; refuses all of them, and names the way out."""
    value = getattr(config, name) or 0
    try:
        return drop_count(amount(value), total, what=what)
    except ValueError as error:
        raise SettingRefused(
            f"{name}={value:g} with clips of {config.window} s: {error}. A share suits every length: --set {name}=0.3; "
            f"{name}=0 drops none."
        ) from None
