"""Checkpoints of a run: tensors as safetensors, everything else as JSON, written atomically and checked when read.

    checkpoints/
        step-00001200/
            tensors.safetensors
            state.json          the tree, with names in place of tensors, and the SHA-256 of everything

A folder is written under a temporary name, flushed and then renamed, so a folder with its final name is complete. The
reader compares the hash, and falls back to the previous checkpoint if one is damaged. There are no pickles: resuming
a checkpoint from an untrusted source runs no code of it.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file

from ossicle.errors import RunRefused
from ossicle.files import sha256, sync_folder, write_atomically
from ossicle.weights.tensors import write_tensors

_TENSORS, _TREE = "tensors.safetensors", "state.json"


class SafeCheckpointIO(CheckpointIO):
    """Lightning's checkpoints in the format above, instead of its pickles."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes the checkpoint's tree into the folder `path`."""
        save_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads what `save_checkpoint` wrote; tensors are on the CPU."""
        return load_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Removes a checkpoint's folder."""
        shutil.rmtree(path, ignore_errors=True)


def save_state(folder: Path, tree: Mapping[str, Any]) -> None:
    """Writes a tree of dictionaries, lists, tuples, numbers, text and tensors as the folder `folder`.

    Raises:
        TypeError: a value of another type; the message has its path in the tree.
    """
    tensors: dict[str, torch.Tensor] = {}
    encoded = _encode(tree, tensors, "state")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_atomically(temporary / _TENSORS, lambda path: write_tensors(path, tensors))
        write_atomically(temporary / _TREE, _text({"sha256": _seal(temporary, encoded), "tree": encoded}))
        sync_folder(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_state(folder: Path) -> dict[str, Any]:
    """Reads the tree that `save_state` wrote.

    Raises:
        RunRefused: a file is missing, invalid, or differs from its hash.
    """
    try:
        text = (folder / _TREE).read_text(encoding="utf-8")
        content = json.loads(text)
        if _seal(folder, content["tree"]) != content["sha256"] or text != _text(content):
            raise RunRefused(f"{folder}: the checkpoint is damaged: its content differs from the hash in {_TREE}.")
        return _decode(content["tree"], load_file(folder / _TENSORS))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise RunRefused(f"{folder}: not a complete ossicle checkpoint ({error}).") from None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first."""
    return sorted((p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+", p.name)), reverse=True)


def valid_states(folder: Path) -> tuple[list[Path], list[str]]:
    """The checkpoints that are whole, the newest first, and a sentence for each that is damaged."""
    whole, damaged = [], []
    for candidate in checkpoints(folder):
        try:
            load_state(candidate)
        except RunRefused as error:
            damaged.append(str(error))
        else:
            whole.append(candidate)
    return whole, damaged


def newest_state(folder: Path) -> Path:
    """The newest checkpoint that is whole.

    Raises:
        RunRefused: there is none.
    """
    reason = ""
    for candidate in checkpoints(folder):
        try:
            load_state(candidate)
        except RunRefused as error:
            reason = reason or f" ({error})"
        else:
            return candidate
    raise RunRefused(f"{folder}: no checkpoint to resume from{reason}; start a new run in another folder with -o.")


def _text(content: Any) -> str:
    """On one line, which `json` writes in C; with an indent it does not."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def _seal(folder: Path, tree: Any) -> str:
    """A hash of the tensors' file and of everything else."""
    return hashlib.sha256(f"{sha256(folder / _TENSORS)} {json.dumps(tree)}".encode()).hexdigest()


def _encode(value: Any, tensors: dict[str, torch.Tensor], place: str) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no NaN or infinity; hexadecimal keeps every bit of the others too.
        return {"float": value.hex()}
    if isinstance(value, torch.Tensor):
        # A copy, as safetensors refuses tensors that share memory.
        tensors[place] = value.detach().cpu().clone().contiguous()
        return {"tensor": place}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(entry, tensors, f"{place}.{number}") for number, entry in enumerate(value)]}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str | int):
                raise TypeError(f"{place} has the key {key!r}; keys of a checkpoint are text or whole numbers.")
        # Pairs, since JSON would turn whole-number keys (the optimizer's) into text.
        return {"map": [[key, _encode(entry, tensors, f"{place}.{key}")] for key, entry in value.items()]}
    raise TypeError(f"{place} is a {type(value).__name__}, which a checkpoint without pickles cannot store.")


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "map":
        return {key: _decode(entry, tensors) for key, entry in content}
    entries = [_decode(entry, tensors) for entry in content]
    return tuple(entries) if kind == "tuple" else entries
