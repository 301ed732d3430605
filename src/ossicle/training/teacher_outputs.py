"""Outputs of a teacher in a file: logits and embeddings of clips by file name, of one view of each clip or of several.

What `store_outputs` writes, in safetensors; `views` and `about` are JSON in the metadata, with the names of the files:

| array        | shape               | what                                             |
|--------------|---------------------|--------------------------------------------------|
| `logits`     | (clip, view, label) | float16, divided by the temperature of the model |
| `embeddings` | (clip, view, dim)   | float16, the features before the head            |

Read are these, the files of `ossicle embed` (rows of one recording are averaged), and any `.npz` or `.safetensors` with
`logits`, `scores` or `probability` and `embeddings` or `embedding`, (clip, ...) or (clip, view, ...), and in `.npz` the
arrays `filename` and perhaps `labels`.

A view is a clip as an augmentation leaves it. It is a function of (seed, clip, view), so that a student can be given
the very wave that the teacher got, without the teacher.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from torch import Tensor

from ossicle.data import Dataset, Item
from ossicle.data.cache import SampleStore
from ossicle.errors import AudioError, DataRefused, RunRefused
from ossicle.files import beside, check_writable, read_json, write_atomically, write_json
from ossicle.frontend import augment
from ossicle.inference import Predictor
from ossicle.training.loader import as_wave
from ossicle.types import Task

logger = logging.getLogger(__name__)
SUFFIXES = (".safetensors", ".npz")
NAMES = ("files", "filename", "filenames", "file", "names", "name")
LOGITS, SCORES, EMBEDDINGS = ("logits",), ("scores", "probability", "probabilities"), ("embeddings", "embedding")
LEAST_PROBABILITY = 1e-6  # of a stored score: none has an infinite logit
PART_CLIPS = 256  # of a file that is being written
AT_ONCE = 16  # clips of one length in a pass
Rows = Int64[np.ndarray, "item"]


@dataclass(frozen=True, kw_only=True)
class Views:
    """How the views of a clip are made: cut at random to the window, made louder or softer, rolled in time."""

    number: int  # of each clip
    seed: int
    rate: int
    window: int  # samples
    min_samples: int
    gain: float  # decibels, either way
    roll: float  # seconds, either way

    def wave(self, samples: Float32[np.ndarray, "time"], name: str, *, view: int) -> Float[Tensor, "window"]:
        """One view of the clip of that name."""
        key = int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "big")
        rng = np.random.default_rng([self.seed, key, view])
        start = int(rng.integers(0, max(len(samples) - self.window, 0) + 1))
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        wave = as_wave(samples[start : start + self.window], self.min_samples)[None]
        if self.gain:
            wave = augment.gain(wave, decibels=self.gain, generator=generator)
        if self.roll:
            wave = augment.roll(wave, max_samples=round(self.roll * self.rate), generator=generator)
        return wave[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherOutputs:
    """What a teacher gives for each clip, by name."""

    path: Path
    names: tuple[str, ...]
    logits: Float[np.ndarray, "clip view label"] | None = None
    embeddings: Float[np.ndarray, "clip view dim"] | None = None
    labels: tuple[str, ...] | None = None  # None where nobody has named them
    task: Task = "multi-label"
    views: Views | None = None  # None for clips as they are, as a whole
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def rows(self, dataset: Dataset) -> Rows:
        """The row of each item of a data set; -1 where there is none.

        Names are compared from their end, so that it does not matter from where they were given: `bells/1.wav`,
        `/data/bells/1.wav` and `1.ogg` are one clip if no other is called so, and `drums/1.wav` is another. A row that
        has the very name of a clip is of no other.

        Raises: DataRefused where one name fits several clips, or none fits.
        """
        exact = {name: row for row, name in enumerate(self.names)}
        rows = np.array([exact.get(clip_name(dataset, item), -1) for item in dataset.items], np.int64)
        by_stem = defaultdict[str, list[int]](list)
        for row in np.setdiff1d(np.arange(len(self.names)), rows).tolist():
            by_stem[_stem(self.names[row])].append(row)
        taken: dict[int, str] = {}
        for number in np.flatnonzero(rows < 0).tolist():
            place = dataset.relative(dataset.items[number])
            row = self._nearest(place, by_stem[_stem(place)], root=dataset.root)
            if row is None:
                continue
            if taken.setdefault(row, place) != place:
                raise DataRefused(
                    f"{self.path}: the name {self.names[row]!r} fits several clips of {dataset.root}, such as "
                    f"{taken[row]} and {place}; names with their folders tell them apart."
                )
            rows[number] = row
        if len(dataset) and not (rows >= 0).any():
            raise DataRefused(
                f"{self.path}: its {len(self.names)} clips, such as {self.names[0]!r}, are none of {dataset.root}, as "
                f"is {dataset.relative(dataset.items[0])!r}; names are compared from their end."
            )
        return rows

    def _nearest(self, place: str, rows: Sequence[int], *, root: Path) -> int | None:
        """Of rows whose files are called so, that with most folders in common; None for several."""
        within, wanted = len(_from_end(place)), _from_end(f"{root.as_posix()}/{place}")
        common = {}
        for row in rows:
            parts = _from_end(self.names[row])
            equal = [one == other for one, other in zip(parts[1:], wanted[1:], strict=False)]
            if all(equal[: within - 1]):  # the folders above the root may be called otherwise
                common[row] = (equal.index(False) if False in equal else len(equal), parts[0] == wanted[0])
        most = max(common.values(), default=None)
        best = [row for row, one in common.items() if one == most]
        return best[0] if len(best) == 1 else None


def _from_end(name: str) -> list[str]:
    """What a file is called, then the folders that it lies in."""
    parts = PurePosixPath(name.replace("\\", "/").lstrip("/")).parts
    return [part for part in reversed(parts) if part != ".."] or [""]


def _stem(name: str) -> str:
    """What a file is called without its suffix, which another format changes."""
    return PurePosixPath(_from_end(name)[0]).stem


def clip_name(dataset: Dataset, item: Item) -> str:
    """What a stored output calls a clip: its file, and the times of a segment."""
    name = dataset.relative(item)
    whole = item.start == 0 and item.end is None
    return name if whole else f"{name}@{item.start:.3f}-{'' if item.end is None else f'{item.end:.3f}'}"


def is_outputs(name: str | os.PathLike[str]) -> bool:
    """Whether a teacher is a file of stored outputs."""
    return Path(name).suffix.lower() in SUFFIXES


# ---------------------------------------------------------------- reading


def read_outputs(path: Path) -> TeacherOutputs:
    """Reads stored outputs.

    Raises: DataRefused for a file that is missing, damaged or without outputs or names.
    """
    arrays, about = _read(path)
    names = next((arrays[name] for name in NAMES if name in arrays), about.get("files"))
    if names is None:
        raise DataRefused(
            f"{path}: no names of the clips; expected an array `filename` (npz), or the metadata of `ossicle embed` or "
            "`ossicle distil --store`."
        )
    names = tuple(str(name) for name in names)
    logits, embeddings = _first(arrays, LOGITS), _first(arrays, EMBEDDINGS)
    scores = _first(arrays, SCORES) if logits is None else None
    task: Task | None = about.get("task")
    if scores is not None:
        logits, task = _logits_of(scores, task)
    if "index" in arrays and embeddings is not None and embeddings.ndim == 2:  # of `ossicle embed`
        embeddings = _mean_by_file(embeddings, arrays["index"], len(names))
    if logits is None and embeddings is None:
        raise DataRefused(
            f"{path}: no outputs of a teacher; expected an array called {', '.join((*LOGITS, *SCORES[:2]))} or "
            f"{EMBEDDINGS[0]}; found {', '.join(sorted(arrays)) or 'none'}."
        )
    labels = arrays.get("labels", about.get("labels"))
    views = about.get("views")
    outputs = TeacherOutputs(
        path=path,
        names=names,
        logits=_with_views(logits),
        embeddings=_with_views(embeddings),
        labels=None if labels is None else tuple(str(label) for label in labels),
        task="single-label" if task == "single-label" else "multi-label",
        views=None if views is None else Views(**views),
        about=about,
    )
    _check(outputs)
    return outputs


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, and its metadata."""
    if not path.is_file():
        raise DataRefused(f"{path}: there is no such file of stored outputs.")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            text = str(arrays.pop("about", "{}"))
        else:
            arrays = load_file(path)
            with safe_open(path, "np") as file:
                text = (file.metadata() or {}).get("ossicle", "{}")
        about = json.loads(text)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile, EOFError, RecursionError) as error:
        raise DataRefused(f"{path}: not a file of stored outputs that can be read ({error}).") from None
    return arrays, about if isinstance(about, dict) else {}


