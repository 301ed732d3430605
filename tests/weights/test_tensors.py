"""Weights on disk: the same bits back, and nothing loads that does not fit."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ossicle.errors import WeightsRefused
from ossicle.models.passt import Passt, PasstConfig
from ossicle.weights.tensors import load_into, load_weights, save_weights

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text("abc.0", min_size=1, max_size=8),
        st.tuples(st.lists(st.integers(0, 3), max_size=3), st.sampled_from(DTYPES)),
        max_size=4,
    )
)
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, shapes) -> None:
    tensors = {name: (torch.randn(shape) * 100).to(dtype) for name, (shape, dtype) in shapes.items()}
    save_weights(tmp_path / "w.safetensors", tensors)
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(2)})
    shared = torch.zeros(2)
    with pytest.raises(RuntimeError, match="share memory"):
        save_weights(path, {"a": shared, "b": shared})
    assert torch.equal(load_weights(path)["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def header(content: dict) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


HOSTILE = {
    "empty": b"",
    "text": b"these are no weights, whatever the name says",
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00",
    "header of 2^62 bytes": struct.pack("<Q", 2**62) + b"{}",
    "header no JSON": struct.pack("<Q", 4) + b"{{{{",
    "data missing": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
    "data too long": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + bytes(64),
    "shape of 2^60": header({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 16]}}) + bytes(16),
    "overlap": header(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }
    )
    + bytes(12),
    "backwards": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + bytes(4),
    "unknown dtype": header({"a": {"dtype": "X7", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(HOSTILE[case])
    with pytest.raises(WeightsRefused, match="w.safetensors"):
        load_weights(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.randn(5), "b": torch.randn(2, 3)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsRefused):
            load_weights(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsRefused, match="no such file"):
            load_weights(path)


def test_a_misfit_names_every_kind_with_both_shapes_and_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {
        "0.weight": torch.zeros(2, 4),
        "0.bias": torch.zeros(2),
        "extra": torch.zeros(7),
        "1.bias": torch.ones(1),
    }
    with pytest.raises(WeightsRefused) as refusal:
        load_into(module, tensors, source="model.safetensors")
    for part in (
        "model.safetensors",
        "1 missing (1.weight (1, 2))",
        "1 unexpected (extra (7,))",
        "1 misshapen (0.weight (2, 4), wanted (2, 3))",
    ):
        assert part in str(refusal.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_many_misfits_are_counted() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(WeightsRefused, match=r"12 missing \(.* and 7 more\)"):
        load_into(module, {}, source="w")


def test_whole_numbers_are_no_weights() -> None:
    with pytest.raises(WeightsRefused, match="not of floating point"):
        load_into(nn.Linear(1, 1), {"weight": torch.ones(1, 1, dtype=torch.int64), "bias": torch.ones(1)}, source="w")


def test_positions_of_another_stride_are_named_as_such() -> None:
    networks = [
        Passt(PasstConfig(num_classes=1, dim=4, num_heads=1, depth=1, stride=stride)).state_dict()
        for stride in (10, 16)
    ]
    model = Passt(PasstConfig(num_classes=1, dim=4, num_heads=1, depth=1, stride=10))
    load_into(model, networks[0], source="w")
    with pytest.raises(WeightsRefused, match=r"8 x 62 positions .* expected 12 x 99"):
        load_into(model, networks[1], source="w")
