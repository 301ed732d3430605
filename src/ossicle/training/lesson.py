"""What a run needs of its teachers before it starts: they are opened, and answer once for every clip."""

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.data import Dataset, read_dataset, split_dataset, split_folds
from ossicle.data.cache import SampleStore
from ossicle.data.unlabeled import read_recordings, without_labels
from ossicle.errors import DataRefused, RunRefused, SettingRefused
from ossicle.files import beside
from ossicle.inference import Predictor
from ossicle.jobs.store import HIDDEN
from ossicle.training.config import TrainConfig
from ossicle.training.distillation import Lesson, refuse_unteachable
from ossicle.training.estimate import duration
from ossicle.training.initial import build
from ossicle.training.ranks import Ranks
from ossicle.training.resume import refuse_taken
from ossicle.training.run import free_folder, refuse_or_name
from ossicle.training.teacher_outputs import TeacherOutputs, Views
from ossicle.training.teachers import (
    Named,
    Teacher,
    describe,
    labeled_by,
    open_teacher,
    outputs_for,
    views_of,
    with_no_label,
)

logger = logging.getLogger(__name__)
UNHEARD = {  # settings that are off, and why
    "mixup": "the teacher would not get mixed spectrograms; wave_mixup mixes what both get",
    "wave_mixup": "no stored output is that of a mix",
    "gain": "the stored views have their own",
    "roll": "the stored views have their own",
}


