"""`ossicle models ensemble` and `ossicle models soup`: one model of several."""

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import Device

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")]
License = Annotated[
    str | None, typer.Option("--license", help="License of the weights; by default the one that all have in common.")
]


def ensemble(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Bundles, runs, published weights or Hub ids of the same labels."),
    ],
    output: Output,
    window: Annotated[
        float | None, typer.Option(help="Window of prediction in seconds; by default the longest of the models'.")
    ] = None,
    license: License = None,
) -> None:
    """Make a model that predicts the mean of the logits of several, each with its own front end and window."""
    from ossicle.ensemble import Ensemble
    from ossicle.files import printable
    from ossicle.inference import MAX_WINDOW_SECONDS
    from ossicle.loading import load

    if window is not None and not 0 < window <= MAX_WINDOW_SECONDS:
        raise typer.BadParameter(f"expected more than 0 and at most {MAX_WINDOW_SECONDS:g} s", param_hint="--window")
    made = Ensemble.of([load(model, device="cpu") for model in models], window=window)
    made.save_pretrained(output, weights_license=license)
    print(
        f"Wrote {printable(output)}: {len(models)} members, {len(made.labels)} labels, "
        f"windows of {made.bundle.window_seconds:g} s"
    )


def soup(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs or bundles of one network, front end and labels.")
    ],
    output: Output,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labeled audio that chooses the runs, from the best on, that improve the soup: of the training "
            "data the validation part. By default all runs are in it."
        ),
    ] = None,
    device: Device = "auto",
    license: License = None,
) -> None:
    """Make a model whose weights are the mean of those of several runs of one network."""
    from ossicle.files import printable
    from ossicle.soup import make_soup

    made = make_soup(runs, output=output, data=data, device=device, weights_license=license, report=print)
    score = "" if made.score is None else f"; validation score {made.score:.4f}"
    print(f"Wrote {printable(output)}: mean of {len(made.used)} of {len(runs)} runs{score}")
