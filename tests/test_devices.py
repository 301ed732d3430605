"""Devices by name."""

import pytest

from ossicle.devices import choose_device
from ossicle.errors import SettingRefused


@pytest.mark.parametrize("name", ["meta", "gpu", "cuda:99", "xpu"])
def test_a_device_that_is_not_here_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(SettingRefused, match=f"Device '{name}' is not available. Available: auto, .*cpu"):
        choose_device(name)
