"""What a data set really holds: every clip is decoded once, and whatever would spoil training or the score is named.

Texts and images are looked at for what they share with sound: files that cannot be used, and content that is there
twice.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ossicle.data.cache import clip_of
from ossicle.data.dataset import Dataset
from ossicle.data.items import Item
from ossicle.data.modalities import FIRST_RATE, Facts, Kind, modality_of, too_short
from ossicle.data.splits import group_ids, split_dataset
from ossicle.data.threads import in_threads
from ossicle.errors import AudioError, DataRefused

SHOWN = 10  # names under each kind of problem

# In the order of printing. The first two are clips that cannot be used; at the others somebody should look.
MEANING: Mapping[Kind, str] = {
    "missing": "no such file",
    "broken": "cannot be decoded, or lies outside the limits",
    "odd": "used, but somebody should know",
    "silent": "no sound at all",
    "clipped": "many samples at full scale",
    "cut short": "the segment ends after the recording",
    "contradiction": "the same {modality} with other labels",
    "leak": "the same {modality} in another group, fold or split: test scores would be optimistic",
    "repeated": "the same {modality} twice",
}
FAILURES = frozenset({"missing", "broken"})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One clip that somebody should look at; `file` is relative to the data set's root."""

    kind: Kind
    file: str
    detail: str


@dataclass(frozen=True, kw_only=True, repr=False)
class DataReport:
    """Counts, lengths, rates and problems of a data set; `print` shows them, `to_json()` keeps them.

    `labels`, `groups`, `folds`, `splits`, `rates` (hertz) and `channels` map each value to its number of clips;
    `seconds` has one length for each clip that could be decoded.
    """

    layout: str
    protocol: str
    clips: int
    labels: Mapping[str, int]
    groups: Mapping[str, int]
    folds: Mapping[str, int]
    splits: Mapping[str, int]
    seconds: tuple[float, ...]
    rates: Mapping[int, int]
    channels: Mapping[int, int]
    problems: tuple[Problem, ...]
    trainable: bool = True  # a test part can be cut
    modality: str = "sound"

    @property
    def failed(self) -> tuple[Problem, ...]:
        """The clips that cannot be used at all."""
        return tuple(problem for problem in self.problems if problem.kind in FAILURES)

    def __repr__(self) -> str:
        return f"DataReport({self.clips} {modality_of(self.modality).noun}s, {len(self.problems)} problems)"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The report as lines of text for a terminal."""
        noun = modality_of(self.modality).noun
        lines = [self.layout, f"split     {self.protocol}", f"labels    {_spread(self.labels, noun)}"]
        for title, counts in (("groups", self.groups), ("folds", self.folds), ("splits", self.splits)):
            if counts:
                lines.append(f"{title:<9} {_spread(counts, noun)}")
        if self.seconds:
            low, middle, high = np.quantile(self.seconds, [0, 0.5, 1])
            lines.append(
                f"length    {low:.2f} to {high:.2f} s, median {middle:.2f} s, {_total(sum(self.seconds))} in all"
            )
            lines.append("rates     " + ", ".join(f"{rate} Hz {count}" for rate, count in self.rates.items()))
            lines.append("channels  " + ", ".join(f"{number}: {count}" for number, count in self.channels.items()))
        if not self.problems:
            lines.append("problems  none" if self.trainable else "problems  nothing can be trained: see the split")
        for kind, meaning in MEANING.items():
            these = [problem for problem in self.problems if problem.kind == kind]
            if these:
                meant = meaning.format(modality=self.modality)
                lines.append(f"{kind}: {len(these)} of {self.clips} {noun}s ({meant})")
                lines += [f"    {problem.file}: {problem.detail}" for problem in these[:SHOWN]]
                lines += [f"    and {len(these) - SHOWN} more"] if len(these) > SHOWN else []
        return lines

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; the lengths are summed up."""
        low, middle, high = np.quantile(self.seconds, [0, 0.5, 1]).tolist() if self.seconds else (None, None, None)
        lengths = {"min": low, "median": middle, "max": high, "total": sum(self.seconds)}
        counts = {name: dict(getattr(self, name)) for name in ("labels", "groups", "folds", "splits")}
        numbers = {name: {str(key): n for key, n in getattr(self, name).items()} for name in ("rates", "channels")}
        return {
            "layout": self.layout,
            "protocol": self.protocol,
            "clips": self.clips,
            "failed": len(self.failed),
            "trainable": self.trainable,
            **counts,
            "seconds": lengths,
            **numbers,
            "problems": [asdict(problem) for problem in self.problems],
        }


