"""`ossicle models`: which networks there are, and what each costs."""

from typing import Annotated

import typer

from ossicle.cli.outcome import Sentences

app = typer.Typer(cls=Sentences, help="Networks by name.", no_args_is_help=True, pretty_exceptions_enable=False)


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
        raise ModelUnknown(f"no model matches {pattern!r}; `ossicle models list` shows all")
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
    # What is piped away has no width to fit.
    (console if console.is_terminal else Console(width=120)).print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="As `ossicle models list` prints it.")]) -> None:
    """Show what a network costs: parameters, and the work of a pass over about 10 s, both counted."""
    from ossicle.models import summarize_model

    summary = summarize_model(name)
    preset = summary.preset
    counted = f"{preset.counted_frames * preset.frame_seconds:g} s"
    rows = {
        "parameters": f"{summary.parameters:,}",
        f"MACs at {counted}": f"{summary.macs / 1e9:.4g} G",
        f"tokens at {counted}": f"{summary.tokens:,}",
        "one pass sees": "any length" if summary.seconds is None else f"{summary.seconds:.2f} s",
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
