"""Teachers: models whose outputs a student learns, at hand while it trains or stored in a file.

A teacher at hand is any model of sound: a recognizer, a tuned head, an ensemble, an exported ONNX file. It gets the
very waves that the student gets, augmented and mixed, once a batch, in inference mode, at its own rate, by its own
front end and in its own windows. Its outputs for every clip as it is are stored in the run before the training starts:
they give the mean and deviation of the training part, the labels of clips that have none, and what the student is
compared with.

A teacher in a file answers for the clips in the file and for no others. Its outputs are those of a clip as a whole, or
of views of it; then the student gets these views.
"""

import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ossicle import runtime
from ossicle.data import Dataset
from ossicle.data.cache import SampleStore
from ossicle.embedding import embedding_identity
from ossicle.errors import AudioError, DataRefused, SettingRefused
from ossicle.inference import Predictor
from ossicle.jobs.predict import absolute
from ossicle.loading import load
from ossicle.recognizer import Recognizer
from ossicle.training.estimate import duration, logged
from ossicle.training.loader import pieces
from ossicle.training.teacher_outputs import Rows, TeacherOutputs, Views, is_outputs, read_outputs, store_outputs
from ossicle.types import Task

logger = logging.getLogger(__name__)
Outputs = tuple[Float[Tensor, "clip label"] | None, Float[Tensor, "clip dim"] | None]  # logits and embeddings
PIECE = 4096  # clips whose outputs are looked at together
Statistics = tuple[Float[Tensor, "label"] | None, Float[Tensor, "dim"] | None]  # of logits and embeddings
Named = str | os.PathLike[str] | Predictor
# Kernels of a teacher: not chosen by a measurement, which a resumed run could repeat with another outcome.
KERNELS = "torch"


def name_of(teacher: Named) -> str:
    """What the settings of a run call a teacher: a path is absolute."""
    if isinstance(teacher, Predictor):
        return str(getattr(teacher, "folder", None) or teacher.bundle.model_name)
    return absolute(os.fspath(teacher))


def open_teacher(teacher: Named, *, device: str = "auto") -> Predictor | TeacherOutputs:
    """Loads a teacher: a model reference as for `ossicle.load`, an ONNX file, stored outputs, or a loaded model.

    Raises:
        SettingRefused: a model of texts or images
        OssicleError: it cannot be had; see `ossicle.errors`
    """
    if isinstance(teacher, Predictor):
        predictor = teacher
    elif is_outputs(teacher):
        return read_outputs(Path(teacher).expanduser())
    elif Path(teacher).suffix.lower() == ".onnx":
        predictor = runtime.load(Path(teacher).expanduser(), threads=torch.get_num_threads())
    else:
        predictor = load(os.fspath(teacher), device=device, kernels=KERNELS)
    if not predictor.timed:
        raise SettingRefused(
            f"teacher {name_of(teacher)}: a model of {predictor.plural}; a student of sound needs one of sound."
        )
    return predictor


def describe(opened: Predictor | TeacherOutputs, name: str) -> str:
    """What a teacher answers, in a sentence."""
    if isinstance(opened, TeacherOutputs):
        parts = [f"outputs of {len(opened.names)} clips"]
        if opened.logits is not None:
            parts.append(f"{opened.logits.shape[2]} labels, {opened.task}")
        if opened.embeddings is not None:
            parts.append(f"embeddings of {opened.embeddings.shape[2]} numbers")
        if opened.views is not None:
            parts.append(f"{opened.views.number} views of each")
        return f"Teacher {name}: {', '.join(parts)}"
    seconds = opened.window_samples()[0] / opened.rate
    return (
        f"Teacher {name}: {len(opened.labels)} labels, {opened.task}, and its features; windows of {seconds:g} s at "
        f"{opened.rate} Hz; license of the weights: {opened.bundle.weights_license or 'not stated'}"
    )


def identity_of(predictor: Predictor) -> dict[str, Any]:
    """What tells the outputs of a model from those of others, as JSON values."""
    return {
        "model": predictor.bundle.model_name,
        "model_version": predictor.bundle.version,
        "identity": embedding_identity(predictor, window=predictor.window_samples()),
        "labels": list(predictor.labels),
        "task": predictor.task,
        "license": predictor.bundle.weights_license,
    }


def outputs_for(
    predictor: Predictor,
    path: Path,
    *,
    name: str,
    dataset: Dataset,
    store: SampleStore,
    views: Views | None = None,
) -> TeacherOutputs:
    """A model's outputs for the clips of a data set, from the file or made now; says how long that takes.

    Raises: RunRefused for a file of another teacher, other data or other views.
    """
    about = {**identity_of(predictor), "data_fingerprint": dataset.fingerprint(), "rate": store.rate}
    if not path.exists() and len(store.usable):
        number = 1 if views is None else views.number
        seconds = seconds_per_clip(predictor, store) * number
        total = seconds * len(store.usable)
        each = "" if views is None else f", {number} views of each,"
        logger.info(
            f"{name} answers for {len(store.usable)} clips{each} once: {seconds:.2g} s a clip, about {duration(total)}"
            + (", and as long again in each epoch of the training" if views is None else "")
        )
    progress = logged("the teacher has answered for {} of {} clips", end=False)
    return store_outputs(
        path, predictor=predictor, dataset=dataset, store=store, about=about, views=views, progress=progress
    )


