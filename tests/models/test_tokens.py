"""Patchout: what a draw may keep. Fewer tokens in a trained network: what is kept, merged, and what it costs."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ossicle.models.tokens import Patchout, TokenReduction, drop_count, merge_tokens, select_patches

sides = st.integers(1, 12)
fractions = st.floats(0, 1, exclude_min=True)


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


# --- fewer tokens in a trained network -------------------------------------------------------------------------------


def strided(grid: tuple[int, int], keep: float) -> torch.Tensor:
    patches = TokenReduction(keep=keep, method="strided").select(grid)
    return torch.arange(grid[0] * grid[1]) if patches is None else patches


@given(sides, sides, fractions)
def test_strides_keep_a_subgrid_in_order_and_at_least_one_patch(rows, columns, keep) -> None:
    patches = strided((rows, columns), keep)
    kept_rows, kept_columns = (patches // columns).unique(), (patches % columns).unique()
    assert 1 <= len(patches) and patches[-1] < rows * columns
    assert torch.equal(patches, (kept_rows[:, None] * columns + kept_columns).flatten())


@given(st.integers(1, 12), st.integers(12, 99), st.floats(0.1, 1))
def test_strides_keep_the_fraction_that_was_asked_for_to_half_a_column(rows, columns, keep) -> None:
    patches = strided((rows, columns), keep)
    kept_rows = len((patches // columns).unique())
    assert abs(len(patches) - keep * rows * columns) <= kept_rows / 2 + 1e-6


def test_strides_are_taken_in_proportion() -> None:
    patches = strided((8, 62), 0.25)
    assert len((patches // 62).unique()) == 4 and len((patches % 62).unique()) == 31


@given(sides, fractions)
def test_what_is_kept_is_evenly_spaced(columns, keep) -> None:
    kept = strided((1, columns), keep)
    steps = kept.diff()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    # As much is left out before the first as after the last.
    assert abs(kept[0] - (columns - 1 - kept[-1])) <= 1


def test_strides_draw_nothing() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(strided((8, 31), 0.5), strided((8, 31), 0.5))
    assert torch.equal(torch.random.get_rng_state(), before)


@given(st.integers(1, 1200), st.integers(1, 24), st.floats(0, 1))
def test_merging_hands_on_the_mean_fraction_that_was_asked_for(patches, depth, position) -> None:
    least = sum(0.5**block for block in range(depth)) / depth
    keep = min(1, least + position * (1 - least))
    merges = TokenReduction(keep=keep, method="merge").merges(patches, depth=depth)
    entering = [patches - sum(merges[:block]) for block in range(depth)]
    assert len(merges) == depth and merges[-1] == 0
    assert all(0 <= 2 * merged <= before for merged, before in zip(merges, entering, strict=True))
    # Rounding moves each block by half a token, and halving one that is odd adds up to less than one.
    assert abs(sum(entering) / depth - keep * patches) < 1


def test_merging_more_than_the_blocks_can_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 0.167 of the tokens of 12 blocks"):
        TokenReduction(keep=0.1, method="merge").merges(248, depth=12)


@pytest.mark.parametrize("keep", [0, -0.5, 1.01, float("nan")])
def test_a_fraction_is_above_zero_and_at_most_one(keep: float) -> None:
    with pytest.raises(ValueError, match="keep is"):
        TokenReduction(keep=keep, method="strided")


def test_a_method_that_is_not_there_is_refused() -> None:
    reduction = TokenReduction(keep=0.5, method="merge")
    object.__setattr__(reduction, "method", "every_second")  # past the type checker of the tests
    with pytest.raises(ValueError, match="expected one of strided, merge"):
        reduction.__post_init__()


def seeded(seed: int) -> Callable[..., torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


@st.composite
def mergers(draw: st.DrawFn) -> dict:
    clips, fixed, patches = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 20))
    normal = seeded(draw(st.integers(0, 99)))
    return {
        "x": normal(clips, fixed + patches, 5).double(),
        "keys": normal(clips, fixed + patches, 4).double(),
        "sizes": draw(st.sampled_from([None, normal(clips, fixed + patches).double().abs() + 1])),
        "count": draw(st.integers(0, patches // 2)),
        "fixed": fixed,
    }


@given(mergers())
def test_merging_keeps_the_fixed_tokens_the_sum_and_the_number_that_was_asked_for(case) -> None:
    x, sizes, fixed = case["x"], case["sizes"], case["fixed"]
    y, new_sizes = merge_tokens(**case)
    old_sizes = torch.ones(x.shape[:2]).double() if sizes is None else sizes
    assert y.shape[1] == x.shape[1] - case["count"] and y.dtype == x.dtype
    torch.testing.assert_close(y[:, :fixed], x[:, :fixed])
    torch.testing.assert_close(new_sizes[:, :fixed], old_sizes[:, :fixed])
    torch.testing.assert_close((y * new_sizes[..., None]).sum(1), (x * old_sizes[..., None]).sum(1))
    torch.testing.assert_close(new_sizes.sum(1), old_sizes.sum(1))


@given(mergers())
def test_what_is_not_merged_stays_as_it_was_and_in_order(case) -> None:
    y, _ = merge_tokens(**case)
    for before, after in zip(case["x"], y, strict=True):
        same = (after[:, None] - before[None]).abs().amax(2) < 1e-12
        places = same.int().argmax(1)[same.any(1)]
        assert (places.diff() > 0).all()


@given(mergers())
def test_each_clip_is_merged_on_its_own(case) -> None:
    y, sizes = merge_tokens(**case)
    for i in range(len(y)):
        own = None if case["sizes"] is None else case["sizes"][i : i + 1]
        alone, alone_sizes = merge_tokens(
            **(case | {"x": case["x"][i : i + 1], "keys": case["keys"][i : i + 1], "sizes": own})
        )
        torch.testing.assert_close(y[i : i + 1], alone)
        torch.testing.assert_close(sizes[i : i + 1], alone_sizes)


def test_the_tokens_that_are_most_alike_are_merged_whichever_their_length() -> None:
    keys = torch.tensor([[[1.0, 0], [0, 1], [0, 1], [-1, 0.1], [1, 1], [0, 3]]])
    x = torch.arange(6.0)[None, :, None]
    y, sizes = merge_tokens(x, keys=keys, sizes=None, count=2, fixed=0)
    # 1 and 5 find 2, which points as they do; 3 finds nothing like it.
    assert y.flatten().tolist() == [0, pytest.approx((1 + 2 + 5) / 3), 3, 4]
    assert sizes.flatten().tolist() == [1, 3, 1, 1]
