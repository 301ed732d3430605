"""Parts are disjoint and whole, groups lie on one side, official parts stay, every class can be learned."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.data import Dataset, Item, group_ids, read_dataset, split_dataset, split_folds, splits
from ossicle.data.labels import LabelRows
from ossicle.errors import DataRefused

ROOT = Path("/data")
few = settings(max_examples=40, deadline=None)
CUT_BY_FILE = "as too few groups"
SPLITS = ["train", "validation", "test"]


def make(items: Sequence[Item], labels: tuple[str, ...] | None = None) -> Dataset:
    names = tuple(sorted({label for item in items for label in item.labels})) if labels is None else labels
    task = "single-label" if all(len(item.labels) == 1 for item in items) else "multi-label"
    return Dataset(root=ROOT, items=tuple(items), labels=names, task=task, layout="made for a test.")


def plain(per_class: list[int]) -> Dataset:
    """Single files, so many of each class."""
    return make(
        [Item(file=ROOT / f"{c}/{i}.wav", labels=(f"class{c}",)) for c, n in enumerate(per_class) for i in range(n)]
    )


def built(fields: list[dict]) -> Dataset:
    """Outside the strategy, as the checks of types at run time draw random numbers and strategies must not."""
    return make([Item(**item) for item in fields])


@st.composite
def anything(draw, *, folds=False, splits=False) -> list[dict]:
    """The fields of the items of any data set, down to one: shared files and groups, several labels or none."""
    multi = draw(st.booleans())
    few = st.integers(0, draw(st.integers(0, 12)))
    items = []
    for number in range(draw(st.integers(1, 24))):
        labels = st.lists(st.sampled_from("abcd"), min_size=0 if multi else 1, max_size=3 if multi else 1, unique=True)
        items.append(
            dict(
                file=ROOT / f"{draw(few)}.wav",
                labels=tuple(draw(labels)),
                start=float(number),
                end=number + 1.0,
                group=draw(st.none() | few.map(str)),
                fold=draw(st.sampled_from("123")) if folds else None,
                split=draw(st.sampled_from(SPLITS)) if splits else None,
            )
        )
    return items


def split_or_none(dataset: Dataset, **options):
    try:
        return split_dataset(dataset, **options)
    except DataRefused as error:
        assert "\n" not in str(error)
        return None


def check_whole(dataset: Dataset, split) -> None:
    """What holds for each split of each data set."""
    parts = [split.train, split.validation, split.test]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(len(dataset.items)))
    targets = dataset.targets()
    assert (targets[split.train].any(axis=0) == targets.any(axis=0)).all()
    assert len(split.train) and len(split.test)
    assert (
        f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test clips" in split.protocol
    )
    assert (len(split.validation) == 0) == ("no validation part" in split.protocol)


# ---------------------------------------------------------------- properties


@few
@given(anything(), st.integers(0, 5))
def test_drawn_parts_cover_everything_once_and_share_no_group(fields, seed):
    dataset = built(fields)
    split = split_or_none(dataset, seed=seed)
    if split is None:
        return
    check_whole(dataset, split)
    groups = group_ids(dataset)
    learned = np.concatenate([split.train, split.validation])
    assert not set(groups[learned]) & set(groups[split.test])
    if CUT_BY_FILE in split.protocol:
        files = np.array([str(item.file) for item in dataset.items])
        assert not set(files[split.train]) & set(files[split.validation])
    else:
        assert not set(groups[split.train]) & set(groups[split.validation])


@few
@given(anything(), st.integers(0, 5))
def test_the_same_seed_makes_the_same_parts_in_any_order_of_rows(fields, seed):
    dataset = built(fields)
    once, again = split_or_none(dataset, seed=seed), split_or_none(dataset, seed=seed)
    backwards = make(list(dataset.items[::-1]), dataset.labels)
    turned = split_or_none(backwards, seed=seed)
    assert (once is None) == (again is None) == (turned is None)
    if once is None:
        return
    for part in ("train", "validation", "test"):
        rows = getattr(once, part)
        assert (rows == getattr(again, part)).all()
        assert {dataset.items[row] for row in rows} == {backwards.items[row] for row in getattr(turned, part)}
    assert once.protocol == again.protocol


@few
@given(st.lists(st.integers(2, 9), min_size=2, max_size=6), st.integers(0, 20))
def test_two_clips_of_each_class_are_enough_to_train_and_to_test_every_class(per_class, seed):
    dataset = plain(per_class)
    split = split_dataset(dataset, seed=seed)
    check_whole(dataset, split)
    assert dataset.targets()[split.test].any(axis=0).all()


@few
@given(anything(), st.integers(0, 5))
def test_dealt_folds_test_no_clip_twice_and_none_is_empty(fields, seed):
    dataset = built(fields)
    try:
        folds = split_folds(dataset)
    except DataRefused:
        return
    assert 2 <= len(folds) <= 5
    splits = [split_dataset(dataset, fold=fold, seed=seed) for fold in folds]
    for split, fold in zip(splits, folds, strict=True):
        check_whole(dataset, split)
        assert split.fold == fold and f"fold {fold} of {len(folds)}" in split.protocol
    tested = np.concatenate([split.test for split in splits])
    assert len(set(tested)) == len(tested)
    groups = group_ids(dataset)
    assert sum(len(set(groups[split.test])) for split in splits) == len(set(groups[tested]))


@few
@given(st.lists(st.integers(2, 9), min_size=2, max_size=4))
def test_dealt_folds_of_single_files_test_every_clip_once(per_class):
    dataset = plain(per_class)
    tested = np.concatenate([split_dataset(dataset, fold=fold).test for fold in split_folds(dataset)])
    assert sorted(tested) == list(range(len(dataset.items)))


@few
@given(anything(folds=True), st.integers(0, 3))
def test_official_folds_stay_as_they_are(fields, seed):
    dataset = built(fields)
    if len(dataset.folds) < 2:
        return
    assert split_folds(dataset) == dataset.folds
    for fold in dataset.folds:
        split = split_or_none(dataset, fold=fold, seed=seed)
        if split is None:
            continue
        check_whole(dataset, split)
        assert {dataset.items[row].fold for row in split.test} == {fold}
        assert sum(item.fold == fold for item in dataset.items) == len(split.test)
        groups = group_ids(dataset)
        learned = np.concatenate([split.train, split.validation])
        assert bool(set(groups[learned]) & set(groups[split.test])) == ("both sides" in split.protocol)


@few
@given(anything(splits=True), st.integers(0, 3))
def test_official_splits_stay_as_they_are(fields, seed):
    dataset = built(fields)
    present = {item.split for item in dataset.items}
    split = split_or_none(dataset, seed=seed)
    if len(present) < 2 or split is None:
        return
    check_whole(dataset, split)
    assert split_folds(dataset) == ("test",)
    held_out = "test" if "test" in present else "validation"
    assert [dataset.items[row].split for row in split.test] == [held_out] * len(split.test)
    assert sum(item.split == held_out for item in dataset.items) == len(split.test)
    if present == set(SPLITS):
        assert {dataset.items[row].split for row in split.validation} == {"validation"}
        assert {dataset.items[row].split for row in split.train} == {"train"}


@few
@given(anything(folds=True), st.permutations(range(24)))
def test_labels_of_an_official_test_part_move_no_other_part(fields, order):
    dataset = built(fields)
    split = split_or_none(dataset, fold=dataset.folds[0]) if len(dataset.folds) > 1 else None
    if split is None:
        return
    items = list(dataset.items)
    others = [row for row in order if row in set(split.test.tolist())]
    for row, other in zip(split.test, others, strict=True):
        items[row] = replace(items[row], labels=dataset.items[other].labels)
    shuffled = split_dataset(make(items, dataset.labels), fold=dataset.folds[0])
    assert (shuffled.train == split.train).all()
    assert (shuffled.validation == split.validation).all()


@few
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=12))
def test_clips_stay_together_through_files_and_groups_alike(ties):
    """Equal to the connected components found by repeated relabeling."""
    items = [Item(file=ROOT / str(tie[0]), labels=("x",), group=str(tie[-1]) if len(tie) > 1 else None) for tie in ties]
    expected = list(range(len(items)))
    for _ in items:
        for i, one in enumerate(items):
            for j, other in enumerate(items):
                if one.file == other.file or (one.group is not None and one.group == other.group):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    found = group_ids(make(items))
    assert len(set(zip(expected, found.tolist(), strict=True))) == len(set(expected)) == len(set(found.tolist()))


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize("seed", range(3))
def test_parts_hold_their_share_of_every_class(seed):
    dataset = plain([400, 100, 40, 20])
    split = split_dataset(dataset, seed=seed)
    targets = dataset.targets()
    assert targets[split.test].sum(axis=0).tolist() == [80, 20, 8, 4]
    rest = np.concatenate([split.train, split.validation])
    np.testing.assert_allclose(targets[split.validation].sum(axis=0) / targets[rest].sum(axis=0), 0.15, atol=0.04)


def test_another_seed_draws_other_clips():
    dataset = plain([50, 50])
    assert len({tuple(split_dataset(dataset, seed=seed).test) for seed in range(5)}) == 5


def test_speakers_are_shared_out_whole_and_near_the_share_asked_for():
    items = [
        Item(file=ROOT / f"{speaker}/{i}.wav", labels=(f"{i % 4}",), group=f"s{speaker}")
        for speaker in range(20)
        for i in range(10 + speaker)
    ]
    split = split_dataset(make(items))
    assert abs(len(split.test) / len(items) - 0.20) < 0.03
    assert abs(len(split.validation) / (len(items) - len(split.test)) - 0.15) < 0.03


# ---------------------------------------------------------------- sentences


def test_the_protocol_says_which_fold_and_how_the_validation_part_was_cut():
    items = [
        Item(file=ROOT / f"{i}.wav", labels=("ab"[i % 2],), fold=str(i % 5 + 1), group=str(i // 2)) for i in range(100)
    ]
    dataset = make(items)
    assert split_dataset(dataset).protocol.startswith(
        "fold 1 of 5 (official `fold` column, the first as none was named) is the test part; validation part: 15% of"
    )
    assert "(official `fold` column) is the test part" in split_dataset(dataset, fold="2").protocol
    assert split_dataset(dataset).fold == "1"


def test_an_official_split_without_a_test_part_is_tested_on_its_validation_part():
    items = [Item(file=ROOT / f"{i}.wav", labels=("ab"[i % 2],), split=SPLITS[i % 4 == 0]) for i in range(40)]
    split = split_dataset(make(items))
    assert "as there is no `test` split" in split.protocol
    assert all(row % 4 == 0 for row in split.test) and len(split.validation)


def test_two_speakers_leave_a_validation_part_cut_by_file_and_say_so():
    items = [Item(file=ROOT / f"{i}.wav", labels=("ab"[i % 2],), group=f"s{i % 4 // 2}") for i in range(40)]
    split = split_dataset(make(items))
    assert len({items[row].group for row in split.test}) == 1
    assert "of the rest by file, as too few groups of `group` are left" in split.protocol


def test_classes_that_cannot_be_tested_are_named():
    items = [Item(file=ROOT / f"{i}.wav", labels=("dog",), group=str(i)) for i in range(4)]
    items += [Item(file=ROOT / f"cat{i}.wav", labels=("cat",), group="home") for i in range(4)]
    assert "note: classes without a clip in the test part: cat" in split_dataset(make(items)).protocol


def refusal(dataset: Dataset, **options) -> str:
    with pytest.raises(DataRefused) as caught:
        split_dataset(dataset, **options)
    return str(caught.value)


def test_classes_that_lie_in_one_recording_each_cannot_be_split():
    items = [Item(file=ROOT / f"{c}.wav", labels=(c,), start=float(i), end=i + 1.0) for c in "ab" for i in range(9)]
    assert "no test part can be cut by file" in refusal(make(items))
    with pytest.raises(DataRefused, match="by file"):
        split_folds(make(items))


def test_a_class_that_lies_in_the_test_fold_only_is_named():
    items = [Item(file=ROOT / f"{i}.wav", labels=("ab"[i % 2],), fold=str(i % 2)) for i in range(8)]
    assert (
        "'a'" in (sentence := refusal(make(items))) and "no clip to train on" in sentence and "fold 0 of 2" in sentence
    )


def test_an_unknown_fold_is_refused_with_those_that_are_there():
    assert "no fold '9': its folds are 1, 2, 3, 4, 5." in refusal(plain([9, 9]), fold="9")
    items = [Item(file=ROOT / f"{i}.wav", labels=("ab"[i % 2],), split=SPLITS[i % 3]) for i in range(12)]
    assert "its folds are test." in refusal(make(items), fold="1")


# ---------------------------------------------------------------- real data


def test_the_folds_of_esc50_leak_four_source_recordings_and_say_so(shared):
    dataset = read_dataset(shared / "esc50")
    leaks = set()
    for fold in split_folds(dataset):
        split = split_dataset(dataset, fold=fold)
        train, validation, test = (
            {dataset.items[row].group for row in part} for part in (split.train, split.validation, split.test)
        )
        assert not train & validation
        assert len(split.test) == 400
        both = (train | validation) & test
        assert f"{len(both)} groups by `src_file` lie on both sides" in split.protocol or not both
        leaks |= both
        assert dataset.targets()[split.train].sum(axis=0).min() >= 26
    assert leaks == {"131943", "134049", "209698", "234879"}


def test_the_leak_in_an_official_split_is_said(shared):
    split = split_dataset(read_dataset(shared / "fsdd"))
    assert len(split.test) == 300
    assert "6 groups by `speaker` lie on both sides of this official cut" in split.protocol


@pytest.mark.parametrize("every_class", [True, False])
def test_a_part_of_very_many_groups_is_drawn_like_one_of_few(every_class, monkeypatch):
    rng = np.random.default_rng(0)
    items = [
        Item(
            file=ROOT / f"{number}.wav",
            group=f"g{number // 2}" if number < 200 else None,
            labels=tuple(sorted({f"l{label}" for label in rng.integers(0, 12, rng.integers(0, 4))})),
        )
        for number in range(2000)
    ]
    dataset = make(items)
    parts = []
    for many in (10**9, 100):
        monkeypatch.setattr(splits, "MANY_GROUPS", many)
        parts.append(split_dataset(dataset) if every_class else split_dataset(dataset, validation=0.3))
    few, many = parts
    targets = dataset.targets()
    for part in ("train", "validation", "test"):
        one, other = targets[getattr(few, part)], targets[getattr(many, part)]
        assert abs(len(one) - len(other)) <= 20 and np.abs(one.sum(0) - other.sum(0)).max() <= 10
    assert not np.intersect1d(group_ids(dataset)[many.test], group_ids(dataset)[many.train]).size
    assert (split_dataset(make(items[::-1])).test == np.sort(1999 - many.test)).all()


def test_very_many_groups_are_dealt_like_few(monkeypatch):
    rng = np.random.default_rng(0)
    items = [
        Item(
            file=ROOT / f"{number}.wav",
            group=f"g{number // 3}" if number < 90 else None,
            labels=tuple(sorted({f"l{label}" for label in rng.integers(0, 6, rng.integers(0, 3))})),
        )
        for number in range(300)
    ]
    dataset = make(items)
    tests = []
    for many in (10**9, 10):
        monkeypatch.setattr(splits, "MANY_GROUPS", many)
        assert split_folds(dataset) == ("1", "2", "3", "4", "5")
        tests.append([split_dataset(dataset, fold=fold).test.tolist() for fold in split_folds(dataset)])
    assert tests[0] == tests[1]


def test_rows_of_labels_give_what_their_table_gives():
    rng = np.random.default_rng(0)
    table = rng.random((50, 7)) < 0.2
    rows = LabelRows.of(
        [[f"l{column}" for column in np.flatnonzero(row)] for row in table], [f"l{n}" for n in range(7)]
    )
    chosen = rng.integers(0, 50, 20)
    assert rows.shape == table.shape and len(rows) == 50
    assert (rows[chosen] == table[chosen]).all() and (rows[:] == table).all() and (rows[table[:, 0]][:, 0]).all()
    assert (rows.only(chosen)[:] == table[chosen]).all()
    for axis in (0, 1):
        assert (rows.sum(axis) == table.sum(axis)).all() and (rows.any(axis) == table.any(axis)).all()
