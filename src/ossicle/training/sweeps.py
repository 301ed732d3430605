"""A sweep: a training for each combination of some settings, in a folder each, and a table that compares them.

    SWEEP/
        lr=0.0001,seed=0/   the run of these settings, as any other; see `run`
        sweep.csv           a row for each run: settings, validation score of the best epoch, test metrics
        sweep.md, sweep.html    the same, sorted, and mean and deviation over the seeds

The table is written anew after every run. It is sorted by the validation score, and a run chosen by it: the test scores
stand beside it and have no part in the choice.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Unpack

import torch

from ossicle.allocator import keep_freed_memory
from ossicle.data import Dataset
from ossicle.data.cache import open_store
from ossicle.errors import RunRefused, SettingRefused, ending, first_line
from ossicle.evaluation import CONFIG
from ossicle.files import cache_folder, locked, write_atomically
from ossicle.jobs.store import HIDDEN, LOCK
from ossicle.report import Section, Table, aligned_lines, markdown_table, number, write_report
from ossicle.training.callbacks import csv_text, score_name
from ossicle.training.config import (
    NO_OUTPUT,
    Config,
    FitConfig,
    TrainConfig,
    TuneConfig,
    check_acting,
    text_of,
    with_settings,
)
from ossicle.training.estimate import duration, logged
from ossicle.training.initial import build, frontend_of
from ossicle.training.lesson import UNHEARD, read_taught
from ossicle.training.ranks import settle_processes
from ossicle.training.recipes import default_recipe
from ossicle.training.resume import continued
from ossicle.training.run import RunOptions, free_folder
from ossicle.training.teachers import name_of
from ossicle.training.tracking import checked_loggers
from ossicle.training.train_network import train
from ossicle.training.tune_head import tune

logger = logging.getLogger(__name__)
PAGE = "sweep.html"
Grid = Mapping[str, Any]  # the values of each setting, or one
LONGEST_NAME = 120  # characters
# Metrics of the test part that are shown, by task.
TESTED = {
    "single-label": {"balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"},
    "multi-label": {"mean_average_precision": "mAP"},
}
CHOICE = (
    "Sorted by the validation score of each run's best epoch: the choice is made on the validation part, where the "
    "best of several scores is optimistic. The test part has no part in it."
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run to be done: its folder, its settings, and those of them that differ between the runs."""

    folder: Path
    config: Any  # TrainConfig or TuneConfig
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep, and what came out."""

    folder: Path
    settings: Mapping[str, Any]
    """Those that differ between the runs."""
    val_score: float | None = None
    """Of the best epoch; mean over folds where there are several."""
    val_loss: float = math.inf
    """Of the same epoch; it decides between equal scores."""
    test: Mapping[str, float] = field(default_factory=dict)
    """The metrics of the test part by name, as in `metrics.json`."""
    epochs: int = 0
    seconds: float = 0.0
    task: str = ""
    failures: tuple[str, ...] = ()
    """A sentence for each recording that was left out."""
    error: str | None = None
    """Why there is no result, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The runs of a sweep by their validation scores, best first; those without one come last."""

    folder: Path
    runs: tuple[SweepRun, ...]

    @property
    def best(self) -> SweepRun | None:
        """The run with the best validation score; of several seeds, that of the settings whose mean is best."""
        (group, *_) = seed_groups(self.runs)
        return group[0] if group and group[0].val_score is not None else None

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each run without a result, and for each recording that was left out."""
        failed = (f"{run.folder.name}: {run.error}" for run in self.runs if run.error is not None)
        return (*failed, *dict.fromkeys(one for run in self.runs for one in run.failures))


