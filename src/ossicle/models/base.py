"""What every network is from outside: a log-mel in, one logit per label out, and all that the package asks of one.

A family of networks is one file with a frozen configuration and a subclass of `Network`; `register_network` gives its
presets their names (see `ossicle.models.registry`). Other files use what stands here and know no family.

A subclass needs `config_class`, `forward_features`, `layout`, an `nn.Module` called `head`, and its blocks in an
`nn.ModuleList` called `blocks`, each with its width as `dim`, or a `stack` of its own. Everything else has a default.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ossicle.models.heads import HeadKind, HeadSpec

Spectrogram = Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"]


class Output(NamedTuple):
    """What a pass computes, by name; a family may have an output of its own with more fields."""

    logits: Float[Tensor, "clip label"]
    features: Float[Tensor, "clip dim"]  # before the head
    hidden_states: tuple[Tensor, ...] | None = None  # what enters the first block, then what leaves each


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The hidden states that an encoder reads of a network."""

    num_layers: int
    dim: int
    description: str  # what a state is, in words; another text is another encoder


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """The linear layers of a block, whole names or their last parts, by what they make; a block has some of each."""

    queries: tuple[str, ...] = ("q_proj", "qkv")
    keys: tuple[str, ...] = ("kv_proj", "qkv")
    values: tuple[str, ...] = ("kv_proj", "qkv")
    feed_forward_end: tuple[str, ...] = ("fc2",)


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Has torch's global generator on the CPU give the numbers of this one: `torch.compile` traces no other.

    The block draws what it would if the generator were passed; afterwards the global one is as before.
    """
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


class Network(nn.Module):
    """The base class of every family."""

    config_class: ClassVar[type[Any]]
    """Frozen dataclass with `num_classes`, `mels` and every other option; its values are what JSON holds, or tuples."""
    train_settings: ClassVar[tuple[str, ...]] = ()
    """The options that a training sets by settings of its own: any of depth, drop_path, patchout_t, _f and _u."""
    block_parts: ClassVar[BlockParts] = BlockParts()
    reduces_tokens: ClassVar[bool] = False
    """Whether `forward_features` takes a `reduction`, a `TokenReduction`."""
    head_kinds: ClassVar[tuple[HeadKind, ...]] = ("one class", "several classes")

    forward_features: Callable[..., Any]
    """(spec, *, generator=None, hidden_states=False): everything a pass computes, by name; at least an `Output`."""
    head: nn.Module

    def __init__(self, config: Any, *, frontend: str) -> None:
        super().__init__()
        self.config = config
        self.frontend = frontend  # name of the front end that it was made for

    def forward(self, spec: Spectrogram, *, generator: torch.Generator | None = None) -> Float[Tensor, "clip label"]:
        """Scores a batch of spectrograms of one length.

        Args:
            generator: on the CPU, of what training draws: patchout, dropout, drop path, the offset of a short clip's
                positions. None draws from torch's global one.
        """
        return self.forward_features(spec, generator=generator).logits

    def check(self, spec: Spectrogram) -> Float[Tensor, "clip mel frame"]:
        """The spectrogram without a channel axis.

        Raises:
            ValueError: what does not fit, with what would.
        """
        if spec.ndim == 4 and spec.shape[1] == 1:
            spec = spec.squeeze(1)
        if spec.ndim != 3:
            raise ValueError(
                f"the spectrogram has shape {tuple(spec.shape)}; expected (clip, mel, frame) or (clip, 1, mel, frame)"
            )
        _, mels, frames = spec.shape
        if mels != self.config.mels:
            raise ValueError(f"the spectrogram has {mels} mel bins; this network takes {self.config.mels}")
        if frames < self.min_frames:
            raise ValueError(
                f"the spectrogram has {frames} frames; this network takes at least {self.min_frames}: "
                f"pad the sound by {self.min_frames - frames} frames"
            )
        return spec

    # --- lengths ------------------------------------------------------------------------------------------------------

    @property
    def min_frames(self) -> int:
        """Shortest input."""
        return 1

    @property
    def max_frames(self) -> int | None:
        """Longest input of one pass; None for any length."""
        return None

    @property
    def hop_frames(self) -> int | None:
        """Frames from one of the output's `hop_features` to the next; None for a network without them."""
        return None

    def export_frames(self, longest: int) -> int:
        """Longest input of an exported graph, which is a single pass.

        Args:
            longest: frames beyond which no graph needs to go.
        """
        return longest if self.max_frames is None else self.max_frames

    # --- options ------------------------------------------------------------------------------------------------------

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The type of each option that `create_model` takes: the fields of the configuration but the labels."""
        return {name: hint for name, hint in get_type_hints(cls.config_class).items() if name != "num_classes"}

    @classmethod
    def from_options(cls, *, num_classes: int, frontend: str, **options: Any) -> "Network":
        """Builds a network with random weights; lists, as JSON and YAML have them, become tuples."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        return cls(cls.config_class(num_classes=num_classes, **values), frontend=frontend)

    def options(self) -> dict[str, Any]:
        """The options that `from_options` builds this network from, for a bundle to keep."""
        options = dataclasses.asdict(self.config)
        del options["num_classes"]
        return options

    # --- blocks and their states --------------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """The hidden states that `layer_states` gives."""
        raise NotImplementedError

    def stack(self, layers: int | None = None) -> list[nn.Module]:
        """The blocks that run until so many layers of `layout` are through, by default all, in order."""
        return list(cast("Iterable[nn.Module]", self.blocks))[:layers]

    def layer_frames(self, window: int) -> int:
        """Longest input whose layers are read in one pass, of a network that predicts in windows of so many frames."""
        return window if self.max_frames is None else self.max_frames

    def layer_times(self, frames: int) -> int:
        """Times of a layer's states over so many frames."""
        return frames

    def layer_states(self, spec: Float[Tensor, "clip mel frame"], layers: int) -> Float[Tensor, "clip layer time dim"]:
        """What leaves each of the first so many layers, in evaluation.

        By default the hidden states as they are, of blocks that work on (clip, time, dim).
        """
        states = self.forward_features(spec, hidden_states=True).hidden_states
        return torch.stack(states[1 : layers + 1], dim=1)

    def deformable_layers(self) -> list[tuple[int, Any]]:
        """The `DeformableAttention` layers in the order of the output's `points`, each with the frames to a pixel.

        A network that has some takes `points=True` in `forward_features`.
        """
        return []

    # --- heads and training -------------------------------------------------------------------------------------------

    @classmethod
    def check_head(cls, head: HeadSpec) -> None:
        """Raises ValueError for a head that the network cannot have."""
        if head.kind not in cls.head_kinds:
            raise ValueError(f"a {cls.__name__} has no head for {head.kind}; available: {', '.join(cls.head_kinds)}")

    @classmethod
    def derive_settings(cls, options: Mapping[str, Any], *, mels: int, frames: int) -> dict[str, tuple[Any, str]]:
        """The settings of a training that follow from its clips, by name, each with the reason.

        Args:
            options: of the network, where they are not the configuration's defaults.
            frames: of a training clip.
        """
        return {}

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any], *, options: Mapping[str, Any], mels: int, frames: int) -> None:
        """Raises ValueError for settings of a training that do not suit its clips; see `derive_settings`."""

    # --- weights of others --------------------------------------------------------------------------------------------

    @classmethod
    def options_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The options that given weights decide, such as their depth."""
        return {}

    def explain_misfit(self, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
        """What misshapen tensors mean, in a clause; of each tensor the shape that was found and the one wanted."""
        return []

    def adapted(self, tensors: Mapping[str, Tensor], *, source: str | Path) -> dict[str, Tensor]:
        """The tensors of a checkpoint as this network can load them; what does not fit stays, and is refused there.

        A head for other labels gives way to this network's new one.

        Args:
            source: where they come from, for a refusal.

        Raises:
            WeightsRefused: tensors that cannot be adapted.
        """
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith("head.")}
        other = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
        return {**tensors, **{name: own[name].clone() for name in other}}
