"""Embeddings of recordings: the features before a model's head, or those of a layer, as one file for other programs.

| array        | shape       | what                                                                        |
|--------------|-------------|-----------------------------------------------------------------------------|
| `embeddings` | (row, dim)  | float32; a row is a recording, or with time stamps a window                 |
| `index`      | (row,)      | index of the file of the row                                                |
| `start`      | (row,)      | start in seconds                                                            |
| `end`        | (row,)      | end in seconds                                                              |
| `files`      | (file,)     | file names; in safetensors, which has no strings, as JSON in the metadata   |

The metadata, in `.npz` the array `about`, are JSON: the files, the model with its version, the layer, window and hop,
the precision, and `identity`: files of vectors may be compared if theirs is the same.
"""

import contextlib
import copy
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ossicle.audio import AudioInfo, read_blocks
from ossicle.bundle import Bundle
from ossicle.encoders import Encoder
from ossicle.encoders.hidden import fingerprint
from ossicle.encoders.ours import bundle_encoder, settings_of
from ossicle.ensemble import Ensemble
from ossicle.errors import AudioError, RunRefused, SettingRefused
from ossicle.files import check_writable, legible, write_atomically
from ossicle.inference import Predictor, WindowScores, join_scores
from ossicle.jobs.folders import Outcome, Progress, find_recordings
from ossicle.jobs.options import EmbedOptions, PredictOptions, WrongUsage
from ossicle.jobs.predict import StrPath, check_window, opener_of, paths_of
from ossicle.jobs.progress import shown
from ossicle.recognizer import Recognizer
from ossicle.tuning.tuned import TunedRecognizer

SUFFIXES = (".npz", ".safetensors")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Embeddings:
    """Embeddings of recordings; the arrays are those of the file."""

    files: tuple[str, ...]
    embeddings: Float32[np.ndarray, "row dim"]
    index: Int64[np.ndarray, " row"]
    start: Float64[np.ndarray, " row"]
    end: Float64[np.ndarray, " row"]
    failed: tuple[Outcome, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    """Model, version, layer, window, hop, precision and identity: the metadata of the file."""

    def __repr__(self) -> str:
        rows, dim = self.embeddings.shape
        return f"Embeddings({rows} vectors of {dim} numbers, {len(self.files)} files, {len(self.failed)} failed)"

    def save(self, path: StrPath) -> None:
        """Writes `.npz` or `.safetensors`, atomically.

        Raises:
            WrongUsage: another suffix
            RunRefused: the file exists and was not written by ossicle
        """
        path = Path(path)
        check_output(path)
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("embeddings", "index", "start", "end")}
        text = json.dumps({"files": self.files, **self.about}, ensure_ascii=False)
        if path.suffix == ".safetensors":
            write_atomically(path, save(arrays, metadata={"ossicle": text}))
            return

        def write(temporary: Path) -> None:
            names = np.array(self.files, dtype=np.str_)
            np.savez(temporary, files=names, about=np.array(text), **arrays)  # type: ignore[arg-type]

        write_atomically(path, write)


def embed_files(
    model: StrPath | Predictor,
    inputs: StrPath | Iterable[StrPath],
    *,
    layer: int | None = None,
    timestamps: bool = False,
    window: float | None = None,
    hop: float | None = None,
    track: int | None = None,
    device: str = "auto",
    encoder: StrPath | None = None,
    progress: Progress | bool | None = None,
) -> Embeddings:
    """Embeds audio files; files that cannot be used are listed and skipped.

    Args:
        model: bundle folder, run folder or Hub id; or a loaded model
        inputs: audio files and folders
        layer: number of a layer, from 1, averaged over the window; by default the features before the head
        timestamps: one row for each window; otherwise their mean, one row for each file
        window, hop: seconds; by default the model's
        track: of several audio tracks, from 1
        device: auto, cpu, cuda, mps, ...
        encoder: path of the frozen encoder of a tuned head, if it has moved
        progress: called with the outcome of each file, the number done and the total; True shows a bar

    Raises:
        ValueError: an argument outside its range, a model of texts or images
        SettingRefused: a layer that the network does not have
        OssicleError: the model or a folder of inputs cannot be used; see `ossicle.errors`
    """
    where = None if encoder is None else os.fspath(encoder)
    options = PredictOptions(window=window, hop=hop, track=track, device=device, encoder=where)
    EmbedOptions(output=Path(), layer=layer)  # checks the range of each
    paths = paths_of(inputs)
    recognizer = opener_of(model, options)()
    if not recognizer.timed:
        raise WrongUsage(f"Embeddings of files need an audio model; this model predicts {recognizer.plural}.")
    samples = check_window(recognizer, window=window, hop=hop)
    embed = recognizer.features if layer is None else layer_features(recognizer, layer)
    files, failed = find_recordings(paths)
    found: list[tuple[str, WindowScores]] = []
    with shown(progress) as show:
        for number, file in enumerate(files, 1):
            outcome, info = Outcome(file=str(file)), AudioInfo()
            try:
                blocks = read_blocks(file, recognizer.rate, track=track, info=info)
                parts = recognizer.stream_windows(blocks, embed, window=window, hop=hop)
                windows = together(parts, timestamps=timestamps)
                # Resampled, a recording may be longer by a fraction of a sample.
                found.append((legible(file), replace(windows, ends=np.minimum(windows.ends, info.seconds))))
                outcome = replace(outcome, seconds=info.seconds)
            except AudioError as error:
                outcome = replace(outcome, error=str(error))
                failed.append(outcome)
            show(outcome, number, len(files))
    rows = [windows for _, windows in found]
    return Embeddings(
        files=tuple(name for name, _ in found),
        embeddings=np.concatenate([part.scores for part in rows]).astype(np.float32)
        if rows
        else np.zeros((0, 0), "f4"),
        index=np.repeat(np.arange(len(rows)), [len(part.scores) for part in rows]).astype(np.int64),
        start=np.concatenate([part.starts for part in rows]) if rows else np.zeros(0),
        end=np.concatenate([part.ends for part in rows]) if rows else np.zeros(0),
        failed=tuple(failed),
        about={
            "model": recognizer.bundle.model_name,
            "model_version": recognizer.bundle.version,
            "layer": layer,
            "window_seconds": samples[0] / recognizer.rate,
            "hop_seconds": samples[1] / recognizer.rate,
            "track": track,
            "precision": recognizer.settings.get("precision", "float32"),
            "identity": embedding_identity(recognizer, layer=layer, window=samples, timestamps=timestamps),
        },
    )


