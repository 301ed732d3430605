"""Tuners: a few parameters that train inside a frozen encoder.

From `peft`, around linear layers: LoRA (Hu et al., arXiv 2106.09685; with `dora` also Liu et al., arXiv 2402.09353),
IA3 (Liu et al., arXiv 2205.05638), VeRA (Kopiczko et al., arXiv 2310.11454).

Ours: the density gate of "Density Adaptive Attention is All You Need" (arXiv 2401.11143, Algorithm 1) after every
block. The output y of a block becomes y + strength (gate(y) - y), with one strength per block, zero at first.
**Deviation**: the paper applies its gate to the final hidden states of an encoder. Inside, gate(y) would initially
attenuate values in every block, and y + gate(y) amplify them, which destroys the pretrained features. So the start is
exactly the identity, as with LoRA, and a strength of 1 is the paper's gate.

Every tuner starts as the identity, adapts only blocks that run, and stores its tensors in the encoder's network, whose
own tensors do not change.
"""

import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ossicle.encoders.hidden import Encoder, bare
from ossicle.encoders.pretrained import stack_of
from ossicle.errors import ExtraMissing, SettingRefused, WeightsRefused
from ossicle.models.base import BlockParts, Network
from ossicle.models.density import DensityGate
from ossicle.settings import checked_options
from ossicle.weights.tensors import listed

Blocks = Mapping[str, nn.Module]
Undo = Callable[[], Any]

# Of Hugging Face's networks.
PARTS = BlockParts(
    queries=("q_proj", "query", "q", "q_lin", "qkv"),
    keys=("k_proj", "key", "k", "k_lin", "qkv"),
    values=("v_proj", "value", "v", "v_lin", "qkv"),
    feed_forward_end=("feed_forward.output_dense", "output.dense", "fc2", "lin2", "down_proj"),
)
# Model types whose attention reads the weights of its linear layers without calling them: an adapter has no effect.
WITHOUT_CALLS = ("wavlm",)
FEED_FORWARD = ("intermediate_dense", "output_dense")  # theirs


class Tuner:
    """The parameters that train inside an encoder. Made by `create_tuner`; their names are those in its network."""

    def __init__(self, encoder: Encoder, *, name: str, undo: Undo) -> None:
        self.encoder, self.name = encoder, name
        self._undo = undo
        self._own = {key: p for key, p in encoder.network.named_parameters() if p.requires_grad}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The trainable parameters."""
        yield from self._own.items()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The trainable parameters."""
        yield from self._own.values()

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors needed, with name and options, to restore the tuner."""
        return {name: parameter.detach() for name, parameter in self._own.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies tensors; on an error nothing has changed.

        Raises:
            WeightsRefused: tensors are missing, unexpected or misshapen.
        """
        shapes = {key: (tuple(tensors[key].shape), tuple(p.shape)) for key, p in self._own.items() if key in tensors}
        problems = [
            *listed("missing", sorted(self._own.keys() - tensors.keys())),
            *listed("unexpected", sorted(tensors.keys() - self._own.keys())),
            *listed("misshapen", [f"{key} {a}, wanted {b}" for key, (a, b) in shapes.items() if a != b]),
        ]
        if problems:
            raise WeightsRefused(f"the weights do not fit {self.name} in {self.encoder.name}: {'; '.join(problems)}")
        with torch.no_grad():
            for key, parameter in self._own.items():
                parameter.copy_(tensors[key])

    def remove(self) -> None:
        """Restores the encoder."""
        self._undo()
        self.encoder.adapted = False
        self.encoder.train(self.encoder.training)


