"""`ossicle demo`: the tour on the built-in recordings."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything the tour writes.")] = Path(
        "ossicle-demo"
    ),
) -> None:
    """Train, evaluate and listen for drum hits in the built-in recordings; writes a report."""
    from ossicle.demo import run_demo

    run_demo(output=output)
