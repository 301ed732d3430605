"""The choice of routines in use: of a block, of the environment, or measured."""

import contextlib
import contextvars
import os
from collections.abc import Iterator

import torch

from ossicle.kernels import measure
from ossicle.kernels.choice import Kernels, parse_kernels

VARIABLE = "OSSICLE_KERNELS"

_in_use: contextvars.ContextVar[Kernels | None] = contextvars.ContextVar("kernels", default=None)


def resolve_kernels(name: str) -> Kernels:
    """The choice of that name or text; `auto` is that of OSSICLE_KERNELS, or the measured one.

    Raises: SettingRefused for an invalid text.
    """
    return measured_kernels() if name == "auto" else parse_kernels(name)


def measured_kernels() -> Kernels:
    """The choice in OSSICLE_KERNELS, or the fastest routines on this processor with torch's number of threads."""
    name = os.environ.get(VARIABLE, "auto")
    return parse_kernels(name) if name != "auto" else measure.known_here(torch.get_num_threads())[0]


def current_kernels() -> Kernels:
    """The choice in use: that of `using_kernels`, else of OSSICLE_KERNELS, else the measured one."""
    return _in_use.get() or measured_kernels()


def by_hand() -> bool:
    """Whether kernels of this package may run; always for `torch.compile`, which cannot trace this."""
    return torch.compiler.is_compiling() or current_kernels().by_hand


@contextlib.contextmanager
def using_kernels(kernels: Kernels | str) -> Iterator[Kernels]:
    """Uses a choice inside the block, in this thread only.

    Args:
        kernels: plain (only torch's own expressions), torch, onednn, or a choice.

    Raises: SettingRefused for an invalid text.
    """
    chosen = parse_kernels(kernels) if isinstance(kernels, str) else kernels
    token = _in_use.set(chosen)
    try:
        yield chosen
    finally:
        _in_use.reset(token)
