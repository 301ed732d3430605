"""A whole tuning: a frozen encoder and labeled data in, run folder out.

    RUN/
        config.yaml       every setting, resolved, and where the data are
        split.json        which items trained, chose and tested
        metrics.csv       a row per epoch
        environment.json  versions, machine, seed, fingerprint of the data and of the encoder
        importance.json   of a density head: which layers and features weighed, trained and at the start
        model/            the bundle: the head alone, and what it must find of the encoder
        metrics.json, predictions.csv, figures/, report.html    the test part, read once, at the end

The encoder runs once over every item; its features are kept (see `encoders.cache`), so a second head costs seconds.
With a tuner, which changes the encoder, it runs in every step.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ossicle.bundle import Card
from ossicle.data import Dataset, Split, read_dataset, read_input
from ossicle.data.cache import SampleStore, decode, open_store
from ossicle.data.inputs import INPUT_ERRORS
from ossicle.devices import choose_device
from ossicle.encoders import Encoder, Hidden, load_encoder
from ossicle.encoders.cache import FeatureStore, Pool, open_features
from ossicle.errors import RunRefused, SettingRefused
from ossicle.evaluation import CONFIG
from ossicle.files import write_atomically, write_json
from ossicle.models.density import Density
from ossicle.report import Section, importance_section, training_section
from ossicle.training.callbacks import csv_text
from ossicle.training.config import TuneConfig, check_acting, read_config, short_warmup, with_settings
from ossicle.training.folds import (
    ENVIRONMENT,
    Begin,
    FoldResult,
    Part,
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
from ossicle.training.head import Fitted, Source, fit_head, pieces, score_part
from ossicle.tuning.heads import HEADS, LayersHead
from ossicle.tuning.importance import (
    Importance,
    Ranking,
    largest,
    measure_importance,
    probe_layers,
    read_choice,
)
from ossicle.tuning.tuned import TunedHead, pool_time, save_tuned
from ossicle.tuning.tuners import Tuner, create_tuner

LONGEST_WINDOW = 30.0  # seconds
LENGTH_RATE = 16_000  # hertz; any would do to measure a length


class Readable:
    """Which items can be read, where nothing of them is kept."""

    def __init__(self, dataset: Dataset) -> None:
        self.failures: dict[int, str] = {}
        for position, item in enumerate(dataset.items):
            try:
                read_input(item, modality=dataset.modality)
            except INPUT_ERRORS as error:
                self.failures[position] = str(error)
        self.usable = np.setdiff1d(np.arange(len(dataset)), list(self.failures))


Inputs = FeatureStore | SampleStore | Readable


def run_tuning(
    *,
    encoder: str | None,
    data: Path,
    head: str | None = None,
    tuner: str | None = None,
    keep_layers: str | None = None,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Path | None = None,
    file: str | None = None,
    label: str | None = None,
    group: str | None = None,
    fold_column: str | None = None,
    text: str | None = None,
    folds: str | None = None,
    track: int | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    say: Say = tell,
) -> tuple[str, ...]:
    """Does what `ossicle tune` promises and returns a sentence for each item that was left out."""
    columns: dict[str, Any] = {
        "file": file,
        "label": label,
        "group": group,
        "fold": fold_column,
        "text": text,
        "track": track,
    }
    chosen, columns, folds = starting_point(
        TuneConfig(), columns, folds=folds, config=config, output=output, resume=resume
    )
    named = {"encoder": encoder, "head": head, "tuner": tuner, "keep_layers": keep_layers}
    chosen = with_settings(chosen, {**{k: v for k, v in named.items() if v is not None}, **(settings or {})})
    check_acting(chosen, settings or ())
    network = load_encoder(chosen.encoder, crop=chosen.crop, device=str(choose_device(chosen.device)))
    for sentence in network.assumed:
        say(sentence)
    dataset = read_dataset(data, modality=network.modality, **columns)
    say(dataset.layout)
    if output is None:
        output = free_folder(Path("runs") / f"{dataset.root.name}-{chosen.head}")
    say(f"Run folder: {output}")
    for sentence in short_warmup(chosen):
        say(f"  {sentence}")
    result = tune(
        dataset,
        chosen,
        encoder=network,
        output=output,
        folds=folds,
        resume=resume,
        skip_bad=skip_bad,
        columns=columns,
        say=say,
    )
    return result.failures


def tune(
    dataset: Dataset,
    config: TuneConfig,
    *,
    encoder: Encoder,
    output: Path,
    folds: str | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    columns: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    say: Say = tell,
) -> TrainResult:
    """Tunes a head on a data set and tests each fold's once on its test part.

    Args:
        encoder: that of `config.encoder`, loaded.
        folds: name of the fold to test on, or "all" for cross-validation; by default the first, or a drawn test part.
        resume: leave finished folds of the run in `output` as they are.
        skip_bad: leave out items that cannot be read; without it they stop the run before it starts.
        columns: the columns and the track that the data set was read with, kept in config.yaml.
        cache: where features are kept (see `open_features`).

    Raises:
        DataRefused: items that cannot be read, or a class that they leave without any.
        RunRefused: `output` holds a run already, or one of another encoder, or a parameter that should train does not.
        SettingRefused: see `settled`; and a choice of layers by a validation part that is not there.
    """
    with alone(output, resume=resume, say=say) as hold:
        return tune_alone(
            dataset,
            with_encoder_of(output, config, encoder=encoder) if resume else config,
            encoder=encoder,
            output=output,
            folds=folds,
            resume=resume,
            skip_bad=skip_bad,
            columns=columns,
            cache=cache,
            say=say,
            hold=hold,
        )


def tune_alone(
    dataset: Dataset,
    config: TuneConfig,
    *,
    encoder: Encoder,
    output: Path,
    folds: str | None,
    resume: bool,
    skip_bad: bool,
    columns: Mapping[str, str | None] | None,
    cache: Path | None,
    say: Say,
    hold: Callable[[Path], None],
) -> TrainResult:
    """What `tune` does in a folder that no other process trains in."""
    layers, pool = settled(config, encoder, labels=dataset.labels)
    store = open_inputs(dataset, config, encoder=encoder, layers=max(layers), pool=pool, cache=cache, say=say)

    def run(split: Split, folder: Path, settings: TuneConfig, begin: Begin) -> FoldResult:
        return tune_fold(dataset, store, split, settings, encoder=encoder, folder=folder, begin=begin, say=say)

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


def with_encoder_of(output: Path, config: TuneConfig, *, encoder: Encoder) -> TuneConfig:
    """The settings to go on with a run: its encoder may have moved meanwhile, and keeps the name that it had.

    Raises:
        RunRefused: a fold that was begun with another encoder, or whose file about it is damaged.
    """
    for file in (output / ENVIRONMENT, *sorted(output.glob(f"fold_*/{ENVIRONMENT}"))):
        if not file.exists():
            continue
        try:
            begun = json.loads(file.read_text(encoding="utf-8"))["encoder_fingerprint"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunRefused(
                f"{file}: it does not say which encoder the run was begun with ({type(error).__name__}: {error}); "
                "choose another folder with -o, or remove this file to go on without that check."
            ) from None
        if begun != encoder.fingerprint:
            raise RunRefused(
                f"{file.parent}: begun with an encoder of the fingerprint {begun}, and {encoder.name} has "
                f"{encoder.fingerprint}; go on with that one, or choose another folder with -o."
            )
        stored, _ = read_config(file.parent / CONFIG, TuneConfig)
        config = dataclasses.replace(config, encoder=stored.encoder)
    return config


def settled(config: TuneConfig, encoder: Encoder, *, labels: Sequence[str]) -> tuple[tuple[int, ...], Pool]:
    """The layers that must run, and how they are pooled over time.

    Raises:
        SettingRefused: a head, a tuner or a choice of layers that cannot be had; nothing has run yet.
    """
    every = tuple(range(1, encoder.num_layers + 1))
    wanted = read_choice(config.keep_layers, layers=len(every))
    ranked = isinstance(wanted, Ranking)
    if ranked and config.tuner is not None:
        raise SettingRefused(
            f"keep_layers={config.keep_layers} goes by the features of a frozen encoder, and tuner={config.tuner} "
            "changes them; give the layers by number."
        )
    kept = every[: wanted.number] if isinstance(wanted, Ranking) else wanted
    with torch.device("meta"):
        model = create_model(config, encoder, labels=labels, layers=kept)
        if isinstance(wanted, Ranking):
            create_model(ranking_config(config, wanted.by), encoder, labels=labels)
    tuner = create_inside(config, encoder, layers=kept)
    if tuner is not None:
        tuner.remove()
    return every if ranked else kept, model.pool


def open_inputs(
    dataset: Dataset,
    config: TuneConfig,
    *,
    encoder: Encoder,
    pool: Pool,
    layers: int | None = None,
    cache: Path | None = None,
    say: Say = tell,
) -> Inputs:
    """What every pass reads: features of a frozen encoder; decoded sound for one with a tuner; else the files again.

    Args:
        layers: of a frozen encoder the first so many run; by default all.
    """
    if config.tuner is None:
        progress = told(say, f"encoded {{}} of {{}} {dataset.noun}s")
        return open_features(encoder, dataset.items, pool=pool, layers=layers, folder=cache, progress=progress, say=say)
    if encoder.rate is not None:
        budget = int(config.cache_gigabytes * 2**30)
        progress = told(say, f"decoded {{}} of {{}} {dataset.noun}s")
        return open_store(dataset.items, encoder.rate, folder=cache, budget_bytes=budget, progress=progress)
    return Readable(dataset)


def create_model(
    config: TuneConfig, encoder: Encoder, *, labels: Sequence[str], layers: Sequence[int] | None = None
) -> TunedHead:
    """The head that the settings ask for, with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return TunedHead(
            config.head,
            layers=layers or range(1, encoder.num_layers + 1),
            dim=encoder.dim,
            pool=config.pool,
            num_classes=len(labels),
            options=config.options,
        )


