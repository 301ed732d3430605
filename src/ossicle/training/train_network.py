"""A whole training: data in, run folder out; see `run` for what is in it."""

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from jaxtyping import Float

from ossicle.bundle import Card, save_bundle
from ossicle.data import Dataset, Item
from ossicle.data.cache import TOO_MANY, SampleStore, StreamedStore, decode, open_store
from ossicle.devices import Precision, choose_device, choose_dtype
from ossicle.errors import AudioError, DataRefused
from ossicle.evaluation.parts import COLUMNS
from ossicle.frontend import FrontendConfig, create_frontend, measure_statistics
from ossicle.inference import summarize
from ossicle.loading import load
from ossicle.models.deformable import reference
from ossicle.recognizer import Recognizer
from ossicle.report import Section, sampling_figure, sampling_section, training_section
from ossicle.training.callbacks import Recorder, clip_logits, score_name
from ossicle.training.config import TrainConfig
from ossicle.training.defaults import resolve
from ossicle.training.distillation import Agreement, Distillation, Lesson, agreement_section
from ossicle.training.estimate import logged
from ossicle.training.initial import build, frontend_of, origin, start_from
from ossicle.training.lesson import Prepared, prepare_lesson
from ossicle.training.loader import WaveBatches, Windows, label_weights
from ossicle.training.module import NetworkTraining
from ossicle.training.ranks import ALONE, Ranks, in_processes, settle_processes, stoppable
from ossicle.training.recipes import default_recipe
from ossicle.training.results import FoldResult, TrainResult
from ossicle.training.resume import starting_point
from ossicle.training.run import Positions, Run, RunOptions, Runs
from ossicle.training.teachers import Named, name_of

logger = logging.getLogger(__name__)
MOST_MEASURED = 10_000  # clips of a stream that the front end's mean and deviation are measured on, evenly spaced


def train(
    data: str | os.PathLike[str] | Dataset,
    config: TrainConfig | None = None,
    *,
    teachers: Sequence[Named] = (),
    cache: str | os.PathLike[str] | None = None,
    **options: Unpack[RunOptions],
) -> TrainResult:
    """Trains on a data set and tests each fold's model once on its test part.

    >>> result = train("sounds", TrainConfig(epochs=30), output="runs/sounds")  # doctest: +SKIP
    >>> result.evaluation.metrics.accuracy  # doctest: +SKIP

    Args:
        data: what `read_dataset` reads, or what it gave.
        config: every setting; by default those of the recipe `general`, or of the run to resume.
        teachers: whose outputs the network learns beside the labels; see `distil`.
        cache: folder for decoded samples (see `open_store`).
        options: `output`, `folds`, `resume`, `skip_bad`, `columns`, `progress`; see `RunOptions`.

    Raises:
        DataRefused: recordings that cannot be decoded, or a class that they leave without clips.
        RunRefused: `output` holds a run already, or there is none to continue.
        SettingRefused: options that the network does not have.
        KeyboardInterrupt: the user stopped the run; a checkpoint remains.
    """
    config, stored = starting_point(
        config,
        TrainConfig,
        default=default_recipe,
        output=options.get("output"),
        resume=options.get("resume", False),
    )
    config = settle_processes(config)
    if teachers or config.teachers:
        config = dataclasses.replace(config, teachers=[name_of(one) for one in teachers or config.teachers])
    where = None if cache is None else Path(cache)

    @stoppable()  # a teacher may answer for hours before the run begins
    def train_here(ranks: Ranks) -> TrainResult:
        if not config.teachers and not config.unlabeled:
            return train_rank(data, config, ranks=ranks, cache=where, **options)
        rate, skip_bad = frontend_of(config).rate, options.get("skip_bad", False)
        prepared = prepare_lesson(
            data,
            config,
            ranks=ranks,
            rate=rate,
            samples=partial(open_samples, config=config, rate=rate, ranks=ranks, cache=where),
            teachers=teachers,
            columns={**{name: stored.get(name) for name in COLUMNS}, **(options.get("columns") or {})},
            output=options.get("output"),
            resume=options.get("resume", False),
            skip_bad=skip_bad,
            folds=options.get("folds") or stored.get("folds"),
        )
        return train_rank(
            prepared.dataset,
            prepared.config,
            ranks=ranks,
            cache=where,
            prepared=prepared,
            **cast(RunOptions, {**options, "output": prepared.output}),
        )

    return in_processes(config, train_here)


