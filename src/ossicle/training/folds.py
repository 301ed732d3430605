"""What every run does around its optimizer: parts and folds, the one reading of the test part, the figures of all."""

import contextlib
import functools
import gc
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from ossicle import __version__
from ossicle.bundle import read_bundle_config
from ossicle.data import Dataset, Split, split_dataset, split_folds
from ossicle.data.cache import SampleStore
from ossicle.data.check import cut_short
from ossicle.data.parts import PARTS, contents_of, read_split, write_split
from ossicle.data.splits import refuse_untrained
from ossicle.errors import DataRefused, RunRefused, SettingRefused
from ossicle.evaluation import CONFIG, SPLIT, bootstrap_groups, write_evaluation
from ossicle.files import locked, write_json
from ossicle.inference import probabilities
from ossicle.jobs.store import HIDDEN, LOCK
from ossicle.kernels import resolve_kernels, using_kernels
from ossicle.metrics import Estimate, Evaluation, decide, evaluate, fit_temperature, fit_thresholds, mean_over_folds
from ossicle.report import Section, evaluation_lines, fold_lines, fold_section
from ossicle.training.config import Config, TrainConfig, read_config, write_config
from ossicle.training.estimate import SAID_SECONDS, Every, duration
from ossicle.weights.state import checkpoints
from ossicle.weights.tensors import load_weights, save_weights

Say = Callable[[str], None]
tell: Say = functools.partial(print, flush=True)
TEST_SCORES, ENVIRONMENT = "test_scores.safetensors", "environment.json"  # in a run folder
UNDECIDED = {("precision", "auto"), ("kernels", "auto")}  # settings that the machine decides
LENGTH = ("epochs", "patience", "min_delta")  # settings that a run can be continued with other values of
REPORT = "report.html"
Part = Int64[np.ndarray, "_"]  # positions in the data set
Begin = Callable[..., None]  # writes the settings that it is given, and what else is known, and so begins a fold


@runtime_checkable
class Store(Protocol):
    """What holds the items' samples or features."""

    @property
    def failures(self) -> dict[int, str]: ...

    @property
    def usable(self) -> Part: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """One trained model and its scores on the test part, which were read once."""

    folder: Path
    split: Split
    tested: np.ndarray  # positions in the data set of the test clips that could be used
    scores: np.ndarray  # (test clip, label)
    decided: np.ndarray  # (test clip, label), by the thresholds of this fold
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """What a training leaves: the run folder, a result per fold, and the figures of all test clips together."""

    folder: Path
    folds: tuple[FoldResult, ...]
    evaluation: Evaluation
    failures: tuple[str, ...]  # one sentence for each recording that was left out


def starting_point(
    chosen: Config,
    columns: Mapping[str, Any],
    *,
    folds: str | None,
    config: Path | None,
    output: Path | None,
    resume: bool,
) -> tuple[Config, dict[str, Any], str | None]:
    """Settings, columns and folds of a run before its own `--set`: those given, or those of a stored run.

    Raises:
        RunRefused: there is no run to continue in `output`.
        SettingRefused: a configuration that cannot be read.
    """
    if resume:
        if output is None:
            raise RunRefused("--resume continues the run in a folder, and none is given: -o RUN names it.")
        if not (output / CONFIG).exists():
            raise RunRefused(f"{output}: no run to continue; --resume needs -o RUN, a folder that holds config.yaml.")
        config = config or output / CONFIG
    if config is None:
        return chosen, dict(columns), folds
    chosen, stored = read_config(config, type(chosen))
    return chosen, {name: value or stored.get(name) for name, value in columns.items()}, folds or stored.get("folds")


