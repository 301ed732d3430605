"""Which clips train, which choose, which test: official parts untouched, all others cut by group.

Clips of one group (a speaker, a source recording) sound alike beyond their label, so a group that lies on both sides
of a cut makes test scores optimistic. Clips of one file always are one group, but the rows of a table of texts are
not: each is its own. The test part is fixed first; the validation part is cut from what is left, so that nothing
about the test part reaches training, early stopping or thresholds.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ossicle.data.arrays import connected
from ossicle.data.dataset import Dataset
from ossicle.data.drawing import Entries, deal_many, draw_many
from ossicle.data.labels import LabelRows
from ossicle.data.modalities import modality_of
from ossicle.errors import DataRefused

TEST_FRACTION = 0.20
VALIDATION_FRACTION = 0.15
# With two or three groups left to train on, a validation part of whole groups would take too much of them.
LARGEST_VALIDATION_FRACTION = 0.35
UNLABELED_TEST_FRACTION = 0.10  # where a model has labeled the clips: nobody's scores are compared on them
FOLDS = 5
# Of more groups, or a larger table of their labels, drawing by a table takes minutes and gigabytes.
MANY_GROUPS, LARGE_TABLE = 200_000, 1 << 25
OFFICIAL_SPLIT = "test"  # the name of the one fold of a data set with an official split


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Indices of the items of each part, ascending, and the sentence to print with every score made on them.

    `validation` is empty where every class needs all its clips for training; the protocol then says so.
    """

    train: Int[np.ndarray, "train_item"]
    validation: Int[np.ndarray, "validation_item"]
    test: Int[np.ndarray, "test_item"]
    protocol: str
    fold: str | None = None


def split_folds(dataset: Dataset) -> tuple[str, ...]:
    """The names that `split_dataset(fold=...)` takes, for cross-validation.

    The official folds; or "test" alone where there is an official split, which folds of our own would reshuffle;
    or "1" to "5" (fewer for fewer groups), dealt out from the seed.
    """
    _refuse_one_fold(dataset)
    if dataset.labeled_by is not None:
        raise DataRefused(f"{dataset.path}: data without labels of their own have no folds.")
    if len(dataset.folds) > 1:
        return dataset.folds
    if _has_official_split(dataset):
        return (OFFICIAL_SPLIT,)
    groups = group_ids(dataset)
    movable = int(Entries.of(dataset.label_rows, groups, np.arange(groups.max() + 1)).movable.sum())
    if movable < 2:
        raise DataRefused(_why_no_test(dataset))
    return tuple(str(number + 1) for number in range(min(FOLDS, movable)))


def split_dataset(
    dataset: Dataset, *, fold: str | None = None, seed: int = 0, validation: float = VALIDATION_FRACTION
) -> Split:
    """Cuts the items into a training, a validation and a test part.

    Test: the official `test` split, or one official fold (the first if none is named), or about 20 % of the clips
    drawn by group and stratified by label. Validation: the official one, or about 15 % of the rest, drawn likewise.

    Args:
        fold: one of `split_folds(dataset)`; of the folds dealt out from the seed where the data has none.
        validation: fraction of the rest that becomes the validation part where there is no official one; 0 for none.

    Raises:
        DataRefused: no such fold, or a class would have no clip to train on.
    """
    if fold is not None and fold not in (allowed := split_folds(dataset)):
        raise DataRefused(f"{dataset.root} has no fold {fold!r}: its folds are {', '.join(allowed)}.")
    _refuse_one_fold(dataset)
    if dataset.labeled_by is not None:
        return _held_out(dataset, seed=seed, validation=validation)
    groups = group_ids(dataset)
    in_validation = np.zeros(len(dataset), dtype=bool)
    if len(dataset.folds) > 1 and not (fold is None and _has_official_split(dataset)):
        in_test, sentence = _official_fold(dataset, fold)
        fold = dataset.folds[0] if fold is None else fold
    elif _has_official_split(dataset):
        in_test, in_validation, sentence = _official_split(dataset)
    elif fold is not None:
        in_test, sentence = _dealt_fold(dataset, groups, fold=fold, seed=seed)
    else:
        in_test, sentence = _drawn_test(dataset, groups, seed=seed)
    refuse_untrained(dataset, ~in_test & ~in_validation, sentence)
    validation_sentence = "validation part: the official `val` split"
    if not in_validation.any():
        in_validation, validation_sentence = _drawn_validation(
            dataset, groups, ~in_test, seed=seed, fraction=validation
        )
    in_train = ~in_test & ~in_validation
    sizes = f"{in_train.sum()} train, {in_validation.sum()} validation, {in_test.sum()} test {dataset.noun}s"
    return Split(
        train=np.flatnonzero(in_train),
        validation=np.flatnonzero(in_validation),
        test=np.flatnonzero(in_test),
        protocol="; ".join([sentence, validation_sentence, sizes, *_notes(dataset, groups, in_test)]),
        fold=fold,
    )