def create_tuner(
    name: str,
    encoder: Encoder,
    *,
    layers: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Tuner:
    """Puts a tuner into an encoder. Its random weights depend on `seed` alone.

    Args:
        layers: number of blocks to adapt, from the first; by default all. Blocks that no head reads cannot train.
        options: of the tuner, by name; see `TUNERS`.

    Raises:
        SettingRefused: unknown tuner, or an invalid option or value.
        ExtraMissing: the tuner needs `peft`.
        ValueError: the encoder already has a tuner, or fewer layers.
    """
    if name not in TUNERS:
        raise SettingRefused(f"Tuner {name!r} is not available. Available: {', '.join(TUNERS)}.")
    if encoder.adapted:
        raise ValueError(f"{encoder.name} already has a tuner; remove() it first")
    if layers is not None and not 1 <= layers <= encoder.num_layers:
        raise ValueError(f"layers is {layers}; expected 1 to {encoder.num_layers} for {encoder.name}")
    tune = TUNERS[name]
    chosen = checked_options(tune, options or {}, what=f"the tuner {name}", fixed=("encoder", "blocks"))
    blocks = blocks_that_run(encoder, layers or encoder.num_layers)
    frozen = {id(tensor) for tensor in (*encoder.network.parameters(), *encoder.network.buffers())}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            undo = tune(encoder, blocks, **chosen)
        except (TypeError, ValueError) as error:
            raise SettingRefused(f"the tuner {name} cannot be built with these options: {error}") from error
    keep_precise(encoder.network, frozen)
    convolutions: Any = getattr(encoder.network, "feature_extractor", None)
    if hasattr(convolutions, "_freeze_parameters"):
        convolutions._freeze_parameters()  # otherwise the library computes the gradient of the samples too
    encoder.adapted = True
    encoder.network.train(encoder.network.training)  # new modules get the mode of the others
    return Tuner(encoder, name=name, undo=undo)


def keep_precise(network: nn.Module, frozen: Collection[int]) -> None:
    """Puts what a tuner has added into float32: in half precision the steps of a training would be rounded away.

    Args:
        frozen: identities of the tensors that were there before.
    """
    for p in network.parameters():
        if id(p) not in frozen:
            p.data = p.data.float()
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if id(buffer) not in frozen and buffer.is_floating_point():
                setattr(module, name, buffer.float())


def blocks_that_run(encoder: Encoder, layers: int) -> dict[str, nn.Module]:
    """The blocks of the encoder's first `layers` layers, by their names in its network."""
    network = bare(encoder.network)
    if isinstance(network, Network):
        blocks = network.stack(layers)
    else:
        holder, name = stack_of(network)
        blocks = getattr(holder, name)[:layers]
    chosen = {id(block) for block in blocks}
    return {name: module for name, module in encoder.network.named_modules() if id(module) in chosen}


# ---------------------------------------------------------------- from peft


def lora(
    encoder: Encoder,
    blocks: Blocks,
    *,
    targets: Sequence[str] | None = None,
    rank: int = 8,
    alpha: float = 8.0,
    dropout: float = 0.0,
    dora: bool = False,
) -> Undo:
    """W + alpha / rank B A, by default around queries and values; B starts at zero.

    Args:
        targets: names of linear layers in a block, whole or their last part.
        dropout: of the adapter's input, in training.
        dora: also train the norm of each column of the sum.
    """
    settings = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "use_dora": dora}
    return wrap(encoder, targeted(encoder, blocks, targets), kind="Lora", **settings)


def ia3(encoder: Encoder, blocks: Blocks, *, targets: Sequence[str] | None = None) -> Undo:
    """A factor for every output feature of a layer, one at first; by default of keys and values.

    For the last layer of a feed-forward part, also in the default, the factor is on the input.
    """
    parts = parts_of(encoder)
    layers = targeted(encoder, blocks, targets, default=(*parts.keys, *parts.values, *parts.feed_forward_end))
    ends = set(named(blocks, parts.feed_forward_end)).intersection(layers)
    return wrap(encoder, layers, kind="IA3", feedforward_modules=ends)


def vera(
    encoder: Encoder,
    blocks: Blocks,
    *,
    targets: Sequence[str] | None = None,
    rank: int = 256,
    dropout: float = 0.0,
) -> Undo:
    """LoRA with random, fixed matrices shared by all layers; a factor for each of their rows trains."""
    return wrap(encoder, targeted(encoder, blocks, targets), kind="Vera", r=rank, vera_dropout=dropout)