def read_taught(data: str | os.PathLike[str] | Dataset, config: TrainConfig, columns: Mapping[str, Any]) -> Dataset:
    """The data: recordings without labels, or labeled ones.

    Raises: DataRefused as `read_dataset`, or for data that are none of sound.
    """
    if isinstance(data, Dataset):
        if data.modality != "sound":
            raise DataRefused(f"{data.path}: a data set of {data.noun}s; a teacher of sound needs recordings.")
        return without_labels(data) if config.unlabeled else data
    if not config.unlabeled:
        return read_dataset(data, **columns)
    return read_recordings(data, **{name: columns.get(name) for name in ("file", "group", "track")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known when the teachers have answered."""

    lesson: Lesson
    config: TrainConfig
    dataset: Dataset  # with the teacher's labels, where the data are without
    store: SampleStore
    output: Path


def prepare_lesson(
    data: str | os.PathLike[str] | Dataset,
    config: TrainConfig,
    *,
    ranks: Ranks,
    rate: int,
    samples: Callable[[Dataset], SampleStore],
    teachers: Sequence[Named] = (),
    columns: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    folds: str | None = None,
) -> Prepared:
    """Opens the teachers of a run, and lets those at hand answer for every clip.

    What cannot be built or cut is refused before they do.

    Args:
        rate: of the student, hertz.
        samples: opens the samples of a data set.
        teachers: in place of the names in the settings, such as loaded models.

    Raises:
        SettingRefused: settings that do not go with these teachers, or make no network
        DataRefused: stored outputs that answer for no clip, or data without a test part
        RunRefused: a folder that is taken, or teachers other than those that a run to resume was begun with
    """
    refuse_unteachable(config)
    with torch.device("meta"):
        build(config, num_classes=1)
    opened = {
        name: open_teacher(one, device=config.device)
        for name, one in zip(config.teachers, teachers or config.teachers, strict=True)
    }
    for name, one in opened.items():
        logger.info(describe(one, name))
    views = views_of(opened, rate=rate)
    config, sentences = settled(
        config, stored=any(isinstance(one, TeacherOutputs) for one in opened.values()), views=views
    )
    for sentence in sentences:
        logger.info(f"  {sentence}")
    dataset = read_taught(data, config, {name: value for name, value in (columns or {}).items() if value is not None})
    folder = Path("runs") / f"{dataset.root.name}-{config.name}"
    place = ranks.from_zero(lambda: free_folder(folder)) if output is None else Path(output)
    refuse_taken(place, resume=resume)
    refuse_uncut(dataset, config, folds=folds)
    rows = {name: one.rows(dataset) for name, one in opened.items() if isinstance(one, TeacherOutputs)}
    store = samples(dataset)
    if not skip_bad:
        refuse_or_name(store, dataset, skip_bad=False)
    seconds = float(np.maximum(store.lengths, 0).sum()) / store.rate
    logger.info(
        f"Distillation: {config.model} learns from {len(opened)} teacher{'s' * (len(opened) > 1)} on "
        f"{len(store.usable)} clips, {duration(seconds)} of sound"
        + ("; labels of the data are not read" if config.unlabeled else ", beside their labels")
    )
    found = []
    for number, (name, one) in enumerate(opened.items()):
        if isinstance(one, TeacherOutputs):
            found.append(Teacher(name=name, stored=one, rows=rows[name]))
            logger.info(f"{name} answers for {int((rows[name] >= 0).sum())} of {len(dataset)} clips")
            continue
        file = place / HIDDEN / "teachers" / f"{number}.safetensors"

        def answer(predictor: Predictor = one, file: Path = file, name: str = name) -> TeacherOutputs:
            return answers_of(predictor, file, name=name, dataset=dataset, store=store, resume=resume)

        try:
            stored = ranks.in_turn(answer)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"Stopped while {name} answered; the same command with -o {place} goes on from there."
            ) from None
        found.append(Teacher(name=name, stored=stored, rows=stored.rows(dataset), predictor=one))
    labeling = next((one for one in found if one.num_labels and config.teacher_weight), None)
    if config.unlabeled:
        dataset = with_no_label(found[0], dataset) if labeling is None else labeled_by(labeling, dataset)
    lesson = Lesson(
        teachers=tuple(found),
        unlabeled=config.unlabeled,
        features_alone=config.unlabeled and labeling is None,
        views=views,
    )
    return Prepared(lesson=lesson, config=config, dataset=dataset, store=store, output=place)


def refuse_uncut(dataset: Dataset, config: TrainConfig, *, folds: str | None) -> None:
    """Raises DataRefused where no test part can be cut."""
    if config.unlabeled:
        dataset = dataclasses.replace(dataset, labeled_by="a teacher")
    for name in split_folds(dataset) if folds == "all" else (folds,):
        split_dataset(dataset, fold=name, seed=config.seed, validation=config.validation)


def answers_of(
    predictor: Predictor, file: Path, *, name: str, dataset: Dataset, store: SampleStore, resume: bool
) -> TeacherOutputs:
    """A teacher's outputs for the clips as they are, in the folder of a run.

    What another run has left there, which never began, is replaced.

    Raises: RunRefused where a run to resume has those of another teacher.
    """
    try:
        return outputs_for(predictor, file, name=name, dataset=dataset, store=store)
    except RunRefused:
        if resume:
            raise RunRefused(
                f"{file}: the run was begun with another teacher than {name}, or other data; "
                "choose another folder with -o."
            ) from None
        file.unlink(missing_ok=True)
        shutil.rmtree(beside(file, ".parts"), ignore_errors=True)
        return outputs_for(predictor, file, name=name, dataset=dataset, store=store)


def settled(config: TrainConfig, *, stored: bool, views: Views | None) -> tuple[TrainConfig, list[str]]:
    """The settings without what would part teacher and student, and a sentence for each that is off.

    Raises: SettingRefused for a window other than that of the views.
    """
    off = {"mixup": 0.0}
    if stored:
        off["wave_mixup"] = 0.0
    if views is not None:
        off |= {"gain": 0.0, "roll": 0.0}
    changed: dict[str, Any] = {name: value for name, value in off.items() if getattr(config, name) != value}
    sentences = [f"{name}={value:g} ({UNHEARD[name]})" for name, value in changed.items()]
    if config.unlabeled and config.balance is None:
        changed["balance"] = "none"
    if views is not None:
        seconds = views.window / views.rate
        if config.window is not None and round(config.window * views.rate) != views.window:
            raise SettingRefused(
                f"window={config.window:g}: the stored views have {seconds:g} s; leave the window out, or store others."
            )
        changed["window"] = seconds
    return dataclasses.replace(config, **changed), sentences
