"""Base class of all networks: from a log-mel spectrogram to one logit per label.

A family of networks is one file with a frozen configuration and a subclass of `Network`; `register_network` registers
its presets (see `ossicle.models.registry`). Other files use only this interface and depend on no family.

A subclass needs `config_class`, `forward_features`, `layout`, an `nn.Module` called `head`, and its blocks in an
`nn.ModuleList` called `blocks`, each with its width as `dim`, or a `stack` of its own; it calls them by `run_block`, so
that they can be computed twice instead of kept. Everything else has a default.
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
from torch.utils.checkpoint import checkpoint

from ossicle.draws import drawing_again
from ossicle.models.heads import HeadKind, HeadSpec


class Output(NamedTuple):
    """Outputs of a pass; a family may define an output with more fields."""

    logits: Float[Tensor, "clip label"]
    features: Float[Tensor, "clip dim"]  # before the head
    hidden_states: tuple[Tensor, ...] | None = None  # input of the first block, then the output of each


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The hidden states that an encoder reads from a network."""

    num_layers: int
    dim: int
    description: str  # of a state; part of the encoder's fingerprint


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """Names of a block's linear layers, full or their last parts, by their output; a block has some of each."""

    queries: tuple[str, ...] = ("q_proj", "qkv")
    keys: tuple[str, ...] = ("kv_proj", "qkv")
    values: tuple[str, ...] = ("kv_proj", "qkv")
    feed_forward_end: tuple[str, ...] = ("fc2",)


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Sets torch's global CPU generator to the state of this one, as `torch.compile` supports no other generator.

    The block draws the same numbers as with the generator passed; afterwards the global one is restored.
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
    """Frozen dataclass with `num_classes`, `mels` and every other option; its values are JSON values or tuples."""
    train_settings: ClassVar[tuple[str, ...]] = ()
    """Options that are separate settings of a run: any of depth, drop_path, patchout_t, _f and _u."""
    block_parts: ClassVar[BlockParts] = BlockParts()
    reduces_tokens: ClassVar[bool] = False
    """Whether `forward_features` takes a `reduction`, a `TokenReduction`."""
    head_kinds: ClassVar[tuple[HeadKind, ...]] = ("one class", "several classes")

    forward_features: Callable[..., Any]
    """(spec, *, generator=None, hidden_states=False): all outputs of a pass, at least those of `Output`."""
    head: nn.Module
    gradient_checkpointing: bool = False
    """In training keep what goes into each block alone and compute the rest again for the gradient."""

    def __init__(self, config: Any, *, frontend: str) -> None:
        super().__init__()
        self.config = config
        self.frontend = frontend  # name of the front end that it was made for

    def forward(
        self,
        spec: Float[Tensor, "clip mel frame"] | Float[Tensor, "clip 1 mel frame"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "clip label"]:
        """Scores a batch of spectrograms of one length.

        Args:
            generator: CPU generator for training: patchout, dropout, drop path, the offset of a short clip's positions.
                By default torch's global one.
        """
        return self.forward_features(spec, generator=generator).logits

    def run_block(self, block: nn.Module, x: Tensor, *, generator: torch.Generator | None, **options: Any) -> Tensor:
        """`block(x, generator=generator, **options)`; with `gradient_checkpointing` what it computes is not kept.

        The gradients are the same bit for bit: the second time the block draws the same numbers.

        Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
        """
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return block(x, generator=generator, **options)
        state = None if generator is None else generator.get_state()
        computed = False

        def compute(x: Tensor) -> Tensor:
            nonlocal computed
            again, computed = computed, True
            if not again or generator is None or state is None:
                return block(x, generator=generator, **options)
            with drawing_again(generator, state):
                return block(x, generator=generator, **options)

        return checkpoint(compute, x, use_reentrant=False, preserve_rng_state=generator is None)

    def check(self, spec: Tensor) -> Float[Tensor, "clip mel frame"]:
        """The spectrogram without a channel axis.

        Raises:
            ValueError: the shape does not fit; the message has the expected one.
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
            longest: maximum number of frames that is needed.
        """
        return longest if self.max_frames is None else self.max_frames

    # --- options ------------------------------------------------------------------------------------------------------

    @classmethod
    def option_types(cls) -> dict[str, Any]:
        """The type of each option that `create_model` takes: the fields of the configuration except the labels."""
        return {name: hint for name, hint in get_type_hints(cls.config_class).items() if name != "num_classes"}

    @classmethod
    def from_options(cls, *, num_classes: int, frontend: str, **options: Any) -> "Network":
        """Builds a network with random weights; lists, as JSON and YAML have them, become tuples."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        return cls(cls.config_class(num_classes=num_classes, **values), frontend=frontend)

    def options(self) -> dict[str, Any]:
        """The options for `from_options` to build this network again; stored in a bundle."""
        options = dataclasses.asdict(self.config)
        del options["num_classes"]
        return options

    # --- blocks and their states --------------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """The hidden states that `layer_states` gives."""
        raise NotImplementedError

    def stack(self, layers: int | None = None) -> list[nn.Module]:
        """The blocks of the first `layers` layers of `layout`, by default all, in order."""
        return list(cast("Iterable[nn.Module]", self.blocks))[:layers]

    def parameter_depths(self) -> dict[str, int]:
        """How deep each parameter lies, by name: 0 before the first block, the number of its block, 1 more behind all.

        What is registered between two blocks, such as the merge of a pyramid, counts with the second.
        """
        blocks = {p: number for number, block in enumerate(self.stack(), start=1) for p in block.parameters()}
        depths: dict[str, int] = {}
        next_block = max(blocks.values(), default=0) + 1
        for name, parameter in reversed(list(self.named_parameters())):
            next_block = blocks.get(parameter, next_block)
            depths[name] = 0 if next_block == 1 and parameter not in blocks else next_block
        return depths

    def layer_frames(self, window: int) -> int:
        """Longest input of `layer_states`, for a network that predicts in windows of `window` frames."""
        return window if self.max_frames is None else self.max_frames

    def layer_times(self, frames: int) -> int:
        """Number of times of a layer's states for an input of `frames`."""
        return frames

    def layer_states(self, spec: Float[Tensor, "clip mel frame"], layers: int) -> Float[Tensor, "clip layer time dim"]:
        """The outputs of the first `layers` layers, in evaluation.

        By default the hidden states, for blocks on (clip, time, dim).
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
        """Raises ValueError for an unsupported head."""
        if head.kind not in cls.head_kinds:
            raise ValueError(f"a {cls.__name__} has no head for {head.kind}; available: {', '.join(cls.head_kinds)}")

    @classmethod
    def derive_settings(cls, options: Mapping[str, Any], *, mels: int, frames: int) -> dict[str, tuple[Any, str]]:
        """The settings of a run that follow from its clips, by name, each with the reason.

        Args:
            options: of the network that differ from the defaults.
            frames: length of a training clip.
        """
        return {}

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any], *, options: Mapping[str, Any], mels: int, frames: int) -> None:
        """Raises ValueError for settings of a run that do not fit its clips; see `derive_settings`."""

    # --- weights of others --------------------------------------------------------------------------------------------

    @classmethod
    def options_of(cls, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The options that follow from given weights, such as the depth."""
        return {}

    @classmethod
    def recognize(cls, tensors: Mapping[str, Tensor], *, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Every option that follows from published weights of this family, with `num_classes`; None for others.

        Args:
            settings: those in the file beside the weights, such as `config.json`, and options of the architecture that
                was named; may be empty.

        Raises:
            WeightsRefused, ValueError: weights of this family that make no network.
        """
        return None

    @classmethod
    def image_network(cls, tensors: Mapping[str, Tensor]) -> str | None:
        """Which network of images has these weights, if `adapted` takes them as a start."""
        return None

    @classmethod
    def kept_blocks(cls, depth: int, kept: int) -> list[int]:
        """The blocks that stay when a network of `depth` blocks is cut to `kept`; ValueError if it cannot be cut."""
        raise ValueError(f"the depth of a {cls.__name__} cannot be cut")

    @classmethod
    def lengthened(cls, tensors: Mapping[str, Tensor], *, frames: int) -> Mapping[str, Tensor]:
        """Given weights with positions for inputs of `frames`, where they have fewer; by default as they are."""
        return tensors

    def explain_misfit(self, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[str]:
        """Clauses that explain misshapen tensors; `shapes` has the found and the expected shape of each tensor."""
        return []

    def adapted(
        self,
        tensors: Mapping[str, Tensor],
        *,
        source: str | Path,
        new_head: bool = True,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> dict[str, Tensor]:
        """Converts the tensors of a checkpoint for this network; tensors that do not fit are refused when loading.

        Args:
            source: file of the tensors, for error messages.
            new_head: replace a head for other labels by this network's new one.
            report: called with a sentence about tensors that could not be used, or are new.

        Raises:
            WeightsRefused: tensors that cannot be adapted.
        """
        own = {name: tensor for name, tensor in self.state_dict().items() if new_head and name.startswith("head.")}
        other = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
        return {**tensors, **{name: own[name].clone() for name in other}}
