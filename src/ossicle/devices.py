"""Device and precision of torch."""

import functools
import time
from typing import Literal

import torch

from ossicle import kernels
from ossicle.errors import SettingRefused

Precision = Literal["auto", "float32", "bfloat16", "float16"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Gives the device of that name; `auto` selects a GPU if available.

    Raises: SettingRefused for a device that is unknown or not available.
    """
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    here = [*(gpu for gpu, there in gpus.items() if there), "cpu"]
    if name == "auto":
        return torch.device(here[0])
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # fails on devices without memory, such as meta
    except (RuntimeError, AssertionError) as error:
        raise SettingRefused(f"Device {name!r} is not available. Available: auto, {', '.join(here)}.") from error
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Gives the data type of matrix products; `auto` selects bfloat16 if it is clearly faster on this device.

    Raises: SettingRefused for float16 on anything but an NVIDIA or AMD GPU.
    """
    if precision == "auto":
        return torch.bfloat16 if bfloat16_speedup(device.type) > 1.2 else torch.float32
    if precision not in DTYPES:
        raise ValueError(f"expected precision auto, {', '.join(DTYPES)}, got {precision!r}")
    if precision == "float16" and device.type != "cuda":
        raise SettingRefused(
            f"precision=float16 needs a GPU of the device cuda, got {device.type}; use bfloat16 or float32."
        )
    return DTYPES[precision]


@functools.cache
def bfloat16_speedup(device: str) -> float:
    """How many times faster matrix products are in bfloat16 than in float32 on this device, measured once.

    On a CPU the products of a training step, in float32 by the faster library. 0 if bfloat16 does not work.
    """
    if device == "cpu":
        return kernels.bfloat16_speedup()

    def seconds(dtype: torch.dtype) -> float:
        left = torch.ones(768, 768, device=device, dtype=dtype)
        best = float("inf")
        for _ in range(6):  # the first one warms up
            began = time.perf_counter()
            (left @ left)[0, 0].item()  # item waits for the device
            best = min(best, time.perf_counter() - began)
        return best

    try:
        return seconds(torch.float32) / seconds(torch.bfloat16)
    except RuntimeError:
        return 0.0
