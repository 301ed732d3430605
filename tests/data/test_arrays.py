"""Facts of many items as arrays are what a loop over the items finds, in memory that does not grow with the labels."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.data import Dataset, Item, split_dataset
from ossicle.data.arrays import Coded, TarItems, arrays_of, connected
from ossicle.data.labels import KnownRows, LabelRows
from ossicle.data.members import MappedTar, Names, Tar
from ossicle.data.parts import contents_of
from ossicle.training.loader import label_weights


def tar_items(rows: list[list[int]], *, labels: int) -> TarItems:
    """Items of two tars, in an order that is not that of their files."""
    number = len(rows)
    half = number // 2
    tars = []
    for name, files in (("000000", half), ("000001", number - half)):
        columns = {column: np.arange(files) + 7 for column in ("offsets", "sizes", "frames", "rates", "checks")}
        digests = b"".join((row + len(tars) * number).to_bytes(16) for row in range(files))
        names = Names("".join(f"{name}/\xe4 {row:06}.wav\0" for row in range(files)))
        path = Path(f"{name}.tar")
        tars.append(
            Tar(path=path, names=names, **columns, digests=digests, checked=bytearray(files), mapped=MappedTar())
        )
    order = np.random.default_rng(0).permutation(number)
    starts = np.cumsum([0, *map(len, rows)])
    found = LabelRows(starts=starts, columns=np.array([one for row in rows for one in row], np.int64), number=labels)
    return TarItems(
        tars,
        of_tar=(order >= half).astype(np.int32),
        rows=np.where(order >= half, order - half, order),
        labels=(found, tuple(f"label {one:03}" for one in range(labels))),
        groups=Coded(codes=order % 50 - 1, names=tuple(f"group {one}" for one in range(49))),
        folds=Coded(codes=np.broadcast_to(np.int64(-1), number), names=()),
        splits=Coded(codes=order % 2, names=("train", "test")),
        starts=np.where(order % 3, 0.0, 0.25),
        ends=np.where(order % 3, np.nan, 1.5),
        rare={"track": {3: 2}, "unknown": {1: ("label 000",)}},
    )


def dataset_of(items: TarItems | tuple[Item, ...], **about: object) -> Dataset:
    return Dataset(root=Path("/"), items=items, task="multi-label", layout="made by hand.", **about)  # type: ignore[arg-type]


def test_items_of_tars_are_what_their_arrays_say() -> None:
    rng = np.random.default_rng(0)
    rows = [sorted(rng.choice(5, rng.integers(0, 3), replace=False).tolist()) for _ in range(60)]
    packed = tar_items(rows, labels=5)
    listed = tuple(packed)
    assert packed[-1] == listed[59] and packed[np.int64(2)] == listed[2] and packed[50:] == listed[50:]
    assert len(listed) == 60 and listed[3].track == 2 and listed[1].unknown == ("label 000",)
    with pytest.raises(IndexError):
        packed[60]
    used = tuple(sorted({label for item in listed for label in item.labels}))
    one, other = (dataset_of(items, labels=used) for items in (packed, listed))
    assert one.fingerprint() == other.fingerprint() and one.names() == other.names()
    assert contents_of(packed) == contents_of(listed)
    assert one.folds == other.folds == () and one.name_ranks.tolist() == other.name_ranks.tolist()
    np.testing.assert_array_equal(one.targets(), other.targets())
    np.testing.assert_array_equal(one.known(), other.known())
    for column in ("groups", "splits"):
        a, b = getattr(one.arrays, column), getattr(other.arrays, column)
        assert a.present == b.present
        assert all((a.equals(name) == b.equals(name)).all() for name in (*a.present, "none such"))
    assert arrays_of(packed).label_counts() == arrays_of(listed).label_counts()
    np.testing.assert_array_equal(one.arrays.starts, other.arrays.starts)
    np.testing.assert_array_equal(one.arrays.ends, other.arrays.ends)


@settings(max_examples=60)
@given(ties=st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 5)), min_size=1, max_size=25))
def test_items_are_connected_by_way_of_others(ties: list[tuple[int, int]]) -> None:
    first, second = np.array(ties).T
    found = connected(first, second)
    sets = [{number} for number in range(len(ties))]
    for one, (file, group) in enumerate(ties):
        for other, (other_file, other_group) in enumerate(ties[:one]):
            if file == other_file or group == other_group >= 0:
                together = next(s for s in sets if one in s) | next(s for s in sets if other in s)
                sets = [*(s for s in sets if not s & together), together]
    numbered = sorted(sets, key=min)
    assert found.tolist() == [next(n for n, s in enumerate(numbered) if item in s) for item in range(len(ties))]


@settings(max_examples=40)
@given(rows=st.lists(st.sets(st.integers(0, 6), max_size=4), min_size=1, max_size=12))
def test_rows_of_labels_are_the_table(rows: list[set[int]]) -> None:
    table = np.array([[label in row for label in range(7)] for row in rows])
    found = LabelRows.of([sorted(f"{label}" for label in row) for row in rows], [f"{label}" for label in range(7)])
    positions = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(found[:], table)
    np.testing.assert_array_equal(KnownRows(unknown=found)[positions], ~table[positions])
    np.testing.assert_array_equal(found.only(positions)[:], table[positions])
    np.testing.assert_allclose(found.weighed(np.arange(7.0)), table @ np.arange(7.0))
    np.testing.assert_allclose(label_weights(found, offset=1.0), label_weights(table, offset=1.0))
    assert not found.repeats and LabelRows.of([["0", "0"]], ["0"]).repeats


def test_no_table_of_clips_and_labels_is_made() -> None:
    rng = np.random.default_rng(0)
    clips, labels = 80_000, 527
    drawn = rng.integers(0, labels, (clips, 2)).tolist()
    names = tuple(f"label {one:03}" for one in range(labels))
    dataset = dataset_of(tar_items([sorted(set(row)) for row in drawn], labels=labels), labels=names)
    drawn.clear()
    tracemalloc.start()
    split = split_dataset(dataset)
    label_weights(dataset.label_rows.only(split.train))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * clips * labels  # 20 MB of 42