def check_dataset(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Decodes every item and reports what is there and what is wrong; a bad file never stops it.

    Args:
        progress: called with the number of items done and the number of all.

    Example:
        report = check_dataset(read_dataset("sounds"))
        print(report)
        broken = [problem.file for problem in report.failed]
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be what read_dataset returns, got a {type(dataset).__name__}")
    modality = modality_of(dataset.modality)
    # Most sets have one rate.
    examine = partial(modality.facts, rate=modality.facts(dataset.items[0]).rate or None)
    found: list[Facts] = []
    # Decoding and resampling leave Python's lock; only the facts about an item are kept, never its content.
    for facts in in_threads(examine, dataset.items, workers=min(4, os.cpu_count() or 1)):
        found.append(facts)
        if progress is not None:
            progress(len(found), len(dataset.items))
    good = [facts for facts in found if facts.content and modality.timed]
    problems = [
        Problem(kind=kind, file=_name(dataset, item), detail=detail)
        for item, facts in zip(dataset.items, found, strict=True)
        for kind, detail in facts.problems
    ]
    problems += _duplicates(dataset, found)
    protocol, trainable = _protocol(dataset)
    return DataReport(
        layout=dataset.layout,
        protocol=protocol,
        trainable=trainable,
        clips=len(dataset.items),
        labels={label: int(n) for label, n in zip(dataset.labels, dataset.label_rows.sum(0), strict=True)},
        groups=_count([item.group for item in dataset.items]),
        folds=_count([item.fold for item in dataset.items]),
        splits=_count([item.split for item in dataset.items]),
        seconds=tuple(facts.seconds for facts in good),
        rates=dict(sorted(Counter(facts.rate for facts in good).items())),
        channels=dict(sorted(Counter(facts.channels for facts in good).items())),
        problems=tuple(sorted(problems, key=lambda problem: list(MEANING).index(problem.kind))),
        modality=dataset.modality,
    )


def cut_short(
    dataset: Dataset, items: Sequence[Item], *, seconds: Mapping[int, float] | None = None
) -> tuple[str, ...]:
    """A sentence where segments end after their recording: they are used, but shorter than they say.

    Args:
        seconds: how long the items are, by position, those that can be used; by default a segment of each file is
            decoded to know
    """
    found = _measured(items) if seconds is None else seconds
    short = [
        f"{_name(dataset, item)}: {too_short(item, found[position])}"
        for position, item in ((position, items[position]) for position in sorted(found))
        if too_short(item, found[position])
    ]
    if not short:
        return ()
    return (f"cut short: {len(short)} of {len(items)} clips ({MEANING['cut short']}), such as {short[0]}",)


def _measured(items: Sequence[Item]) -> dict[int, float]:
    """The seconds of the segments that are cut short, by position; of each file its last one that decodes is read."""
    files: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        if item.end is not None:
            files[item.place].append(position)

    def of_file(positions: list[int]) -> dict[int, float]:
        for item in sorted((items[position] for position in positions), key=lambda item: item.end or 0.0, reverse=True):
            try:
                clip = clip_of(item, FIRST_RATE)
            except AudioError:
                continue  # named where it is used
            if not too_short(item, clip.seconds):
                return {}
            length = item.start + clip.seconds
            lengths = {position: length - items[position].start for position in positions}
            return {position: seconds for position, seconds in lengths.items() if seconds > 0}
        return {}

    found: dict[int, float] = {}
    for measured in in_threads(of_file, files.values(), workers=os.cpu_count() or 1):
        found |= measured
    return found


def _duplicates(dataset: Dataset, found: Sequence[Facts]) -> list[Problem]:
    """Clips that are the same as an earlier one; silence is no sound."""
    groups = group_ids(dataset)
    same: dict[tuple[int, str], list[int]] = defaultdict(list)
    for row, facts in enumerate(found):
        if facts.content and not facts.silent:
            same[facts.rate, facts.content].append(row)
    problems = []
    for first, *others in same.values():
        one = dataset.items[first]
        for row in others:
            other = dataset.items[row]
            where = _difference(one, other) or ("group" if groups[first] != groups[row] else "")
            kind: Kind = "contradiction" if set(one.labels) != set(other.labels) else "leak" if where else "repeated"
            detail = f"the same {dataset.modality} as {_name(dataset, one)}"
            if kind == "contradiction":
                detail += f", with the labels {_listed(other)} here and {_listed(one)} there"
            elif where:
                detail += f", in another {where}"
            problems.append(Problem(kind=kind, file=_name(dataset, other), detail=detail))
    return problems


def _difference(one: Item, other: Item) -> str:
    """The official part that two items do not share, if any."""
    if one.split != other.split:
        return "split"
    return "fold" if one.fold != other.fold else ""


def _listed(item: Item) -> str:
    return ", ".join(item.labels) or "none"


def _name(dataset: Dataset, item: Item) -> str:
    if item.start == 0 and item.end is None:
        return dataset.relative(item)
    end = "its end" if item.end is None else f"{item.end:g} s"
    return f"{dataset.relative(item)} [{item.start:g} s to {end}]"


def _protocol(dataset: Dataset) -> tuple[str, bool]:
    """How a training would split, or why it could not; and whether it could."""
    try:
        return split_dataset(dataset).protocol, True
    except DataRefused as error:
        return f"none: {error}", False


def _count(values: Sequence[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value for value in values if value is not None).items()))


def _spread(counts: Mapping[str, int], noun: str) -> str:
    """Names with their counts while they fit a few lines, else their number and extremes."""
    if len(set(counts.values())) == 1:
        each = f"{next(iter(counts.values()))} {noun}s each"
        return f"{len(counts)}: {', '.join(counts)}, {each}" if len(counts) <= 12 else f"{len(counts)}, {each}"
    if len(counts) <= 12:
        return f"{len(counts)}: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    ranked = sorted(counts, key=lambda name: counts[name])
    fewest, most = ranked[:3], ranked[:-4:-1]
    middle = float(np.median(list(counts.values())))
    return (
        f"{len(counts)}, median {middle:g} {noun}s; fewest: {', '.join(f'{name} {counts[name]}' for name in fewest)}; "
        f"most: {', '.join(f'{name} {counts[name]}' for name in most)}"
    )


def _total(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