def sweep(
    data: str | os.PathLike[str] | Dataset,
    config: TrainConfig | TuneConfig | None = None,
    *,
    grid: Grid,
    cluster: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    **options: Unpack[RunOptions],
) -> SweepResult:
    """Trains with every combination of some settings and compares the runs by their validation scores.

    >>> result = ossicle.sweep("sounds", grid={"lr": [1e-4, 4e-4], "seed": [0, 1, 2]})  # doctest: +SKIP
    >>> result.best.settings  # doctest: +SKIP

    Decoded samples and features are shared by all runs. A run that fails is listed with its reason, and the others go
    on. With `resume` finished runs are kept, the one that was stopped continues, and new values may be added.

    Args:
        config: the settings that all runs share, by default those of the recipe `general`; a `TuneConfig` names the
            encoder and makes each run a tuning.
        grid: values of each setting, by its name.
        cluster: address of a Ray cluster that trains several runs at once, or "local"; each has a GPU to itself if the
            cluster has any, else a core.
        cache, options: as for `train`; `output` is the folder of the sweep.

    Raises:
        SettingRefused: a setting or a value that does not exist, or two equal combinations; nothing has started.
        RunRefused: a folder that holds something else.
        DataRefused: data that cannot be read.
    """
    output, resume = options.pop("output", None), options.pop("resume", False)
    checked_loggers(options.get("logger"), several=True)
    if output is None and resume:
        raise RunRefused(NO_OUTPUT)
    start: Any = config or default_recipe()
    combinations = combined(start, grid)
    if isinstance(start, TrainConfig):
        configs = [settled for _, settled in combinations]
        if not isinstance(data, Dataset):
            reading = next((one for one in configs if not one.unlabeled), configs[0])  # labels, if any run needs them
            data = read_taught(data, reading, given(options.get("columns")))
        check_networks(configs, data)
    title = data.root.name if isinstance(data, Dataset) else Path(data).name
    folder = free_folder(Path("runs") / f"{title}-sweep") if output is None else Path(output)
    members = members_of(combinations, folder)
    refuse(folder, members, resume=resume)
    logger.info(f"Sweep folder: {folder}, {len(members)} runs")
    shared: dict[str, Any] = {**options, "cache": None if cache is None else Path(cache)}
    with held(folder):
        done: dict[Path, SweepRun] = {}
        outcomes = train_here(members, data, shared) if cluster is None else train_on(cluster, members, data, shared)
        try:
            for member, failures, error in outcomes:
                done[member.folder] = result_of(member, failures=failures, error=error)
                if error is not None:
                    logger.warning(f"{member.folder.name}: {error}")
                else:
                    logger.info(f"{len(done)} of {len(members)} runs are done: {member.folder.name}")
                write_tables(folder, ordered(done.values()), title=title)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Stopped; the same command with --resume -o {folder} continues.") from None
    result = SweepResult(folder=folder, runs=ordered(done.values()))
    for line in aligned_lines(tables_of(result.runs)[0].rows):
        logger.info(line)
    logger.info(CHOICE)
    if result.best is not None:
        by = " by the mean over the seeds" if "seed" in grid and len(grid) > 1 else ""
        logger.info(f"Best on the validation part{by}: {result.best.folder}")
    logger.info(f"All runs: {folder / PAGE}")
    return result


# --- which runs ------------------------------------------------------------------------------------------------------


def combined(config: Config, grid: Grid) -> list[tuple[dict[str, Any], Config]]:
    """Every combination of the values, and the settings with it; the last setting changes fastest.

    Raises: SettingRefused for one that does not exist or would do nothing, for no value, and for equal combinations.
    """
    values = {
        name: list(own) if isinstance(own, Iterable) and not isinstance(own, str) else [own]
        for name, own in grid.items()
    }
    if empty := [name for name, own in values.items() if not own] or ([] if values else ["grid"]):
        raise SettingRefused(f"{empty[0]}: a sweep needs at least one value of each setting.")
    found: list[tuple[dict[str, Any], Config]] = []
    for chosen in itertools.product(*values.values()):
        asked = dict(zip(values, chosen, strict=True))
        settled = with_settings(config, asked)
        check_acting(settled, asked)
        settings = {name: value_of(settled, name) for name in asked}
        if any(settled == other for _, other in found):
            raise SettingRefused(f"{described(settings)} is there twice.")
        found.append((settings, settled))
    return found


def value_of(config: FitConfig, name: str) -> Any:
    """The value of a setting, or of one option of a part of them (`network.NAME`)."""
    part, dot, option = name.partition(".")
    return getattr(config, part)[option] if dot else getattr(config, name)


