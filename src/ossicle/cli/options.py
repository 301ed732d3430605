"""Options that commands share: how a model is run."""

from typing import Annotated, Literal

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, ...")]
Track = Annotated[
    int | None,
    typer.Option(min=1, help="Of several audio tracks; by default the one that the file marks, or the first."),
]
EncoderPlace = Annotated[
    str | None, typer.Option("--encoder", help="Where the frozen encoder of a tuned head is, if not where it was.")
]
Keep = Annotated[
    float | None, typer.Option(help="Of a PaSST, compute this share of the tokens alone: faster, less exact.")
]
KeepBy = Annotated[
    Literal["merge", "strided"] | None,
    typer.Option(help="With --keep: merge tokens that are alike, the default, or leave evenly spaced ones out."),
]