def _held_out(dataset: Dataset, *, seed: int, validation: float) -> Split:
    """The parts of clips that a model has labeled: drawn by group, whatever the labels; a `split` of train is kept."""
    groups = group_ids(dataset)
    fixed = np.zeros(groups.max() + 1, dtype=bool)
    fixed[groups[dataset.arrays.splits.equals("train")]] = True
    order = _order(dataset, np.arange(len(dataset)), groups)
    order = np.random.default_rng([seed, 3]).permutation(order[~fixed[order]])
    drawn = np.cumsum(np.bincount(groups)[order])
    part = np.zeros(len(fixed), dtype=np.int64)  # 0 trains
    to_test = UNLABELED_TEST_FRACTION * len(dataset)
    to_validation = to_test + validation * (len(dataset) - to_test)
    part[order[drawn <= to_validation]] = 1
    part[order[drawn <= to_test]] = 2
    if not (part == 2).any() and len(order) > 2:  # every group is larger than the part
        part[order[0]] = 2
    if validation and not (part == 1).any() and len(order) > 2:
        part[order[1]] = 1
    train, chosen, test = (np.flatnonzero(part[groups] == number) for number in range(3))
    if not (len(train) and len(test)):
        raise DataRefused(
            f"{dataset.path}: no test part can be held out by {_grouped_by(dataset)}: {len(order)} groups have answers "
            "of the teacher, and at least three are needed."
        )
    how = f"drawn by {_grouped_by(dataset)} from seed {seed}, labeled by {dataset.labeled_by}"
    sizes = f"{len(train)} train, {len(chosen)} validation, {len(test)} test {dataset.noun}s"
    return Split(
        train=train,
        validation=chosen,
        test=test,
        protocol=f"{len(test) / len(dataset):.0%} of the {dataset.noun}s, {how}, are the test part; {sizes}",
    )


# ---------------------------------------------------------------- what must stay together


def group_ids(dataset: Dataset) -> Int[np.ndarray, "item"]:
    """A number for each item, equal for items that must stay together: those of one group, and those of one file.

    Rows of a table of text stay together by their group alone.
    """
    return connected(dataset.arrays.files, dataset.arrays.groups.codes)


def _grouped_by(dataset: Dataset) -> str:
    """The word for what stays together: the column of the groups, or the file."""
    if (dataset.arrays.groups.codes >= 0).any():
        return f"`{dataset.group_name or 'group'}`"
    return modality_of(dataset.modality).alone


# ---------------------------------------------------------------- the test part


def _has_official_split(dataset: Dataset) -> bool:
    return len(dataset.arrays.splits.present) > 1


def _official_fold(dataset: Dataset, fold: str | None) -> tuple[Bool[np.ndarray, "item"], str]:
    name = dataset.folds[0] if fold is None else fold
    first = ", the first as none was named" if fold is None else ""
    source = dataset.fold_name or "fold"
    source = f"`{source}` folders" if source.endswith("/") else f"`{source}` column"
    sentence = f"fold {name} of {len(dataset.folds)} (official {source}{first}) is the test part"
    return dataset.arrays.folds.equals(name), sentence


