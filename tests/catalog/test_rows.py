"""The catalogue: every row by its facts, its keys and its shapes."""

import csv
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.catalog.layouts import shapes_of

from ossicle.catalog import (
    Checkpoint,
    checkpoint,
    default_checkpoint,
    find_checkpoint,
    list_checkpoints,
    shapes_digest,
)
from ossicle.catalog.rows import read_labels
from ossicle.errors import ModelUnknown
from ossicle.models import find_preset, list_models

ROWS = list_checkpoints()
SHARED = Path(__file__).resolve().parents[3] / "shared" / "labels"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_complete(row: Checkpoint) -> None:
    assert row.architecture in list_models() and re.fullmatch(r"\w+\.\w+", row.name)
    assert row.url.startswith("https://") and row.page.startswith("https://") and row.paper and row.data
    assert "/" not in row.file and row.file.endswith((".pt", ".pth", ".safetensors"))
    assert row.sha256 is None or (re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{8}", row.sha256) and row.hashes)
    assert row.license is not None or row.terms
    assert (row.shapes is None) == row.by_shapes and (not row.by_shapes or row.note)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_digest_of_every_row_is_that_of_its_published_layout(row: Checkpoint) -> None:
    shapes = shapes_of(row)
    assert row.numbers == sum(map(math.prod, shapes.values()))
    assert row.by_shapes or row.shapes == shapes_digest(shapes)
    if row.bytes is not None:  # a zip adds its directory to the numbers; the tables of indices have 8 bytes a number
        assert 0 < row.bytes - (2 if row.shipped else 4) * row.numbers < 200_000


@pytest.mark.parametrize("row", [row for row in ROWS if not row.is_start], ids=lambda row: row.name)
def test_a_row_has_the_grid_and_the_labels_of_its_network(row: Checkpoint) -> None:
    shapes, options = shapes_of(row), find_preset(row.architecture).options
    assert shapes["head.1.weight"] == (len(row.labels), options.get("dim", 768))
    assert len(set(row.labels)) == len(row.labels)
    rows, columns = {10: (12, options["frames"] // 10), 12: (10, 83), 14: (9, 71), 16: (8, 62)}[options["stride"]]
    assert shapes["freq_new_pos_embed"][2] == rows and shapes["time_new_pos_embed"][3] == columns
    assert (row.task == "single-label") == (row.data == "ESC-50")


def test_the_published_numbers_are_those_of_the_specification() -> None:
    shapes = shapes_of(checkpoint("passt_s_swa_p16_128_ap476"))
    assert len(shapes) == 159 and sum(map(math.prod, shapes.values())) == 86_153_758
    assert checkpoint("passt_l_kd_p16_128_ap47").numbers == 50_714_398
    assert checkpoint("passt_s_p16_s16_128_ap468").numbers == 86_122_270


def test_a_name_means_one_file_and_a_file_has_one_row() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    for each in (names, [row.url for row in ROWS], [row.file for row in ROWS]):
        assert [name for name, count in Counter(each).items() if count > 1] == []
    assert not set(names) & set(list_models())
    assert len([row for row in ROWS if not row.is_start and not row.shipped]) == 25
    assert sum("esc50_fold" in row.name for row in ROWS) == 5


def test_an_alias_finds_the_row_and_an_unknown_name_the_nearest() -> None:
    assert checkpoint("stfthop160").name == "passt_base_s10_hop160.audioset_ap473"
    assert find_checkpoint("passt_base_s10") is None
    with pytest.raises(ModelUnknown, match="similar names: passt_base_s10.audioset_ap476"):
        checkpoint("passt_base_s10.audioset_ap47")
    with pytest.raises(ModelUnknown, match="ossicle models list --weights"):
        checkpoint("???")


def test_an_architecture_has_at_most_one_default() -> None:
    defaults = Counter(row.architecture for row in ROWS if row.default)
    assert set(defaults.values()) == {1}
    row = default_checkpoint("passt_base_s10")
    assert row is not None and row.name == "passt_base_s10.audioset_ap476"
    assert default_checkpoint("passt_tiny_s16") is None


def test_a_digest_depends_on_names_and_shapes_alone() -> None:
    one = shapes_digest({"a": (2, 3), "b": ()})
    assert one == shapes_digest({"b": (), "a": (2, 3)}) and len(one) == 16
    assert len({one, shapes_digest({"a": (3, 2), "b": ()}), shapes_digest({"c": (2, 3), "b": ()})}) == 3


def test_the_labels_of_audioset_have_their_identifiers() -> None:
    labels = read_labels("audioset")
    assert labels[0] == ("Speech", "/m/09x0r") and labels[-1] == ("Field recording", "/m/07hvw1")
    assert len(labels) == 527 and all(id and re.match(r"/[mtg]/", id) for _, id in labels)
    assert read_labels("esc50")[0] == ("dog", None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the lists of labels are not beside this checkout")
def test_the_labels_are_in_the_order_of_the_heads() -> None:
    rows = list(csv.reader((SHARED / "audioset_class_labels_indices_527.csv").read_text().splitlines()))[1:]
    assert [(name, id) for _, id, name in rows] == list(read_labels("audioset"))
    for ours, theirs in (("esc50", "esc50_50"), ("fsd50k", "fsd50k_200"), ("openmic", "openmic_20")):
        assert [name for name, _ in read_labels(ours)] == (SHARED / f"{theirs}.txt").read_text().split("\n")[:-1]


def test_listing_weights_loads_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; sys.argv = ['ossicle', 'models', 'list', '--weights']\n"
        "from ossicle.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'huggingface_hub'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "passt_base_s10.audioset_ap476" in done.stdout
