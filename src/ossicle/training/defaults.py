"""Defaults derived from the data: window, epochs, batch size, balance, patchout."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64

from ossicle.errors import SettingRefused
from ossicle.frontend import FrontendConfig
from ossicle.models import find_preset, network_class
from ossicle.training.config import TrainConfig, short_warmup

CLIPS_SEEN = 96_000  # in a run from random weights: about 60 epochs of 1600 clips
LONGEST_WINDOW = 10.0  # seconds


def resolve(
    config: TrainConfig,
    *,
    seconds: Float[np.ndarray, "clip"],
    counts: Int64[np.ndarray, "label"],
    frontend: FrontendConfig,
) -> tuple[TrainConfig, list[str]]:
    """Fills in every setting that is None; returns the settings, and a sentence with the reason for each.

    Args:
        seconds: length of each training clip.
        counts: number of training clips of each label.

    Raises:
        SettingRefused: settings that do not fit the clips, such as patchout of all patches.
    """
    chosen: dict[str, object] = {}
    reasons: list[str] = []

    def choose(name: str, value: object, why: str) -> None:
        if getattr(config, name) is None:
            chosen[name] = value
            reasons.append(f"{name}={value} ({why})")

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
    uneven = counts.max() / max(counts[counts > 0].min(initial=counts.max()), 1)
    choose(
        "balance",
        "class" if uneven >= 2 else "none",
        f"the most frequent label has {uneven:.1f} times the clips of the rarest",
    )
    window = config.window if config.window is not None else float(str(chosen["window"]))
    frames = frontend.frames(max(round(window * frontend.rate), frontend.min_samples))
    network, options = network_class(config.model), {**find_preset(config.model).options, **config.network}
    for name, (value, why) in network.derive_settings(options, mels=frontend.mels, frames=frames).items():
        choose(name, value, why)
    settled = dataclasses.replace(config, **chosen)  # type: ignore[arg-type]
    try:
        network.check_settings(dataclasses.asdict(settled), options=options, mels=frontend.mels, frames=frames)
    except ValueError as error:
        raise SettingRefused(f"With clips of {window:g} s, {error}.") from None
    return settled, reasons + short_warmup(settled)