def _official_split(dataset: Dataset) -> tuple[Bool[np.ndarray, "item"], Bool[np.ndarray, "item"], str]:
    in_test = dataset.arrays.splits.equals("test")
    in_validation = dataset.arrays.splits.equals("validation")
    if in_test.any() and (in_test | in_validation).all():  # some call what they train on `development`
        sentence = "the official `test` split is the test part; the `val` split trains, as there is no `train` split"
        return in_test, np.zeros_like(in_test), sentence
    if in_test.any():
        return in_test, in_validation, "the official `test` split is the test part"
    # Scores on such data are reported on its held-out split, so nobody may choose by it.
    sentence = "the official `val` split is the test part, as there is no `test` split"
    return in_validation, np.zeros_like(in_test), sentence


def _drawn_test(
    dataset: Dataset, groups: Int[np.ndarray, "item"], *, seed: int
) -> tuple[Bool[np.ndarray, "item"], str]:
    rng = np.random.default_rng([seed, 0])
    in_test = _draw(dataset, np.arange(len(dataset)), groups, fraction=TEST_FRACTION, every_class=True, rng=rng)
    if not in_test.any():
        raise DataRefused(_why_no_test(dataset))
    how = f"drawn by {_grouped_by(dataset)} and stratified by label from seed {seed}"
    return in_test, f"{in_test.mean():.0%} of the {dataset.noun}s, {how}, are the test part"


def _dealt_fold(
    dataset: Dataset, groups: Int[np.ndarray, "item"], *, fold: str, seed: int
) -> tuple[Bool[np.ndarray, "item"], str]:
    folds = split_folds(dataset)
    order = _order(dataset, np.arange(len(dataset)), groups)
    dealt = np.empty(len(order), dtype=np.int64)
    rows, rng = dataset.label_rows, np.random.default_rng([seed, 2])
    if _many(dataset, order):
        dealt[order] = deal_many(rows, groups, order, folds=len(folds), rng=rng)
    else:
        dealt[order] = _deal(_by_group(rows, groups)[order], len(folds), rng)
    how = f"dealt out by {_grouped_by(dataset)} and stratified by label from seed {seed}"
    return (dealt == folds.index(fold))[groups], f"fold {fold} of {len(folds)}, {how}, is the test part"


def _refuse_one_fold(dataset: Dataset) -> None:
    if dataset.fold_name is not None and len(dataset.arrays.folds.present) == 1:
        raise DataRefused(
            f"the column {dataset.fold_name!r} of {dataset.path} holds one fold only ({dataset.items[0].fold}): at "
            "least two are needed."
        )


def refuse_untrained(dataset: Dataset, kept: Bool[np.ndarray, "item"], sentence: str) -> None:
    """Refuses to train on these items alone if a class has none of them.

    Args:
        sentence: when that is so, for the message
    """
    if dataset.labeled_by is not None:  # which teaches more than what passes a threshold
        return
    rows = dataset.label_rows
    lost = [dataset.labels[column] for column in np.flatnonzero(rows.any(0) & ~rows.only(kept).any(0))]
    if lost:
        more = f" (and {len(lost) - 1} more such classes)" if len(lost) > 1 else ""
        raise DataRefused(
            f"the class {lost[0]!r} of {dataset.root} has no {dataset.noun} to train on{more} when {sentence}."
        )


def _why_no_test(dataset: Dataset) -> str:
    more = modality_of(dataset.modality).plural
    return (
        f"no test part can be cut by {_grouped_by(dataset)} from {dataset.root}, as each group holds all "
        f"{dataset.noun}s of some class: add {more}, or name another column with --group."
    )


