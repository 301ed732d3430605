"""`distil`: from recordings without labels and a teacher to a run folder with a small model in it."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ossicle.data import Dataset
from ossicle.errors import SettingRefused
from ossicle.training.config import TrainConfig
from ossicle.training.defaults import LONGEST_WINDOW
from ossicle.training.initial import frontend_of
from ossicle.training.lesson import read_taught
from ossicle.training.results import TrainResult
from ossicle.training.run import RunOptions, refuse_or_name
from ossicle.training.teacher_outputs import SUFFIXES, TeacherOutputs, Views
from ossicle.training.teachers import Named, describe, name_of, open_teacher, outputs_for
from ossicle.training.train_network import open_samples, train

logger = logging.getLogger(__name__)


def distil_config(**changes: Any) -> TrainConfig:
    """The settings of a distillation on recordings without labels: those of `scratch`, without what labels need."""
    return TrainConfig(unlabeled=True, mixup=0.0, label_smoothing=0.0, **changes)


def distil(
    data: str | os.PathLike[str] | Dataset,
    config: TrainConfig | None = None,
    *,
    teachers: Sequence[Named] = (),
    cache: str | os.PathLike[str] | None = None,
    **options: Unpack[RunOptions],
) -> TrainResult:
    """Trains a network on recordings without labels to give what its teachers give.

    The network gets the labels of the first teacher that has some. The last part of the recordings, cut by group, is
    held out: its metrics are against the teacher's labels. `train` takes teachers beside labels of the data.

    >>> teacher = "passt_base_s10.audioset_ap476"
    >>> result = distil("sounds", TrainConfig(model="datar_nano"), teachers=[teacher])  # doctest: +SKIP

    Args:
        data: a folder with recordings at any depth, or what `read_dataset` reads, whose labels are not read.
        config: every setting; by default those of `distil_config`, or of the run to resume.
        teachers: model references as for `ossicle.load`, ONNX files, stored outputs (`.safetensors`, `.npz`), or loaded
            models.
        cache: folder for decoded samples (see `open_store`).
        options: `output`, `resume`, `skip_bad`, `columns`, `progress`; see `RunOptions`.

    Raises:
        DataRefused: no recordings, recordings that cannot be decoded, or stored outputs that answer for none of them
        SettingRefused: a teacher that is none of sound, or settings that do not go with it
        RunRefused: `output` holds a run already, or there is none to continue.
    """
    if config is not None:
        config = dataclasses.replace(config, unlabeled=True)
    elif not options.get("resume"):
        config = distil_config()
    return train(data, config, teachers=teachers, cache=cache, **options)


def store_views(
    data: str | os.PathLike[str] | Dataset,
    teacher: Named,
    *,
    output: str | os.PathLike[str],
    views: int = 1,
    config: TrainConfig | None = None,
    columns: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> TeacherOutputs:
    """Writes a teacher's outputs for several views of each recording; a training from them needs no teacher.

    An interrupted call goes on where it was.

    Args:
        output: `.safetensors`.
        views: of each recording, each cut, louder or softer, and rolled at random.
        config: the settings of the student whose views these are: `model` (its rate), `window`, `gain`, `roll`, `seed`.

    Raises:
        RunRefused: the file has other outputs
        SettingRefused: a file of another kind, or a teacher that is stored outputs itself
    """
    config, path = config or distil_config(), Path(output)
    if path.suffix.lower() != SUFFIXES[0]:
        raise SettingRefused(f"{path}: stored outputs are written as {SUFFIXES[0]}.")
    if views < 1:
        raise SettingRefused(f"views={views}: at least one view of each clip is stored.")
    predictor = open_teacher(teacher, device=config.device)
    if isinstance(predictor, TeacherOutputs):
        raise SettingRefused(f"{name_of(teacher)}: stored outputs already; views are made of a model's.")
    logger.info(describe(predictor, name_of(teacher)))
    dataset = read_taught(data, config, {name: value for name, value in (columns or {}).items() if value is not None})
    logger.info(dataset.layout)
    frontend = frontend_of(config)
    store = open_samples(dataset, config, rate=frontend.rate, cache=cache)
    refuse_or_name(store, dataset, skip_bad=skip_bad)
    seconds = config.window
    if seconds is None:
        typical = float(np.quantile(store.lengths[store.usable] / store.rate, 0.9))
        seconds = round(min(typical, LONGEST_WINDOW), 2)
        logger.info(f"  window={seconds:g} (seconds; 90 % of the clips are no longer than {typical:.2f} s)")
    made = Views(
        number=views,
        seed=config.seed,
        rate=frontend.rate,
        window=max(round(seconds * frontend.rate), frontend.min_samples),
        min_samples=frontend.min_samples,
        gain=config.gain,
        roll=config.roll,
    )
    try:
        outputs = outputs_for(predictor, path, name=name_of(teacher), dataset=dataset, store=store, views=made)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped while {name_of(teacher)} answered; the same command goes on from there."
        ) from None
    logger.info(f"Wrote {path}: {views} views of {len(outputs.names)} clips; --teacher {path} trains from it.")
    return outputs
