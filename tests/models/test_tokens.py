"""Patchout: what a draw may keep."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ossicle.models.tokens import Patchout, drop_count, select_patches

sides = st.integers(1, 12)


def amounts(total: int) -> st.SearchStrategy[int | float]:
    return st.integers(0, total - 1) | st.floats(0, 1, exclude_max=True)


@st.composite
def draws(draw: st.DrawFn) -> tuple[tuple[int, int], Patchout, int]:
    rows, columns = draw(sides), draw(sides)
    time, freq = draw(amounts(columns)), draw(amounts(rows))
    left = (columns - drop_count(time, columns, what="columns")) * (rows - drop_count(freq, rows, what="rows"))
    patchout = Patchout(time=time, freq=freq, unstructured=draw(amounts(left)))
    return (rows, columns), patchout, draw(st.integers(0, 2**32))


def select(grid: tuple[int, int], patchout: Patchout, seed: int = 0) -> torch.Tensor:
    patches = select_patches(grid, patchout, generator=torch.Generator().manual_seed(seed))
    return torch.arange(grid[0] * grid[1]) if patches is None else patches


@given(draws())
def test_patchout_keeps_distinct_patches_of_the_grid_in_order(case) -> None:
    grid, patchout, seed = case
    patches = select(grid, patchout, seed)
    assert len(patches) >= 1
    assert (patches.diff() > 0).all()
    assert 0 <= patches[0] and patches[-1] < grid[0] * grid[1]


@given(draws())
def test_structured_patchout_keeps_a_subgrid_of_the_stated_size(case) -> None:
    (rows, columns), patchout, seed = case
    patchout = Patchout(time=patchout.time, freq=patchout.freq)
    patches = select((rows, columns), patchout, seed)
    kept_rows, kept_columns = (patches // columns).unique(), (patches % columns).unique()
    assert len(kept_rows) == rows - drop_count(patchout.freq, rows, what="rows")
    assert len(kept_columns) == columns - drop_count(patchout.time, columns, what="columns")
    assert torch.equal(patches, (kept_rows[:, None] * columns + kept_columns).flatten())


@given(draws())
def test_the_draw_depends_on_the_generator_alone_and_leaves_the_global_stream(case) -> None:
    grid, patchout, seed = case
    before = torch.random.get_rng_state()
    assert torch.equal(select(grid, patchout, seed), select(grid, patchout, seed))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_column_is_dropped_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.zeros(8)
    for _ in range(2000):
        patches = select_patches((1, 8), Patchout(time=2), generator=generator)
        assert patches is not None
        kept[patches] += 1
    assert (kept / 2000 - 0.75).abs().max() < 0.05


def test_counts_and_fractions_are_those_of_the_paper() -> None:
    assert len(select((12, 99), Patchout(time=40, freq=4))) == 59 * 8
    assert len(select((12, 99), Patchout(unstructured=400))) == 788
    assert len(select((12, 99), Patchout(time=0.5))) == 12 * (99 - 50)


@pytest.mark.parametrize("patchout", [Patchout(time=5), Patchout(freq=3), Patchout(unstructured=15)])
def test_dropping_everything_is_refused(patchout: Patchout) -> None:
    with pytest.raises(ValueError, match="at least one must remain"):
        select((3, 5), patchout)


@pytest.mark.parametrize("amount", [-1, -0.5, 1.0, 1.5, float("nan")])
def test_an_amount_is_a_count_or_a_fraction_below_one(amount: float) -> None:
    with pytest.raises(ValueError, match="patchout in time"):
        Patchout(time=amount)
