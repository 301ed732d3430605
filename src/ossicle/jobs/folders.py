"""Files to tables in a folder: decoding ahead, one part per file, resumable at any moment.

    predict what is not done yet    a part for each file, whole or not at all (`store`)
    write the tables                from the parts, in the order of the files, each table whole or not at all

A file's part is made of its own windows alone and scores have four decimals, so neither the other files, nor the number
of workers, nor a `kill -9` and a new start, changes the tables.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ossicle.audio import DECODER, AudioInfo, find_audio, read_blocks
from ossicle.audio.recording import check_regular
from ossicle.errors import AudioError, DataRefused
from ossicle.files import legible, printable, write_atomically
from ossicle.inference.ahead import Prefetch, read_ahead
from ossicle.inference.formats import csv_line
from ossicle.inference.predictor import BATCH, Predictor, in_time
from ossicle.inference.reporting import Reporting
from ossicle.inference.rows import Row
from ossicle.inference.writers import table_paths, write_tables
from ossicle.jobs.store import NO_STAMP, MemoryStore, ResultStore, Stamp, stamp_of

ERRORS = "errors.csv"


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How every file of a job is scored and reported."""

    window: float | None = None
    hop: float | None = None
    batch: int = BATCH
    reporting: Reporting = Reporting()
    track: int | None = None  # see `read_blocks`

    def settings(self, predictor: Predictor) -> dict[str, Any]:
        """All that rows depend on, besides the file: what a resumed job must share."""
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
    """What became of one file."""

    file: str
    seconds: float = 0.0  # of audio
    error: str | None = None
    """Why it could not be used, in a sentence."""