def continued(config: Config, folder: Path) -> tuple[Config, Config | None]:
    """The settings that a fold goes on with, and if these make it longer, those that it had.

    They are those that it was begun with, if it was: also what the data and the machine decided then. More epochs are
    taken, and what stops a run before its last.

    Raises:
        SettingRefused: other settings, or fewer epochs.
        RunRefused: more epochs of a run that cannot have them.
    """
    if not (folder / CONFIG).exists():
        return config, None
    stored, _ = read_config(folder / CONFIG, type(config))
    asked = json.loads(json.dumps(asdict(config)))
    differ = {
        name: there
        for name, there in asdict(stored).items()
        if asked[name] not in (there, None) and (name, asked[name]) not in UNDECIDED
    }
    new: dict[str, Any] = {}
    if isinstance(stored, TrainConfig):
        new = {
            name: asked[name] for name in LENGTH if name in differ and (name != "epochs" or asked[name] > differ[name])
        }
    if refused := [f"{name}={there} there and {asked[name]} here" for name, there in differ.items() if name not in new]:
        raise SettingRefused(
            f"{folder}: a run continues with the settings that it has: {', '.join(refused)}; begin another with -o"
            + (f" (--init {folder} starts it from these weights)." if isinstance(stored, TrainConfig) else ".")
        )
    if "epochs" in new and isinstance(stored, TrainConfig):
        refuse_longer(stored, folder)
    return replace(stored, **new), stored if new else None


def refuse_longer(config: TrainConfig, folder: Path) -> None:
    """Raises RunRefused for a run that more epochs would not continue."""
    why = None
    if config.average == "swa":
        why = "average=swa is the mean over a part of a run whose length is known from its start"
    elif not checkpoints(folder / "checkpoints"):
        why = "there is no checkpoint in it"
    if why is not None:
        raise RunRefused(
            f"{folder}: this run cannot be made longer, as {why}; --init {folder} and another folder with -o begin a "
            "run from its weights."
        )


def longer(before: Config, after: Config) -> str:
    """What to say of a run that goes on for longer than it was begun for."""
    if before.epochs == after.epochs:
        return "what stops it before its last epoch is changed"
    rate = "the learning rate stays at its peak"
    if after.schedule != "constant":
        rate = (
            f"from here on the learning rate is that of a {after.schedule} schedule over {after.epochs} epochs, so "
            "it rises again, and the result is not that of a run which had them from its start"
        )
    return f"{before.epochs} epochs become {after.epochs}; {rate}; the test part is read again"


def refuse_taken(output: Path, *, resume: bool) -> None:
    """Refuses a folder that holds a run, unless that is to be continued, and one that holds anything else."""
    if resume:
        return
    if (output / CONFIG).exists():
        raise RunRefused(f"{output}: holds a run already; continue it with --resume or choose another folder with -o.")
    if output.is_dir() and any(path.name != HIDDEN for path in output.iterdir()):
        raise RunRefused(f"{output}: holds files that belong to no run; choose another folder with -o.")


@contextlib.contextmanager
def alone(output: Path, *, resume: bool, say: Say) -> Iterator[Callable[[Path], None]]:
    """Yields what holds a folder of a run for this process, until the end; a run to resume is held from here on.

    Raises: RunRefused for a folder that is taken, or held by another process.
    """
    refuse_taken(output, resume=resume)
    held: set[Path] = set()
    with contextlib.ExitStack() as stack:

        def hold(folder: Path) -> None:
            if folder in held:
                return
            try:
                honored = stack.enter_context(locked(folder / HIDDEN / LOCK))
            except BlockingIOError:
                raise RunRefused(
                    f"{folder}: another process is training there; wait for it, or choose another folder with -o."
                ) from None
            held.add(folder)
            if resume and not honored:
                say(f"{folder}: there are no locks here; make sure that no other process is training there.")

        if resume and output.exists():
            hold(output)
        yield hold