def _notes(dataset: Dataset, groups: Int[np.ndarray, "item"], in_test: Bool[np.ndarray, "item"]) -> list[str]:
    """What a reader of the score must know about the test part."""
    notes = []
    tested = np.bincount(groups, weights=in_test)
    shared = int(((tested > 0) & (tested < np.bincount(groups))).sum())
    if shared:  # only official cuts do this; ours keep groups whole
        notes.append(f"note: {shared} groups by {_grouped_by(dataset)} lie on both sides of this official cut")
    rows = dataset.label_rows
    absent = [dataset.labels[column] for column in np.flatnonzero(rows.any(0) & ~rows.only(in_test).any(0))]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        one = f"{modality_of(dataset.modality).article} {dataset.noun}"
        notes.append(f"note: classes without {one} in the test part: {', '.join(absent[:5])}{more}")
    return notes


# ---------------------------------------------------------------- the validation part


def _drawn_validation(
    dataset: Dataset, groups: Int[np.ndarray, "item"], rest: Bool[np.ndarray, "item"], *, seed: int, fraction: float
) -> tuple[Bool[np.ndarray, "item"], str]:
    if fraction == 0:
        return np.zeros(len(dataset), dtype=bool), "no validation part, as none was asked for"
    rows = np.flatnonzero(rest)
    files = dataset.arrays.files[rows]
    grouped_by, alone = _grouped_by(dataset), modality_of(dataset.modality).alone
    for ids, by in ((groups[rows], grouped_by), (files, alone)):
        rng = np.random.default_rng([seed, 1])
        chosen = np.zeros(len(dataset), dtype=bool)
        chosen[rows] = _draw(dataset, rows, ids, fraction=fraction, every_class=False, rng=rng)
        drawn = chosen.sum() / len(rows)
        if 0 < drawn <= LARGEST_VALIDATION_FRACTION or (by == alone and chosen.any()):
            why = "" if by == grouped_by else f", as too few groups of {grouped_by} are left to spare one"
            return chosen, f"validation part: {drawn:.0%} of the rest by {by}{why}"
    sentence = f"no validation part, as every class needs all its {dataset.noun}s for training"
    return np.zeros(len(dataset), dtype=bool), sentence


# ---------------------------------------------------------------- drawing and dealing groups


def _by_group(rows: LabelRows, groups: Int[np.ndarray, "item"]) -> Int[np.ndarray, "group column"]:
    """Items of each stratum in each group: of each label, and those without one, where there are some; the last column
    counts all items."""
    width, number = rows.number + 2, groups.max() + 1
    unlabeled = groups[~rows.any(1)]
    entries = [np.repeat(groups, rows.sum(1)) * width + rows.columns, unlabeled * width + rows.number]
    places = np.concatenate([*entries, groups * width + rows.number + 1])
    counts = np.bincount(places, minlength=number * width).reshape(number, width)
    return counts[:, counts.any(axis=0)]


def _movable(counts: Int[np.ndarray, "group column"]) -> Bool[np.ndarray, "group"]:
    """The groups that may leave the training part: every class they hold lies elsewhere too."""
    return ((counts == 0) | (counts < counts.sum(axis=0))).all(axis=1)


def _order(dataset: Dataset, rows: Int[np.ndarray, "row"], groups: Int[np.ndarray, "row"]) -> Int[np.ndarray, "group"]:
    """The groups in the order of their first file's name, so that a part does not depend on the order of the rows."""
    in_order = np.lexsort([dataset.arrays.starts[rows], dataset.name_ranks[rows]])
    _, first = np.unique(groups[in_order], return_index=True)
    return groups[in_order][np.sort(first)]


def _many(dataset: Dataset, order: Int[np.ndarray, "group"]) -> bool:
    """Whether there are too many groups for a table of their labels."""
    return len(order) > MANY_GROUPS or len(order) * len(dataset.labels) > LARGE_TABLE


