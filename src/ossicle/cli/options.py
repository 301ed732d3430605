"""Options that commands share: the columns of a table of data, and how a model is run."""

from typing import Annotated, Literal

import typer

FileColumn = Annotated[str | None, typer.Option("--file", help="Column with the file name.")]
Label = Annotated[str | None, typer.Option(help="Column with the label.")]
Group = Annotated[
    str | None, typer.Option(help="Column with what must stay together in a split (speaker, source file).")
]
Fold = Annotated[str | None, typer.Option(help="Column with the fold.")]
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
