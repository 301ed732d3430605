"""`ossicle train`: from a folder of sounds to a run folder with a trained model in it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from ossicle.cli.options import FileColumn, Fold, Group, Label, Track
from ossicle.cli.outcome import SOME_FAILED
from ossicle.errors import SettingRefused


class ManySettings(TyperCommand):
    """A command that takes several KEY=VALUE after one `--set` or `--grid`, and knows a setting given as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None  # whose values these are
        for arg in args:
            if option is not None and spread[-1] != option and self.is_setting(arg, ctx.info_name):
                spread.append(option)
            spread.append(arg)
            if arg in ("--set", "--grid"):
                option = arg
            elif spread[-2:-1] != [option]:
                option = None
        try:
            return super().parse_args(ctx, spread)
        except Exception as error:
            # The class of an unknown option's error is inside typer. --help comes by here too, and needs no torch.
            if option := getattr(error, "option_name", None):
                name = option.lstrip("-").replace("-", "_")
                if name in setting_names(ctx.info_name):
                    error.message = f"No such option: {option}. It is a setting: --set {name}=VALUE."  # type: ignore[attr-defined]
            raise

    @staticmethod
    def is_setting(arg: str, command: str | None) -> bool:
        """Whether an argument behind a setting is one more; a path that exists is none, unless its name is a setting's.

        Of a folder's name a = is a character like any other.
        """
        name, equals, _ = arg.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*\s*", name):
            return False
        return not os.path.lexists(arg) or name.strip().partition(".")[0] in setting_names(command)


def setting_names(command: str | None) -> set[str]:
    """The settings of `train` or `tune`; loads torch, so not for `--help`."""
    import dataclasses

    from ossicle.training.config import TrainConfig, TuneConfig

    return {field.name for field in dataclasses.fields(TuneConfig if command == "tune" else TrainConfig)}


RANDOM = {"none": "null"}  # weights as people name them, and as `--set` has it
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder to write.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings from a file, such as another run's config.yaml; --set wins over it.")
]
Folds = Annotated[
    str | None, typer.Option(help="Which fold to test on, or `all` for cross-validation.", metavar="NAME|all")
]
TeacherNames = Annotated[
    list[str] | None,
    typer.Option(
        "--teacher",
        help="Learn from this model too: a bundle, run, published name, Hub id, ONNX file, or stored outputs "
        "(.safetensors, .npz). Several with one --teacher each.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in the output folder.")]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out files that cannot be used; they are named, and the exit code is 3."),
]