def described(settings: Mapping[str, Any]) -> str:
    """Settings as one line: the name of a run."""
    return ",".join(f"{name}={text_of(value)}" for name, value in settings.items())


def members_of(combinations: Sequence[tuple[dict[str, Any], FitConfig]], folder: Path) -> list[Member]:
    """The runs, each in a folder that its settings name."""
    names: dict[str, Member] = {}
    for settings, config in combinations:
        name = full = re.sub(r"[^\w.,+=-]+", "-", described(settings))
        if len(name) > LONGEST_NAME or name in names:
            digest = hashlib.sha256(described(settings).encode()).hexdigest()[:8]
            name = f"{full[:LONGEST_NAME]}-{digest}"
        names[name] = Member(folder=folder / name, config=config, settings=settings)
    return list(names.values())


def check_networks(configs: Iterable[TrainConfig], dataset: Dataset) -> None:
    """Raises what a network that cannot be built raises, before anything starts."""
    for config in configs:
        frontend_of(config)
        with torch.device("meta"):
            build(config, num_classes=len(dataset.labels) or 1)  # a teacher may name them later


def refuse(folder: Path, members: Sequence[Member], *, resume: bool) -> None:
    """Refuses a folder that holds something else, other settings than those that a run was begun with, and processes.

    Raises: RunRefused, SettingRefused.
    """
    for member in members:
        config = member.config
        if isinstance(config, TrainConfig):
            config = settle_processes(config)
            if config.devices * config.nodes > 1:
                raise SettingRefused(
                    f"a sweep trains each run in one process, not in {config.devices * config.nodes}; leave devices "
                    "and nodes at 1, and train several runs at once with --cluster."
                )
    if (folder / CONFIG).exists():
        raise RunRefused(f"{folder}: holds a run and no sweep; choose another folder with -o.")
    if not resume and folder.is_dir() and any(path.name != HIDDEN for path in folder.iterdir()):
        raise RunRefused(f"{folder}: holds a sweep or other files; continue with --resume or choose another with -o.")
    if resume and not folder.is_dir():
        raise RunRefused(f"{folder}: no sweep to continue; --resume needs -o SWEEP, the folder of one.")
    for member in members:
        refuse_other(member)


def refuse_other(member: Member) -> None:
    """Raises SettingRefused for other settings than those that a run was begun with.

    The run compares the encoder itself, which goes by its fingerprint, and what its teachers decide.
    """
    config, later = member.config, ["encoder"]
    if isinstance(config, TrainConfig) and config.teachers:
        config = dataclasses.replace(config, teachers=[name_of(one) for one in config.teachers])
        later = ["window", *UNHEARD]
    continued(config, member.folder, later=later)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks the folder of a sweep.

    Raises: RunRefused where another process has it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / HIDDEN / LOCK))
        except BlockingIOError:
            raise RunRefused(
                f"{folder}: another process does this sweep; wait for it, or choose another folder."
            ) from None
        yield


# --- doing them ------------------------------------------------------------------------------------------------------

Outcome = tuple[Member, tuple[str, ...], str | None]  # what was left out, and why there is no result


def train_here(members: Sequence[Member], data: Any, options: Mapping[str, Any]) -> Iterator[Outcome]:
    """Trains one after the other in this process."""
    for position, member in enumerate(members, 1):
        logger.info(f"Run {position} of {len(members)}: {member.folder.name}")
        try:
            yield member, train_member(member, data, options), None
        except Exception as error:  # a run that needs too much memory, say, must not take the others with it
            if ending(error) is None:  # a mistake of ours keeps its traceback
                logger.warning(traceback.format_exc())
            yield member, (), reason_for(error)