def _draw(
    dataset: Dataset,
    rows: Int[np.ndarray, "row"],
    groups: Int[np.ndarray, "row"],
    *,
    fraction: float,
    every_class: bool,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "row"]:
    """Draws whole groups with about `fraction` of the items of every stratum, leaving at least one of each behind.

    With `every_class`, a class too small for that gives its smallest group rather than none. Nothing is drawn only
    when no group may leave.
    """
    _, groups = np.unique(groups, return_inverse=True)
    order = _order(dataset, rows, groups)
    if _many(dataset, order):
        chosen = draw_many(
            dataset.label_rows.only(rows), groups, order, fraction=fraction, every_class=every_class, rng=rng
        )
        return chosen[groups]
    counts = _by_group(dataset.label_rows.only(rows), groups)[order]
    total = counts.sum(axis=0)
    target = fraction * total
    movable = np.flatnonzero(_movable(counts))
    # A part that need not hold every class must still get its size, so all strata together weigh as much as that.
    weights = np.append(np.full(len(total) - 1, 1 / (len(total) - 1)), 1.0)
    if every_class:
        weights = np.ones(len(total))
        held = counts[movable, :-1]
        smallest = np.where(held > 0, held, np.inf).min(axis=0, initial=np.inf)
        wanted = np.where(np.isfinite(smallest), np.maximum(target[:-1], smallest), target[:-1])
        target = np.append(wanted, target[-1] * wanted.sum() / target[:-1].sum())
    scale = weights / target
    best, best_cost = np.zeros(len(counts), dtype=bool), np.inf
    # A large group drawn early spoils the fractions, so several orders are tried; with many groups all are as good.
    for _ in range(int(np.clip(10_000 // len(counts), 1, 5))):
        chosen, cost = _fill(counts, target, scale, rng.permutation(movable))
        if cost < best_cost:
            best, best_cost = chosen, cost
    drawn = np.zeros(len(order), dtype=bool)
    drawn[order] = best
    return drawn[groups]


def _fill(
    counts: Int[np.ndarray, "group column"],
    target: Float[np.ndarray, "column"],
    scale: Float[np.ndarray, "column"],
    order: Int[np.ndarray, "movable"],
) -> tuple[Bool[np.ndarray, "group"], float]:
    """Takes groups in order that bring the sums closer to the target; also returns the distance left.

    The first rounds take only what fits every column, so that no stratum is overfilled because others still lack.
    """
    total = counts.sum(axis=0)
    taken = np.zeros(len(target), dtype=np.int64)
    chosen = np.zeros(len(counts), dtype=bool)
    for slack in (0, 1, np.inf):
        for group in order:
            after = taken + counts[group]
            if chosen[group] or (after >= total)[counts[group] > 0].any():
                continue
            if (after > target + slack)[counts[group] > 0].any():
                continue
            if (scale * ((after - target) ** 2 - (taken - target) ** 2)).sum() < 0:
                chosen[group], taken = True, after
    if not chosen.any() and len(order):  # every group overshoots: the nearest one is better than none
        group = order[np.argmin((scale * (counts[order] - target) ** 2).sum(axis=1))]
        chosen[group], taken = True, counts[group]
    return chosen, float((scale * (taken - target) ** 2).sum())


def _deal(counts: Int[np.ndarray, "group column"], folds: int, rng: np.random.Generator) -> Int[np.ndarray, "group"]:
    """Deals groups into folds of about equal size, largest first; -1 for a group that must always train.

    No fold gets all items of a class. An empty fold takes any movable group and is always the cheapest, so none stays
    empty.
    """
    total = counts.sum(axis=0)
    scale = folds / total
    held = np.zeros((folds, len(total)), dtype=np.int64)
    fold_of = np.full(len(counts), -1, dtype=np.int64)
    order = rng.permutation(np.flatnonzero(_movable(counts)))
    for group in order[np.argsort(-counts[order, -1], kind="stable")]:
        after = held + counts[group]
        cost = (scale * ((after - total / folds) ** 2 - (held - total / folds) ** 2)).sum(axis=1)
        cost[(after >= total)[:, counts[group] > 0].any(axis=1)] = np.inf
        fold = int(np.argmin(cost))
        if np.isfinite(cost[fold]):
            fold_of[group], held[fold] = fold, after[fold]
    return fold_of
