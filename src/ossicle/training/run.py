"""A run: the folder, the split, the settings, the log and the state of a training, of one fold or of several.

    RUN/
        config.yaml       every setting, resolved, and where the data are
        split.json        which examples trained, chose and tested
        metrics.csv       a row per epoch
        failures.csv      the examples that could not be used, if there are some
        environment.json  versions, machine, seed, fingerprint of the data
        checkpoints/      the state to continue from, and the best weights
        model/            the bundle
        metrics.json, predictions.csv, figures/, report.html    the test part, read once, at the end

With `folds="all"` there is such a folder for each fold, and beside them the metrics of all test clips together.

The test part takes no part in any choice: epoch, thresholds and temperature come from the validation part.
"""

import contextlib
import functools
import gc
import itertools
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, runtime_checkable

import lightning
import numpy as np
import torch
from jaxtyping import Float, Int64

from ossicle import __version__
from ossicle.bundle import Card, open_bundle
from ossicle.data import Dataset, Split, read_dataset, split_dataset, split_folds
from ossicle.data.arrays import TarItems
from ossicle.data.cache import SampleStore, StreamedStore
from ossicle.data.check import cut_short
from ossicle.data.parts import PARTS, contents_of, write_split
from ossicle.data.splits import refuse_untrained
from ossicle.errors import DataRefused, JobStopped, OssicleError, RunRefused, SettingRefused
from ossicle.evaluation import CONFIG, SPLIT
from ossicle.evaluation.parts import COLUMNS
from ossicle.files import FULL, locked, locks_are_local, noted, remove_abandoned, without_slashes, write_json
from ossicle.inference import probabilities
from ossicle.jobs.store import HIDDEN, LOCK
from ossicle.kernels import resolve_kernels, using_kernels
from ossicle.metrics import fit_temperature, fit_thresholds
from ossicle.report import Section, evaluation_lines
from ossicle.training.callbacks import Progress, Recorder
from ossicle.training.config import Config, write_config
from ossicle.training.digests import Digests
from ossicle.training.loader import Items, Windows
from ossicle.training.loop import fit
from ossicle.training.module import TrainingModule
from ossicle.training.ranks import ALONE, Ranks, stoppable
from ossicle.training.results import (
    REPORT,
    FoldResult,
    TrainResult,
    fold_result,
    load_finished,
    pooled,
    save_test_scores,
    sentences,
    write_failures,
)
from ossicle.training.resume import (
    ENVIRONMENT,
    begun_with,
    continued,
    longer,
    refuse_damaged,
    refuse_other_data,
    refuse_taken,
    starting_point,
)
from ossicle.training.tracking import AnyLogger, Tracking, checked_loggers
from ossicle.weights.state import valid_states

logger = logging.getLogger(__name__)
Positions = Int64[np.ndarray, "_"]  # in the data set


@runtime_checkable
class Inputs(Protocol):
    """Decoded samples or features of the examples, and which of them cannot be used."""

    @property
    def failures(self) -> dict[int, str]: ...

    @property
    def usable(self) -> Positions: ...


@runtime_checkable
class Trained(Protocol):
    """A model that has been fitted, and what a run needs of it to test and to save it."""

    @property
    def title(self) -> str:
        """Of the report."""
        ...

    def logits(self, positions: Positions) -> tuple[Float[np.ndarray, "clip label"], Positions]:
        """Logits of these examples, and the positions of those that could be used."""
        ...

    def save(self, folder: Path, *, card: Card, **decisions: Any) -> None:
        """Writes the bundle, with the temperature and the thresholds."""
        ...

    def sections(self) -> Sequence[Section]:
        """Of the report, after those of the evaluation."""
        ...

    def further(self) -> Mapping[str, Any]:
        """Entries of `metrics.json`, after those of the evaluation."""
        ...