def train_member(member: Member, data: Any, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Trains one run, or goes on with it, and gives a sentence for each recording that was left out."""
    how: dict[str, Any] = {**options, "output": member.folder, "resume": True}
    if isinstance(member.config, TuneConfig):
        return tune(member.config.encoder, data, member.config, **how).failures
    return train(data, member.config, **how).failures


def reason_for(error: Exception) -> str:
    """Why a run failed, in a sentence."""
    how = ending(error)
    return f"{type(error).__name__}: {first_line(error)}" if how is None else how[0]


def train_on(address: str, members: Sequence[Member], data: Any, options: Mapping[str, Any]) -> Iterator[Outcome]:
    """Trains on a Ray cluster, as many at once as it has GPUs, or else cores. Every node finds data, encoders and the
    sweep's folder at the paths that they have here.

    Raises: ExtraMissing, JobStopped as `connected`.
    """
    from ossicle.jobs.cluster import connected, reason_of

    decode_once(members, data, options)
    with connected(address) as ray:
        there = ray.cluster_resources()
        cores, gpus = int(there.get("CPU", 1)), int(there.get("GPU", 0))
        needs = {"num_cpus": max(1, cores // gpus), "num_gpus": 1} if gpus else {"num_cpus": 1}
        logger.info(f"{address}: {min(gpus or cores, len(members))} runs at once, on {cores} cores and {gpus} GPUs")
        task = ray.remote(**needs)(train_in)
        shared = ray.put((data, {**options, "progress": False, "cache": options["cache"] or cache_folder()}))
        pending = {task.remote(os.getcwd(), member, shared): member for member in members}
        while pending:
            (ready, *_), _ = ray.wait(list(pending), num_returns=1)
            member = pending.pop(ready)
            try:
                yield member, ray.get(ready), None
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)  # what the run itself has raised
                yield member, (), reason_for(cause) if isinstance(cause, Exception) else reason_of(error)


def train_in(home: str, member: Member, shared: tuple[Any, Mapping[str, Any]]) -> tuple[str, ...]:
    """Trains one run in a process of a cluster, where relative paths mean what they mean in `home`."""
    os.chdir(home)
    keep_freed_memory()
    return train_member(member, *shared)


def decode_once(members: Sequence[Member], data: Any, options: Mapping[str, Any]) -> None:
    """Decodes the recordings that several runs would decode at the same time."""
    if not isinstance(data, Dataset):
        return
    rates = {frontend_of(m.config).rate: m.config for m in members if isinstance(m.config, TrainConfig)}
    for rate, config in rates.items():
        open_store(
            data.items,
            rate,
            folder=options["cache"],
            budget_bytes=int(config.cache_gigabytes * 2**30),
            progress=logged("decoded {} of {} recordings"),
        )


# --- what came out ---------------------------------------------------------------------------------------------------


def result_of(member: Member, *, failures: tuple[str, ...] = (), error: str | None = None) -> SweepRun:
    """The result of a run, from the files in its folder."""
    about: dict[str, Any] = {"folder": member.folder, "settings": member.settings, "failures": failures}
    if error is not None:
        return SweepRun(**about, error=error)
    folds = sorted(member.folder.glob("fold_*")) or [member.folder]
    curves = [list(csv.DictReader(io.StringIO((fold / "metrics.csv").read_text()))) for fold in folds]
    best = [
        max((float(row["val_score"]), -float(row["val_loss"])) for row in rows)
        for rows in curves
        if rows[-1].get("val_score")
    ]
    metrics = json.loads((member.folder / "metrics.json").read_text(encoding="utf-8"))
    return SweepRun(
        **about,
        val_score=fmean(score for score, _ in best) if best else None,
        val_loss=-fmean(loss for _, loss in best) if best else math.inf,
        test={name: one["value"] for name, one in metrics["headline"].items() if one["value"] is not None},
        epochs=sum(map(len, curves)),
        seconds=sum(float(rows[-1]["seconds"]) for rows in curves),
        task=metrics["task"],
    )


def ordered(runs: Iterable[SweepRun]) -> tuple[SweepRun, ...]:
    """By validation score, best first; then those without one, then those that failed."""

    def place(run: SweepRun) -> tuple[bool, float, float]:
        return run.error is not None, -score_or_least(run), run.val_loss

    return tuple(sorted(runs, key=place))


def score_or_least(run: SweepRun) -> float:
    """The validation score, or less than any."""
    return -math.inf if run.val_score is None else run.val_score


def seed_groups(runs: Iterable[SweepRun]) -> list[list[SweepRun]]:
    """Runs of which only the seed differs, by their mean validation score; each run for itself without a seed."""
    groups: dict[tuple[Any, ...], list[SweepRun]] = {}
    for run in runs:
        key = tuple(str(value) for name, value in run.settings.items() if name != "seed")
        groups.setdefault(key, []).append(run)

    def mean(group: list[SweepRun]) -> float:
        return fmean([score_or_least(run) for run in group if run.error is None] or [-math.inf])

    return sorted(groups.values(), key=mean, reverse=True)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table of text; the first row is the header, the first columns are settings."""

    caption: str
    rows: list[list[str]]
    settings: int


def tables_of(runs: Sequence[SweepRun]) -> list[Comparison]:
    """Where only the seed differs mean and deviation, then every run."""
    task = next((run.task for run in runs if run.task), "single-label")
    names = TESTED[task]
    columns = [f"validation {score_name(task)}", *(f"test {shown}" for shown in names.values())]
    settings = list(runs[0].settings)

    def scores(run: SweepRun) -> list[float | None]:
        return [run.val_score, *(run.test.get(name) for name in names)]

    def text(run: SweepRun) -> list[str]:
        cells = [*map(number, scores(run)), str(run.epochs), duration(run.seconds)]
        return [
            *map(text_of, run.settings.values()),
            *(cells if run.error is None else ["failed", *[""] * (len(cells) - 1)]),
        ]

    rows = [[*settings, *columns, "epochs", "time"], *map(text, runs)]
    every = Comparison(caption="Every run", rows=rows, settings=len(settings))
    others = [name for name in settings if name != "seed"]
    if len(others) == len(settings):
        return [every]
    rows = [[*(others or ["settings"]), "seeds", *columns]]
    for group in seed_groups(runs):
        good = [run for run in group if run.error is None]
        cells = [mean_and_deviation(column) for column in zip(*map(scores, good), strict=True)]
        values = [text_of(group[0].settings[name]) for name in others] or ["all"]
        rows.append([*values, str(len(good)), *(cells or ["failed", *[""] * len(names)])])
    return [
        Comparison(caption="Mean over the seeds ± standard deviation", rows=rows, settings=max(len(others), 1)),
        every,
    ]


def mean_and_deviation(scores: Sequence[float | None]) -> str:
    """The mean of some scores, and of several the standard deviation of the sample."""
    values = [score for score in scores if score is not None]
    if not values:
        return number(None)
    return number(fmean(values)) + (f" ± {number(stdev(values))}" if len(values) > 1 else "")


def write_tables(folder: Path, runs: Sequence[SweepRun], *, title: str) -> None:
    """Writes the table as CSV, Markdown and HTML."""
    failed = [f"{run.folder.name} has failed: {run.error}" for run in runs if run.error is not None]
    tables = tables_of(runs)
    write_atomically(folder / "sweep.csv", csv_text([row_of(run) for run in runs]))
    parts = [f"# {title}: sweep", CHOICE, *failed]
    for table in tables:
        parts += [f"{table.caption}:", markdown_table(table.rows).rstrip()]
    write_atomically(folder / "sweep.md", "\n\n".join(parts) + "\n")
    drawn = [
        Table(header=table.rows[0], rows=table.rows[1:], caption=table.caption, words=range(table.settings))
        for table in tables
    ]
    section = Section(title="Runs", blocks=[CHOICE, *failed, *drawn])
    write_report(folder / PAGE, title=f"{title}: sweep", sections=[section])


def row_of(run: SweepRun) -> dict[str, Any]:
    """A run as a row of `sweep.csv`."""
    return {
        "run": run.folder.name,
        **{name: text_of(value) for name, value in run.settings.items()},
        "val_score": "" if run.val_score is None else run.val_score,
        **{f"test_{name}": value for name, value in run.test.items()},
        "epochs": run.epochs,
        "seconds": run.seconds,
        "error": run.error or "",
    }


def given(columns: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns that are named."""
    return {name: value for name, value in (columns or {}).items() if value is not None}
