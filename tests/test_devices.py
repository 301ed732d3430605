"""Devices by name."""

import pytest
import torch

from ossicle.devices import choose_device, choose_dtype
from ossicle.errors import SettingRefused


@pytest.mark.parametrize("name", ["meta", "gpu", "cuda:99", "xpu"])
def test_a_device_that_is_not_here_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(SettingRefused, match=f"Device '{name}' is not available. Available: auto, .*cpu"):
        choose_device(name)


def test_float16_is_for_the_gpus_that_have_a_scaler_for_it() -> None:
    with pytest.raises(SettingRefused, match="precision=float16 needs a GPU of the device cuda, got cpu; use bfloat16"):
        choose_dtype("float16", torch.device("cpu"))
    assert choose_dtype("float16", torch.device("cuda")) == torch.float16
