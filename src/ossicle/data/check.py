"""What a data set really holds: every clip is decoded once, and whatever would spoil training or the score is named.

Texts and images are looked at for what they share with sound: files that cannot be used, and content that is there
twice.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ossicle.data.cache import clip_of, in_threads
from ossicle.data.inputs import read_input
from ossicle.data.items import NOUNS, Dataset, Item, Modality
from ossicle.data.splits import group_ids, split_dataset
from ossicle.errors import AudioError, DataRefused, ImageRefused

SILENCE = 1e-5  # peak below this: -100 dB of full scale
FULL_SCALE = 0.999
CLIPPED_SHARE = 1e-3  # of a clip's samples at full scale
SLACK_SECONDS = 0.05  # by which a segment may outlast its recording: tables round
SHOWN = 10  # names under each kind of problem
FIRST_RATE = 32_000

# In the order of printing. The first two are clips that cannot be used; at the others somebody should look.
Kind = Literal["missing", "broken", "odd", "silent", "clipped", "cut short", "contradiction", "leak", "repeated"]
MEANING: Mapping[Kind, str] = {
    "missing": "no such file",
    "broken": "cannot be decoded, or lies outside the limits",
    "odd": "used, but somebody should know",
    "silent": "no sound at all",
    "clipped": "many samples at full scale",
    "cut short": "the segment ends after the recording",
    "contradiction": "the same {modality} with other labels",
    "leak": "the same {modality} in another group, fold or split: a test would flatter",
    "repeated": "the same {modality} twice",
}
FAILURES = frozenset({"missing", "broken"})


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One clip that somebody should look at; `file` is relative to the data set's root."""

    kind: Kind
    file: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Counts, lengths, rates and problems of a data set; `lines()` prints them, `to_json()` keeps them.

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
    modality: Modality = "sound"

    @property
    def failed(self) -> tuple[Problem, ...]:
        """The clips that cannot be used at all."""
        return tuple(problem for problem in self.problems if problem.kind in FAILURES)

    def lines(self) -> list[str]:
        """The report as lines of text for a terminal."""
        noun = NOUNS[self.modality]
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


def check_dataset(dataset: Dataset, *, progress: Callable[[int, int], None] = lambda done, total: None) -> DataReport:
    """Decodes every clip and reports what is there and what is wrong; a bad file never stops it.

    Args:
        progress: called with the number of clips done and the number of all.
    """
    heard: list[_ClipFacts] = []
    if dataset.modality == "sound":
        rate = _listen(dataset.items[0], FIRST_RATE).rate or FIRST_RATE  # most sets have one rate
        examine: Callable[[Item], _ClipFacts] = partial(_listen, rate=rate)
    else:
        examine = partial(_look, modality=dataset.modality)
    # Decoding and resampling leave Python's lock; only the facts about a clip are kept, never its samples.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for facts in pool.map(examine, dataset.items):
            heard.append(facts)
            progress(len(heard), len(dataset.items))
    good = [facts for facts in heard if facts.content and dataset.modality == "sound"]
    problems = [
        Problem(kind=kind, file=_name(dataset, item), detail=detail)
        for item, facts in zip(dataset.items, heard, strict=True)
        for kind, detail in facts.problems
    ]
    problems += _duplicates(dataset, heard)
    protocol, trainable = _protocol(dataset)
    return DataReport(
        layout=dataset.layout,
        protocol=protocol,
        trainable=trainable,
        clips=len(dataset.items),
        labels={label: int(n) for label, n in zip(dataset.labels, dataset.targets().sum(axis=0), strict=True)},
        groups=_count([item.group for item in dataset.items]),
        folds=_count([item.fold for item in dataset.items]),
        splits=_count([item.split for item in dataset.items]),
        seconds=tuple(facts.seconds for facts in good),
        rates=dict(sorted(Counter(facts.rate for facts in good).items())),
        channels=dict(sorted(Counter(facts.channels for facts in good).items())),
        problems=tuple(sorted(problems, key=lambda problem: list(MEANING).index(problem.kind))),
        modality=dataset.modality,
    )


@dataclass(frozen=True, kw_only=True)
class _ClipFacts:
    """What was found out about one clip; `content` is a hash of it, empty for one that cannot be used."""

    problems: tuple[tuple[Kind, str], ...] = ()
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    content: str = ""
    silent: bool = False