Logger = Annotated[
    Literal["tensorboard"] | None,
    typer.Option("--logger", help="Log to RUN/tensorboard too; metrics.csv is written in any case."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Do one step and print memory, seconds per step and hours for the whole run; write nothing."
    ),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="KEY=VALUE,VALUE ...",
        help="Train with every combination of these settings, such as lr=1e-4,4e-4 seed=0,1,2, and compare the runs.",
    ),
]
Cluster = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="With --grid: train on a Ray cluster; local starts one here.")
]
Init = Annotated[
    str | None,
    typer.Option(
        help="Weights to start from: published ones by name, a bundle, a run, or a checkpoint file; none is random. "
        "`train` without it starts from the encoder in the package."
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(min=1, help="GPUs, or processes on processors, to train on together; the batch is cut over them."),
]


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder per class, a folder with meta.csv, a CSV/TSV/JSONL table, or ESC-50.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Name from `ossicle models list`; by default that of --init or of the recipe; with --init none "
            "passt_tiny_s16."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Named set of training settings: general (the default), scratch (with --init none, or a --model that "
            "the package has no weights for), finetune, audioset, esc50, fsd50k, openmic or dcase20."
        ),
    ] = None,
    output: Output = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE ...",
            help="Training settings, such as epochs=30 lr=1e-4. docs/training.md lists all.",
        ),
    ] = None,
    config: Config = None,
    file: FileColumn = None,
    label: Label = None,
    group: Group = None,
    fold: Fold = None,
    folds: Folds = None,
    track: Track = None,
    init: Init = None,
    resume: Resume = False,
    skip_bad: SkipBad = False,
    teacher: TeacherNames = None,
    devices: Devices = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines, each with as many devices.")] = None,
    strategy: Annotated[
        Literal["auto", "ddp", "fsdp"] | None,
        typer.Option(help="How they share the network: ddp, each has all of it; fsdp, each has a part (GPUs alone)."),
    ] = None,
    dry_run: DryRun = False,
    grid: Grid = None,
    cluster: Cluster = None,
    logger: Logger = None,
) -> None:
    """Train a model on your own recordings."""
    from ossicle import training
    from ossicle.training.config import settle_config
    from ossicle.training.recipes import default_recipe
    from ossicle.training.recipes import recipe as named_recipe

    given = given_settings(
        settings, model=model, weights=init, teachers=teacher, devices=devices, nodes=nodes, strategy=strategy
    )
    if recipe is not None:
        refuse_two_sources(resume=resume and not grid, config=config)
    chosen, columns, folds = settle_config(
        default_recipe(given["model"], given["weights"]) if recipe is None else named_recipe(recipe),
        given,
        columns={"file": file, "label": label, "group": group, "fold": fold, "track": track},
        folds=folds,
        config=config,
        output=output,
        resume=resume and not grid,
    )
    if recipe == "finetune" and chosen.weights is None:
        raise SettingRefused("the recipe finetune goes on from trained weights: name them with --init.")
    carry_out(
        training.train,
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


def carry_out(
    one: Callable[..., Any],
    data: Path,
    config: Any,
    *,
    dry_run: bool,
    grid: list[str] | None,
    cluster: str | None,
    **options: Any,
) -> None:
    """Trains, or measures what it would cost, or does a sweep.

    Args:
        one: trains one run on the data, with the settings
    """
    if cluster is not None and not grid:
        raise typer.BadParameter("it shares the runs of a sweep; name settings with --grid.", param_hint="--cluster")
    if dry_run:
        if grid or options["resume"]:
            raise typer.BadParameter("it measures one new run; leave out --grid and --resume.", param_hint="--dry-run")
        from ossicle.training import dry_run as measure

        names = ("output", "folds", "skip_bad", "columns", "logger")
        measure(data, config, **{name: options[name] for name in names})
        return
    if grid:
        from ossicle.training import sweep

        result: Any = sweep(data, config, grid=read_grid(grid), cluster=cluster, **options)
    else:
        result = one(data, config, **options)
    if result.failures:
        raise typer.Exit(SOME_FAILED)


def given_settings(settings: list[str] | None, **options: Any) -> dict[str, Any]:
    """The settings that a command was given, those of `--set` last; weights name their architecture."""
    from ossicle.training.initial import architecture_of

    given = options | dict(key_and_value(setting) for setting in settings or [])
    given["weights"] = RANDOM.get(given["weights"], given["weights"])
    if given["model"] is None and given["weights"] not in (None, "null"):
        given["model"] = architecture_of(given["weights"])
    return given


def read_grid(settings: list[str]) -> dict[str, list[str]]:
    """The values of each setting; one with a comma stands in double quotes."""
    import csv

    grid: dict[str, list[str]] = {}
    for setting in settings:
        name, values = key_and_value(setting, option="--grid")
        if name in grid:
            raise typer.BadParameter(f"{name} is there twice; give all its values at once.", param_hint="--grid")
        own = next(csv.reader([values], skipinitialspace=True), [])
        grid[name] = [RANDOM.get(value, value) for value in own] if name == "weights" else own
    return grid


def refuse_two_sources(*, resume: bool, config: Path | None) -> None:
    """Raises SettingRefused where settings come from a file beside a recipe."""
    if resume or config is not None:
        raise SettingRefused("--recipe gives the settings that --resume and --config take from a file: one of them.")


def key_and_value(setting: str, *, option: str = "--set") -> tuple[str, str]:
    """A setting and its value.

    Raises: typer.BadParameter for what is not KEY=VALUE.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter(f"{setting!r} is not KEY=VALUE, such as epochs=30.", param_hint=option)
    return key.strip(), value.strip()
