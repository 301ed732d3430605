"""`predict_files`: the predictions of any number of files, as an object."""

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from ossicle.errors import ExtraMissing
from ossicle.inference.events import EventRules
from ossicle.inference.formats import check_formats
from ossicle.inference.predictor import Predictor
from ossicle.inference.reporting import label_indices
from ossicle.jobs.folders import FileResults, Pool, Progress, find_recordings, no_progress, predict_in_memory, run_job
from ossicle.jobs.options import STANDARD_INPUT, PredictOptions, WrongUsage
from ossicle.jobs.progress import shown
from ossicle.jobs.store import kept_setting
from ossicle.jobs.workers import Workers

StrPath = str | os.PathLike[str]
Opener = Callable[..., Predictor]  # takes `among`, how many processes share this machine, and `kernels`


def predict_files(
    model: StrPath | Predictor,
    inputs: StrPath | Iterable[StrPath],
    *,
    output: StrPath | None = None,
    formats: str | Sequence[str] = ("csv",),
    window: float | None = None,
    hop: float | None = None,
    min_score: float | None = None,
    top_k: int | None = None,
    labels: Sequence[str] | None = None,
    overlap: Literal["mean", "max"] | None = None,
    events: EventRules | bool | None = None,
    track: int | None = None,
    text: str | None = None,
    each: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    cluster: str | None = None,
    device: str = "auto",
    encoder: StrPath | None = None,
    progress: Progress | bool | None = None,
) -> FileResults:
    """Predicts files, in memory or with tables in a folder; one that cannot be used is listed and the others are done.

    Example:
        >>> results = predict_files("runs/birds", "recordings/", output="labels")  # doctest: +SKIP
        >>> results.rows[0].label, results.failed, results.tables  # doctest: +SKIP

    Args:
        model: bundle folder, run folder or Hub id, which needs torch; or a loaded model, also of `ossicle.runtime`
        inputs: audio files and folders; texts or images for a model of these
        output: folder for tables; by default rows are kept in memory
        formats: of the tables; see `ossicle.inference.OUTPUT_FORMATS`
        window: seconds; by default the model's
        hop: seconds from one window to the next; by default the model's, or the window if that is given
        min_score: report labels from this score on, in place of the thresholds
        top_k: report at most this many labels per window
        labels: report only these
        overlap: report segments in place of overlapping windows, by the mean or the highest score of these
        events: report events with onset and offset in place of windows
        track: of several audio tracks, from 1
        text: column with the text, of tables for a model of texts
        each: also write tables for each file
        resume: continue with the results in the folder
        overwrite: delete the results in the folder first
        workers: processes that share the files
        cluster: address of a Ray cluster to share them on, or "local"
        device: auto, cpu, cuda, mps, ...
        encoder: where the frozen encoder of a tuned head is, if it has moved
        progress: called with the outcome of each file, how many are done, and of how many; True shows a bar

    Raises:
        ValueError: arguments that contradict each other, have no effect or lie outside their range
        OssicleError: the model, a folder of inputs or the output cannot be used; see `ossicle.errors`
    """
    rules: dict[str, Any] = {}
    if isinstance(events, EventRules):
        rules = {"release": events.release, "median": events.median}
        rules |= {"min_duration": events.min_seconds, "merge_gap": events.merge_gap}
    if output is not None:
        formats = check_formats([formats] if isinstance(formats, str) else formats, files=True)
    options = PredictOptions(
        output=None if output is None else Path(output),
        formats=None if output is None else formats,
        window=window,
        hop=hop,
        min_score=min_score,
        top_k=top_k,
        labels=labels,
        overlap=overlap,
        events=bool(events),
        **rules,
        track=track,
        text=text,
        each=each,
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        cluster=cluster,
        device=device,
        encoder=None if encoder is None else os.fspath(encoder),
    )
    paths = paths_of(inputs)
    if Path(STANDARD_INPUT) in paths or not paths:
        raise WrongUsage("`inputs` is empty or standard input; expected files or folders.")
    options.check(paths)
    opener = opener_of(model, options)
    with shown(progress) as show:
        predictor = model if isinstance(model, Predictor) else load_model(opener, options)
        return predict_with(predictor, paths, options, opener=opener, progress=show)


def load_model(opener: Opener, options: PredictOptions) -> Predictor:
    """Loads the model, with the kernels that a job in the folder was started with: other kernels round otherwise."""
    output = None if options.overwrite else options.output
    kernels = output and kept_setting(output, "kernels")
    among = options.workers if options.cluster is None else 1
    return opener(among=among, **({"kernels": kernels} if kernels else {}))