@dataclass(frozen=True, kw_only=True, repr=False)
class FileResults:
    """The predictions of some files; iterating gives each file that could be used with its rows.

    Rows of a folder are read from it when they are asked for, so a large job needs no memory for them.
    """

    files: tuple[Path, ...]
    """Those that could be used, in the order of the inputs."""
    failed: tuple[Outcome, ...]
    folder: Path | None = None
    tables: tuple[Path, ...] = ()
    """The files that were written, `errors.csv` among them."""
    seconds: float = 0.0
    """Of audio that was decoded now."""
    before: int = 0
    """Files that an earlier job had done."""
    store: ResultStore | MemoryStore

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"FileResults({len(self.files)} files {where}, {len(self.failed)} failed)"

    def __iter__(self) -> Iterator[tuple[Path, tuple[Row, ...]]]:
        return ((file, tuple(self.store.rows(str(file)))) for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all files."""
        return tuple(row for _, rows in self for row in rows)


Pool = Callable[[Sequence[str], ResultStore], Generator[Outcome]]  # predicts files and stores a part of each
Progress = Callable[[Outcome, int, int], None]  # a file, how many are done, of how many


def no_progress(outcome: Outcome, done: int, total: int) -> None:
    """Shows nothing."""


def find_recordings(inputs: Iterable[Path]) -> tuple[list[Path], list[Outcome]]:
    """The audio files that are named, each once, in order, and the folders that cannot be listed.

    A file that is missing or locked stays in and fails later, by name. Of two spellings of one path the first counts;
    a link is a file of its own.

    Raises: DataRefused for a folder without audio files.
    """
    files: dict[str, Path] = {}
    failed: list[Outcome] = []

    def unlisted(folder: str, sentence: str) -> None:
        failed.append(Outcome(file=folder, error=sentence))

    for path in inputs:
        before = len(failed)
        found = find_audio(path, unlisted=unlisted) if os.path.isdir(path) else [path]
        if not found and len(failed) == before:
            raise DataRefused(f"{path}: there is no recording in this folder or below it.")
        for file in found:
            files.setdefault(os.path.join(os.path.realpath(file.parent), file.name), file)
    return list(files.values()), failed


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
    progress: Progress = no_progress,
) -> FileResults:
    """Predicts audio files and writes the results to `folder`: tables, and `errors.csv` if some could not be used.

    Args:
        files: each once; the order of the tables
        each: see `write_tables`
        resume: continue with the results in the folder; tables that this job does not write are removed
        overwrite: delete these results first
        failed: what could not be used before, such as folders that cannot be listed
        pool: predicts files elsewhere; by default it is done here

    Raises:
        RunRefused: the folder holds results of another model or of other settings, or files that ossicle did not write
            where results would lie, or another job is writing there; see `ResultStore`
        JobStopped: a process of the pool died; what is done stays done
        OSError: it cannot be written; likewise
    """
    with ExitStack() as stack:
        store = ResultStore(
            folder,
            settings=config.settings(predictor),
            outputs=[*table_paths(folder, files, formats=formats, each=each), folder / ERRORS],
            resume=resume,
            overwrite=overwrite,
            stack=stack,
        )
        places = [str(file) for file in files]
        done = {place for place in places if resume and store.done(place)}
        pending = [place for place in places if place not in done]
        predict = pool or partial(predict_each, predictor=predictor, config=config)
        outcomes = predict(pending, store)
        results = collect(outcomes, files, store, failed=failed, before=len(done), progress=progress)
        good = results.files
        tables = table_paths(folder, good, formats=formats, each=each)
        outputs = [*tables, *([folder / ERRORS] if results.failed else [])]
        store.written.claim(outputs)
        store.written.keep_only(outputs)
        recordings = ((store.info(str(file)), store.rows(str(file))) for file in good)
        write_tables(folder, recordings, files=good, formats=formats, provenance=predictor.provenance, each=each)
        write_errors(folder, results.failed)
    return replace(results, folder=folder, tables=tuple(outputs))


def predict_in_memory(
    files: Sequence[Path],
    predictor: Predictor,
    *,
    config: InferenceConfig,
    failed: Iterable[Outcome] = (),
    progress: Progress = no_progress,
) -> FileResults:
    """Predicts audio files and keeps their rows in memory; for the arguments see `run_job`."""
    store = MemoryStore()
    outcomes = predict_each([str(file) for file in files], store, predictor=predictor, config=config)
    return collect(outcomes, files, store, failed=failed, progress=progress)


def collect(
    outcomes: Generator[Outcome],
    files: Sequence[Path],
    store: ResultStore | MemoryStore,
    *,
    failed: Iterable[Outcome],
    progress: Progress,
    before: int = 0,
) -> FileResults:
    """Takes the outcomes of files as they come; failed ones are listed in the order of the files."""
    seconds, errors = 0.0, list(failed)
    with closing(outcomes):
        for number, outcome in enumerate(outcomes, before + 1):
            if outcome.error is not None:
                errors.append(outcome)
            seconds += outcome.seconds
            progress(outcome, number, len(files))
    order = {str(file): number for number, file in enumerate(files)}
    errors.sort(key=lambda outcome: order.get(outcome.file, -1))
    bad = {outcome.file for outcome in errors}
    good = tuple(file for file in files if str(file) not in bad)
    return FileResults(files=good, failed=tuple(errors), seconds=seconds, before=before, store=store)


def write_errors(folder: Path, errors: Sequence[Outcome]) -> None:
    """Lists the files that could not be used, with the reason, if there are any."""
    if errors:
        lines = [("file", "error"), *((legible(outcome.file), outcome.error) for outcome in errors)]
        write_atomically(folder / ERRORS, "".join(map(csv_line, lines)))


# --- one process ------------------------------------------------------------------------------------------------------


def predict_each(
    places: Sequence[str], store: ResultStore | MemoryStore, *, predictor: Predictor, config: InferenceConfig
) -> Generator[Outcome]:
    """Predicts files one after the other and stores a part of each, while the next ones are decoded."""
    with closing(read_stamped(places, predictor.rate, track=config.track, stamp=store.stamp)) as reading:
        for place, blocks in reading:
            about: dict[str, Any] = {}
            try:
                store.write(place, rows_of(place, blocks, about, predictor=predictor, config=config), about=about)
                outcome = Outcome(file=place, seconds=about["info"].seconds)
            except AudioError as error:
                outcome = Outcome(file=place, error=str(error))
            yield outcome


def read_stamped(
    places: Sequence[str], rate: int, *, track: int | None, stamp: Callable[[Path], Stamp] = stamp_of
) -> Generator[tuple[str, Prefetch[Any]]]:
    """Yields each file with its stamp and its blocks, while the next files are decoded."""
    openers = [partial(stamped_blocks, place, rate, track=track, stamp=stamp) for place in places]
    with closing(read_ahead(openers)) as reading:
        yield from zip(places, reading, strict=True)


def stamped_blocks(place: str, rate: int, *, track: int | None, stamp: Callable[[Path], Stamp]) -> Iterator[Any]:
    """The stamp of a file, its `AudioInfo`, which is filled while it is read, then its blocks."""
    file = Path(place)
    check_regular(file, printable(file))  # a pipe or a device would be read for ever
    try:
        found = stamp(file)
    except OSError:
        found = NO_STAMP  # reading says what is wrong
    info = AudioInfo()
    yield found
    yield info
    yield from read_blocks(file, rate, track=track, info=info)


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