class Run(Generic[Config]):
    """The training of one fold, in one folder.

    Made by `Runs`. A trainer decides its settings, calls `begin` once nothing can be refused any more, then `fit`, then
    `conclude`.
    """

    def __init__(self, owner: "Runs[Config]", name: str | None, split: Split) -> None:
        self.owner: Runs[Config] = owner
        self.name: str | None = name
        self.split: Split = split
        self.dataset, self.resume, self.ranks = owner.dataset, owner.resume, owner.ranks
        self.folder = owner.output / without_slashes(f"fold_{name}") if owner.folds == "all" else owner.output
        self.config: Config = owner.config
        loggers = owner.loggers if self.ranks.zero else ()
        self.tracking = Tracking(loggers, folder=self.folder)
        self.finished: FoldResult | None = None
        if self.resume and self.folder.exists():
            self._resume()
        # Measured once, and kept: a resumed run must not choose otherwise.
        kernels = self.ranks.from_zero(lambda: str(resolve_kernels(self.config.kernels)))
        self.config = replace(self.config, kernels=kernels)

    def _resume(self) -> None:
        """Takes over the settings of a fold that was begun; a finished one is read.

        Raises:
            RunRefused: data, or a fold, other than those that it was begun with.
            SettingRefused: settings other than those that it was begun with.
        """
        self.owner.hold(self.folder)
        self.config, before = continued(self.config, self.folder)
        begun = begun_with(self.dataset, self.split, self.folder)
        whole = self.whole()
        if before is not None:
            logger.info(f"{self.folder}: {longer(before, self.config)}.")
        elif whole:
            self.finished = load_finished(self.folder, self.dataset, begun)

    @property
    def late(self) -> bool:
        """Whether what the examples hold is noted at the end: files that are streamed are not all read before."""
        return isinstance(self.owner.inputs, StreamedStore) and not isinstance(self.dataset.items, TarItems)

    def whole(self) -> bool:
        """Names the files that are damaged; True without any, or where no checkpoint is left to make them from."""
        damaged = [file for file in self.owner.damaged if file.is_relative_to(self.folder)]
        found = [f"{file}: damaged, or changed since the run wrote it." for file in damaged]
        if (self.folder / REPORT).exists():
            try:
                open_bundle(self.folder / "model")
            except OssicleError as error:
                found.append(str(error))
        good, bad = valid_states(self.folder / "checkpoints")
        for sentence in found + bad:
            logger.info(sentence)
        if found and good:
            logger.info(f"{self.folder}: what is damaged is made again, from {good[0].name}.")
        return not (found and good)

    def begin(self, config: Config, **about: Any) -> None:
        """Writes the settings, the split and the environment, and so begins the run.

        Args:
            about: further entries of `environment.json`.
        """
        self.config = config
        self.ranks.first(lambda: self._begin(config, about))

    def _begin(self, config: Config, about: Mapping[str, Any]) -> None:
        refuse_taken(self.folder, resume=self.resume)  # again: another training may have begun meanwhile
        self.owner.hold(self.owner.output)
        self.owner.hold(self.folder)
        (self.folder / REPORT).unlink(missing_ok=True)  # first: with it a fold that becomes longer counts as finished
        data = {"path": str(self.dataset.path), **self.owner.columns}
        if self.owner.folds == "all":
            write_config(self.owner.output / CONFIG, self.owner.config, data={**data, "folds": "all"})
        write_config(self.folder / CONFIG, config, data={**data, "folds": self.name})
        write_split(self.folder / SPLIT, self.dataset, self.split, contents=() if self.late else self.owner.contents)
        write_json(self.folder / ENVIRONMENT, environment(self.dataset, config) | dict(about))

    def fit(
        self,
        module: TrainingModule,
        validation: Windows | Items | None,
        *,
        device: torch.device,
        precision: str = "float32",
    ) -> Recorder:
        """Trains, from where the run was stopped; the best epoch's weights stay in the module."""
        recorder = fit(
            module,
            validation,
            targets=self.dataset.label_rows,
            known=self.dataset.known_rows,
            device=device,
            precision=precision,
            folder=self.folder,
            resume=self.resume,
            progress=self.owner.progress,
            tracking=self.tracking,
        )
        recorder.write()  # again, where no epoch was left to do so
        config, epochs = self.config, len(recorder.rows)
        if recorder.improves_no_more and epochs < (config.epochs or 0):
            logger.info(
                f"Stopped at epoch {epochs} of {config.epochs}: no gain of min_delta={config.min_delta:g} in "
                f"patience={config.patience} epochs."
            )
        if recorder.best_epoch >= 0:
            logger.info(f"Best epoch on the validation part: {recorder.best_epoch + 1} of {epochs}.")
        return recorder

    def conclude(self, trained: Trained) -> FoldResult:
        """Fits temperature and thresholds on the validation part, reads the test part, once, and writes its metrics."""
        dataset, targets, known = self.dataset, self.dataset.label_rows, self.dataset.known_rows
        decisions: dict[str, Any] = {}
        if len(self.split.validation):
            logits, used = self.logits(trained, self.split.validation)
            own = None if known is None else known[used]
            decisions["temperature"] = fit_temperature(logits, targets[used], task=dataset.task, known=own)
            scores = probabilities(logits, task=dataset.task, temperature=decisions["temperature"])
            decisions["thresholds"] = fit_thresholds(scores, targets[used], own)
        logits, used = self.logits(trained, self.split.test)
        result = fold_result(
            dataset,
            self.split,
            folder=self.folder,
            tested=used,
            logits=logits,
            temperature=decisions.get("temperature", 1.0),
            thresholds=decisions.get("thresholds"),
        )
        headline = result.evaluation.metrics.headline
        for line in evaluation_lines(result.evaluation.metrics):
            logger.info(line)
        self.tracking.record({f"test_{name}": one.value for name, one in headline.items() if one.value is not None})

        def write() -> None:
            save_test_scores(self.folder, tested=used, logits=logits)
            card = self.card(metrics=sentences(headline))
            trained.save(self.folder / "model", card=card, **decisions)
            if self.late:
                write_split(self.folder / SPLIT, dataset, self.split, contents=self.owner.contents)
            # The report comes last: with it a fold counts as finished.
            result.evaluation.write(
                self.folder, title=trained.title, sections=trained.sections(), further=trained.further()
            )

        self.ranks.first(write)
        return result

    def logits(self, trained: Trained, positions: Positions) -> tuple[Float[np.ndarray, "clip label"], Positions]:
        """The logits of these examples, each scored by one of the processes, and which of them could be used."""
        parts = self.ranks.gather(trained.logits(self.ranks.mine(positions)))
        return np.concatenate([logits for logits, _ in parts]), np.concatenate([used for _, used in parts])

    def card(self, *, metrics: Sequence[str] = ()) -> Card:
        """The model card's part on the data."""
        dataset = self.dataset
        return Card(
            title=f"{self.config.name} for {dataset.root.name}",
            data=f"{dataset.layout} {len(self.split.train)} {dataset.noun}s trained it.",
            fingerprint=dataset.fingerprint(),
            protocol=self.split.protocol,
            metrics=metrics,
        )


