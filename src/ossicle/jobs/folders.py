"""A folder of recordings to tables on disk: decoding ahead, one part a recording, resumable at any moment.

    hear what is not done yet    a part for each recording, whole or not at all (`store`)
    write the tables             from the parts, in the order of the recordings, each table whole or not at all

A recording's part is made of its own windows alone and scores have four decimals, so neither the company of other
recordings, nor the number of workers, nor a `kill -9` and a new start, shows in the tables.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from ossicle.audio import DECODER, AudioInfo, read_blocks
from ossicle.audio.recording import check_regular
from ossicle.errors import AudioError, JobStopped
from ossicle.files import legible, printable, write_atomically
from ossicle.inference import Reporting, Row, csv_line, table_paths, write_tables
from ossicle.inference.ahead import Ahead, read_ahead
from ossicle.inference.predictor import BATCH, Predictor, in_time
from ossicle.jobs.store import Stamp, Store, stamp_of

ERRORS = "errors.csv"
AHEAD = 4  # recordings handed out for each process, so that none waits


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How every recording of a job is scored and reported."""

    window: float | None = None
    hop: float | None = None
    batch: int = BATCH
    reporting: Reporting = Reporting()
    track: int | None = None  # see `read_blocks`

    def settings(self, predictor: Predictor) -> dict[str, Any]:
        """All that rows depend on, besides the recording: what a resumed job must share."""
        window, hop = predictor.window_samples(window=self.window, hop=self.hop)
        return {
            "model": predictor.bundle.model_name,
            "model_version": predictor.bundle.version,
            **predictor.settings,
            "window": window / predictor.rate,
            "hop": hop / predictor.rate,
            "batch": self.batch,
            "track": self.track,
            "decoder": DECODER,
            **asdict(self.reporting),
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one recording."""

    file: str
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a job leaves."""

    written: tuple[Path, ...]
    files: tuple[Path, ...]  # that could be used
    failed: tuple[Outcome, ...]
    seconds: float  # of sound heard now
    before: int  # recordings that were done already
    store: Store

    def rows(self) -> Iterator[tuple[Path, Iterator[Row]]]:
        """Each recording that could be used, with its rows."""
        return self.store.recordings(self.files)


Pool = Callable[[Sequence[str], Store], Generator[Outcome]]  # hears files, and leaves a part of each in the store
Progress = Callable[[Outcome, int, int], None]  # a recording, how many are done, of how many


def run_job(
    folder: Path,
    files: Sequence[Path],
    predictor: Predictor,
    *,
    config: InferenceConfig,
    formats: Sequence[str],
    each: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    failed: Iterable[Outcome] = (),
    pool: Pool | None = None,
    progress: Progress = lambda outcome, done, total: None,
) -> JobResult:
    """Hears recordings and writes what was heard to `folder`: tables, and `errors.csv` if some could not be used.

    Args:
        files: each once; the order of the tables
        each: see `write_tables`
        resume: go on with what the folder holds; tables that this job does not write are removed
        overwrite: throw that away first
        failed: what could not be used before, such as folders that cannot be listed
        pool: hears files elsewhere; by default they are heard here

    Raises:
        RunRefused: the folder holds results of another model or of other settings, or files of somebody else where
            results would lie, or another job is writing there; see `Store`
        JobStopped: a process of the pool died; what is done stays done
        OSError: it cannot be written; likewise
    """
    with ExitStack() as stack:
        store = Store(
            folder,
            settings=config.settings(predictor),
            outputs=[*table_paths(folder, files, formats=formats, each=each), folder / ERRORS],
            resume=resume,
            overwrite=overwrite,
            stack=stack,
        )
        places = [str(file) for file in files]
        done = {place for place in places if resume and store.done(place)}
        seconds, before = 0.0, len(done)
        pending = [place for place in places if place not in done]
        errors = list(failed)
        hear = pool or partial(predict_files, predictor=predictor, config=config)
        with closing(hear(pending, store)) as outcomes:
            for number, outcome in enumerate(outcomes, before + 1):
                if outcome.error is not None:
                    errors.append(outcome)
                seconds += outcome.seconds
                progress(outcome, number, len(places))
        order = {place: number for number, place in enumerate(places)}
        errors.sort(key=lambda outcome: order.get(outcome.file, -1))
        bad = {outcome.file for outcome in errors}
        good = tuple(file for file in files if str(file) not in bad)
        outputs = [*table_paths(folder, good, formats=formats, each=each), *([folder / ERRORS] if errors else [])]
        store.written.claim(outputs)
        store.written.keep_only(outputs)
        recordings = ((store.info(str(file)), rows) for file, rows in store.recordings(good))
        write_tables(folder, recordings, files=good, formats=formats, source=predictor.source, each=each)
        if errors:
            write_atomically(folder / ERRORS, errors_text(errors))
    return JobResult(
        written=tuple(outputs), files=good, failed=tuple(errors), seconds=seconds, before=before, store=store
    )


def errors_text(errors: Iterable[Outcome]) -> str:
    lines = [("file", "error"), *((legible(outcome.file), outcome.error) for outcome in errors)]
    return "".join(map(csv_line, lines))


# --- one process ------------------------------------------------------------------------------------------------------


def predict_files(
    places: Sequence[str], store: Store, *, predictor: Predictor, config: InferenceConfig
) -> Generator[Outcome]:
    """Hears files one after the other and leaves a part of each, the next ones being decoded meanwhile."""
    with closing(read_stamped(places, predictor.rate, track=config.track)) as reading:
        for place, blocks in reading:
            yield predict_file(place, blocks, store, predictor=predictor, config=config)


def read_stamped(places: Sequence[str], rate: int, *, track: int | None) -> Generator[tuple[str, Ahead[Any]]]:
    """Yields each file with its stamp and its blocks, the next files being decoded meanwhile."""
    with closing(read_ahead([partial(stamped_blocks, place, rate, track=track) for place in places])) as reading:
        yield from zip(places, reading, strict=True)


def stamped_blocks(place: str, rate: int, *, track: int | None) -> Iterator[Any]:
    """The stamp of a file, its `AudioInfo`, which is filled on the way, then its blocks."""
    file = Path(place)
    check_regular(file, printable(file))  # a pipe or a device would be read for ever
    try:
        stamp = stamp_of(file)
    except OSError:
        stamp = Stamp(size=0, changed=0, digest="")  # reading says what is wrong
    info = AudioInfo()
    yield stamp
    yield info
    yield from read_blocks(file, rate, track=track, info=info)


def predict_file(
    place: str, blocks: Ahead[Any], store: Store, *, predictor: Predictor, config: InferenceConfig
) -> Outcome:
    about: dict[str, Any] = {}
    try:
        store.write(place, rows_of(place, blocks, about, predictor=predictor, config=config), about=about)
    except AudioError as error:
        return Outcome(file=place, error=str(error))
    return Outcome(file=place, seconds=about["info"].seconds)


def rows_of(
    place: str, blocks: Iterable[Any], about: dict[str, Any], *, predictor: Predictor, config: InferenceConfig
) -> Iterator[Row]:
    """Yields the rows of a file in time, and leaves its stamp and its `AudioInfo` in `about`."""
    parts = iter(blocks)
    about["stamp"], about["info"] = next(parts), next(parts)
    rows = predictor.stream(
        parts,
        file=place,
        reporting=config.reporting,
        window=config.window,
        hop=config.hop,
        batch=config.batch,
        info=about["info"],
    )
    yield from in_time(rows, config.reporting)


# --- several processes ------------------------------------------------------------------------------------------------


class Workers:
    """Processes that hear files, each with a model of its own.

    Args:
        open_predictor: makes the model inside each process; it is sent there
        number: of processes
    """

    def __init__(self, open_predictor: Callable[[], Predictor], *, number: int, config: InferenceConfig) -> None:
        self.open_predictor, self.number, self.config = open_predictor, number, config

    def __call__(self, places: Sequence[str], store: Store) -> Generator[Outcome]:
        # A process that was not forked: threads of torch and of decoders do not survive a fork.
        context = get_context("spawn")
        start = (self.open_predictor, store, self.config)
        others = set(active_children())
        with ProcessPoolExecutor(self.number, context, initializer=_start, initargs=start) as pool:
            try:
                left = iter(places)
                running = {pool.submit(_predict, place) for place in islice(left, AHEAD * self.number)}
                while running:  # no more than so many are handed out: a folder may hold a million
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {pool.submit(_predict, place) for place in islice(left, len(done))}
                    yield from (one.result() for one in done)
            except BrokenProcessPool:
                raise JobStopped(
                    "a process that shared the files died, perhaps killed for want of memory: what is done is kept, "
                    "and the same command with --resume goes on, best with fewer --workers."
                ) from None
            except BaseException:  # interrupted: nobody waits for the recordings in hand, which may have hours
                for process in set(active_children()) - others:
                    process.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)


_process: dict[str, Any] = {}


def _start(open_predictor: Callable[[], Predictor], store: Store, config: InferenceConfig) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _process.update(predictor=open_predictor(), store=store, config=config)


def _end_with_parent() -> None:
    """A parent that is killed ends no process: those left would wait for ever, and hold their memory."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _predict(place: str) -> Outcome:
    (outcome,) = predict_files([place], _process["store"], predictor=_process["predictor"], config=_process["config"])
    return outcome
