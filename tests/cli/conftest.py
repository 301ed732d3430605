from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ossicle.cli import app


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs the command line in this process and gives exit code, stdout and stderr."""

    def invoke(*arguments: Any) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke
