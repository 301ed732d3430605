"""The check of types and shapes by beartype, of functions that are made once; named in pyproject.toml."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def made_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function inside of another is made at every call, and the check with it, which takes a millisecond."""
    return function if "<locals>" in function.__qualname__ else beartype(function)
