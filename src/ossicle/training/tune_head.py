"""A whole tuning: a frozen encoder and labeled data in, run folder out; see `run` for what is in it.

`environment.json` also holds the fingerprint of the encoder, `model/` the head alone with what it must find of the
encoder, and `importance.json`, of a density head, which layers and features weighed, trained and at the start.

The encoder runs once over every example; its features are kept (see `encoders.cache`), so a second head costs seconds.
With a tuner, which changes the encoder, it runs in every step.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float

from ossicle.bundle import Card
from ossicle.data import Dataset, modality_of
from ossicle.devices import choose_device
from ossicle.encoders import Encoder, load_encoder
from ossicle.errors import RunRefused
from ossicle.evaluation import CONFIG
from ossicle.files import write_json
from ossicle.report import Section, importance_section, training_section
from ossicle.training.callbacks import Recorder, score_name
from ossicle.training.config import TuneConfig, read_config, short_warmup
from ossicle.training.estimate import logged
from ossicle.training.features import HeadInputs, Inputs, open_inputs
from ossicle.training.layers import (
    choose_layers,
    create_tuned_head,
    head_training,
    importance_of,
    insert_tuner,
    probes_of,
    required_layers,
)
from ossicle.training.module import HeadTraining
from ossicle.training.results import FoldResult, TrainResult
from ossicle.training.resume import ENVIRONMENT, starting_point
from ossicle.training.run import Positions, Run, RunOptions, Runs
from ossicle.tuning.tuned import save_tuned

logger = logging.getLogger(__name__)
LONGEST_WINDOW = 30.0  # seconds


def tune(
    encoder: str | os.PathLike[str] | Encoder,
    data: str | os.PathLike[str] | Dataset,
    config: TuneConfig | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    **options: Unpack[RunOptions],
) -> TrainResult:
    """Tunes a head on a frozen encoder and tests each fold's once on its test part.

    >>> ossicle.tune("facebook/wav2vec2-base", "emotions", TuneConfig(head="density"))  # doctest: +SKIP

    Args:
        encoder: what `load_encoder` loads, or what it gave.
        data: what `read_dataset` reads for the encoder's modality, or what it gave.
        config: every setting; `encoder`, `encoder_precision` and `crop` become those of the encoder.
        cache: folder for features (see `open_features`), or for decoded samples where there is a tuner.
        options: `output`, `folds`, `resume`, `skip_bad`, `columns`, `progress`; see `RunOptions`.

    Raises:
        DataRefused: examples that cannot be read, or a class that they leave without any.
        RunRefused: `output` holds a run already, or one of another encoder, or a parameter that should train does not.
        SettingRefused: a head, a tuner or a choice of layers that is not available.
    """
    output, resume = options.get("output"), options.get("resume", False)
    config, _ = starting_point(config, TuneConfig, output=output, resume=resume)
    if not isinstance(encoder, Encoder):
        encoder = encoder_of(dataclasses.replace(config, encoder=str(encoder)))
    for sentence in encoder.assumed:
        logger.info(sentence)
    with Runs(data, config, kind=TuneConfig, modality=encoder.modality, **options) as runs:
        crop = bool(encoder.settings.get("crop", False))
        runs.config = dataclasses.replace(
            runs.config, encoder=encoder.name, crop=crop, encoder_precision=encoder.precision
        )
        if runs.resume:
            runs.config = with_encoder_of(runs.output, runs.config, encoder=encoder)
        for sentence in short_warmup(runs.config):
            logger.info(f"  {sentence}")
        layers, pool = required_layers(runs.config, encoder, labels=runs.dataset.labels)
        inputs = open_inputs(
            runs.dataset,
            runs.config,
            encoder=encoder,
            layers=max(layers),
            pool=pool,
            cache=None if cache is None else Path(cache),
        )
        return runs.each(inputs, partial(tune_fold, inputs=inputs, encoder=encoder))


def encoder_of(config: TuneConfig) -> Encoder:
    """Loads the encoder that the settings name, as they want it; see `load_encoder` for what it raises."""
    return load_encoder(
        config.encoder,
        crop=config.crop,
        precision=config.encoder_precision,
        device=str(choose_device(config.device)),
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


def tune_fold(run: Run[TuneConfig], *, inputs: Inputs, encoder: Encoder) -> FoldResult:
    """Tunes one head and tests it."""
    config, dataset, split = run.config, run.dataset, run.split
    # What is refused leaves no folder.
    layers = choose_layers(dataset, split, config, encoder=encoder, inputs=inputs)
    run.begin(config, encoder=encoder.name, encoder_fingerprint=encoder.fingerprint)
    head = create_tuned_head(config, encoder, labels=dataset.labels, layers=layers).to(encoder.device)
    tuner = insert_tuner(config, encoder, layers=head.layers)
    try:
        trained = sum(p.numel() for p in head.parameters() if p.requires_grad)
        inside = f", {sum(p.numel() for p in tuner.parameters()):,} inside the encoder" if tuner is not None else ""
        logger.info(
            f"{config.head} on {Path(encoder.name).name}: {trained:,} parameters{inside}; the encoder is frozen"
        )
        features = HeadInputs(dataset, inputs, encoder, head)
        module, validation = head_training(dataset, split, config, features=features, tuner=tuner)
        recorder = run.fit(module, validation, device=encoder.device)
        head.to(encoder.device)  # Lightning leaves it on the CPU
        module.set_training(False)
        return run.conclude(TunedModel(run, module, recorder, features))
    finally:
        if tuner is not None:
            tuner.remove()


@dataclass(eq=False)
class TunedModel:
    """A tuned head with its encoder."""

    run: Run[TuneConfig]
    module: HeadTraining
    recorder: Recorder
    features: HeadInputs

    @property
    def title(self) -> str:
        """Of the report."""
        encoder = Path(self.features.encoder.name).name
        return f"{self.run.config.head} on {encoder}: {self.run.dataset.root.name}"

    def save(self, folder: Path, *, card: Card, **decisions: Any) -> None:
        """Writes the bundle."""
        config, dataset, tuner = self.run.config, self.run.dataset, self.module.tuner
        trained = [dataset.items[position] for position in self.run.split.train]
        save_tuned(
            folder,
            encoder=self.features.encoder,
            model=self.module.head,
            tuner=tuner,
            tuner_options={**config.tuner_options, "seed": config.seed} if tuner is not None else None,
            task=dataset.task,
            labels=dataset.labels,
            window_seconds=modality_of(dataset.modality).typical_seconds(trained, longest=LONGEST_WINDOW),
            card=card,
            **decisions,
        )

    def logits(self, positions: Positions) -> tuple[Float[np.ndarray, "clip label"], Positions]:
        """All of them: what could not be read has left the split before."""
        progress = logged(f"scored {{}} of {{}} {self.run.dataset.noun}s", end=False)
        return self.features.logits(positions, progress=progress).numpy(), positions

    def further(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def sections(self) -> Sequence[Section]:
        """The learning curve, and of a frozen encoder what a density head weighs."""
        name = f"validation {score_name(self.run.dataset.task)}"
        curve = training_section(self.recorder.rows, score_name=name)
        return [curve] if self.module.tuner is not None else [curve, *importance_sections(self.run, self.features)]


def importance_sections(run: Run[TuneConfig], features: HeadInputs) -> list[Section]:
    """What a density head weighs: written down, and as a section of the report; nothing for any other head."""
    if features.head.head.density is None:
        return []
    probes = probes_of(run.dataset, run.split, features) if len(run.split.validation) else None
    importance = importance_of(run.split, features, probes=probes)
    write_json(run.folder / "importance.json", importance.to_json())
    return [importance_section(importance, probe_name=score_name(run.dataset.task))]
