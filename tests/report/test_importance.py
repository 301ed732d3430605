"""The pictures of the Importance Factor show the numbers they were given, and the words say what these are worth."""

import subprocess
import sys

import numpy as np
import pytest

from ossicle.report import png_bytes, write_report
from ossicle.report.importance import importance_figure, importance_section, layer_share_figure
from ossicle.tuning.importance import DensityMap, Importance

FACTOR = np.random.default_rng(0).random((5, 8))


def shares(count):
    rising = np.arange(1.0, count + 1)
    return 100 * rising / rising.sum()


def section(probe_name="balanced accuracy", **changes):
    """Of five layers whose shares rise where those of the untrained head fall."""
    layers = np.arange(1.0, 6)[:, None]
    given = {
        "trained": DensityMap(mean=layers * np.ones(8)),
        "initial": DensityMap(mean=layers[::-1] * np.ones(8)),
        "layers": (2, 3, 5, 8, 13),
        "clips": 40,
    }
    return importance_section(Importance(**{**given, **changes}), probe_name=probe_name)


def test_the_map_has_a_row_for_each_layer_with_the_first_at_the_bottom():
    axes, bar = importance_figure(FACTOR, layers=(2, 3, 5, 8, 13)).axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), FACTOR)
    assert mesh.get_clim() == (0, 1) and axes.get_xlim() == (0.5, 8.5) and axes.get_ylim() == (-0.5, 4.5)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["2", "3", "5", "8", "13"]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("feature", "layer", "Importance Factor")


def test_of_thousands_of_features_a_column_shows_the_mean_of_its_own():
    factor = np.random.default_rng(0).random((3, 2501))
    (mesh,) = importance_figure(factor, layers=(1, 2, 3)).axes[0].collections
    assert mesh.get_array().shape == (3, 834)
    np.testing.assert_allclose(mesh.get_array()[:, [0, -1]], [[row[:3].mean(), row[-2:].mean()] for row in factor])


@pytest.mark.parametrize("count", [1, 24, 40, 200])
def test_any_number_of_layers_can_be_drawn(count):
    layers = range(1, count + 1)
    for figure in (
        importance_figure(np.ones((count, 4)), layers=layers),
        layer_share_figure(shares(count), initial=np.full(count, 100 / count), layers=layers, probes=shares(count)),
    ):
        assert len(png_bytes(figure)) > 1000


def test_the_shares_of_both_heads_are_drawn_and_the_probes_below_them():
    share, probes = shares(5), np.linspace(0.2, 0.6, 5)
    figure = layer_share_figure(
        share, initial=share[::-1], layers=(2, 3, 5, 8, 13), probes=probes, probe_name="accuracy"
    )
    upper, lower = figure.axes
    even, untrained, trained = upper.lines
    assert even.get_ydata() == [20, 20]
    np.testing.assert_array_equal(untrained.get_ydata(), share[::-1])
    np.testing.assert_array_equal(trained.get_ydata(), share)
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["trained", "untrained", "all alike"]
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), probes)
    assert lower.get_ylabel() == "accuracy"
    assert [text.get_text() for text in lower.get_xticklabels()] == ["2", "3", "5", "8", "13"]
    assert len(layer_share_figure(share, initial=share, layers=range(1, 6)).axes) == 1


def test_the_paragraph_says_each_correlation_with_layers_and_p_and_warns(tmp_path):
    made = section(probes=np.array([0.2, 0.3, 0.5, 0.4, 0.6]), probe_name="mAP")
    paragraph, heat, curve = made.blocks
    assert "with the untrained ones -1.00 (5 layers, p = 0.017)" in paragraph
    assert "with the mAP of each layer alone 0.90 (5 layers, p = 0.083)" in paragraph
    assert "has not been trained on any label" in paragraph and "too small" in paragraph and "40 clips" in paragraph
    assert "8 features in 5 layers" in heat.alt and "mAP" in curve.alt
    assert "Most weight in layer 13 (33.3 %), least in layer 2 (6.7 %)." in curve.caption
    write_report(tmp_path / "page.html", title="a head", sections=[made])
    assert (tmp_path / "page.html").read_text().count("data:image/png;base64,") == 2


def test_a_correlation_that_is_not_defined_is_said_so_and_probes_that_are_not_there_are_not():
    paragraph, _, curve = section(initial=DensityMap(mean=np.ones((5, 8))), clips=1).blocks
    assert "not defined (all values of one side are equal; 5 layers)" in paragraph and "1 clip " in paragraph
    assert "alone" not in paragraph + curve.alt + curve.caption and "nan" not in paragraph


def test_several_heads_are_said_with_what_their_shares_compare():
    assert "one head over all layers" in section().blocks[0]
    assert "4 heads" in section(heads=4).blocks[0] and "not across heads" in section(heads=4).blocks[0]


def test_the_room_knows_neither_torch_nor_pyplot():
    program = (
        "import sys, numpy as np\n"
        "from ossicle.report.importance import importance_figure\n"
        "from ossicle.report import png_bytes\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)\n"
        "png_bytes(importance_figure(np.eye(3), layers=(1, 2, 3)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