def seconds_per_clip(predictor: Predictor, store: SampleStore) -> float:
    """How long a pass takes for a clip of typical length, after one that warms up."""
    clip = store.usable[np.argsort(store.lengths[store.usable], kind="stable")[len(store.usable) // 2]]
    try:
        wave = np.array(store.read(int(clip)))[None]
    except AudioError:  # the store has counted it
        wave = np.zeros((1, int(store.lengths[clip])), np.float32)
    predictor.clip_outputs(wave, rate=store.rate)
    started = time.monotonic()
    predictor.clip_outputs(wave, rate=store.rate)
    return time.monotonic() - started


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A teacher of one run.

    Args:
        stored: its outputs, of clips as they are or of views.
        rows: the row of each clip of the data set in `stored`; -1 where it does not answer.
        predictor: of a teacher at hand.
    """

    name: str
    stored: TeacherOutputs
    rows: Rows
    predictor: Predictor | None = None

    @property
    def short_name(self) -> str:
        """Its name without the folders that it lies in."""
        return Path(self.name).name if Path(self.name).is_absolute() else self.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Of its logits, if anybody has named them."""
        return self.stored.labels

    @property
    def task(self) -> Task:
        """What its logits are of."""
        return self.stored.task

    @property
    def license(self) -> str | None:
        """Of its weights."""
        return self.stored.about.get("license")

    @cached_property
    def answers(self) -> Bool[np.ndarray, "item"]:
        """For which clips of the data set."""
        return self.rows >= 0

    @cached_property
    def num_labels(self) -> int:
        """How many logits it gives; 0 for none."""
        return 0 if self.stored.logits is None else self.stored.logits.shape[2]

    @cached_property
    def dim(self) -> int:
        """Of its embeddings; 0 for none."""
        return 0 if self.stored.embeddings is None else self.stored.embeddings.shape[2]

    def clip_rows(self, clips: Int64[np.ndarray, "clip"]) -> Outputs:
        """Its outputs for clips as a whole, or the mean of its views; zeros where it does not answer."""
        return self._each(lambda array: array[self.rows[clips]].astype(np.float32).mean(axis=1), clips)

    def view_rows(self, clips: Int64[np.ndarray, "clip"], views: Int64[np.ndarray, "clip"]) -> Outputs:
        """Its outputs for one view of each clip; zeros where it does not answer."""
        return self._each(lambda array: array[self.rows[clips], views].astype(np.float32), clips)

    def _each(self, take: Callable[[np.ndarray], np.ndarray], clips: Int64[np.ndarray, "clip"]) -> Outputs:
        there = self.answers[clips, None]

        def of(array: np.ndarray | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(np.where(there, take(array), np.float32(0)))

        return of(self.stored.logits), of(self.stored.embeddings)

    def statistics(self, clips: Int64[np.ndarray, "clip"]) -> tuple[Statistics, Statistics]:
        """Mean and deviation of its outputs over these clips, as far as it answers for them."""
        clips = clips[self.answers[clips]]
        found: list[tuple[Tensor, Tensor] | tuple[None, None]] = []
        for array in (self.stored.logits, self.stored.embeddings):
            if array is None:
                found.append((None, None))
            else:
                found.append(mean_and_deviation(functools.partial(self._pieces, array, clips)))
        return (found[0][0], found[1][0]), (found[0][1], found[1][1])

    def _pieces(self, array: np.ndarray, clips: Int64[np.ndarray, "clip"]) -> Iterator[Tensor]:
        """Rows of clips that it answers for, the mean of their views."""
        for some in pieces(clips, PIECE):
            yield torch.from_numpy(array[self.rows[some]].astype(np.float32).mean(axis=1))

    def listen(self, waves: Float[Tensor, "clip time"], lengths: Int64[Tensor, "clip"], *, rate: int) -> Outputs:
        """Of a teacher at hand: its outputs for waves that silence follows, on their device."""
        assert self.predictor is not None
        logits, embeddings = listen(self.predictor, waves, lengths, rate=rate)
        return logits / self.predictor.bundle.temperature, embeddings


def mean_and_deviation(
    rows: Callable[[], Iterable[Tensor]],
) -> tuple[Float[Tensor, "number"], Float[Tensor, "number"]]:
    """Over (clip, number), in double precision; a number that never changes has a small deviation and not none.

    Args:
        rows: gives the pieces of them, each time that it is called.
    """
    total = sum(len(some) for some in rows())
    mean = sum((some.double().sum(0) for some in rows()), torch.zeros(())) / total
    squares = sum(((some.double() - mean).square().sum(0) for some in rows()), torch.zeros(()))
    return mean.float(), (squares / total).sqrt().float().clamp(min=1e-3)


def listen(
    predictor: Predictor, waves: Float[Tensor, "clip time"], lengths: Int64[Tensor, "clip"], *, rate: int
) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip dim"]]:
    """Logits and features of waves of any lengths, on their device.

    Where the model runs with torch at this rate, and all is one window, the waves do not leave the device.
    """
    with torch.inference_mode():
        if (one_pass := _in_one_pass(predictor, waves, lengths, rate=rate)) is not None:
            logits, features = one_pass
        else:
            logits, features = _by_length(predictor, waves, lengths, rate=rate)
    # Outside of the inference mode: what it made cannot stand in a loss.
    return logits.to(waves.device, torch.float32).clone(), features.to(waves.device, torch.float32).clone()


def _in_one_pass(predictor: Predictor, waves: Tensor, lengths: Tensor, *, rate: int) -> tuple[Tensor, Tensor] | None:
    window, _ = predictor.window_samples()
    if type(predictor) is not Recognizer or predictor.rate != rate or waves.shape[1] > window:
        return None
    if int(lengths.min()) < predictor.min_samples:
        return None
    if not predictor.bundle.pad and int(lengths.min()) < waves.shape[1]:
        return None
    frames = predictor.frontend.frames(window) if predictor.bundle.pad else None
    return predictor.spec_outputs(predictor.frontend(waves.to(predictor.device), lengths=lengths, frames=frames))


def _by_length(predictor: Predictor, waves: Tensor, lengths: Tensor, *, rate: int) -> tuple[Tensor, Tensor]:
    found: list[tuple[Tensor, np.ndarray, np.ndarray]] = []
    for length in lengths.unique().tolist():
        places = torch.nonzero(lengths == length)[:, 0]
        some = waves[places.to(waves.device), :length].float().cpu().numpy()
        found.append((places, *predictor.clip_outputs(some, rate=rate)))
    order = torch.cat([places for places, _, _ in found]).argsort()
    logits, features = (np.concatenate([part[number] for part in found]) for number in (1, 2))
    return torch.from_numpy(logits)[order], torch.from_numpy(features)[order]


NO_LABEL = "features"  # of a student that learns embeddings alone; its score says nothing


def labeled_by(teacher: Teacher, dataset: Dataset) -> Dataset:
    """A data set with the labels of a teacher: those above 0.5, or the best one.

    Clips for which it does not answer always train.

    Raises: DataRefused where logits have no names of their labels.
    """
    if teacher.labels is None:
        raise DataRefused(
            f"{teacher.name}: {teacher.num_labels} logits without the names of their labels, which the student needs; "
            "add an array `labels`."
        )
    columns = list[list[int]]()
    for some in pieces(np.arange(len(dataset)), PIECE):
        logits, _ = teacher.clip_rows(some)
        assert logits is not None
        if teacher.task == "multi-label":
            found = [np.flatnonzero(row).tolist() for row in (logits > 0).numpy()]
        else:
            found = [[number] for number in logits.argmax(1).tolist()]
        answered = teacher.answers[some].tolist()
        columns += [row if there else [] for row, there in zip(found, answered, strict=True)]
    return _relabeled(dataset, teacher, labels=teacher.labels, task=teacher.task, columns=columns)


def with_no_label(teacher: Teacher, dataset: Dataset) -> Dataset:
    """A data set with one label, which no clip has, for a student of embeddings alone."""
    return _relabeled(dataset, teacher, labels=(NO_LABEL,), task="multi-label", columns=[()] * len(dataset))


def _relabeled(
    dataset: Dataset, teacher: Teacher, *, labels: tuple[str, ...], task: Task, columns: Sequence[Sequence[int]]
) -> Dataset:
    items = tuple(
        dataclasses.replace(
            item,
            labels=tuple(labels[number] for number in some),
            split=None if there else "train",
        )
        for item, some, there in zip(dataset.items, columns, teacher.answers.tolist(), strict=True)
    )
    return dataclasses.replace(dataset, items=items, labels=labels, task=task, labeled_by=teacher.short_name)


def views_of(teachers: Mapping[str, Predictor | TeacherOutputs], *, rate: int) -> Views | None:
    """The views of the clips that the student gets, if a teacher has stored outputs of some.

    Raises: SettingRefused for views at another rate than the student's, and for two kinds of views.
    """
    stored = {name: one.views for name, one in teachers.items() if isinstance(one, TeacherOutputs)}
    seen = {name: views for name, views in stored.items() if views is not None}
    if not seen:
        return None
    first, views = next(iter(seen.items()))
    for name, other in seen.items():
        if other != views:
            raise SettingRefused(
                f"teachers {first} and {name} have views of other kinds; make them with the same settings."
            )
    if views.rate != rate:
        raise SettingRefused(
            f"teacher {first}: views at {views.rate} Hz, and this student takes {rate} Hz; store views with --model of "
            "this student."
        )
    return views