def _first(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _logits_of(scores: np.ndarray, task: Task | None) -> tuple[np.ndarray, Task]:
    """Logits of probabilities, which are of labels that exclude each other if they sum to one."""
    values = np.clip(scores.astype(np.float32), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    if task is None:
        alone = scores.shape[-1] > 1 and np.abs(scores.astype(np.float32).sum(-1) - 1).max(initial=0) < 0.02
        task = "single-label" if alone else "multi-label"
    return (np.log(values) if task == "single-label" else np.log(values / (1 - values))), task


def _mean_by_file(rows: np.ndarray, index: np.ndarray, files: int) -> np.ndarray:
    """The mean of the rows of each file."""
    counts = np.bincount(index, minlength=files)
    sums = np.zeros((files, rows.shape[1]), np.float32)
    np.add.at(sums, index, rows.astype(np.float32))
    return sums / np.maximum(counts, 1)[:, None]


def _with_views(array: np.ndarray | None) -> np.ndarray | None:
    return array[:, None] if array is not None and array.ndim == 2 else array


def _check(outputs: TeacherOutputs) -> None:
    path, clips = outputs.path, len(outputs.names)
    if not clips:
        raise DataRefused(f"{path}: it holds outputs of no clip.")
    if twice := [name for name, count in Counter(outputs.names).items() if count > 1]:
        raise DataRefused(f"{path}: some names are there twice, such as {twice[0]!r}; expected a row for each clip.")
    views = 1 if outputs.views is None else outputs.views.number
    for name, array in (("logits", outputs.logits), ("embeddings", outputs.embeddings)):
        if array is None:
            continue
        if array.ndim != 3 or len(array) != clips or not array.shape[2]:
            shape = tuple(array.shape)
            raise DataRefused(
                f"{path}: {name} have the shape {shape}, and there are {clips} names: expected (clip, {name}), or "
                f"(clip, view, {name})."
            )
        if array.shape[1] != views:
            raise DataRefused(
                f"{path}: {array.shape[1]} views of each clip, and how they were augmented is not said; expected one, "
                "or a file of `ossicle distil --store`."
            )
        if not np.isfinite(array).all():
            raise DataRefused(f"{path}: the {name} hold NaN or infinity.")
    if outputs.labels is not None and outputs.logits is not None and len(outputs.labels) != outputs.logits.shape[2]:
        raise DataRefused(f"{path}: {len(outputs.labels)} labels for {outputs.logits.shape[2]} logits.")
    if outputs.labels is not None and len(set(outputs.labels)) != len(outputs.labels):
        raise DataRefused(f"{path}: some labels are there twice.")


# ---------------------------------------------------------------- writing


def store_outputs(
    path: Path,
    *,
    predictor: Predictor,
    dataset: Dataset,
    store: SampleStore,
    about: Mapping[str, Any],
    views: Views | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TeacherOutputs:
    """Writes a teacher's outputs for all clips that can be used; what an interrupted call has done is not done again.

    Args:
        about: what tells these outputs from others, and goes into the metadata.
        views: of each clip; by default the clip as it is, as a whole.

    Raises: RunRefused for a file, or parts of one, of another teacher, other data or other views.
    """
    about = {**about, "views": None if views is None else dataclasses.asdict(views)}
    if path.exists():
        outputs = read_outputs(path)
        if not about.items() <= outputs.about.items():
            raise RunRefused(f"{path}: outputs of another teacher, other data or other views; choose another file.")
        return outputs
    check_writable(path)
    parts = beside(path, ".parts")
    if parts.exists() and read_json(parts / "about.json", refused=RunRefused) != about:
        raise RunRefused(
            f"{parts}: begun with another teacher, other data or other views; remove it, or choose another file."
        )
    write_json(parts / "about.json", about)
    # Of segments that differ by less than their names tell one is enough.
    clip_of = {clip_name(dataset, dataset.items[clip]): clip for clip in store.usable.tolist()}
    name_of = {clip: name for name, clip in clip_of.items()}
    clips = list(name_of)
    files = []
    for first in range(0, len(clips), PART_CLIPS):
        some = clips[first : first + PART_CLIPS]
        files.append(parts / f"{first:09d}.safetensors")
        if not files[-1].exists():
            show = functools.partial(_shifted, progress, first=first, total=len(clips))
            arrays = _outputs(predictor, some, name_of, store=store, views=views, progress=show)
            write_atomically(files[-1], save(arrays))
    read = [load_file(file) for file in files]
    arrays = {
        name: np.concatenate([part[name] for part in read if len(part["clips"])]) for name in ("logits", "embeddings")
    }
    names = [name_of[clip] for part in read for clip in part["clips"].tolist()]
    text = json.dumps({"files": names, **about}, ensure_ascii=False)
    write_atomically(path, save(arrays, metadata={"ossicle": text}))
    shutil.rmtree(parts)
    progress(len(clips), len(clips))
    return read_outputs(path)


def _shifted(progress: Callable[[int, int], None], done: int, *, first: int, total: int) -> None:
    progress(first + done, total)


def _outputs(
    predictor: Predictor,
    clips: Sequence[int],
    names: Mapping[int, str],
    *,
    store: SampleStore,
    views: Views | None,
    progress: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Logits and embeddings (clip, view, ...) of the clips that can be read, and which these are."""
    number = 1 if views is None else views.number
    waves, heard = list[np.ndarray](), list[int]()
    found: dict[str, dict[int, np.ndarray]] = {"logits": {}, "embeddings": {}}

    def pass_on(some: Sequence[int]) -> None:
        logits, embeddings = predictor.clip_outputs(np.stack([waves[place] for place in some]), rate=store.rate)
        for place, row, features in zip(some, logits / predictor.bundle.temperature, embeddings, strict=True):
            found["logits"][place], found["embeddings"][place] = row, features

    for done, clip in enumerate(clips, start=1):
        try:
            samples = store.read(clip)
        except AudioError:  # the store has counted it, and nothing is answered for it
            samples = None
        if samples is not None:
            heard.append(clip)
            if views is None:
                waves.append(np.array(samples))
            else:
                waves += [views.wave(samples, names[clip], view=view).numpy() for view in range(number)]
        waiting = [place for place in range(len(waves)) if place not in found["logits"]]
        if len(waiting) >= AT_ONCE or done == len(clips):
            by_length = defaultdict[int, list[int]](list)
            for place in waiting:
                by_length[len(waves[place])].append(place)
            for some in by_length.values():
                pass_on(some)
            for place in waiting:
                waves[place] = waves[place][:0]  # its outputs are known
            progress(done)
    arrays = {
        name: np.stack([rows[place] for place in range(len(waves))]).reshape(len(heard), number, -1).astype(np.float16)
        for name, rows in found.items()
        if waves
    }
    return {**arrays, "clips": np.array(heard, np.int64)}