class RunOptions(TypedDict, total=False):
    """What every training takes beside its data and its settings.

    output: run folder to write; by default a new one below `runs`.
    folds: name of the fold to test on, or "all" for cross-validation; by default the first, or a drawn test part.
    resume: continue the run in `output`; finished folds stay as they are.
    skip_bad: leave out examples that cannot be used; without it they stop the run before it starts.
    columns: of the table, by name (`file`, `label`, `group`, `fold`, `text`), and the `track`; see `read_dataset`.
    progress: True for a bar on a terminal, or a function that is called after every step with the steps done, the steps
        in all and the seconds left. What happens is logged under `ossicle.training`.
    logger: "tensorboard", a logger of Lightning, a function that makes one for a run folder, or several of these. They
        get the settings, the loss of every 50th step, the row of every epoch in `metrics.csv`, and the test metrics.
    """

    output: str | os.PathLike[str] | None
    folds: str | None
    resume: bool
    skip_bad: bool
    columns: Mapping[str, Any] | None
    progress: Progress
    logger: AnyLogger | Sequence[AnyLogger] | None


class Runs(contextlib.ExitStack, Generic[Config]):
    """One run, or one for each fold, in a folder that no other process trains in. A context manager.

    Args:
        config: the settings; where there are none those of the run to resume, or the defaults of `kind`.
        kind: class of the settings.
        modality: of data that is not read yet.

        ranks: the processes that train.

    The others are those of `RunOptions`.

    Raises: RunRefused for a folder that is taken, or held by another process, or where a run to resume is not named.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Dataset,
        config: Config | None,
        *,
        kind: type[Config],
        modality: str,
        ranks: Ranks = ALONE,
        output: str | os.PathLike[str] | None = None,
        folds: str | None = None,
        resume: bool = False,
        skip_bad: bool = False,
        columns: Mapping[str, Any] | None = None,
        progress: Progress = False,
        logger: AnyLogger | Sequence[AnyLogger] | None = None,
    ) -> None:
        super().__init__()
        self.ranks = ranks
        config, stored = starting_point(config, kind, output=output, resume=resume)
        self.config: Config = config
        folds = folds or stored.get("folds")
        if stored and (folds == "all") != (stored.get("folds") == "all"):
            raise RunRefused(f"{output}: begun with folds={stored.get('folds')}; choose another folder with -o.")
        self.loggers = checked_loggers(logger, several=folds == "all")
        kept = {name: stored[name] for name in COLUMNS if stored.get(name) is not None}
        self.columns = kept | {name: value for name, value in (columns or {}).items() if value is not None}
        self.dataset = (
            data if isinstance(data, Dataset) else read_dataset(Path(data), modality=modality, **self.columns)
        )
        if self.dataset.modality != modality:
            raise DataRefused(f"{self.dataset.path}: a data set of {self.dataset.noun}s; {modality} is expected.")
        named = Path("runs") / f"{self.dataset.root.name}-{self.config.name}"
        self.output = ranks.from_zero(lambda: free_folder(named)) if output is None else Path(output)
        self.folds, self.resume, self.skip_bad = folds, resume, skip_bad
        self.progress: Progress = progress if ranks.zero else False
        self.inputs: Inputs | None = None
        self.damaged: list[Path] = []  # files that are none that the run wrote, and can be made again
        self._held: set[Path] = set()

    def __enter__(self) -> "Runs[Config]":
        super().__enter__()
        self.enter_context(stoppable())
        logger.info(self.dataset.layout)
        self.ranks.first(self._take)
        self.damaged = self.ranks.from_zero(lambda: self.damaged)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool | None:
        """Says how a run goes on that was stopped, or that a full disk has ended."""
        super().__exit__(kind, error, traceback)
        how = f"continue with --resume -o {self.output}" if (self.output / CONFIG).exists() else "begin again"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{str(error) or 'Interrupted'}; {how}.") from None
        if isinstance(error, OSError) and error.errno in FULL:
            raise JobStopped(f"{error.strerror}: {error.filename}; make room, and {how}.") from error
        return None

    def _take(self) -> None:
        refuse_taken(self.output, resume=self.resume)
        if self.resume and self.output.exists():
            self.hold(self.output)
        digests = Digests(self.output)
        refuse_damaged(digests)
        if self.folds == "all":
            refuse_other_data(self.dataset, self.output)
        self.damaged = digests.damaged()
        self.enter_context(noted(digests.note))

    def hold(self, folder: Path) -> None:
        """Locks a folder for the processes of this run, by rank zero and until the end."""
        if folder in self._held or not self.ranks.zero:
            return
        try:
            honored = self.enter_context(locked(folder / HIDDEN / LOCK))
        except BlockingIOError:
            raise RunRefused(
                f"{folder}: another process is training there; wait for it, or choose another folder with -o."
            ) from None
        self._held.add(folder)
        remove_litter(folder)
        if not honored and (self.resume or self.ranks.world > 1):
            logger.info(f"{folder}: there are no locks here; make sure that no other process is training there.")
        elif locks_are_local(folder):
            logger.info(
                f"{folder}: a lock holds on this machine alone, as the file system is mounted; make sure that no other "
                "machine is training there."
            )

    @functools.cached_property
    def contents(self) -> tuple[str, ...] | None:
        """What the examples hold, so that a later evaluation knows them wherever they lie; None: tars know."""
        return None if isinstance(self.dataset.items, TarItems) else contents_of(self.dataset.items)

    def each(self, inputs: Inputs, train_fold: Callable[[Run[Config]], FoldResult]) -> TrainResult:
        """Trains and tests every fold that is not finished, and measures all of them together."""
        logger.info(f"Run folder: {self.output}")
        refuse_or_name(inputs, self.dataset, skip_bad=self.skip_bad)
        self.inputs = inputs
        for sentence in cut_short(self.dataset, self.dataset.items, seconds=seconds_of(inputs, self.dataset)):
            logger.info(sentence)
        results = []
        for run in self.runs(inputs):
            with using_kernels(run.config.kernels), run.tracking:
                results.append(run.finished or train_fold(run))
            failures = self.note_failures(inputs)
            # A trainer and its network hold each other. Python's collector counts objects and not gigabytes: it would
            # come after some folds.
            gc.collect()
        evaluation = results[0].evaluation
        if self.folds == "all":
            evaluation = pooled(self.dataset, results, folder=self.output, ranks=self.ranks)
        logger.info(f"Report: {self.output / REPORT}")
        return TrainResult(folder=self.output, folds=tuple(results), evaluation=evaluation, failures=failures)

    def note_failures(self, inputs: Inputs) -> tuple[str, ...]:
        """Names what no process could use, before the training or since, in the result and in `failures.csv`."""
        found = dict(item for part in self.ranks.gather(dict(inputs.failures)) for item in part.items())
        for position in sorted(found.keys() - inputs.failures.keys()):
            logger.info(f"left out: {found[position]}")
        return self.ranks.from_zero(lambda: write_failures(self.output, self.dataset, found))

    def runs(self, inputs: Inputs) -> Iterator[Run[Config]]:
        """The run of each fold, with its parts and its settings; nothing is written."""
        config = self.config
        for name in split_folds(self.dataset) if self.folds == "all" else (self.folds,):
            split = split_dataset(self.dataset, fold=name, seed=config.seed, validation=config.validation)
            split = usable_part(self.dataset, split, inputs)
            logger.info(f"Protocol: {split.protocol}")
            if config.schedule == "plateau" and not len(split.validation):
                raise SettingRefused(
                    "schedule=plateau goes by the score of a validation part, and there is none; use another schedule, "
                    "or set validation, such as 0.15."
                )
            run = Run(self, name, split)
            if run.finished is not None:
                logger.info(f"{run.folder}: this fold is finished.")
            yield run


def remove_litter(folder: Path) -> None:
    """Removes what a killed process had begun to write in a run folder."""
    remove_abandoned(folder, below=True)
    for left in (*folder.glob("checkpoints/.step-*"), *folder.glob(".model.*")):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.rglob(".tmp" + 6 * "[0-9A-Za-z]"):  # of safetensors
        left.unlink(missing_ok=True)


def seconds_of(inputs: Inputs, dataset: Dataset) -> dict[int, float] | None:
    """The length of each segment of which samples are kept."""
    if not isinstance(inputs, SampleStore):
        return None
    segments = np.intersect1d(np.flatnonzero(~np.isnan(dataset.arrays.ends)), inputs.usable)
    return {position: inputs.lengths[position] / inputs.rate for position in segments.tolist()}


def refuse_or_name(inputs: Inputs, dataset: Dataset, *, skip_bad: bool) -> None:
    """Names every item that cannot be used, or refuses to start on them."""
    failures = tuple(inputs.failures[index] for index in sorted(inputs.failures))
    if not failures:
        return
    if len(failures) == len(dataset):
        raise DataRefused(
            f"{dataset.root}: none of the {len(dataset)} {dataset.noun}s can be used; first: {failures[0]}"
        )
    if not skip_bad:
        raise DataRefused(
            f"{dataset.root}: {len(failures)} of {len(dataset)} {dataset.noun}s cannot be used; --skip-bad leaves them "
            f"out; first: {failures[0]}"
        )
    for failure in failures:
        logger.info(f"left out: {failure}")


def usable_part(dataset: Dataset, split: Split, inputs: Inputs) -> Split:
    """The split without the items that cannot be used."""
    parts = {name: np.intersect1d(getattr(split, name), inputs.usable) for name in PARTS}
    for name in ("train", "test"):
        if not len(parts[name]):
            raise DataRefused(f"the {name} part holds nothing that can be used.")
    kept = np.isin(np.arange(len(dataset)), parts["train"])
    refuse_untrained(dataset, kept, f"what cannot be used is left out ({split.protocol})")
    return replace(split, train=parts["train"], validation=parts["validation"], test=parts["test"])


def environment(dataset: Dataset, config: Config) -> dict[str, Any]:
    """What else decides a run's numbers: versions, machine, threads, seed, data."""
    return {
        "ossicle": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "processes": getattr(config, "devices", 1) * getattr(config, "nodes", 1),
        "seed": config.seed,
        "data_fingerprint": dataset.fingerprint(),
    }


def free_folder(folder: Path) -> Path:
    """`folder`, or with the first number behind it that is not taken."""
    candidates = itertools.chain([folder], (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())
