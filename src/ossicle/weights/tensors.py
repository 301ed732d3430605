"""Read and write weights as safetensors; loading is strict.

The format cannot contain code. A file is refused if it is damaged, or if a tensor is missing, unexpected or has another
shape.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ossicle.errors import WeightsRefused
from ossicle.files import write_atomically
from ossicle.models.base import Network

SHOWN = 5  # tensors named of each kind before "and n more"


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors, bit for bit and atomically."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"format": "pt", **(metadata or {})}
    write_atomically(Path(path), lambda temporary: write_tensors(temporary, ready, metadata=about))


def write_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Writes contiguous tensors of the CPU, with the permissions of any other file.

    Raises:
        OSError: no space, no right; safetensors has an error of its own for it.
    """
    path.touch()
    mode = path.stat().st_mode  # safetensors replaces the file by one that only its owner can read
    try:
        safetensors.torch.save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads every tensor of a safetensors file onto the CPU.

    Raises:
        WeightsRefused: the file is missing or not a complete safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsRefused(f"{path}: there is no such file; weights are one .safetensors file")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        raise WeightsRefused(f"{path}: not a complete safetensors file ({error})") from error


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copies tensors into a module with exactly these names and shapes; on an error the module is unchanged.

    Args:
        source: file of the tensors, for error messages.

    Raises:
        WeightsRefused: tensors are missing, unexpected or misshapen; the message has their names and shapes.
    """
    check_fit(module, tensors, source=source)
    module.load_state_dict(dict(tensors), strict=True)


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Raises WeightsRefused if these are not the tensors of a module; see `load_into`."""
    wanted = module.state_dict()
    shapes = {name: (tuple(tensors[name].shape), tuple(wanted[name].shape)) for name in tensors.keys() & wanted.keys()}
    problems = [
        *listed("missing", [f"{n} {tuple(wanted[n].shape)}" for n in wanted if n not in tensors]),
        *listed("unexpected", [f"{n} {tuple(tensors[n].shape)}" for n in sorted(tensors.keys() - wanted.keys())]),
        *listed("misshapen", [f"{n} {a}, wanted {b}" for n, (a, b) in sorted(shapes.items()) if a != b]),
        *listed("not of floating point", sorted(n for n in shapes if differs_in_kind(tensors[n], wanted[n]))),
    ]
    if problems:
        found = "; ".join([*problems, *(module.explain_misfit(shapes) if isinstance(module, Network) else [])])
        raise WeightsRefused(f"{source}: the weights do not fit this network: {found}")


def check_finite(tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Raises WeightsRefused if a tensor has NaN or infinity."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsRefused(f"{source}: tensor {name} has NaN or infinity.")


def listed(kind: str, names: Iterable[str]) -> list[str]:
    """A clause such as "2 missing (a, b)" for an error message; no clause without names."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"] if names else []


def differs_in_kind(found: Tensor, wanted: Tensor) -> bool:
    return torch.is_floating_point(found) != torch.is_floating_point(wanted)