def _listen(item: Item, rate: int) -> _ClipFacts:
    if not os.path.isfile(item.file):
        return _ClipFacts(problems=(("missing", "no such file"),))
    try:
        clip = clip_of(item, rate)
        if clip.source_rate != rate:  # resampling moves peaks, so they are judged at the recording's own rate
            clip = clip_of(item, clip.source_rate)
    except AudioError as error:
        return _ClipFacts(problems=(("broken", str(error)),))
    loudness = np.abs(clip.samples)
    silent = bool(loudness.max() < SILENCE)
    problems: list[tuple[Kind, str]] = [("odd", remark) for remark in clip.remarks]
    if silent:
        problems.append(("silent", f"{clip.seconds:.2f} s without sound"))
    share = float((loudness >= FULL_SCALE).mean())
    if share > CLIPPED_SHARE:
        problems.append(("clipped", f"{share:.1%} of the samples at full scale"))
    if short := _too_short(item, clip.seconds):
        problems.append(("cut short", short))
    return _ClipFacts(
        problems=tuple(problems),
        seconds=clip.seconds,
        rate=clip.source_rate,
        channels=clip.source_channels,
        content=hashlib.blake2b(clip.samples.tobytes(), digest_size=16).hexdigest(),
        silent=silent,
    )


def cut_short(
    dataset: Dataset, items: Sequence[Item], *, seconds: Mapping[int, float] | None = None
) -> tuple[str, ...]:
    """A sentence where segments end after their recording: they are used, but shorter than they say.

    Args:
        seconds: how long the items are, by position, those that can be used; by default a segment of each file is
            decoded to know
    """
    if dataset.modality != "sound":
        return ()
    found = _measured(items) if seconds is None else seconds
    short = [
        f"{_name(dataset, item)}: {_too_short(item, found[position])}"
        for position, item in enumerate(items)
        if position in found and _too_short(item, found[position])
    ]
    if not short:
        return ()
    return (f"cut short: {len(short)} of {len(items)} clips ({MEANING['cut short']}), such as {short[0]}",)


def _too_short(item: Item, seconds: float) -> str:
    """What is wrong with a segment of this length, if anything."""
    if item.end is None or seconds >= item.end - item.start - SLACK_SECONDS:
        return ""
    return f"asked for {item.end - item.start:g} s, found {seconds:.2f} s"


def _measured(items: Sequence[Item]) -> dict[int, float]:
    """The seconds of the segments that are cut short, by position; of each file its last one that decodes is read."""
    files: dict[Path, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        if item.end is not None:
            files[item.file].append(position)

    def of_file(positions: list[int]) -> dict[int, float]:
        for item in sorted((items[position] for position in positions), key=lambda item: item.end or 0.0, reverse=True):
            try:
                clip = clip_of(item, FIRST_RATE)
            except AudioError:
                continue  # named where it is used
            if not _too_short(item, clip.seconds):
                return {}
            length = item.start + clip.seconds
            lengths = {position: length - items[position].start for position in positions}
            return {position: seconds for position, seconds in lengths.items() if seconds > 0}
        return {}

    found: dict[int, float] = {}
    for measured in in_threads(of_file, files.values(), workers=os.cpu_count() or 1):
        found |= measured
    return found


def _look(item: Item, modality: Modality) -> _ClipFacts:
    """The content of a text or an image, which has neither length nor rate."""
    if not os.path.isfile(item.file):
        return _ClipFacts(problems=(("missing", "no such file"),))
    try:
        content = read_input(item, modality=modality)
    except ImageRefused as error:
        return _ClipFacts(problems=(("broken", str(error)),))
    size, data = ("", content.encode()) if isinstance(content, str) else (str(content.shape), content.tobytes())
    return _ClipFacts(content=size + hashlib.blake2b(data, digest_size=16).hexdigest())


def _duplicates(dataset: Dataset, heard: Sequence[_ClipFacts]) -> list[Problem]:
    """Clips that are the same as an earlier one; silence is no sound."""
    groups = group_ids(dataset)
    same: dict[tuple[int, str], list[int]] = defaultdict(list)
    for row, facts in enumerate(heard):
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