def predict_with(
    predictor: Predictor,
    inputs: Sequence[Path],
    options: PredictOptions,
    *,
    opener: Opener,
    progress: Progress = no_progress,
) -> FileResults:
    """Predicts files as the options say, which have been checked; `opener` loads the model in each worker."""
    check_model(predictor, options)
    if not predictor.timed:
        from ossicle.jobs.items import predict_items  # which is not part of the small distribution

        return predict_items(predictor, inputs, options, progress=progress)
    files, failed = find_recordings(inputs)
    config = options.config()
    if options.output is None:
        return predict_in_memory(files, predictor, config=config, failed=failed, progress=progress)
    return run_job(
        options.output,
        files,
        predictor,
        config=config,
        formats=options.format_names,
        each=options.each,
        resume=options.resume,
        overwrite=options.overwrite,
        failed=failed,
        pool=pool_of(opener, predictor, options),
        progress=progress,
    )


def check_model(predictor: Predictor, options: PredictOptions) -> None:
    """Refuses what the model does not have, before anything is decoded.

    Raises: WrongUsage for a label, a window or a column of texts.
    """
    try:
        label_indices(predictor.labels, options.config().reporting.labels)
    except ValueError as error:
        raise WrongUsage(f"`labels`: {error}.") from error
    if options.text is not None and not predictor.in_rows:
        raise WrongUsage("This model does not predict texts: leave out `text`.")
    if predictor.timed:
        check_window(predictor, window=options.window, hop=options.hop)


def check_window(predictor: Predictor, *, window: float | None, hop: float | None) -> tuple[int, int]:
    """Window and hop in samples.

    Raises: WrongUsage for a window or a hop that the model does not take.
    """
    try:
        return predictor.window_samples(window=window, hop=hop)
    except ValueError as error:
        raise WrongUsage(f"`window`, `hop`: {error}.") from error


def pool_of(opener: Opener, predictor: Predictor, options: PredictOptions) -> Pool | None:
    """Who predicts the files, if it is not this process: with the same kernels as this one."""
    kernels = {name: value for name, value in predictor.settings.items() if name == "kernels"}
    number, config = options.workers, options.config()
    if options.cluster is not None:
        from ossicle.jobs.cluster import ClusterWorkers

        return ClusterWorkers(
            functools.partial(opener, **kernels), number=number, config=config, address=options.cluster
        )
    if number > 1:
        return Workers(functools.partial(opener, among=number, **kernels), number=number, config=config)
    return None


def opener_of(model: Any, options: PredictOptions) -> Opener:
    """What loads a model by name, in any process; a loaded one is given as it is.

    Raises:
        WrongUsage: options that a loaded model cannot have
        TypeError: neither a name nor a model
    """
    if isinstance(model, Predictor):
        if options.workers > 1 or options.cluster is not None:
            raise WrongUsage("`workers` and `cluster` need a model by name or path: each process loads its own.")
        if (options.device, options.encoder) != ("auto", None):
            raise WrongUsage("`device` and `encoder` say how to load a model, and this one is loaded.")
        return lambda: model
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"expected a model by name or path, or a loaded one, got {type(model).__name__}")
    name, encoder = os.fspath(model), options.encoder
    if options.cluster is not None:  # whose actors work in another folder
        name, encoder = absolute(name), encoder and absolute(encoder)
    how: dict[str, Any] = {"device": options.device, "encoder": encoder}
    return functools.partial(open_model, name, keep=options.keep, keep_by=options.keep_by or "merge", **how)


def open_model(
    model: str,
    *,
    keep: float | None = None,
    keep_by: Literal["merge", "strided"] = "merge",
    among: int = 1,
    **options: Any,
) -> Any:
    """Loads a model by name in one of `among` processes that share this machine; for the options see `ossicle.load`.

    Raises:
        ExtraMissing: there is no torch
        WrongUsage: a fraction of the tokens that this model cannot keep
    """
    try:
        # By name: a name can only be resolved with torch, which whoever brings a loaded model may not have.
        loading = importlib.import_module("ossicle.loading")
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"{model}: a model by name needs torch, which is not installed ({error}).") from error
    try:
        return loading.load_among(model, among, keep=keep, keep_by=keep_by, **options)
    except ValueError as error:
        if keep is None:
            raise
        raise WrongUsage(f"`keep`: {error}.") from error


def paths_of(inputs: StrPath | Iterable[StrPath]) -> list[Path]:
    """Inputs as paths.

    Raises: TypeError for anything else.
    """
    found = [inputs] if isinstance(inputs, str | os.PathLike) or not isinstance(inputs, Iterable) else list(inputs)
    for one in found:
        if not isinstance(one, str | os.PathLike):
            raise TypeError(
                f"expected a file, a folder or a list of these, got {type(one).__name__}; arrays are for a loaded model"
            )
    return [Path(one) for one in found]


def absolute(name: str) -> str:
    """A local path as an absolute one; a Hub id, or the name of an encoder, stays."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name