def targeted(
    encoder: Encoder,
    blocks: Blocks,
    targets: Sequence[str] | None,
    *,
    default: Sequence[str] | None = None,
) -> list[str]:
    """The linear layers to adapt, by their names in the network; by default those of queries and values.

    Raises:
        SettingRefused: a target that no block has; the message lists the available ones.
    """
    if targets is None:
        parts = parts_of(encoder)
        uncalled = encoder.settings["family"] in WITHOUT_CALLS
        return named(blocks, FEED_FORWARD if uncalled else default or (*parts.queries, *parts.values))
    missing = [target for target in targets if not named(blocks, [target])]
    if missing or not targets:
        there = sorted({key for block in blocks.values() for key in linear_layers(block)})
        found = f"no block has a linear layer {missing[0]!r}" if missing else "targets are empty"
        raise SettingRefused(f"{found}; available in {encoder.name}: {', '.join(there)}.")
    return named(blocks, targets)


def parts_of(encoder: Encoder) -> BlockParts:
    """The names of the linear layers in the encoder's blocks."""
    network = bare(encoder.network)
    return network.block_parts if isinstance(network, Network) else PARTS


def named(blocks: Blocks, targets: Sequence[str]) -> list[str]:
    """The blocks' linear layers with one of these names, by their names in the network."""
    return [
        f"{place}.{key}"
        for place, block in blocks.items()
        for key in linear_layers(block)
        if key in targets or key.rpartition(".")[2] in targets
    ]


def linear_layers(block: nn.Module) -> list[str]:
    return [key for key, module in block.named_modules() if isinstance(module, nn.Linear)]


def wrap(encoder: Encoder, layers: Sequence[str], *, kind: str, **settings: Any) -> Undo:
    """Puts adapters of `peft` around linear layers of the network, in place."""
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise ExtraMissing(
            f"this tuner needs peft, which cannot be imported ({error}); pip install 'ossicle[peft]'"
        ) from error
    network = encoder.network
    bare = {key: network.get_submodule(key) for key in layers}

    def undo() -> None:
        for key, layer in bare.items():
            network.set_submodule(key, layer)
        vars(network).pop("peft_config", None)

    try:
        config = getattr(peft, f"{kind}Config")(target_modules=list(layers), **settings)
        getattr(peft, f"{kind}Model")(network, config, "default")
    except Exception:
        undo()
        raise
    return undo


# ---------------------------------------------------------------- ours


class Gate(nn.Module):
    """y + strength (gate(y) - y) for each feature, with statistics over time, or over the positions of a map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = DensityGate(dim)
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(
        self, y: Float[Tensor, "clip *place dim"], mask: Bool[Tensor, "clip time"] | None = None
    ) -> Float[Tensor, "clip *place dim"]:
        line = y.flatten(1, -2)
        gated = self.gate(line, None if mask is None else mask[..., None])
        return torch.lerp(line, gated, self.strength.to(line.dtype)).view_as(y)


def density(encoder: Encoder, blocks: Blocks) -> Undo:
    """A density gate after every block.

    Padding of a batch (text) is masked. Silence that pads a short clip (Whisper, bundles trained with it) is part of
    the input and of the statistics.
    """
    mask: list[Tensor | None] = [None]  # of the current pass

    def keep_mask(network: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
        given = options.get("attention_mask")
        mask[0] = None if given is None else given.bool()

    def regulate(block: nn.Module, inputs: Any, output: Any) -> Any:
        y, *rest = output if isinstance(output, tuple) else (output,)
        y = block.get_submodule("density")(y, mask[0])
        return (y, *rest) if isinstance(output, tuple) else y

    hooks = [encoder.network.register_forward_pre_hook(keep_mask, with_kwargs=True)]
    for block in blocks.values():
        dim: Any = block.dim if isinstance(bare(encoder.network), Network) else encoder.dim
        block.add_module("density", Gate(dim).to(next(block.parameters()).device))
        hooks.append(block.register_forward_hook(regulate))

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        for block in blocks.values():
            del block.density

    return undo


TUNERS: Mapping[str, Callable[..., Undo]] = {"lora": lora, "ia3": ia3, "vera": vera, "density": density}
