"""Type checker of the tests, which pyproject.toml names for jaxtyping."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def made_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies beartype, except to nested functions: each call of the outer one would decorate them again."""
    return function if "<locals>" in function.__qualname__ else beartype(function)
