"""Networks of Hugging Face's `transformers`: loaded strictly, run to any block.

`from_pretrained` initializes tensors that are missing in a file with random values. Here a tensor of the encoder that
is missing, misshapen or unexpected raises an error with its name; only heads, poolers and decoders, on which no hidden
state depends, may be absent or present. Weights must be safetensors, and no code of a repository runs.
"""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ossicle.encoders.hidden import bare
from ossicle.errors import BundleRefused, ExtraMissing, WeightsRefused, first_line
from ossicle.weights.tensors import listed

# Paths of the list of blocks in a network, in the order of search.
STACKS = ("layers", "encoder.layers", "encoder.layer", "transformer.layer")
# The embedding of masked input in pre-training: part of the network, but no hidden state depends on it.
UNUSED = ("masked_spec_embed", "mask_token")
# Regularizers that draw from the global generator or skip blocks; they would affect an adapted network in training.
STEADY = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False, "use_cache": False}


def import_transformers() -> Any:
    """The library, or an error with instructions to install it."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ExtraMissing(
            f"this encoder needs transformers, which cannot be imported ({error}); pip install 'ossicle[hf]'"
        ) from error


def read_config(folder: Path) -> Any:
    """The configuration of a folder, as `transformers` reads it.

    Raises: BundleRefused for values that its checks refuse.
    """
    try:
        config = import_transformers().AutoConfig.from_pretrained(folder, local_files_only=True)
    except ExtraMissing:
        raise
    except Exception as error:  # these checks have no common base class
        raise BundleRefused(f"{folder / 'config.json'}: {first_line(error)}") from error
    for key, value in STEADY.items():
        if hasattr(config, key):
            setattr(config, key, value)
    return config


def load_network(kind: Any, folder: Path, *, config: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Builds a network and fills it from the folder's safetensors files, in evaluation mode.

    Args:
        dtype: of all its tensors, whatever the files have; a network of half precision never exists in float32
        kind: the class whose `from_pretrained` is called, with `options`

    Raises: WeightsRefused, naming the encoder's tensors that are missing, unexpected, misshapen or not finite.
    """
    count = sum(len(names(file)) for file in folder.glob("*.safetensors"))
    if not count:
        raise WeightsRefused(
            f"{folder}: there is no .safetensors file, and other formats are not supported; convert trusted weights "
            "with transformers: AutoModel.from_pretrained(ID).save_pretrained(FOLDER)"
        )
    # Configurations are not trusted: this limits the memory for an invalid depth.
    if config.num_hidden_layers > count:
        raise WeightsRefused(
            f"{folder}: the configuration has {config.num_hidden_layers} blocks, but there are only {count} tensors"
        )
    try:
        with (
            silent(),
            torch.random.fork_rng(devices=[]),
        ):  # random weights are refused below, so the generators are restored
            network, found = kind.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # building and loading have no common base class
        raise WeightsRefused(f"{folder}: {first_line(error)}") from error
    check(network, found, folder=folder)
    return network.eval()


def check(network: Any, found: dict[str, Any], *, folder: Path) -> None:
    """Refuses a network with missing, misshapen or unexpected tensors."""
    parts = {name.split(".")[0] for name in network.state_dict()}
    prefix = f"{network.base_model_prefix}."
    unused = {name for name in found["missing_keys"] if name.endswith(UNUSED)}
    left_over = (name for name in found["unexpected_keys"] if name.removeprefix(prefix).split(".")[0] in parts)
    misshapen = (f"{name} {tuple(a)}, wanted {tuple(b)}" for name, a, b in found["mismatched_keys"])
    problems = [
        *listed("missing", sorted(found["missing_keys"] - unused)),
        *listed("unexpected", sorted(left_over)),
        *listed("misshapen", sorted(misshapen)),
    ]
    if not problems:
        for name in unused:
            nn.init.zeros_(network.get_parameter(name))
        finite = ((name, torch.isfinite(tensor).all()) for name, tensor in network.state_dict().items())
        problems = listed("with NaN or infinity", [name for name, whole in finite if not whole])
    if problems:
        raise WeightsRefused(
            f"{folder}: the weights do not fit this {network.config.model_type} encoder: {'; '.join(problems)}"
        )


def names(file: Path) -> list[str]:
    """The tensors of a safetensors file."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsRefused(f"{file}: not a complete safetensors file ({error})") from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Suppresses messages and progress bars of `transformers`."""
    logging = importlib.import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def stack_of(network: nn.Module) -> tuple[nn.Module, str]:
    """The module with a network's list of blocks, and the list's name in it."""
    modules = dict(bare(network).named_modules())
    path = next(path for path in STACKS if isinstance(modules.get(path), nn.ModuleList))
    holder, _, name = path.rpartition(".")
    return modules[holder], name


def count_blocks(network: nn.Module) -> int:
    """How many blocks a network has."""
    holder, name = stack_of(network)
    return len(getattr(holder, name))


@contextlib.contextmanager
def recorded(network: nn.Module, layers: int) -> Iterator[list[Tensor]]:
    """Truncates the network to `layers` blocks meanwhile, and yields a list to which their outputs are appended.

    The library's own `hidden_states` end before or after the final norm, depending on family and version, and record
    only the blocks of the first pass.
    """
    holder, name = stack_of(network)
    blocks = getattr(holder, name)
    states: list[Tensor] = []

    def keep(block: nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    with contextlib.ExitStack() as undo:
        for block in blocks[:layers]:
            undo.callback(block.register_forward_hook(keep).remove)
        undo.callback(setattr, holder, name, blocks)
        setattr(holder, name, blocks[:layers])
        yield states
