"""Which layers of a frozen encoder a head is given: all, by number, or the best by probes or the Importance Factor."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback

from ossicle.data import Dataset, Split
from ossicle.encoders import Encoder
from ossicle.encoders.cache import Pool
from ossicle.errors import SettingRefused
from ossicle.models.density import Density
from ossicle.training.callbacks import Recorder
from ossicle.training.config import TuneConfig
from ossicle.training.features import HeadInputs, Inputs
from ossicle.training.loader import ItemBatches, Items, label_weights, pieces
from ossicle.training.loop import fit
from ossicle.training.module import HeadTraining
from ossicle.tuning.heads import HEADS, LayersHead
from ossicle.tuning.importance import Importance, Ranking, largest, measure_importance, probe_layers, read_choice
from ossicle.tuning.tuned import TunedHead
from ossicle.tuning.tuners import Tuner, create_tuner

logger = logging.getLogger(__name__)


def create_tuned_head(
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


def insert_tuner(config: TuneConfig, encoder: Encoder, *, layers: Sequence[int]) -> Tuner | None:
    """Puts the tuner that the settings ask for, if any, into the blocks that a head of these layers depends on."""
    if config.tuner is None:
        return None
    return create_tuner(config.tuner, encoder, layers=max(layers), seed=config.seed, options=config.tuner_options)


def required_layers(config: TuneConfig, encoder: Encoder, *, labels: Sequence[str]) -> tuple[tuple[int, ...], Pool]:
    """The layers that must run, and how they are pooled over time.

    Raises:
        SettingRefused: a head, a tuner or a choice of layers that is not available; nothing has run yet.
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
        head = create_tuned_head(config, encoder, labels=labels, layers=kept)
        if isinstance(wanted, Ranking):
            create_tuned_head(ranking_config(config, wanted.by), encoder, labels=labels)
    tuner = insert_tuner(config, encoder, layers=kept)
    if tuner is not None:
        tuner.remove()
    return every if ranked else kept, head.pool


def choose_layers(
    dataset: Dataset, split: Split, config: TuneConfig, *, encoder: Encoder, inputs: Inputs
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
        whole = create_tuned_head(ranking, encoder, labels=dataset.labels).to(encoder.device)
        features = HeadInputs(dataset, inputs, encoder, whole)
        if wanted.by == "best":
            values = probes_of(dataset, split, features)
        else:
            logger.info(f"keep_layers={config.keep_layers}: a density gate over all layers ranks them")
            fit_head(dataset, split, ranking, features=features)
            values = importance_of(split, features).trained.share
        wanted = largest(values, wanted.number)
    if config.keep_layers is not None:
        logger.info(f"keep_layers={config.keep_layers}: layers {', '.join(map(str, wanted))} of {encoder.num_layers}")
    return wanted


def ranking_config(config: TuneConfig, by: str) -> TuneConfig:
    """The settings of the head over all layers that ranks them.

    For the Importance Factor a gate of one head, since what several give cannot be compared, on raw features, as in the
    paper; its decoder is that of the head that is asked for, if that has one.
    """
    if by == "best":
        return dataclasses.replace(config, head="mean", options={})
    options: dict[str, Any] = {"num_heads": 1}
    if issubclass(HEADS[config.head], LayersHead):
        options |= {name: config.options[name] for name in ("decoder", "hidden") if name in config.options}
    return dataclasses.replace(config, head="density", options=options, standardize=False)


def head_training(
    dataset: Dataset, split: Split, config: TuneConfig, *, features: HeadInputs, tuner: Tuner | None = None
) -> tuple[HeadTraining, Items | None]:
    """What trains a head on a split, and what validates it."""
    targets = dataset.label_rows
    if config.standardize:
        features.standardize(split.train)
    batches = ItemBatches(
        split.train,
        targets,
        batch_size=config.batch_size,
        seed=config.seed,
        known=dataset.known_rows,
        weights=label_weights(targets.only(split.train), offset=config.balance_offset)
        if config.balance == "class"
        else None,
    )
    module = HeadTraining(
        features.head,
        features,
        config,
        task=dataset.task,
        batches=batches,
        tuner=tuner,
        encoder=features.encoder if tuner is not None else None,
    )
    return module, Items(split.validation, targets) if len(split.validation) else None


def fit_head(
    dataset: Dataset,
    split: Split,
    config: TuneConfig,
    *,
    features: HeadInputs,
    tuner: Tuner | None = None,
    callbacks: Sequence[Callback] = (),
) -> Recorder:
    """Fits a head that no run keeps, such as one that ranks layers."""
    module, validation = head_training(dataset, split, config, features=features, tuner=tuner)
    device = features.encoder.device
    recorder = fit(
        module, validation, targets=dataset.label_rows, known=dataset.known_rows, device=device, callbacks=callbacks
    )
    module.head.to(device)  # Lightning leaves it on the CPU
    module.set_training(False)
    return recorder


def probes_of(dataset: Dataset, split: Split, features: HeadInputs) -> np.ndarray:
    """The validation score of a logistic regression on each layer alone."""
    targets, known = dataset.label_rows, dataset.known_rows
    return probe_layers(
        features.means(split.train),
        targets[split.train],
        val_features=features.means(split.validation),
        val_targets=targets[split.validation],
        task=dataset.task,
        known=None if known is None else known[split.train],
        val_known=None if known is None else known[split.validation],
    )


def importance_of(split: Split, features: HeadInputs, *, probes: np.ndarray | None = None) -> Importance:
    """What a density head weighs, on the validation part if there is one, trained and at its start."""
    head = features.head
    with torch.random.fork_rng(devices=[]):  # what a density starts from is not drawn; its decoder is
        trained, initial = head.head.density, head.anew().to(head.mean.device).density
    assert isinstance(trained, Density) and isinstance(initial, Density)
    part = split.validation if len(split.validation) else split.train
    return measure_importance(
        (head.standardized(features(piece))[:, :, 0] for piece in pieces(part)),
        trained=trained,
        initial=initial,
        layers=head.layers,
        probes=probes,
    )
