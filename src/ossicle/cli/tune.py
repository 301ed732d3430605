"""`ossicle tune`: few trainable parameters on a frozen encoder of sound, text or images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli.options import FileColumn, Fold, Group, Label, Track
from ossicle.cli.train import (
    Cluster,
    Config,
    DryRun,
    Folds,
    Grid,
    Logger,
    Output,
    SkipBad,
    carry_out,
    key_and_value,
    refuse_two_sources,
)


def tune(
    encoder: Annotated[
        str,
        typer.Argument(
            help="A bundle or run of ours; published weights by name; a transformers folder or Hub id (wav2vec2, "
            "HuBERT, WavLM, Whisper, BERT, Llama, ViT, BEiT, DINOv2 and their kin); or package:NAME."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Sound as `ossicle train` reads it; a table with text,label; a folder of images per class."
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(
            help="density (the default), gq_density, layers, mha, mha_bn, sigmoid, weighted_sum, attentive_stats or "
            "mean."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Named set of settings: paper, the density heads of the paper for speech, text or images."),
    ] = None,
    encoder_precision: Annotated[
        str | None,
        typer.Option(
            metavar="float32|bfloat16|float16",
            help="Precision of the encoder's weights and passes: half of the memory in bfloat16 or float16.",
        ),
    ] = None,
    tuner: Annotated[
        str | None, typer.Option(help="Also train a few parameters inside the encoder: lora, ia3, density, ...")
    ] = None,
    keep_layers: Annotated[
        str | None,
        typer.Option(
            metavar="best:K|IF:K|1,3,5",
            help="Use these layers alone: the best K by single-layer probes, by the Importance Factor, or by number.",
        ),
    ] = None,
    output: Output = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE ...",
            help="Settings, such as epochs=30 lr=1e-3 options.form=product. docs/tuning.md lists all.",
        ),
    ] = None,
    config: Config = None,
    file: FileColumn = None,
    label: Label = None,
    text: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    group: Group = None,
    fold: Fold = None,
    folds: Folds = None,
    track: Track = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in the output folder; finished folds stay.")
    ] = False,
    skip_bad: SkipBad = False,
    dry_run: DryRun = False,
    grid: Grid = None,
    cluster: Cluster = None,
    logger: Logger = None,
) -> None:
    """Tune a small head on a frozen encoder: minutes on a laptop."""
    from ossicle import training
    from ossicle.training.config import settle_config, with_settings
    from ossicle.training.recipes import tune_recipe
    from ossicle.training.tune_head import encoder_of

    named = {"encoder": encoder, "head": head, "tuner": tuner, "keep_layers": keep_layers}
    named |= {"encoder_precision": encoder_precision}
    given = named | dict(key_and_value(setting) for setting in settings or [])
    start, loaded = training.TuneConfig(), None
    if recipe is not None:
        refuse_two_sources(resume=resume and not grid, config=config)
        asked = with_settings(start, {name: value for name, value in given.items() if value is not None})
        loaded = encoder_of(asked)
        start = tune_recipe(recipe, loaded, head=asked.head)
    chosen, columns, folds = settle_config(
        start,
        given,
        columns={"file": file, "label": label, "group": group, "fold": fold, "text": text, "track": track},
        folds=folds,
        config=config,
        output=output,
        resume=resume and not grid,
    )

    def one(data: Path, config: training.TuneConfig, **options: Any) -> training.TrainResult:
        return training.tune(loaded or config.encoder, data, config, **options)

    carry_out(
        one,
        data,
        chosen,
        dry_run=dry_run,
        grid=grid,
        cluster=cluster,
        output=output,
        folds=folds,
        resume=resume,
        skip_bad=skip_bad,
        columns=columns,
        progress=True,
        logger=logger,
    )
