"""A whole training: data in, run folder out.

    RUN/
        config.yaml       every setting, resolved, and where the data are
        split.json        which clips trained, chose and tested
        metrics.csv       a row per epoch
        environment.json  versions, machine, seed, fingerprint of the data
        checkpoints/      the state to continue from, and the best weights
        model/            the bundle
        metrics.json, predictions.csv, figures/, report.html    the test part, read once, at the end

The test part takes no part in any choice: epoch, thresholds and temperature come from the validation part.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Float, Int64
from lightning.pytorch.trainer.states import TrainerStatus

from ossicle.bundle import Card, save_bundle
from ossicle.data import Dataset, Item, Split, read_dataset
from ossicle.data.cache import SampleStore, decode, open_store
from ossicle.devices import Precision, choose_device, choose_dtype
from ossicle.errors import SettingRefused
from ossicle.evaluation import score_items
from ossicle.frontend import FrontendConfig, create_frontend, frontend_config, measure_statistics
from ossicle.loading import load
from ossicle.models.base import Network
from ossicle.models.deformable import reference
from ossicle.models.registry import find_preset
from ossicle.recognizer import Recognizer
from ossicle.report import Section, sampling_figure, sampling_section, training_section
from ossicle.training.callbacks import Averaging, Guard, Line, Moved, Recorder, StateKeeper
from ossicle.training.config import TrainConfig, check_acting, with_settings
from ossicle.training.defaults import resolve
from ossicle.training.folds import (
    Begin,
    FoldResult,
    Say,
    TrainResult,
    alone,
    conclude,
    free_folder,
    over_folds,
    score_name,
    starting_point,
    tell,
    told,
)
from ossicle.training.initial import build, start_from
from ossicle.training.loader import Batches, Windows, label_weights
from ossicle.training.module import Trainee
from ossicle.training.recipes import recipe as named_recipe
from ossicle.weights.state import SafeCheckpointIO, checkpoints, newest_state
from ossicle.weights.tensors import load_into, load_weights


def run_training(
    *,
    data: Path,
    model: str | None = None,
    recipe: str | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Path | None = None,
    file: str | None = None,
    label: str | None = None,
    group: str | None = None,
    fold_column: str | None = None,
    folds: str | None = None,
    track: int | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    weights: str | None = None,
    say: Say = tell,
) -> tuple[str, ...]:
    """Does what `ossicle train` promises and returns a sentence for each recording that was left out."""
    source: dict[str, Any] = {"file": file, "label": label, "group": group, "fold": fold_column, "track": track}
    if recipe is not None and (resume or config is not None):
        raise SettingRefused("--recipe gives the settings that --resume and --config take from a file: one of them.")
    chosen, source, folds = starting_point(
        named_recipe(recipe) if recipe is not None else TrainConfig(),
        source,
        folds=folds,
        config=config,
        output=output,
        resume=resume,
    )
    chosen = with_settings(
        chosen, {**({"model": model} if model else {}), **({"weights": weights} if weights else {}), **(settings or {})}
    )
    check_acting(chosen, settings or ())
    if recipe == "finetune" and chosen.weights is None:
        raise SettingRefused("the recipe finetune goes on from trained weights: name them with --init.")
    dataset = read_dataset(data, modality="sound", **source)
    say(dataset.layout)
    if output is None:
        output = free_folder(Path("runs") / f"{dataset.root.name}-{chosen.model}")
    say(f"Run folder: {output}")
    result = train(
        dataset, chosen, output=output, folds=folds, resume=resume, skip_bad=skip_bad, columns=source, say=say
    )
    return result.failures


def train(
    dataset: Dataset,
    config: TrainConfig,
    *,
    output: Path,
    folds: str | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    columns: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    say: Say = tell,
    moved: Moved | None = None,
) -> TrainResult:
    """Trains on a data set and tests each fold's model once on its test part.

    Args:
        folds: name of the fold to test on, or "all" for cross-validation; by default the first, or a drawn test part.
        resume: continue the run in `output`.
        skip_bad: leave out recordings that cannot be decoded; without it they stop the run before it starts.
        columns: the columns and the track that the data set was read with, kept in config.yaml.
        cache: where decoded samples are kept (see `open_store`).
        moved: told how far a fold is after every step: steps done, steps in all, seconds left.

    Raises:
        DataRefused: recordings that cannot be decoded, or a class that they leave without clips.
        RunRefused: `output` holds a run already, or there is none to continue.
        SettingRefused: options that the network does not have.
        KeyboardInterrupt: the user stopped the run; a checkpoint remains.
    """
    with alone(output, resume=resume, say=say) as hold:
        return train_alone(
            dataset,
            config,
            output=output,
            folds=folds,
            resume=resume,
            skip_bad=skip_bad,
            columns=columns,
            cache=cache,
            say=say,
            moved=moved,
            hold=hold,
        )


def train_alone(
    dataset: Dataset,
    config: TrainConfig,
    *,
    output: Path,
    folds: str | None,
    resume: bool,
    skip_bad: bool,
    columns: Mapping[str, str | None] | None,
    cache: Path | None,
    say: Say,
    moved: Moved | None,
    hold: Callable[[Path], None],
) -> TrainResult:
    """What `train` does in a folder that no other process trains in."""
    frontend = frontend_config(find_preset(config.model).frontend)
    with torch.device("meta"):  # what cannot be built is refused before anything is decoded or written
        build(config, num_classes=len(dataset.labels))
    store = open_store(
        dataset.items,
        frontend.rate,
        folder=cache,
        budget_bytes=int(config.cache_gigabytes * 2**30),
        progress=told(say, "decoded {} of {} recordings"),
    )

    def run(split: Split, folder: Path, settings: TrainConfig, begin: Begin) -> FoldResult:
        return train_fold(
            dataset,
            store,
            split,
            settings,
            frontend=frontend,
            folder=folder,
            resume=resume,
            begin=begin,
            say=say,
            moved=moved,
        )

    return over_folds(
        dataset,
        config,
        store=store,
        output=output,
        folds=folds,
        resume=resume,
        skip_bad=skip_bad,
        columns=columns,
        say=say,
        run=run,
        hold=hold,
    )


def train_fold(
    dataset: Dataset,
    store: SampleStore,
    split: Split,
    config: TrainConfig,
    *,
    frontend: FrontendConfig,
    folder: Path,
    resume: bool,
    begin: Begin,
    say: Say,
    moved: Moved | None,
) -> FoldResult:
    """Trains one model and tests it; an interrupted call continues where `resume` is given."""
    device = choose_device(config.device)
    if config.precision == "auto":  # measured once, and kept: a resumed run must not measure otherwise
        chosen: Precision = "bfloat16" if choose_dtype("auto", device) == torch.bfloat16 else "float32"
        config = dataclasses.replace(config, precision=chosen)
    targets = dataset.targets()
    config, said = resolve(
        config,
        seconds=store.lengths[split.train] / frontend.rate,
        counts=targets[split.train].sum(0),
        frontend=frontend,
    )
    for sentence in said:
        say(f"  {sentence}")
    assert config.window is not None
    window = max(round(config.window * frontend.rate), frontend.min_samples)
    # What cannot begin leaves no run behind.
    model = start_from(config, num_classes=len(dataset.labels), frames=frontend.frames(window), told=say)
    frontend = settled_frontend(
        frontend, config, store=store, clips=split.train, frames=frontend.frames(window), say=say
    )
    begin(config)
    module, recorder = fit(
        model,
        dataset,
        store,
        split,
        config,
        frontend=frontend,
        window=window,
        folder=folder,
        resume=resume,
        say=say,
        moved=moved,
    )
    if recorder.improves_no_more and len(recorder.rows) < (config.epochs or 0):
        say(
            f"Stopped at epoch {len(recorder.rows)} of {config.epochs}: no gain of min_delta={config.min_delta:g} in "
            f"patience={config.patience} epochs."
        )
    if recorder.best_weights.exists():
        load_into(module.model, load_weights(recorder.best_weights), source=recorder.best_weights)
        say(f"Best epoch on the validation part: {recorder.best_epoch + 1} of {len(recorder.rows)}.")
    return finish(dataset, split, config, module=module, recorder=recorder, folder=folder, say=say)


def settled_frontend(
    frontend: FrontendConfig, config: TrainConfig, *, store: SampleStore, clips: np.ndarray, frames: int, say: Say
) -> FrontendConfig:
    """The front end with this run's masks and jitter and, for the Kaldi filterbank, the training part's statistics."""
    changes: dict[str, Any] = {"freq_mask": config.freq_mask, "time_mask": round(config.time_mask * frames)}
    if not config.jitter:
        changes |= {"min_hertz_jitter": 1, "max_hertz_jitter": 1}
    if frontend.kind == "kaldi":
        progress = told(say, "{} of {} recordings read for their mean and deviation", end=False)

        def read(number: int, clip: int) -> np.ndarray:
            progress(number, len(clips))
            return pad_to(store.read(clip), frontend.min_samples)

        waves = (read(number, clip) for number, clip in enumerate(clips.tolist()))
        changes["mean"], changes["deviation"] = measure_statistics(waves, frontend)
    return dataclasses.replace(frontend, **changes)


def pad_to(samples: np.ndarray, length: int) -> np.ndarray:
    """Samples followed by silence up to `length`."""
    return np.pad(samples, (0, max(length - len(samples), 0)))


def fit(
    model: Network,
    dataset: Dataset,
    store: SampleStore,
    split: Split,
    config: TrainConfig,
    *,
    frontend: FrontendConfig,
    window: int,
    folder: Path,
    resume: bool,
    say: Say,
    moved: Moved | None = None,
) -> tuple[Trainee, Recorder]:
    """Runs the optimizer; the module comes back with the averaged weights where there is an average.

    Args:
        window: samples of a training clip.
    """
    assert config.epochs is not None and config.batch_size is not None
    targets = dataset.targets()
    weights = None
    if config.balance == "class":
        weights = label_weights(targets[split.train], offset=config.balance_offset)
    batches = Batches(
        store,
        split.train,
        targets,
        window=window,
        batch_size=config.batch_size,
        seed=config.seed,
        weights=weights,
        epoch_clips=config.epoch_clips,
        workers=config.workers,
        min_samples=frontend.min_samples,
    )
    module = Trainee(
        model,
        create_frontend(frontend),
        config,
        task=dataset.task,
        frames=frontend.frames(window),
        batches=batches,
    )
    validation = None
    if len(split.validation):
        validation = Windows(
            store, split.validation, targets, window=window, batch_size=32, min_samples=frontend.min_samples
        )
    recorder = Recorder(targets, folder=folder, task=dataset.task, patience=config.patience, min_delta=config.min_delta)
    averaging = [Averaging(module)] if config.average != "none" else []
    callbacks = [
        Guard(),
        recorder,
        *averaging,
        Line(
            recorder,
            say=say,
            epochs=config.epochs,
            score_name=score_name(dataset.task),
            validation=validation,
            moved=moved,
        ),
        StateKeeper(folder / "checkpoints", minutes=config.save_minutes),
    ]
    device = choose_device(config.device)
    say(
        f"{config.model}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters from "
        f"{config.weights or 'random weights'}, on {device} in {config.precision}, {len(batches)} batches of "
        f"{config.batch_size} an epoch"
    )
    quiet_lightning()
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=1,
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    start = None
    if resume and checkpoints(folder / "checkpoints"):
        start, damaged = newest_state(folder / "checkpoints")
        for sentence in damaged:
            say(sentence)
        say(f"Continuing from {start}.")
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch a question that torch 2.13 would rather hear put differently.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            # A run without a validation part is meant so.
            warnings.filterwarnings("ignore", message="You defined a `validation_step`")
            trainer.fit(module, batches, validation, ckpt_path=None if start is None else str(start))
    except SystemExit:
        # Lightning ends the program on Ctrl-C; the caller decides that.
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise KeyboardInterrupt(f"Stopped after step {trainer.global_step}") from None
    for one in averaging:  # here, not in a callback: a run resumed after its last step has no end of training
        one.average.swap()
    return module, recorder


def finish(
    dataset: Dataset,
    split: Split,
    config: TrainConfig,
    *,
    module: Trainee,
    recorder: Recorder,
    folder: Path,
    say: Say,
) -> FoldResult:
    """Saves the bundle, and scores the test part with it, once."""
    window = config.window
    assert window is not None

    def save(*, metrics: Sequence[str] = (), **fitted: Any) -> None:
        save_bundle(
            folder / "model",
            model=module.model,
            model_name=config.model,
            frontend=module.frontend.config,
            task=dataset.task,
            labels=dataset.labels,
            window_seconds=window,
            pad=True,
            card=Card(
                title=f"{config.model} for {dataset.root.name}",
                data=f"{dataset.layout} {len(split.train)} clips trained it.",
                fingerprint=dataset.fingerprint(),
                protocol=split.protocol,
                metrics=metrics,
            ),
            **fitted,
        )

    save()
    recognizer = load(folder / "model", device=config.device)
    return conclude(
        dataset,
        split,
        folder=folder,
        logits_of=lambda part: scores_of(recognizer, dataset, part, say=say),
        save=save,
        title=f"{config.model} on {dataset.root.name}",
        sections=lambda: [
            training_section(recorder.rows, score_name=f"validation {score_name(dataset.task)}"),
            *sampling_sections(recognizer, config, item=dataset.items[split.train[0]]),
        ],
        say=say,
    )


def sampling_sections(recognizer: Recognizer, config: TrainConfig, *, item: Item) -> list[Section]:
    """Where a network that deforms looks in a clip, before and after its training; nothing for any other."""
    model = recognizer.model
    layers = model.deformable_layers()
    if not layers:
        return []
    scale = layers[0][0]
    attn = [attn for other, attn in layers if other == scale]  # those of the finest map; the last is shown
    window, _ = recognizer.window_samples()
    clip = decode(item, recognizer.rate)[:window]
    spec = recognizer.spectrogram(pad_to(clip, recognizer.frontend.min_samples)[None])
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
    return [sampling_section(figure, clip=item.file.name)]


def scores_of(
    recognizer: Recognizer, dataset: Dataset, part: Int64[np.ndarray, "part"], *, say: Say
) -> tuple[Float[np.ndarray, "clip label"], Int64[np.ndarray, "clip"]]:
    """Logits of a part's clips as `ossicle predict` would compute them, and the clips' positions in the data set."""
    progress = told(say, "scored {} of {} recordings", end=False)
    scored = score_items(
        recognizer, [dataset.items[index] for index in part], progress=lambda done: progress(done, len(part))
    )
    for failure in scored.failures:  # they could be used when the training began
        say(f"left out: {failure}")
    return scored.logits, part[scored.used]


def quiet_lightning() -> None:
    """Lets Lightning speak of errors only: what a user should know, we say."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