def embedding_identity(recognizer: Predictor, *, layer: int | None = None, **how: Any) -> str:
    """16 hexadecimal digits of everything that an embedding depends on: two that share them may be compared.

    That is: weights and options of the network, every setting of the front end, the layer, the precision, the fraction
    of the tokens that is computed, and `how` windows are made of a recording, as JSON values. Labels, thresholds and
    where the model lies are no part of it.
    """
    parts: dict[str, Any] = {"layer": layer, "precision": "float32", "reduction": None, **recognizer.settings, **how}
    parts.pop("kernels", None)  # which round differently and compute the same
    if isinstance(recognizer, TunedRecognizer):
        # The fingerprint of an encoder is the one before a tuner changed it.
        encoder, head = recognizer.encoder, recognizer.bundle.model
        parts["network"] = fingerprint(encoder.network, encoder.settings)
        parts["head"] = fingerprint(head, {"layers": head.layers, "pool": head.pool})
    elif isinstance(recognizer, Ensemble):
        parts["members"] = [embedding_identity(one, window=one.window_samples()) for one in recognizer.members]
    elif isinstance(recognizer, Recognizer):
        parts["network"] = fingerprint(recognizer.model, settings_of(cast(Bundle, recognizer.bundle)))
    else:  # an exported file
        parts["network"] = recognizer.bundle.version
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def together(parts: Iterable[WindowScores], *, timestamps: bool) -> WindowScores:
    """The windows of a recording, or their mean."""
    windows = join_scores(parts)
    if timestamps:
        return windows
    mean = windows.scores.mean(axis=0, keepdims=True)
    return WindowScores(starts=windows.starts[:1], ends=windows.ends[-1:], scores=mean, padded_samples=0)


def layer_features(recognizer: Predictor, layer: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from windows to the mean of one layer's hidden states."""
    if not isinstance(recognizer, Recognizer) or isinstance(recognizer, Ensemble):
        raise WrongUsage("`layer` needs a single network that runs with torch, not an exported file or an ensemble.")
    encoder = encoder_of(recognizer)
    if not 1 <= layer <= encoder.num_layers:
        raise SettingRefused(f"layer {layer} is not available; expected 1 to {encoder.num_layers}.")

    @torch.inference_mode()
    def embed(windows: np.ndarray) -> np.ndarray:
        hidden = encoder.encode(encoder.prepare(list(np.ascontiguousarray(windows))), layers=layer)
        return hidden.mean()[:, layer - 1].float().cpu().numpy()

    return embed


def encoder_of(recognizer: Recognizer) -> Encoder:
    """The network whose layers are read: the model's own, or the encoder of its head."""
    if isinstance(recognizer, TunedRecognizer):
        return recognizer.encoder
    bundle = cast(Bundle, recognizer.bundle)
    # The encoder's front end runs on the CPU, whatever the model's device.
    frontend = copy.deepcopy(bundle.frontend).cpu()
    return bundle_encoder(replace(bundle, frontend=frontend), name=bundle.model_name).to(recognizer.device)


def check_output(path: Path) -> None:
    """Raises an error for an output file that cannot be written; call it before the work.

    Raises:
        WrongUsage: another suffix
        RunRefused: the file exists and was not written by ossicle
        OSError: it cannot be written
    """
    if path.suffix not in SUFFIXES:
        raise WrongUsage(f"{path}: a file of embeddings must end in {' or '.join(SUFFIXES)}.")
    ours = False
    with contextlib.suppress(OSError, zipfile.BadZipFile, SafetensorError):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                ours = {"about.npy", "embeddings.npy"} <= set(archive.namelist())
        else:
            with safe_open(path, "np") as file:
                ours = "ossicle" in (file.metadata() or {})
    if os.path.lexists(path) and not ours:
        raise RunRefused(f"{path}: this exists already and ossicle did not write it; choose another file.")
    check_writable(path)