def create_inside(config: TuneConfig, encoder: Encoder, *, layers: Sequence[int]) -> Tuner | None:
    """Puts the tuner that the settings ask for, if any, into the blocks that a head of these layers hears."""
    if config.tuner is None:
        return None
    return create_tuner(config.tuner, encoder, layers=max(layers), seed=config.seed, options=config.tuner_options)


def tune_fold(
    dataset: Dataset,
    store: Inputs,
    split: Split,
    config: TuneConfig,
    *,
    encoder: Encoder,
    folder: Path,
    begin: Begin,
    say: Say,
) -> FoldResult:
    """Tunes one head and tests it."""
    layers = kept_layers(dataset, store, split, config, encoder=encoder, say=say)  # or is refused, and leaves no folder
    begin(config, encoder=encoder.name, encoder_fingerprint=encoder.fingerprint)
    model = create_model(config, encoder, labels=dataset.labels, layers=layers)
    model.to(encoder.device)
    tuner = create_inside(config, encoder, layers=model.layers)
    try:
        source = source_of(dataset, store, encoder, model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        inside = f", {sum(p.numel() for p in tuner.parameters()):,} inside the encoder" if tuner is not None else ""
        say(f"{config.head} on {Path(encoder.name).name}: {trained:,} parameters{inside}; the encoder is frozen")
        fitted = fit_head(
            model,
            source,
            config,
            dataset=dataset,
            split=split,
            tuner=tuner,
            encoder=encoder if tuner is not None else None,
            on_epoch=functools.partial(say_epoch, config=config, say=say, score=score_name(dataset.task)),
            watch=functools.partial(told, say, end=False),
        )
        write_atomically(folder / "metrics.csv", csv_text(fitted.rows))
        if len(split.validation):
            say(f"Best epoch on the validation part: {fitted.best_epoch + 1} of {len(fitted.rows)}.")
        return finish(
            dataset,
            split,
            config,
            encoder=encoder,
            model=model,
            tuner=tuner,
            source=source,
            fitted=fitted,
            folder=folder,
            say=say,
        )
    finally:
        if tuner is not None:
            tuner.remove()


def kept_layers(
    dataset: Dataset,
    store: Inputs,
    split: Split,
    config: TuneConfig,
    *,
    encoder: Encoder,
    say: Say,
) -> tuple[int, ...]:
    """Numbers of the layers that `keep_layers` asks for, chosen without the test part."""
    wanted = read_choice(config.keep_layers, layers=encoder.num_layers)
    if isinstance(wanted, Ranking):
        if not len(split.validation):
            raise SettingRefused(
                f"keep_layers={config.keep_layers} goes by a validation part, and there is none; "
                "give the layers by number."
            )
        ranking = ranking_config(config, wanted.by)
        whole = create_model(ranking, encoder, labels=dataset.labels).to(encoder.device)
        source = source_of(dataset, store, encoder, whole)
        if wanted.by == "best":
            values = probes_of(dataset, split, source)
        else:
            say(f"keep_layers={config.keep_layers}: a density gate over all layers ranks them")
            told_epoch = functools.partial(say_epoch, config=ranking, say=say, score=score_name(dataset.task))
            watch = functools.partial(told, say, end=False)
            fit_head(whole, source, ranking, dataset=dataset, split=split, on_epoch=told_epoch, watch=watch)
            values = importance_of(split, model=whole, source=source).trained.share
        wanted = largest(values, wanted.number)
    if config.keep_layers is not None:
        say(f"keep_layers={config.keep_layers}: layers {', '.join(map(str, wanted))} of {encoder.num_layers}")
    return wanted


def ranking_config(config: TuneConfig, by: str) -> TuneConfig:
    """The settings of the head over all layers that ranks them.

    For the Importance Factor a gate of one head, since shares of several cannot be compared, on raw features, as in the
    paper; its decoder is that of the head that is asked for, if that has one.
    """
    if by == "best":
        return dataclasses.replace(config, head="mean", options={})
    options: dict[str, Any] = {"num_heads": 1}
    if issubclass(HEADS[config.head], LayersHead):
        options |= {name: config.options[name] for name in ("decoder", "hidden") if name in config.options}
    return dataclasses.replace(config, head="density", options=options, standardize=False)


def probes_of(dataset: Dataset, split: Split, source: Source) -> np.ndarray:
    """What each layer alone is worth on the validation part."""
    targets = dataset.targets()
    return probe_layers(
        mean_features(split.train, source),
        targets[split.train],
        val_features=mean_features(split.validation, source),
        val_targets=targets[split.validation],
        task=dataset.task,
    )


def mean_features(part: Part, source: Source) -> Float[Tensor, "clip layer dim"]:
    """The means over time of a part, in memory once."""
    found: Tensor | None = None
    at = 0
    for piece in pieces(part):
        x = pool_time(source(piece), "mean").features[:, :, 0]
        found = x.new_empty(len(part), *x.shape[1:]) if found is None else found
        found[at : at + len(piece)] = x
        at += len(piece)
    assert found is not None
    return found


def importance_of(split: Split, *, model: TunedHead, source: Source, probes: np.ndarray | None = None) -> Importance:
    """What a density head looks at, on the validation part if there is one, trained and at its start."""
    trained, initial = model.head.density, model.anew().to(model.mean.device).density
    assert isinstance(trained, Density) and isinstance(initial, Density)
    part = split.validation if len(split.validation) else split.train
    return measure_importance(
        (model.standardized(source(piece))[:, :, 0] for piece in pieces(part)),
        trained=trained,
        initial=initial,
        layers=model.layers,
        probes=probes,
    )


def importance_sections(
    dataset: Dataset, split: Split, *, model: TunedHead, source: Source, folder: Path
) -> list[Section]:
    """What a density head looks at: written down, and as a section of the report; nothing for any other head."""
    if model.head.density is None:
        return []
    probes = probes_of(dataset, split, source) if len(split.validation) else None
    importance = importance_of(split, model=model, source=source, probes=probes)
    write_json(folder / "importance.json", importance.to_json())
    return [importance_section(importance, probe_name=score_name(dataset.task))]


def source_of(
    dataset: Dataset,
    store: Inputs,
    encoder: Encoder,
    model: TunedHead,
) -> Source:
    """What gives hidden states of items: the kept features, or the encoder itself."""
    if isinstance(store, FeatureStore):

        def kept(items: Part) -> Hidden:
            hidden = store.read(items.tolist())
            return model.pooled(hidden) if store.pool == "time" else model.chosen(hidden)

        return kept

    def encoded(items: Part) -> Hidden:
        if isinstance(store, SampleStore):
            inputs: list[Any] = [np.array(store.read(item)) for item in items.tolist()]
        else:
            inputs = [read_input(dataset.items[item], modality=encoder.modality) for item in items.tolist()]
        return model.pooled(encoder.encode(encoder.prepare(inputs), layers=max(model.layers)))

    return encoded


def typical_seconds(dataset: Dataset, train: Part) -> float:
    """What prediction hears at once: 90 % of the training clips, by a sample of them, are no longer."""
    if dataset.modality != "sound":
        return LONGEST_WINDOW
    some = train[:: max(1, len(train) // 100)].tolist()
    lengths = [len(decode(dataset.items[index], LENGTH_RATE)) / LENGTH_RATE for index in some]
    return round(min(max(float(np.quantile(lengths, 0.9)), 0.1), LONGEST_WINDOW), 2)


def say_epoch(row: Mapping[str, Any], *, config: TuneConfig, say: Say, score: str) -> None:
    """A line for every tenth of the run."""
    if row["epoch"] % max(1, config.epochs // 10) and row["epoch"] != config.epochs:
        return
    dev = f"  validation {score} {row['val_score']:.3f}" if "val_score" in row else ""
    say(f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.3f}{dev}  {row['seconds']:.0f} s")


def finish(
    dataset: Dataset,
    split: Split,
    config: TuneConfig,
    *,
    encoder: Encoder,
    model: TunedHead,
    tuner: Tuner | None,
    source: Source,
    fitted: Fitted,
    folder: Path,
    say: Say,
) -> FoldResult:
    """Saves the bundle, and scores the test part, once."""
    window = typical_seconds(dataset, split.train)

    def save(*, metrics: Sequence[str] = (), **answers: Any) -> None:
        save_tuned(
            folder / "model",
            encoder=encoder,
            model=model,
            tuner=tuner,
            tuner_options={**config.tuner_options, "seed": config.seed} if tuner is not None else None,
            task=dataset.task,
            labels=dataset.labels,
            window_seconds=window,
            card=Card(
                title=f"{config.head} for {dataset.root.name}",
                data=f"{dataset.layout} {len(split.train)} {dataset.noun}s trained it.",
                fingerprint=dataset.fingerprint(),
                protocol=split.protocol,
                metrics=metrics,
            ),
            **answers,
        )

    def logits_of(part: Part) -> tuple[np.ndarray, Part]:
        progress = told(say, f"scored {{}} of {{}} {dataset.noun}s", end=False)
        return score_part(model, source, part, progress=progress).numpy(), part

    def sections() -> list[Section]:
        curve = training_section(fitted.rows, score_name=f"validation {score_name(dataset.task)}")
        if tuner is not None:
            return [curve]
        return [curve, *importance_sections(dataset, split, model=model, source=source, folder=folder)]

    return conclude(
        dataset,
        split,
        folder=folder,
        logits_of=logits_of,
        save=save,
        title=f"{config.head} on {Path(encoder.name).name}: {dataset.root.name}",
        sections=sections,
        say=say,
    )