def train_rank(
    data: str | os.PathLike[str] | Dataset,
    config: TrainConfig,
    *,
    ranks: Ranks,
    cache: Path | None,
    prepared: Prepared | None = None,
    **options: Unpack[RunOptions],
) -> TrainResult:
    """Does what one process does of a training."""
    with Runs(data, config, kind=TrainConfig, modality="sound", ranks=ranks, **options) as runs:
        frontend = frontend_of(runs.config)
        with torch.device("meta"):  # what cannot be built is refused before anything is decoded or written
            build(runs.config, num_classes=len(runs.dataset.labels))
        store = (
            prepared.store
            if prepared is not None
            else open_samples(runs.dataset, runs.config, rate=frontend.rate, ranks=ranks, cache=cache)
        )
        lesson = None if prepared is None else prepared.lesson
        return runs.each(store, partial(train_fold, store=store, frontend=frontend, lesson=lesson))


def open_samples(
    dataset: Dataset,
    config: TrainConfig,
    *,
    rate: int,
    ranks: Ranks = ALONE,
    cache: str | os.PathLike[str] | None = None,
) -> SampleStore:
    """The samples of a data set, decoded once for all processes."""
    return ranks.in_turn(
        lambda: open_store(
            dataset.items,
            rate,
            folder=None if cache is None else Path(cache),
            budget_bytes=int(config.cache_gigabytes * 2**30),
            progress=logged("decoded {} of {} recordings"),
            measuring=logged("read the headers of {} of {} recordings"),
        )
    )


def train_fold(
    run: Run[TrainConfig], *, store: SampleStore, frontend: FrontendConfig, lesson: Lesson | None = None
) -> FoldResult:
    """Trains one model and tests it; an interrupted run continues where `run.resume` says so."""
    # What cannot begin leaves no run behind.
    module, cut, validation = prepare_fold(run, store=store, frontend=frontend, lesson=lesson)
    run.begin(module.config)
    device = choose_device(module.config.device)
    recorder = run.fit(module, validation, device=device, precision=module.config.precision)
    trained = TrainedNetwork(run, module, recorder, cut)
    if isinstance(module, Distillation):
        trained.agreements = module.to(device).agreement_on(cut(run.split.test, ranks=run.ranks), ranks=run.ranks)
    result = run.conclude(trained)
    for agreement in trained.agreements:
        logger.info(agreement.sentence())
    return result


def prepare_fold(
    run: Run[TrainConfig],
    *,
    store: SampleStore,
    frontend: FrontendConfig,
    lesson: Lesson | None = None,
    described: int | None = None,
) -> tuple[NetworkTraining, Callable[..., Windows], Windows | None]:
    """What trains, with every setting that the data and the machine decide; what cuts clips into windows; those of
    the validation part.

    Args:
        lesson: the teachers, if there are any
        described: number of clips that give the mean and deviation of features; by default all of the training part
    """
    config, dataset, split, ranks = run.config, run.dataset, run.split, run.ranks
    device = choose_device(config.device)
    # Measured once, and kept: a resumed run must not measure otherwise.
    dtype = ranks.from_zero(lambda: choose_dtype(run.config.precision, device))
    config = dataclasses.replace(config, precision=cast("Precision", str(dtype).removeprefix("torch.")))
    targets = dataset.label_rows
    config, reasons = resolve(
        config,
        seconds=store.lengths[split.train] / frontend.rate,
        counts=targets.only(split.train).sum(0),
        frontend=frontend,
    )
    for sentence in reasons:
        logger.info(f"  {sentence}")
    assert config.window is not None and config.batch_size is not None
    window = max(round(config.window * frontend.rate), frontend.min_samples)
    frames = frontend.frames(window)
    if lesson is not None:
        lesson.check(split.train)
    labels = dataset.labels
    model = start_from(config, num_classes=len(labels), labels=labels, frames=frames, report=logger.info)
    published = frontend
    frontend = ranks.from_zero(
        lambda: settled_frontend(published, config, store=store, clips=split.train, frames=frames, described=described)
    )

    weights = None
    if config.balance == "class":
        weights = label_weights(targets.only(split.train), offset=config.balance_offset)
    batches = (WaveBatches if lesson is None else lesson.batches)(
        store,
        split.train,
        targets,
        window=window,
        batch_size=config.batch_size,
        seed=config.seed,
        known=dataset.known_rows,
        weights=weights,
        epoch_clips=config.epoch_clips,
        workers=config.workers,
        min_samples=frontend.min_samples,
        ranks=ranks,
    )
    cut = partial(Windows, store, targets=targets, window=window, batch_size=32, min_samples=frontend.min_samples)
    validation = cut(split.validation, ranks=ranks) if len(split.validation) else None
    logger.info(
        f"{config.model}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters from "
        f"{origin(config)}, on {device} in {config.precision}, {len(batches)} batches of "
        f"{config.batch_size} an epoch"
    )
    if ranks.world > 1:
        pieces = sorted({piece.stop - piece.start for piece in ranks.pieces(config.batch_size)})
        logger.info(f"Each batch is cut over {ranks.world} processes, {' or '.join(map(str, pieces))} clips each")
    how: dict[str, Any] = {"task": dataset.task, "frames": frames, "batches": batches}
    if lesson is None:
        return NetworkTraining(model, create_frontend(frontend), config, **how), cut, validation
    module = lesson.module(model, create_frontend(frontend), config, train=split.train, labels=labels, **how)
    return module, cut, validation


