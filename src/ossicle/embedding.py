"""What a model hears before it decides, as one file of vectors for other programs.

| array        | shape       | what                                                                        |
|--------------|-------------|-----------------------------------------------------------------------------|
| `embeddings` | (row, dim)  | float32; a row is a recording, or with time stamps a window                 |
| `index`      | (row,)      | which of the files the row is of, counted from 0                            |
| `start`      | (row,)      | seconds, where it begins                                                    |
| `end`        | (row,)      | seconds, where it ends                                                      |
| `files`      | (file,)     | the files' names; in safetensors, which holds no text, as JSON in the metadata |

The metadata, in `.npz` the array `about`, are JSON: the files, the model with its version, the layer, window and hop.
"""

import contextlib
import copy
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ossicle.audio import AudioInfo, read_blocks
from ossicle.bundle import Bundle
from ossicle.encoders import Encoder
from ossicle.encoders.ours import bundle_encoder
from ossicle.errors import AudioError, RunRefused, SettingRefused
from ossicle.files import legible, write_atomically
from ossicle.inference import WindowScores, join_scores
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedRecognizer

SUFFIXES = (".npz", ".safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Embeddings:
    """The vectors of some recordings; the fields are the arrays of the file."""

    files: tuple[str, ...]
    embeddings: Float32[np.ndarray, "row dim"]
    index: Int64[np.ndarray, " row"]
    start: Float64[np.ndarray, " row"]
    end: Float64[np.ndarray, " row"]


def embed_files(
    recognizer: Recognizer,
    files: Sequence[Path],
    *,
    layer: int | None = None,
    timestamps: bool = False,
    window: float | None = None,
    hop: float | None = None,
    track: int | None = None,
    failed: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embeddings:
    """Embeds recordings; one that cannot be used is named to `failed` and left out.

    Args:
        layer: of the network, from 1, its mean over the window; by default the features before the head
        timestamps: a row for each window; otherwise their mean, a row for each recording
        track: see `read_blocks`

    Raises: SettingRefused for a layer that the network does not have.
    """
    embed = recognizer.features if layer is None else layer_features(recognizer, layer)
    found: list[tuple[str, WindowScores]] = []
    for number, file in enumerate(files, 1):
        try:
            info = AudioInfo()
            blocks = read_blocks(file, recognizer.rate, track=track, info=info)
            windows = together(recognizer.stream_windows(blocks, embed, window=window, hop=hop), timestamps=timestamps)
            # Resampled, a recording may be longer by a part of a sample.
            found.append((legible(file), replace(windows, ends=np.minimum(windows.ends, info.seconds))))
        except AudioError as error:
            failed(str(error))
        progress(number, len(files))
    rows = [windows for _, windows in found]
    empty = np.zeros((0, 0), dtype=np.float32)
    return Embeddings(
        files=tuple(name for name, _ in found),
        embeddings=np.concatenate([part.scores for part in rows]).astype(np.float32) if rows else empty,
        index=np.repeat(np.arange(len(rows)), [len(part.scores) for part in rows]).astype(np.int64),
        start=np.concatenate([part.starts for part in rows]) if rows else np.zeros(0),
        end=np.concatenate([part.ends for part in rows]) if rows else np.zeros(0),
    )


def together(parts: Iterable[WindowScores], *, timestamps: bool) -> WindowScores:
    """The windows of a recording, or their mean over all of it."""
    windows = join_scores(parts)
    if timestamps:
        return windows
    mean = windows.scores.mean(axis=0, keepdims=True)
    return WindowScores(starts=windows.starts[:1], ends=windows.ends[-1:], scores=mean, padded_samples=0)


def layer_features(recognizer: Recognizer, layer: int) -> Callable[[np.ndarray], np.ndarray]:
    """What turns windows into the mean of one layer's states."""
    encoder = encoder_of(recognizer)
    if not 1 <= layer <= encoder.num_layers:
        raise SettingRefused(f"the layer is {layer}; this network has layers 1 to {encoder.num_layers}.")

    @torch.inference_mode()
    def embed(windows: np.ndarray) -> np.ndarray:
        hidden = encoder.encode(encoder.prepare(list(np.ascontiguousarray(windows))), layers=layer)
        return hidden.mean()[:, layer - 1].float().cpu().numpy()

    return embed


def encoder_of(recognizer: Recognizer) -> Encoder:
    """The network whose layers are read: the recognizer's own, or the one that its head was tuned on."""
    if isinstance(recognizer, TunedRecognizer):
        return recognizer.encoder
    bundle: Bundle = recognizer.bundle  # type: ignore[assignment]
    # The encoder's front end works on the CPU, wherever the recognizer's is.
    frontend = copy.deepcopy(bundle.frontend).cpu()
    return bundle_encoder(replace(bundle, frontend=frontend), name=bundle.model_name).to(recognizer.device)


def refuse_stranger(path: Path) -> None:
    """Raises RunRefused where a file exists that holds no embeddings of ours."""
    ours = False
    with contextlib.suppress(OSError, zipfile.BadZipFile, SafetensorError):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                ours = {"about.npy", "embeddings.npy"} <= set(archive.namelist())
        else:
            with safe_open(path, "np") as file:
                ours = "ossicle" in (file.metadata() or {})
    if os.path.lexists(path) and not ours:
        raise RunRefused(f"{path}: this is there already and ossicle did not write it; choose another file.")


def save_embeddings(path: Path, found: Embeddings, *, about: dict[str, Any]) -> None:
    """Writes `.npz` or `.safetensors`, whole or not at all.

    Args:
        about: the metadata

    Raises:
        SettingRefused: another suffix
        RunRefused: a file of somebody else is there
    """
    refuse_stranger(path)
    arrays = {name: np.ascontiguousarray(getattr(found, name)) for name in ("embeddings", "index", "start", "end")}
    text = json.dumps({"files": found.files, **about}, ensure_ascii=False)
    if path.suffix == ".npz":

        def write(temporary: Path) -> None:
            names = np.array(found.files, dtype=np.str_)
            np.savez(temporary, files=names, about=np.array(text), **arrays)  # type: ignore[arg-type]

        write_atomically(path, write)
    elif path.suffix == ".safetensors":
        write_atomically(path, save(arrays, metadata={"ossicle": text}))
    else:
        raise SettingRefused(f"{path}: embeddings are written as {' or '.join(SUFFIXES)}.")