def over_folds(
    dataset: Dataset,
    config: Config,
    *,
    store: Store,
    output: Path,
    folds: str | None,
    resume: bool,
    skip_bad: bool,
    columns: Mapping[str, Any] | None,
    say: Say,
    run: Callable[[Split, Path, Config, Begin], FoldResult],
    hold: Callable[[Path], None],
) -> TrainResult:
    """One fold, or all of them and their figures together; with `resume` finished folds stay as they are.

    Args:
        store: says which items cannot be used.
        run: a fold's training and test, given its parts, its folder, its settings, and what makes the folder once
            nothing can be refused any more.
        hold: see `alone`.

    Raises:
        RunRefused: data, or a fold, other than those that it was begun with.
        SettingRefused: settings other than those that a fold was begun with.
    """

    @functools.cache
    def contents() -> tuple[str, ...]:
        return contents_of(dataset.items)

    def begin(split: Split, folder: Path, name: str | None, settings: Config, **about: Any) -> None:
        refuse_taken(folder, resume=resume)  # again: another training may have begun meanwhile
        hold(output)
        hold(folder)
        (folder / REPORT).unlink(missing_ok=True)  # first: with it a fold that becomes longer counts as finished
        data = {"path": str(dataset.path), **(columns or {})}
        if folds == "all":
            write_config(output / CONFIG, config, data={**data, "folds": "all"})
        write_config(folder / CONFIG, settings, data={**data, "folds": name})
        write_split(folder / SPLIT, dataset, split, contents=contents())
        write_json(folder / ENVIRONMENT, environment(dataset, settings) | about)

    failures = refuse_or_name(store, dataset, skip_bad=skip_bad, say=say)
    seconds = None
    if isinstance(store, SampleStore):
        seconds = {position: store.lengths[position] / store.rate for position in store.usable.tolist()}
    for sentence in cut_short(dataset, dataset.items, seconds=seconds):
        say(sentence)
    results = []
    for name in split_folds(dataset) if folds == "all" else (folds,):
        split = split_dataset(dataset, fold=name, seed=config.seed, validation=config.validation)
        split = usable_part(dataset, split, store)
        folder = output / f"fold_{name}" if folds == "all" else output
        say(f"Protocol: {split.protocol}")
        settings, done = config, None
        if resume and folder.exists():
            hold(folder)
            settings, before = continued(config, folder)
            begun = begun_with(dataset, split, folder)
            if before is not None:
                say(f"{folder}: {longer(before, settings)}.")
            else:
                done = load_finished(folder, dataset, begun)
        if done is not None:
            say(f"{folder}: this fold is finished.")
        # Measured once, and kept: a resumed run must not choose otherwise.
        settings = replace(settings, kernels=str(resolve_kernels(settings.kernels)))
        try:
            with using_kernels(settings.kernels):
                results.append(done or run(split, folder, settings, functools.partial(begin, split, folder, name)))
        except KeyboardInterrupt as stop:
            if not stop.args:
                raise
            raise KeyboardInterrupt(f"{stop}; continue with --resume -o {output}.") from None
        # A trainer and its network hold each other. Python's collector counts objects and not gigabytes: it would come
        # after some folds.
        gc.collect()
    evaluation = results[0].evaluation
    if folds == "all":
        evaluation = pooled(dataset, results, folder=output, say=say)
    say(f"Report: {output / 'report.html'}")
    return TrainResult(folder=output, folds=tuple(results), evaluation=evaluation, failures=failures)


def refuse_or_name(store: Store, dataset: Dataset, *, skip_bad: bool, say: Say) -> tuple[str, ...]:
    """Names every item that cannot be used, or refuses to start on them."""
    failures = tuple(store.failures[index] for index in sorted(store.failures))
    if not failures:
        return ()
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
        say(f"left out: {failure}")
    return failures


def usable_part(dataset: Dataset, split: Split, store: Store) -> Split:
    """The split without the items that cannot be used."""
    parts = {name: np.intersect1d(getattr(split, name), store.usable) for name in PARTS}
    for name in ("train", "test"):
        if not len(parts[name]):
            raise DataRefused(f"the {name} part holds nothing that can be used.")
    kept = np.isin(np.arange(len(dataset)), parts["train"])
    refuse_untrained(dataset, kept, f"what cannot be used is left out ({split.protocol})")
    return replace(split, train=parts["train"], validation=parts["validation"], test=parts["test"])


