"""The choice of routines: as text, by size, by direction, in a thread, in a run."""

import json
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ossicle.errors import SettingRefused
from ossicle.kernels import Kernels, Linear, choice, current_kernels, measure, operators, using_kernels
from ossicle.kernels.choice import ATTENTIONS, DIRECTIONS, PRODUCTS, TORCH, parse_kernels, product_cell

LETTERS = {name: st.text("ot", min_size=len(PRODUCTS), max_size=len(PRODUCTS)) for name in DIRECTIONS} | {
    name: st.text("fh", min_size=len(ATTENTIONS), max_size=len(ATTENTIONS)) for name in ("float32", "bfloat16")
}


@given(st.fixed_dictionaries(LETTERS))
def test_a_choice_is_read_as_it_was_written(letters: dict[str, str]) -> None:
    kernels = Kernels(**letters)
    assert parse_kernels(str(kernels)) == kernels


@pytest.mark.parametrize("name", ["plain", "torch", "onednn"])
def test_a_named_choice_is_read_as_it_was_written(name: str) -> None:
    assert parse_kernels(str(parse_kernels(name))) == parse_kernels(name)


@pytest.mark.parametrize("text", ["", "mkl", "forward=o", str(TORCH).replace("t", "x", 1), f"{TORCH} more=o"])
def test_a_text_that_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(SettingRefused, match="kernels"):
        parse_kernels(text)


@pytest.mark.parametrize("place, size", list(enumerate(PRODUCTS)))
def test_a_product_that_was_measured_stands_for_itself(place: int, size: tuple[int, int, int]) -> None:
    assert product_cell(*size) == place


@given(rows=st.integers(1, 10**6), into=st.integers(1, 10**5), out=st.integers(1, 10**5))
def test_every_product_has_a_place(rows: int, into: int, out: int) -> None:
    assert 0 <= product_cell(rows, into, out) < len(PRODUCTS)


@pytest.mark.skipif(not operators.HAS_ONEDNN, reason="this build of torch has no oneDNN beside MKL")
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_direction_is_done_by_the_library_that_was_chosen_for_it(direction: str, monkeypatch) -> None:
    done: list[tuple[int, int]] = []

    def noted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        done.append((x.shape[0], weight.shape[0]))
        return torch.nn.functional.linear(x, weight, bias)

    monkeypatch.setattr(operators, "onednn", noted)
    letters = {name: ("o" if name == direction else "t") * len(PRODUCTS) for name in DIRECTIONS}
    with using_kernels(Kernels(**letters, float32="ffff", bfloat16="ffff")):
        Linear(5, 3)(torch.randn(7, 5, requires_grad=True)).sum().backward()
    assert done == [{"forward": (7, 3), "input": (7, 5), "weight": (3, 5)}[direction]]


def test_a_choice_holds_in_its_block_and_thread_alone() -> None:
    seen: list[Kernels] = []
    outside = current_kernels()
    with using_kernels("plain"):
        thread = threading.Thread(target=lambda: seen.append(current_kernels()))
        thread.start()
        thread.join()
        assert current_kernels() == choice.PLAIN
    assert seen == [outside] == [current_kernels()]


# --- measuring --------------------------------------------------------------------------------------------------------


@pytest.fixture
def unmeasured(tmp_path: Path, monkeypatch) -> Path:
    """A machine that knows nothing yet, whose measurements are small."""
    monkeypatch.delenv("OSSICLE_KERNELS")
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "PRODUCTS", [(2, 4, 4)] * len(PRODUCTS))
    monkeypatch.setattr(measure, "ATTENTIONS", [(3, False), (3, False), (3, True), (3, True)])
    monkeypatch.setattr(measure, "QUIET", 0.0)
    monkeypatch.setattr(measure, "LONGEST", float("inf"))
    measure.known_here.cache_clear()
    yield tmp_path
    measure.known_here.cache_clear()


def test_what_was_measured_once_is_what_the_next_process_uses(unmeasured: Path) -> None:
    first = current_kernels()
    (kept,) = (unmeasured / "kernels").iterdir()
    assert json.loads(kept.read_text())["kernels"] == str(first)
    other = str(TORCH) if first != TORCH else "onednn"
    kept.write_text(json.dumps({"kernels": other, "bfloat16_speedup": 1.0}))
    measure.known_here.cache_clear()
    assert current_kernels() == parse_kernels(other)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"kernels": "none", "bfloat16_speedup": 1}'])
def test_a_damaged_measurement_is_made_again(unmeasured: Path, text: str) -> None:
    current_kernels()
    (kept,) = (unmeasured / "kernels").iterdir()
    kept.write_text(text)
    measure.known_here.cache_clear()
    current_kernels()
    assert parse_kernels(json.loads(kept.read_text())["kernels"]) == current_kernels()


def test_a_measurement_beside_other_work_is_not_kept(unmeasured: Path, monkeypatch) -> None:
    monkeypatch.setattr(measure, "QUIET", float("inf"))
    current_kernels()
    assert not (unmeasured / "kernels").exists()


def test_a_machine_too_busy_to_measure_computes_as_torch_does(unmeasured: Path, monkeypatch) -> None:
    monkeypatch.setattr(measure, "LONGEST", 0.0)
    assert current_kernels() == TORCH


def test_measuring_draws_no_random_numbers_of_the_program(unmeasured: Path) -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    current_kernels()
    assert torch.equal(torch.rand(3), wanted)


def test_the_faster_routine_is_chosen(monkeypatch) -> None:
    times = iter([1.0, 0.5])
    monkeypatch.setattr(measure, "in_turns", lambda *functions: [next(times), next(times)])
    assert measure.is_faster(lambda: None, than=lambda: None)
