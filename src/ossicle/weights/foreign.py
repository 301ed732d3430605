"""Load published checkpoints, of torch (.pt, .pth, .ckpt), safetensors or numpy (.npz).

Supported files: a flat state dict, or one inside {"model": ...} or {"state_dict": ...}. The averaged weights may be
stored with it under other prefixes: `net.` and `net_swa.` (the published training code), `model.` and `model_ema.`, or
{"model": ..., "model_ema": ...} (timm, DeiT). `module.` (data parallel) and `_orig_mod.` (torch.compile) are removed.
`Network.adapted` of each family converts names and shapes.

Pickles are opened by `ossicle.weights.unpickle` in a process of its own, which hands back a safetensors file. Its
tensors are mapped into memory and read when they are used.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ossicle.errors import WeightsRefused
from ossicle.files import FULL
from ossicle.models.base import Network
from ossicle.weights import unpickle
from ossicle.weights.tensors import load_into, load_weights

CPU_SECONDS = 60  # of the process that opens a pickle
WAIT_SECONDS = 600

# Prefixes of names: of trained weights and of their averages.
PREFIXES = {"net": ("net_swa", "net_ema"), "model": ("model_ema", "ema_model", "swa_model")}


def read_checkpoint(
    path: str | Path,
    *,
    average: bool | None = None,
    report: Callable[[str], None] = lambda sentence: None,
    scratch: Path | None = None,
) -> dict[str, Tensor]:
    """Reads the tensors of a published checkpoint (.pt, .pth, .ckpt, .safetensors, .npz), with plain names.

    Args:
        average: for a file with both the weights of a network and their average, whether to read the average, which is
            what its authors evaluate; None reads the average if it fits the same network
        report: called with a sentence about which of both was read
        scratch: folder for a temporary file as large as the tensors; by default the system's

    Raises:
        WeightsRefused: the file is missing, damaged, larger than 8 GB, needs code to load, has no tensors, no
            average although `average` is true, or an average of other shapes.
        OSError: no space for the temporary file
    """
    path = Path(path)
    if not path.is_file():
        kinds = ".pt, .pth, .ckpt, .safetensors or .npz"
        raise WeightsRefused(f"{path}: there is no such file; a checkpoint is one {kinds} file")
    if path.suffix == ".safetensors" or is_safetensors(path):
        tensors = load_weights(path)
    else:
        tensors = extract(path, scratch=scratch)
    return plain_names(tensors, source=path, average=average, report=report)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a header and the header, whatever its name."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def extract(path: Path, *, scratch: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a file that may be a pickle, read in a process of its own; see `unpickle`.

    Raises: as `read_checkpoint`.
    """
    with tempfile.TemporaryDirectory(prefix=".ossicle-", dir=scratch, ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-P", "-B", unpickle.__file__, os.path.abspath(path), str(target), str(CPU_SECONDS)]
        # Nothing that is secret in the environment, and no threads, whose stacks count as memory.
        needed = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
        environment = {name: os.environ[name] for name in needed if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=WAIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise WeightsRefused(f"{path}: the checkpoint cannot be read within {WAIT_SECONDS} s") from None
        if done.returncode:
            raise WeightsRefused(f"{path}: the checkpoint cannot be loaded: {ended(done.returncode)}")
        outcome = json.loads(done.stdout)
        if "errno" in outcome:
            full = outcome["errno"] in FULL
            raise OSError(
                outcome["errno"], os.strerror(outcome["errno"]), os.path.dirname(folder) if full else str(path)
            )
        if "refused" in outcome:
            raise WeightsRefused(f"{path}: the checkpoint cannot be loaded: {outcome['refused']}")
        tensors = load_weights(target)
        # The file can be removed while it is mapped, except on Windows.
        return {name: tensor.clone() for name, tensor in tensors.items()} if os.name == "nt" else tensors


def ended(code: int) -> str:
    """A clause about a process that did not end by itself."""
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"reading it takes more than {CPU_SECONDS} s of processor time"
    return f"the process that reads it ended with code {code}, for lack of memory or because the file is damaged"


def plain_names(
    tensors: Mapping[str, Tensor],
    *,
    source: str | Path,
    average: bool | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Tensor]:
    """Removes the prefixes of wrappers; where networks have prefixes, tensors without one are dropped.

    See `read_checkpoint` for `average` and `report`.
    """
    bare = {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in tensors.items()}
    found = {prefix: below(bare, prefix) for pair in PREFIXES.items() for prefix in (pair[0], *pair[1])}
    found = {prefix: inside for prefix, inside in found.items() if inside}
    means = [prefix for prefix in found if prefix not in PREFIXES]
    if average and not means:
        raise WeightsRefused(f"{source}: the file has no averaged weights; leave out weights_average=true (--average)")
    if not found:
        return bare
    trained = next((prefix for prefix in PREFIXES if prefix in found), None)
    if average is False and trained is None:
        raise WeightsRefused(f"{source}: the file has only {means[0]}; leave out weights_average=false (--no-average)")
    if trained is None or not means:
        return found[trained or means[0]]
    mean = means[0]
    if average is None and shapes(found[mean]) != shapes(found[trained]):
        raise WeightsRefused(
            f"{source}: {trained} and {mean} differ in their shapes; select {mean} with weights_average=true "
            f"(--average), or {trained} with weights_average=false (--no-average)"
        )
    chosen, other = (trained, mean) if average is False else (mean, trained)
    report(f"{source}: the file has {trained} and its average {mean}; using {chosen}, not {other}.")
    return found[chosen]


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix, without it; torch's counter of averaged weights is left out."""
    inside = (
        (name.removeprefix(prefix + ".").removeprefix("module."), tensor)
        for name, tensor in tensors.items()
        if name.startswith(prefix + ".")
    )
    return {name: tensor for name, tensor in inside if name != "n_averaged"}


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor, by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def load_checkpoint(
    model: Network,
    path: str | Path,
    *,
    average: bool | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Loads a published checkpoint into a network, as the network's family adapts it; see `read_checkpoint`.

    Example:
        model = create_model("passt_base_s10")
        load_checkpoint(model, "passt-s-f128-p16-s10-ap.476-swa.pt")

    Raises:
        WeightsRefused: the file cannot be read or does not fit; the network is unchanged.
    """
    tensors = read_checkpoint(path, average=average, report=report)
    load_into(model, model.adapted(tensors, source=path, report=report), source=path)