def begun_with(dataset: Dataset, split: Split, folder: Path) -> Split | None:
    """The parts that a fold was begun with, if it was.

    Raises: RunRefused where these are others: it might be tested on what it has learnt.
    """
    if not (folder / SPLIT).exists():
        return None
    begun = read_split(folder / SPLIT, dataset)
    if begun is None or any(not np.array_equal(getattr(begun, part), getattr(split, part)) for part in PARTS):
        raise RunRefused(
            f"{folder}: a run continues with the data and the fold that it began with, and these are others; "
            "choose another folder with -o."
        )
    return begun


def fold_result(
    dataset: Dataset,
    split: Split,
    *,
    folder: Path,
    tested: Int64[np.ndarray, "clip"],
    logits: Float[np.ndarray, "clip label"],
    temperature: float,
    thresholds: Float[np.ndarray, "label"] | None,
) -> FoldResult:
    """What a fold's model is worth, by its logits of the test clips."""
    scores = probabilities(logits, task=dataset.task, temperature=temperature)
    decided = decide(scores, task=dataset.task, thresholds=thresholds)
    evaluation = evaluated(dataset, tested, scores, decided=decided, thresholds=thresholds, protocol=split.protocol)
    return FoldResult(folder=folder, split=split, tested=tested, scores=scores, decided=decided, evaluation=evaluation)


def evaluated(
    dataset: Dataset,
    clips: Int64[np.ndarray, "clip"],
    scores: Float[np.ndarray, "clip label"],
    *,
    decided: Bool[np.ndarray, "clip label"],
    protocol: str,
    thresholds: Float[np.ndarray, "label"] | None = None,
) -> Evaluation:
    """The figures of these clips' scores."""
    targets = dataset.targets()
    return evaluate(
        scores,
        targets[clips],
        labels=dataset.labels,
        task=dataset.task,
        thresholds=thresholds,
        decided=decided,
        groups=bootstrap_groups(dataset, clips),
        protocol=protocol,
    )


def conclude(
    dataset: Dataset,
    split: Split,
    *,
    folder: Path,
    logits_of: Callable[[Part], tuple[Float[np.ndarray, "clip label"], Part]],
    save: Callable[..., None],
    title: str,
    sections: Callable[[], Sequence[Section]],
    say: Say,
) -> FoldResult:
    """Fits temperature and thresholds on the validation part, reads the test part, once, and writes its figures.

    Args:
        logits_of: of a part, and the positions of the clips that could be used.
        save: writes the bundle, given what was fitted and the figures as sentences.
        sections: of the report, after those of the evaluation.
    """
    targets = dataset.targets()
    fitted: dict[str, Any] = {}
    if len(split.validation):
        logits, used = logits_of(split.validation)
        fitted["temperature"] = fit_temperature(logits, targets[used], task=dataset.task)
        scores = probabilities(logits, task=dataset.task, temperature=fitted["temperature"])
        fitted["thresholds"] = fit_thresholds(scores, targets[used])
    logits, used = logits_of(split.test)
    save_weights(folder / TEST_SCORES, {"clips": torch.from_numpy(used), "logits": torch.from_numpy(logits)})
    result = fold_result(
        dataset,
        split,
        folder=folder,
        tested=used,
        logits=logits,
        temperature=fitted.get("temperature", 1.0),
        thresholds=fitted.get("thresholds"),
    )
    for line in evaluation_lines(result.evaluation):
        say(line)
    save(**fitted, metrics=sentences(result.evaluation.headline))
    # The report comes last: with it a fold counts as finished.
    write_evaluation(
        folder,
        result.evaluation,
        dataset=dataset,
        items=[dataset.items[index] for index in used],
        scores=result.scores,
        decided=result.decided,
        title=title,
        more_sections=sections(),
    )
    return result


