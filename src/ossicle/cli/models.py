"""`ossicle models`: list networks and show their size and cost."""

from typing import Annotated

import typer

from ossicle.cli import ensemble
from ossicle.cli.outcome import Sentences

app = typer.Typer(
    cls=Sentences, help="List and describe networks.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(ensemble.ensemble)
app.command()(ensemble.soup)


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'passt_tiny_*'.")] = "*",
) -> None:
    """List the networks whose name matches."""
    from rich.console import Console
    from rich.table import Table

    from ossicle.errors import ModelUnknown
    from ossicle.models import find_preset, list_models

    names = list_models(pattern)
    if not names:
        raise ModelUnknown(f"no model matches {pattern!r}; `ossicle models list` lists all")
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for title in ("width", "depth", "stride", "labels", "AudioSet mAP"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("front end", no_wrap=True)
    for name in names:
        preset = find_preset(name)
        score = f"{preset.map:.4g}" if preset.map is not None and not preset.data else ""
        table.add_row(name, preset.width, preset.depth, preset.stride, str(preset.num_classes), score, preset.frontend)
    console = Console()
    # Piped output is not truncated to a width.
    (console if console.is_terminal else Console(width=120)).print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name from `ossicle models list`.")]) -> None:
    """Show parameters of a network and multiplications (MACs) for about 10 s."""
    from ossicle.models import summarize_model

    summary = summarize_model(name)
    preset = summary.preset
    counted = f"{preset.counted_frames * preset.frame_seconds:g} s"
    rows = {
        "parameters": f"{summary.parameters:,}",
        f"MACs at {counted}": f"{summary.macs / 1e9:.4g} G",
        f"tokens at {counted}": f"{summary.tokens:,}",
        "longest input": "any length" if summary.seconds is None else f"{summary.seconds:.2f} s",
        "fewer tokens": "yes, by --keep" if summary.reduces_tokens else "no",
        "front end": preset.frontend,
        "width": preset.width,
        "depth": preset.depth,
        "stride": preset.stride,
        "labels": str(preset.num_classes),
    }
    if preset.url is not None:
        rows |= {
            "reported mAP": f"{preset.map} ({preset.data or 'AudioSet'})",
            "weights": preset.url,
            "their license": preset.license or "not stated",
        }
    if preset.note:
        rows["note"] = preset.note
    print(preset.name)
    for key, value in rows.items():
        print(f"  {key:16}  {value}")
