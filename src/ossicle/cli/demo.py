"""`ossicle demo`: train, evaluate and predict on the built-in recordings."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder.")] = Path("ossicle-demo"),
) -> None:
    """Train and evaluate on the built-in drum recordings, predict on a loop, and write a report."""
    from ossicle.demo import run_demo

    run_demo(output=output)
