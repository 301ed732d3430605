"""`ossicle train`: from a folder of sounds to a run folder with a trained recogniser in it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ossicle.cli.options import Track
from ossicle.cli.outcome import SOME_FAILED


class ManySettings(TyperCommand):
    """A command that takes several KEY=VALUE after one `--set`, and knows a setting that is given as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        settings = False
        for arg in args:
            another = settings and spread[-1] != "--set" and "=" in arg and not arg.startswith("-")
            spread += ["--set", arg] if another else [arg]
            settings = arg == "--set" or settings and "=" in arg and not arg.startswith("-")
        try:
            return super().parse_args(ctx, spread)
        except Exception as error:
            # The class of an unknown option's error is inside typer. --help comes by here too, and needs no torch.
            if option := getattr(error, "option_name", None):
                from ossicle.training.config import TrainConfig, TuneConfig

                name = option.lstrip("-").replace("-", "_")
                if hasattr(TuneConfig if ctx.info_name == "tune" else TrainConfig, name):
                    error.message = f"No such option: {option}. It is a setting: --set {name}=VALUE."  # type: ignore[attr-defined]
            raise


Output = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder to write.")]
Config = Annotated[
    Path | None, typer.Option(help="Settings from a file, such as another run's config.yaml; --set wins over it.")
]
Label = Annotated[str | None, typer.Option(help="Column with the label.")]
Group = Annotated[
    str | None, typer.Option(help="Column with what must stay together in a split (speaker, source file).")
]
Fold = Annotated[str | None, typer.Option(help="Column that holds each clip's fold.")]
Folds = Annotated[
    str | None, typer.Option(help="Which fold to test on, or `all` for cross-validation.", metavar="NAME|all")
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out files that cannot be used; they are named, and the exit code is 3."),
]


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder per class, a folder with meta.csv, a CSV/TSV/JSONL table, or ESC-50.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Name from `ossicle models list`; by default passt_tiny_s16, or that of the recipe."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Named set of training settings: scratch (the default), finetune or audioset.")
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
    label: Label = None,
    group: Group = None,
    fold: Fold = None,
    folds: Folds = None,
    track: Track = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights to start from: a bundle, a run, or a checkpoint file, also a published .pt."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in the output folder.")
    ] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Train a recogniser on your own sounds."""
    chosen = dict(key_and_value(setting) for setting in settings or [])

    from ossicle.training import run_training

    failed = run_training(
        data=data,
        model=model,
        output=output,
        settings=chosen,
        config=config,
        label=label,
        group=group,
        fold_column=fold,
        folds=folds,
        track=track,
        resume=resume,
        skip_bad=skip_bad,
        recipe=recipe,
        weights=init,
    )
    if failed:
        raise typer.Exit(SOME_FAILED)


def key_and_value(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter(f"{setting!r} is not KEY=VALUE, such as epochs=30.", param_hint="--set")
    return key.strip(), value.strip()
