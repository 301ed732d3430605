"""Names, what they build, and what it costs."""

import subprocess
import sys

import pytest
import torch

from ossicle.errors import ModelUnknown
from ossicle.models import create_model, find_preset, list_models, summarize_model


@pytest.mark.parametrize("name", list_models())
def test_every_model_scores_ten_seconds(name: str) -> None:
    preset = find_preset(name)
    with torch.device("meta"), torch.inference_mode():
        model = create_model(name, num_classes=7).eval()
        out = model.forward_features(torch.empty(2, 1, 128, round(10 / preset.frame_seconds)))
    assert out.logits.shape == (2, 7)
    assert out.features.shape == (2, int(preset.width.split("-")[-1]))
    assert len(model.stack()) == sum(map(int, preset.depth.split("-")))
    assert model.frontend == preset.frontend
    # One pass sees what the preset was made for.
    assert model.max_frames is None or model.max_frames >= preset.options["frames"]


@pytest.mark.parametrize(
    "name, parameters, gmacs, tokens",
    [
        ("passt_base_s10", 86_153_758, 127.4, 1190),
        ("passt_base_s12", None, 83.6, 832),
        ("passt_base_s14", None, 62.1, 641),
        ("passt_base_s16", 86_122_270, 47.0, 498),
        ("passt_base_s10_d7", 50_714_398, 74.4, 1190),
    ],
)
def test_counted_cost_is_the_published_one(name: str, parameters: int | None, gmacs: float, tokens: int) -> None:
    summary = summarize_model(name)
    assert parameters is None or summary.parameters == parameters
    assert summary.macs / 1e9 == pytest.approx(gmacs, abs=0.05)
    assert summary.tokens == tokens


def test_the_count_does_not_depend_on_which_kernels_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a new machine the measurement of the kernels would begin in the middle of the count, and be counted."""
    monkeypatch.delenv("OSSICLE_KERNELS")
    monkeypatch.setattr("ossicle.kernels.measure.known_here", lambda threads: pytest.fail("the kernels are measured"))
    assert summarize_model("passt_base_s16").macs / 1e9 == pytest.approx(47.0, abs=0.05)


def test_the_name_of_weights_is_answered_with_its_architecture() -> None:
    with pytest.raises(
        ModelUnknown, match="x is the name of weights; expected that of an architecture, such as passt_base_s10"
    ):
        create_model("passt_base_s10.x")


def test_names_are_listed_by_pattern() -> None:
    assert list_models("passt_tiny_s*") == [f"passt_tiny_s{stride}" for stride in (10, 12, 14, 16, 20)]
    assert list_models("nothing*") == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelUnknown, match="passt_base_s10"):
        create_model("passt_bse_s10")
    with pytest.raises(ModelUnknown, match="ossicle models list"):
        create_model("???")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"depht": 3}, "no option depht"),
        ({"depth": 0}, "at least 1"),
        ({"num_heads": 5}, "not a multiple"),
        ({"frames": 15}, "at least the patch size"),
        ({"patchout_t": -1}, "patchout in time"),
    ],
)
def test_options_that_no_network_has_are_refused(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        create_model("passt_tiny_s16", **options)


def test_listing_loads_no_torch() -> None:
    program = "import sys, ossicle.models as m; assert m.list_models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
