"""Ensembles: models of the same labels that predict together, by the mean of their logits.

    from ossicle.ensemble import Ensemble

    ensemble = Ensemble.of([ossicle.load("runs/s10"), ossicle.load("runs/s16")])
    ensemble.predict("recording.wav").top
    ensemble.save_pretrained("both")

Each member keeps its network, front end, rate and window. A window of the ensemble, by default the longest of its
members', is resampled for each member and cut into that member's own windows, whose logits are reduced as those of a
recording are. A member's logits are divided by its temperature before the mean, so that a model and its twin score as
the model does.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ossicle.bundle import CONFIG, Card, info_config, member_names, read_bundle_config, replacing_bundle
from ossicle.errors import BundleRefused, SettingRefused
from ossicle.inference import ModelInfo
from ossicle.recognizer import Recognizer


@dataclass(frozen=True, kw_only=True)
class EnsembleInfo(ModelInfo):
    """How the mean of the members' logits becomes scores."""

    config: dict[str, Any]
    """Of its bundle."""


class Ensemble(Recognizer):
    """Several recognizers as one. Made by `Ensemble.of`, or by `ossicle.load` of a bundle of bundles."""

    bundle: EnsembleInfo

    def __init__(self, members: Sequence[Recognizer], *, config: dict[str, Any]) -> None:
        check_members(members)
        self.members = tuple(members)
        first = members[0]
        self.device, self.dtype, self.kernels, self.reduction = (
            first.device,
            first.dtype,
            first.kernels,
            first.reduction,
        )
        versions = [member.bundle.version for member in members]
        thresholds = config["thresholds"]
        self.bundle = EnsembleInfo(
            model_name=f"ensemble of {', '.join(member.bundle.model_name for member in members)}",
            task=config["task"],
            labels=tuple(config["labels"]),
            thresholds=None if thresholds is None else np.asarray(thresholds, dtype=np.float64),
            temperature=config["temperature"],
            window_seconds=config["window"]["seconds"],
            hop_seconds=config["window"]["hop_seconds"],
            weights_license=config["weights_license"],
            library_version=config["library_version"],
            version=hashlib.sha256(json.dumps([config, versions]).encode()).hexdigest()[:12],
            config=config,
        )

    @classmethod
    def of(cls, members: Sequence[Recognizer], *, window: float | None = None) -> "Ensemble":
        """The ensemble of these models.

        Args:
            window: seconds; by default the longest of the members'.

        Raises: SettingRefused for fewer than two, or models of other labels, of another task, or not of sound.
        """
        check_members(members)
        longest = max((member.bundle for member in members), key=lambda bundle: bundle.window_seconds)
        licenses = {member.bundle.weights_license for member in members}
        config = info_config(
            members=member_names(len(members)),
            task=members[0].task,
            labels=members[0].labels,
            window_seconds=window or longest.window_seconds,
            hop_seconds=window or longest.hop_seconds,
            thresholds=mean_thresholds(members),
            weights_license=licenses.pop() if len(licenses) == 1 else None,
        )
        return cls(members, config=config)

    @property
    def rate(self) -> int:
        """The highest rate of the members; each resamples to its own."""
        return max(member.rate for member in self.members)

    @property
    def hertz(self) -> tuple[float, float]:
        """Lowest and highest frequency that any member takes in."""
        lows, highs = zip(*(member.hertz for member in self.members), strict=True)
        return min(lows), max(highs)

    @property
    def min_samples(self) -> int:
        """Shortest input of every member, in samples."""
        return max(math.ceil(member.min_samples * self.rate / member.rate) for member in self.members)

    @property
    def hop_feature_seconds(self) -> float | None:
        """None: an ensemble has one output for each window."""
        return None

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Those of all members."""
        return tuple(part for member in self.members for part in member.parts)

    def moved(self, device: Any) -> None:
        super().moved(device)
        for member in self.members:
            member.moved(device)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its bundle."""
        return dict(self.bundle.config)

    def __repr__(self) -> str:
        return f"Ensemble({len(self.members)} members, {len(self.labels)} labels, {self.task}, {self.device})"

    def spectrogram(self, windows: Float32[np.ndarray, "window time"]) -> Float32[Tensor, "window mel frame"]:
        """Raises: ValueError, since each member has a front end of its own."""
        raise ValueError("an ensemble has no spectrogram; each of its `members` has one")

    def outputs(
        self, windows: Float32[np.ndarray, "window time"]
    ) -> tuple[Float32[np.ndarray, "window label"], Float32[np.ndarray, "window dim"]]:
        """Gives the mean of the members' logits, and their features side by side."""
        logits, features = zip(*(self._of(member, windows) for member in self.members), strict=True)
        return np.stack(logits).mean(axis=0, dtype=np.float64).astype(np.float32), np.concatenate(features, axis=1)

    def _of(self, member: Recognizer, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The logits of a member by its own windows, divided by its temperature, and its features."""
        logits, features = member.clip_outputs(windows, rate=self.rate)
        return logits / member.bundle.temperature, features

    def _write(self, folder: Path, config: dict[str, Any], *, card: Card | str | None) -> None:
        with replacing_bundle(folder, config, card=card or self._card()) as beside:
            for name, member in zip(config["members"], self.members, strict=True):
                member.save_pretrained(beside / name)

    def _card(self) -> Card:
        """The members by name, version and license; what trained each is in its own card."""
        rows = [
            f"- `{name}`: `{member.bundle.model_name}`, version {member.bundle.version}, "
            f"windows of {member.bundle.window_seconds:g} s at {member.rate} Hz, "
            f"license of the weights: {member.bundle.weights_license or 'not stated'}"
            for name, member in zip(self.config["members"], self.members, strict=True)
        ]
        return Card(
            title=f"Ensemble of {len(self.members)} models",
            data="The members, each with a card in its folder:\n\n" + "\n".join(rows),
        )


def open_ensemble(folder: Path, load: Callable[[Path], Recognizer]) -> Ensemble:
    """Loads the bundle of an ensemble.

    Args:
        load: a member, from its folder

    Raises: BundleRefused for members that are missing or do not go together.
    """
    config = read_bundle_config(folder)
    if nested := [name for name in config["members"] if "members" in read_bundle_config(folder / name)]:
        raise BundleRefused(f"{folder / nested[0]}: a member of an ensemble cannot be one itself.")
    members = [load(folder / name) for name in config["members"]]
    try:
        if members[0].labels != tuple(config["labels"]) or members[0].task != config["task"]:
            raise SettingRefused("its task or labels are not those of its members.")
        ensemble = Ensemble(members, config=config)
    except SettingRefused as error:
        raise BundleRefused(f"{folder / CONFIG}: {error}") from error
    ensemble.folder = folder
    return ensemble


def check_members(members: Sequence[Recognizer]) -> None:
    """Refuses models that cannot predict together.

    Raises: SettingRefused
    """
    if len(members) < 2:
        raise SettingRefused(f"an ensemble has at least two members; got {len(members)}.")
    first = members[0]
    for number, member in enumerate(members, 1):
        if isinstance(member, Ensemble):
            raise SettingRefused(f"model {number} is an ensemble itself; give its members in its place.")
        if not member.timed:
            raise SettingRefused(f"model {number} predicts {member.plural}; an ensemble is of models of sound.")
        if member.task != first.task:
            raise SettingRefused(f"model {number} is {member.task}, and model 1 is {first.task}.")
        if member.labels != first.labels:
            raise SettingRefused(f"model {number} has other labels than model 1: {_differing(first, member)}.")


def _differing(first: Recognizer, other: Recognizer) -> str:
    if len(first.labels) != len(other.labels):
        return f"{len(other.labels)} and {len(first.labels)}"
    place = next(place for place in range(len(first.labels)) if first.labels[place] != other.labels[place])
    return f"number {place + 1} is {other.labels[place]!r} and {first.labels[place]!r}"


def mean_thresholds(members: Sequence[Recognizer]) -> Float[np.ndarray, " label"] | None:
    """The thresholds of several labels, if every member has some: the mean of their logits, as scores are made."""
    found = [member.thresholds for member in members]
    if members[0].task != "multi-label" or any(thresholds is None for thresholds in found):
        return None
    clipped = np.clip(np.stack([thresholds for thresholds in found if thresholds is not None]), 1e-9, 1 - 1e-9)
    return 1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(0)))