def load_finished(folder: Path, dataset: Dataset, split: Split | None) -> FoldResult | None:
    """The result of a fold that was tested already, on the parts that it was begun with, or None."""
    if split is None or not (folder / TEST_SCORES).exists() or not (folder / REPORT).exists():
        return None
    stored = load_weights(folder / TEST_SCORES)
    decisions = read_bundle_config(folder / "model")
    thresholds = decisions["thresholds"]
    try:
        tested, logits = stored["clips"].numpy(), stored["logits"].numpy()
        if logits.shape != (len(tested), len(dataset.labels)) or not np.isin(tested, split.test).all():
            raise ValueError(f"{logits.shape} scores of {len(tested)} clips")
    except (KeyError, ValueError, TypeError) as error:
        raise RunRefused(
            f"{folder / TEST_SCORES}: not the scores of this fold's test part ({error}); remove it, and --resume makes "
            "them again."
        ) from None
    return fold_result(
        dataset,
        split,
        folder=folder,
        tested=tested,
        logits=logits,
        temperature=decisions["temperature"],
        thresholds=None if thresholds is None else np.asarray(thresholds),
    )


def pooled(dataset: Dataset, results: Sequence[FoldResult], *, folder: Path, say: Say) -> Evaluation:
    """The figures of all folds' test clips together, and the mean over folds; each clip was scored by the model that
    had not heard it."""
    clips = np.concatenate([result.tested for result in results])
    scores = np.concatenate([result.scores for result in results])
    decided = np.concatenate([result.decided for result in results])
    protocol = f"{len(results)} folds, each tested on the model that trained without it"
    evaluation = evaluated(dataset, clips, scores, decided=decided, protocol=protocol)
    write_evaluation(
        folder,
        evaluation,
        dataset=dataset,
        items=[dataset.items[index] for index in clips],
        scores=scores,
        decided=decided,
        title=f"{dataset.root.name}, all folds",
        more_sections=[fold_section({result.folder.name: result.evaluation for result in results})],
    )
    means = mean_over_folds([result.evaluation for result in results])
    write_json(
        folder / "folds.json",
        {
            "mean_over_folds": {name: estimate.to_json() for name, estimate in means.items()},
            "folds": {result.folder.name: result.evaluation.to_json()["headline"] for result in results},
        },
    )
    say(f"All {len(results)} folds together:")
    for line in evaluation_lines(evaluation):
        say(line)
    for line in fold_lines(means, folds=len(results)):
        say(line)
    return evaluation


def told(say: Say, sentence: str, *, end: bool = True) -> Callable[..., None]:
    """What says how far a piece of work is, and how long the rest will take: soon, then every half minute.

    Args:
        sentence: with two holes, for what succeeded and for all
        end: say also that all is done
    """
    first: tuple[int, float] | None = None  # what was done at the first call, perhaps by an earlier run
    now_and_then = Every(SAID_SECONDS, first=2.0)

    def progress(done: int, total: int, failed: int = 0) -> None:
        nonlocal first
        now = time.monotonic()
        line = sentence.format(done - failed, total) + (f", {failed} failed" if failed else "")
        if first is None:
            first = done, now
        if done == total:
            if end:
                say(line)
        elif done > first[0] and now_and_then.due():
            left = (now - first[1]) / (done - first[0]) * (total - done)
            say(f"{line}, about {duration(left)} left")

    return progress


def score_name(task: str) -> str:
    """What the validation part is scored by."""
    return "balanced accuracy" if task == "single-label" else "mAP"


def sentences(figures: Mapping[str, Estimate]) -> list[str]:
    """Each figure with its interval, for people."""
    return [
        f"{name.replace('_', ' ')} {estimate.value:.4f}"
        + ("" if estimate.low is None else f" ({estimate.low:.4f} to {estimate.high:.4f})")
        for name, estimate in figures.items()
        if estimate.value is not None
    ]


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
        "seed": config.seed,
        "data_fingerprint": dataset.fingerprint(),
    }


def free_folder(folder: Path) -> Path:
    """`folder`, or with the first number behind it that is not taken."""
    candidates = itertools.chain([folder], (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())
