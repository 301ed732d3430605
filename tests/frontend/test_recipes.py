import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import BundleRefused, ModelUnknown
from ossicle.frontend import RECIPES, FrontendConfig, create_frontend, frontend_config

STORED = FrontendConfig().to_dict()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_survives_json(recipe: str) -> None:
    config = RECIPES[recipe]
    assert FrontendConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert create_frontend(config.to_dict()).config == config


@settings(deadline=None)
@given(mean=st.floats(-1e6, 1e6), deviation=st.floats(1e-6, 1e6))
def test_statistics_survive_json_to_the_bit(mean: float, deviation: float) -> None:
    config = FrontendConfig(mean=mean, deviation=deviation)
    assert FrontendConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_whole_number_stored_for_a_real_one_is_read() -> None:
    config = FrontendConfig.from_dict(STORED | {"mean": -4})
    assert config.mean == -4.0 and isinstance(config.mean, float)


@pytest.mark.parametrize(
    "damage, words",
    [
        ({"color": 1}, "unknown settings color"),
        ({"rate": "32000"}, "rate is '32000'"),
        ({"rate": 32000.0}, "rate is 32000.0"),
        ({"rate": True}, "rate is True"),
        ({"mean": None}, "mean is None"),
        ({"mean": float("nan")}, "mean is nan"),
        ({"kind": "bark"}, "kind is 'bark'"),
        ({"max_hertz": 99_000.0}, "99000"),
    ],
)
def test_a_damaged_stored_front_end_is_refused(damage: dict, words: str) -> None:
    with pytest.raises(BundleRefused, match=words):
        create_frontend(STORED | damage)


@pytest.mark.parametrize("name", STORED)
def test_a_stored_front_end_that_lacks_a_setting_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BundleRefused, match=name):
        FrontendConfig.from_dict({key: value for key, value in STORED.items() if key != name})


def test_an_unknown_recipe_shows_the_nearest() -> None:
    with pytest.raises(ModelUnknown, match="passt_hop160"):
        create_frontend("passt_hop16")


def test_overrides_replace_fields_and_nothing_else() -> None:
    changed = frontend_config("passt_hop160", time_mask=7)
    assert changed == dataclasses.replace(RECIPES["passt_hop160"], time_mask=7)
    with pytest.raises(ValueError, match="no timemask"):
        frontend_config("passt", timemask=7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mels": 0},
        {"hop_samples": 0},
        {"min_frames": 0},
        {"window_samples": 1025},
        {"window_samples": 1},
        {"fft_samples": 1023},
        {"min_hertz_jitter": 0},
        {"max_hertz_jitter": -5},
        {"freq_mask": -1},
        {"time_mask": -1},
        {"min_hertz": -1.0},
        {"min_hertz": 14_500.0},
        {"max_hertz": 15_001.0},  # half the jitter above it is beyond half the rate
        {"deviation": 0.0},
        {"deviation": float("inf")},
    ],
)
def test_settings_that_make_no_filterbank_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "hertz" not in next(iter(wrong)) else "hertz|mel range"):
        frontend_config("passt", **wrong)