def settled_frontend(
    frontend: FrontendConfig,
    config: TrainConfig,
    *,
    store: SampleStore,
    clips: np.ndarray,
    frames: int,
    described: int | None = None,
) -> FrontendConfig:
    """The front end with this run's masks and jitter and, for the Kaldi filterbank, the training part's statistics.

    Args:
        described: number of clips with sound that give these; by default all

    Raises: DataRefused where no clip can be read, or all are silent.
    """
    changes: dict[str, Any] = {"freq_mask": config.freq_mask, "time_mask": round(config.time_mask * frames)}
    if not config.jitter:
        changes |= {"min_hertz_jitter": 1, "max_hertz_jitter": 1}
    if frontend.kind == "kaldi":
        progress = logged("{} of {} recordings read for their mean and deviation", end=False)

        if isinstance(store, StreamedStore):  # a million are not decoded before the first step
            clips = clips[:: -(-len(clips) // MOST_MEASURED)]

        lost: list[str] = []

        def waves() -> Iterator[np.ndarray]:
            for number, clip in enumerate(clips.tolist()):
                progress(number, len(clips))
                try:
                    samples = store.read(clip)
                except AudioError as error:  # the store of a stream has counted it
                    lost.append(str(error))
                    continue
                if described is None or samples.any():
                    yield pad_to(samples, frontend.min_samples)

        try:
            found = measure_statistics(itertools.islice(waves(), described), frontend)
        except ValueError as error:  # of nothing, or of silence
            first = f"; first that cannot be read: {lost[0]}" if lost else ""
            raise DataRefused(f"the train part gives no mean and deviation of log-mel: {error}{first}") from None
        changes["mean"], changes["deviation"] = found
    return dataclasses.replace(frontend, **changes)


def pad_to(samples: np.ndarray, length: int) -> np.ndarray:
    """Samples followed by silence up to `length`."""
    return np.pad(samples, (0, max(length - len(samples), 0)))


@dataclass(eq=False)
class TrainedNetwork:
    """A trained network, tested as the bundle that users will load."""

    run: Run[TrainConfig]
    module: NetworkTraining
    recorder: Recorder
    cut: Callable[[Positions], Windows]  # clips of the store into windows
    agreements: Sequence[Agreement] = ()  # with teachers, on the test part

    def __post_init__(self) -> None:
        self.run.ranks.first(lambda: self.save(self.run.folder / "model", card=self.run.card()))
        self.recognizer = load(self.run.folder / "model", device=self.run.config.device)

    @property
    def title(self) -> str:
        """Of the report."""
        return f"{self.run.config.model} on {self.run.dataset.root.name}"

    def save(self, folder: Path, *, card: Card, **decisions: Any) -> None:
        """Writes the bundle."""
        assert self.run.config.window is not None
        if isinstance(self.module, Distillation):
            card = self.module.lesson.card(card)
        save_bundle(
            folder,
            model=self.module.model,
            model_name=self.run.config.model,
            frontend=self.module.frontend.config,
            task=self.run.dataset.task,
            labels=self.run.dataset.labels,
            window_seconds=self.run.config.window,
            pad=True,
            card=card,
            **decisions,
        )

    def logits(self, positions: Positions) -> tuple[Float[np.ndarray, "clip label"], Positions]:
        """As `ossicle predict` computes them, of the decoded samples."""
        progress = logged("scored {} of {} recordings", end=False)
        score = score_alone if self.recognizer.device.type == "cpu" else score_together
        return score(self.recognizer, self.cut(positions), progress=progress)

    def sections(self) -> Sequence[Section]:
        """The learning curve, and where a network that deforms looks."""
        dataset = self.run.dataset
        curve = training_section(
            self.recorder.rows, score_name=f"validation {self.module.score_name or score_name(dataset.task)}"
        )
        items = (dataset.items[clip] for clip in self.run.split.train[:TOO_MANY].tolist())
        taught = [agreement_section(self.agreements)] if self.agreements else []
        return [*taught, curve, *sampling_sections(self.recognizer, self.run.config, items=items)]

    def further(self) -> Mapping[str, Any]:
        """The agreement with teachers."""
        return {"teachers": [one.to_json() for one in self.agreements]} if self.agreements else {}


def score_alone(
    recognizer: Recognizer, windows: Windows, **watch: Any
) -> tuple[Float[np.ndarray, "clip label"], Positions]:
    """Logits of the clips that could be used, and which these are: each by itself, so the bits of a prediction."""
    scored = [
        (clip, summarize(recognizer.score_windows((samples, recognizer.rate)).scores, task=recognizer.task))
        for clip, samples in windows.decoded(**watch)
    ]
    logits = np.stack([row for _, row in scored]) if scored else np.zeros((0, len(recognizer.labels)), np.float32)
    return logits, np.array([clip for clip, _ in scored], np.int64)


@torch.inference_mode()
def score_together(
    recognizer: Recognizer, windows: Windows, **watch: Any
) -> tuple[Float[np.ndarray, "clip label"], Positions]:
    """As `score_alone` up to rounding, in batches of windows of several clips, as a GPU needs them to be busy."""
    frames = recognizer.frontend.frames(windows.window)
    outputs = []
    for batch in windows.batches(**watch):
        moved = batch.to(recognizer.device)
        spec = recognizer.frontend(moved.waves, lengths=batch.lengths, frames=frames)
        outputs.append((batch.clips, recognizer.model(spec).float()))
    if not outputs:
        return np.zeros((0, len(recognizer.labels)), np.float32), np.zeros(0, np.int64)
    logits, clips = clip_logits([(clips, rows.cpu()) for clips, rows in outputs], task=recognizer.task)
    return logits.numpy(), clips.numpy()


def sampling_sections(recognizer: Recognizer, config: TrainConfig, *, items: Iterable[Item]) -> list[Section]:
    """Where a network that deforms looks in the first clip that can be read, before and after its training; nothing
    for any other network, or without such a clip."""
    model = recognizer.model
    layers = model.deformable_layers()
    readable = first_readable(items, recognizer.rate) if layers else None
    if readable is None:
        return []
    item, samples = readable
    scale = layers[0][0]
    attn = [attn for other, attn in layers if other == scale]  # those of the finest map; the last is shown
    window, _ = recognizer.window_samples()
    spec = recognizer.spectrogram(pad_to(samples[:window], recognizer.frontend.min_samples)[None])
    untrained = start_from(config, num_classes=len(recognizer.labels), frames=model.config.frames)
    rows, columns = (-(-length // scale) for length in spec.shape[1:])
    centers, _ = reference(rows, columns, stride=attn[-1].stride, segment=attn[-1].segment, like=spec)
    found = {}
    for title, network in (("before training", untrained.to(recognizer.device).eval()), ("after training", model)):
        with torch.inference_mode():
            points = network.forward_features(spec, points=True).points
        assert points is not None
        found[title] = points[len(attn) - 1][0].flatten(0, 1).transpose(0, 1)  # (group, key, 2)
    figure = sampling_figure(
        spec[0].cpu().numpy(),
        {title: ((points + 0.5) * scale - 0.5).cpu().numpy() for title, points in found.items()},
        centers=((centers.flatten(0, 1) + 0.5) * scale - 0.5).cpu().numpy(),
        seconds=spec.shape[2] * recognizer.frontend.config.hop_samples / recognizer.rate,
    )
    return [sampling_section(figure, clip=Path(item.place).name)]


def first_readable(items: Iterable[Item], rate: int) -> tuple[Item, np.ndarray] | None:
    """The first item that can be decoded, and its samples."""
    for item in items:
        with contextlib.suppress(AudioError):  # files of a stream may have gone since they were read
            return item, decode(item, rate)
    return None
