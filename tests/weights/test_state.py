"""The state of a run on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ossicle.errors import RunRefused
from ossicle.weights.state import checkpoints, load_state, newest_state, save_state, valid_states

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.integers(0, 3).map(lambda size: torch.arange(float(size))),
    st.just(torch.tensor(2.5, dtype=torch.bfloat16)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=12,
)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(st.text(max_size=5), trees, max_size=4))
def test_any_tree_comes_back_as_it_was(tree: dict[str, Any], tmp_path: Path) -> None:
    save_state(tmp_path / "step-1", tree)
    assert equal(load_state(tmp_path / "step-1"), tree)


def test_infinity_and_nan_survive(tmp_path: Path) -> None:
    save_state(tmp_path / "step-1", {"best": float("inf"), "loss": float("nan"), "low": -float("inf")})
    state = load_state(tmp_path / "step-1")
    assert state["best"] == float("inf") and state["low"] == -float("inf") and state["loss"] != state["loss"]


@pytest.mark.parametrize("byte", [0, 9, -1])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
def test_a_flipped_byte_is_noticed(name: str, byte: int, tmp_path: Path) -> None:
    save_state(tmp_path / "step-1", {"weight": torch.arange(64.0), "epoch": 3})
    content = bytearray((tmp_path / "step-1" / name).read_bytes())
    content[byte] ^= 0x55
    (tmp_path / "step-1" / name).write_bytes(bytes(content))
    with pytest.raises(RunRefused, match="step-1"):
        load_state(tmp_path / "step-1")


def test_the_newest_whole_checkpoint_serves_and_the_damaged_one_is_named(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path / f"step-{step:08d}", {"step": step})
    (tmp_path / "step-00000003" / "tensors.safetensors").write_bytes(b"")
    (tmp_path / ".step-00000004.17").mkdir()  # a save that a kill cut short
    path = newest_state(tmp_path)
    assert path.name == "step-00000002" and load_state(path) == {"step": 2}
    whole, (damaged,) = valid_states(tmp_path)
    assert [one.name for one in whole] == ["step-00000002", "step-00000001"] and "step-00000003" in damaged
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000003", "step-00000002", "step-00000001"]


def test_without_a_checkpoint_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match="no checkpoint to resume from; start a new run in another folder"):
        newest_state(tmp_path)


def test_what_json_and_tensors_cannot_hold_is_refused_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.a\.0 is a set"):
        save_state(tmp_path / "step-1", {"a": [{1, 2}]})
    assert not (tmp_path / "step-1").exists()


def test_no_pickle_lies_in_a_checkpoint(tmp_path: Path) -> None:
    save_state(tmp_path / "step-1", {"weight": torch.ones(3), "groups": [{"lr": 0.1}]})
    assert {path.name for path in (tmp_path / "step-1").iterdir()} == {"tensors.safetensors", "state.json"}
    json.loads((tmp_path / "step-1" / "state.json").read_text())
