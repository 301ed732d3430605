"""`ossicle distil`: from recordings without labels and a teacher to a run folder with a small model in it."""

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import FileColumn, Group, Track
from ossicle.cli.outcome import SOME_FAILED
from ossicle.cli.train import Config, Devices, Init, Output, Resume, SkipBad, TeacherNames, given_settings


def distil(
    data: Annotated[
        Path, typer.Argument(help="Folder with recordings at any depth, or a table of them; labels are not read.")
    ],
    teacher: TeacherNames = None,
    model: Annotated[
        str | None,
        typer.Option(help="The student, from `ossicle models list`; by default passt_tiny_s16, or that of --init."),
    ] = None,
    output: Output = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE ...",
            help="Settings, such as epochs=30 embedding_weight=2. docs/distillation.md has those of teachers.",
        ),
    ] = None,
    config: Config = None,
    file: FileColumn = None,
    group: Group = None,
    track: Track = None,
    init: Init = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    devices: Devices = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Do not train: store what the teacher gives for --views views of each recording. Run again to go on.",
        ),
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="With --store: how often each recording is cut and augmented anew.")
    ] = 1,
) -> None:
    """Train a small model to give what a large one gives, on recordings without labels."""
    from ossicle import training
    from ossicle.training.config import settle_config

    given = given_settings(settings, model=model, weights=init, teachers=teacher, devices=devices)
    if not teacher and not resume and config is None:
        raise typer.BadParameter("name one or more: a model, an ONNX file or stored outputs.", param_hint="--teacher")
    for option, value in (("--output", output), ("--resume", resume), ("--devices", devices)):
        if store is not None and value:
            raise typer.BadParameter("leave it out: with --store nothing is trained.", param_hint=option)
    chosen, columns, _ = settle_config(
        training.distil_config(),
        given,
        columns={"file": file, "group": group, "track": track},
        config=config,
        output=output,
        resume=resume,
    )
    if store is not None:
        if len(teacher or []) != 1:
            raise typer.BadParameter("a file holds the outputs of one teacher; name one.", param_hint="--teacher")
        training.store_views(
            data, (teacher or [])[0], output=store, views=views, config=chosen, columns=columns, skip_bad=skip_bad
        )
        return
    if views != 1:
        raise typer.BadParameter("it needs --store FILE.", param_hint="--views")
    result = training.distil(
        data, chosen, output=output, resume=resume, skip_bad=skip_bad, columns=columns, progress=True
    )
    if result.failures:
        raise typer.Exit(SOME_FAILED)
