"""What a front end is made of, as plain data that travels in the bundle, and the named recipes.

Every recipe ends in `(x - mean) / (2 * deviation)`. For AST's filterbank that is the published form with measured
statistics; PaSST's fixed `(x + 4.5) / 5` is the same thing with a mean of -4.5 and a deviation of 2.5.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ossicle.errors import BundleRefused, ModelUnknown

KINDS = ("passt", "kaldi")


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """All settings between samples and the features of a model.

    Raises: ValueError for values that make no filterbank.
    """

    kind: str = "passt"
    """`passt`: the clip is pre-emphasized, frames are centered; `kaldi`: each frame is, without padding."""
    rate: int = 32_000
    """Samples per second, hertz."""
    mels: int = 128
    fft_samples: int = 1024
    window_samples: int = 800
    hop_samples: int = 320
    min_frames: int = 16
    """The fewest frames a clip may give: one column of patches."""
    min_hertz: float = 0.0
    max_hertz: float = 15_000.0
    min_hertz_jitter: int = 10
    """In training the lower edge rises by 0 to this number less one, hertz; 1 disables it."""
    max_hertz_jitter: int = 2_000
    """In training the upper edge moves within this many hertz around `max_hertz`; 1 disables it."""
    freq_mask: int = 48
    """In training a mask hides 0 to this number less one mel bins; 0 switches it off."""
    time_mask: int = 80
    """In training a mask hides 0 to this number less one frames; 0 switches it off."""
    mean: float = -4.5
    """Of the log-mel, in natural log units."""
    deviation: float = 2.5
    """Of the log-mel; features are divided by twice this."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected {', '.join(KINDS)}")
        for name in ("rate", "mels", "fft_samples", "window_samples", "hop_samples", "min_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 2 <= self.window_samples <= self.fft_samples or self.fft_samples % 2:
            raise ValueError(
                f"window_samples is {self.window_samples} and fft_samples {self.fft_samples}; "
                "the window has 2 samples or more and fits in the transform, which has an even number"
            )
        for name in ("min_hertz_jitter", "max_hertz_jitter"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; 1 is off, 2 or more draws")
        for name in ("freq_mask", "time_mask"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; 0 is off, 2 or more draws")
        highest = self.max_hertz + self.max_hertz_jitter // 2
        lowest = highest - (self.max_hertz_jitter - 1)
        if not (
            0 <= self.min_hertz and self.min_hertz + self.min_hertz_jitter - 1 < lowest and highest <= self.rate / 2
        ):
            raise ValueError(
                f"the mel range {self.min_hertz:g} to {self.max_hertz:g} Hz with jitters of {self.min_hertz_jitter} "
                f"and {self.max_hertz_jitter} Hz must rise and stay within 0 to {self.rate / 2:g} Hz"
            )
        if not (math.isfinite(self.mean) and math.isfinite(self.deviation) and self.deviation > 0):
            raise ValueError(
                f"mean is {self.mean} and deviation {self.deviation}; both are finite, the deviation positive"
            )

    def frames(self, samples: int) -> int:
        """Counts the frames of a clip of `samples`; 0 for one that is too short for any."""
        if self.kind == "kaldi":
            return 0 if samples < self.window_samples else 1 + (samples - self.window_samples) // self.hop_samples
        # Pre-emphasis takes one sample, reflection needs more than half a transform of the rest.
        return 0 if samples < self.fft_samples // 2 + 2 else 1 + (samples - 1) // self.hop_samples

    def samples(self, frames: int) -> int:
        """Gives the shortest clip, in samples, that has at least `frames` frames."""
        if self.kind == "kaldi":
            return self.window_samples + (frames - 1) * self.hop_samples
        return max(1 + (frames - 1) * self.hop_samples, self.fft_samples // 2 + 2)

    @property
    def min_samples(self) -> int:
        """The shortest supported clip: `min_frames` frames."""
        return self.samples(self.min_frames)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FrontendConfig":
        """Reads what `to_dict` wrote: every field, no other, each of its type.

        Raises: BundleRefused, since such values come from files.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(defaults)):
            raise BundleRefused(
                f"the front end has unknown settings {', '.join(unknown)}; known are {', '.join(defaults)}"
            )
        if missing := [name for name in defaults if name not in values]:
            raise BundleRefused(f"the front end lacks the settings {', '.join(missing)}")
        read = {}
        for name, default in defaults.items():
            value, kind = values[name], type(default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise BundleRefused(f"the front end's {name} is {value!r}; it must be of type {kind.__name__}")
            read[name] = kind(value)
        try:
            return cls(**read)
        except ValueError as error:
            raise BundleRefused(f"the front end cannot be built: {error}") from error


RECIPES: dict[str, FrontendConfig] = {
    # PaSST, Koutini et al., Interspeech 2022, section 3, with the jitter of its experiments.
    "passt": FrontendConfig(),
    "passt_hop160": FrontendConfig(hop_samples=160),
    "passt_hop100": FrontendConfig(hop_samples=100),
    # AST, Gong et al., Interspeech 2021; its AudioSet statistics stand until `measure_statistics` gives better ones.
    "kaldi_fbank": FrontendConfig(
        kind="kaldi",
        rate=16_000,
        fft_samples=512,
        window_samples=400,
        hop_samples=160,
        min_frames=32,
        min_hertz=20.0,
        max_hertz=8_000.0,
        min_hertz_jitter=1,
        max_hertz_jitter=1,
        freq_mask=48,
        time_mask=192,
        mean=-4.2677,
        deviation=4.5690,
    ),
}
# As AST's published networks take it (`ASTFeatureExtractor`); they fill a short input themselves.
RECIPES["ast"] = dataclasses.replace(RECIPES["kaldi_fbank"], min_frames=16, mean=-4.2677393, deviation=4.5689974)


def frontend_config(recipe: str | FrontendConfig | Mapping[str, Any], **overrides: Any) -> FrontendConfig:
    """Finds a recipe by name, or reads a stored one, and replaces the fields in `overrides`.

    Raises: ModelUnknown for an unknown recipe; BundleRefused for a mapping that is not from `to_dict`; ValueError for
    an override that is not a field, or an invalid filterbank.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            near = difflib.get_close_matches(recipe, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
            raise ModelUnknown(f"front end {recipe!r} is not available; similar names: {', '.join(near)}")
        config = RECIPES[recipe]
    else:
        config = recipe if isinstance(recipe, FrontendConfig) else FrontendConfig.from_dict(recipe)
    names = [field.name for field in dataclasses.fields(FrontendConfig)]
    if unknown := sorted(set(overrides) - set(names)):
        raise ValueError(f"a front end has no {', '.join(unknown)}; it has {', '.join(names)}")
    return dataclasses.replace(config, **overrides)
