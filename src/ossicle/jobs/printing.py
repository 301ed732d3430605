"""Predictions on the screen, as soon as they are known, and what a job says of itself."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ossicle.audio import AudioInfo, read_blocks
from ossicle.errors import AudioError
from ossicle.files import printable
from ossicle.inference.formats import FILE_FORMATS
from ossicle.inference.predictor import Predictor, in_time
from ossicle.inference.rows import Row
from ossicle.inference.writers import stream_table, table_lines, table_text
from ossicle.jobs.folders import ERRORS, FileResults
from ossicle.jobs.options import PredictOptions, WrongUsage
from ossicle.jobs.store import MemoryStore


def print_files(
    predictor: Predictor, files: Sequence[Path], options: PredictOptions, *, say: Callable[[str], None]
) -> int:
    """Prints the rows of each file while it is decoded; returns how many could not be used."""
    config, (name,) = options.config(), options.format_names
    if len(files) > 1 and name in FILE_FORMATS and FILE_FORMATS[name].per_recording:
        raise WrongUsage(f"A table of the format {name} belongs to one recording: give `output` for several.")
    reporting, failed = config.reporting, 0

    def rows_of(file: Path, info: AudioInfo) -> Iterator[list[Row]]:
        rows = predictor.stream(
            read_blocks(file, predictor.rate, track=config.track, info=info),
            file=str(file),
            reporting=reporting,
            window=config.window,
            hop=config.hop,
            info=info,
        )
        yield from rows if reporting.events is None else [list(in_time(rows, reporting))]

    def until_an_error(found: Iterator[Any]) -> Iterator[Any]:
        nonlocal failed
        try:
            yield from found
        except AudioError as error:
            say(str(error))
            failed += 1

    if name in FILE_FORMATS:
        infos = ((file, AudioInfo()) for file in files)
        recordings = ((info, chain.from_iterable(until_an_error(rows_of(file, info)))) for file, info in infos)
        texts = table_text(name, recordings, predictor.provenance)
    else:
        labels = reporting.labels or predictor.labels
        tables = (stream_table(str(file), rows_of(file, AudioInfo()), labels=labels) for file in files)
        texts = (line + "\n" for table in tables for line in until_an_error(table))
    for text in texts:
        print(text, end="", flush=True)
    return failed


def print_items(
    predictor: Any, inputs: Sequence[Path], options: PredictOptions, *, say: Callable[[str], None]
) -> tuple[int, int]:
    """Prints the rows of texts or images; returns how many could not be used, and of how many."""
    from ossicle.jobs.items import items_in, predict_each_item  # which is not part of the small distribution

    (name,), store = options.format_names, MemoryStore()
    items = items_in(predictor, inputs, options)
    outcomes = predict_each_item(predictor, items, store, reporting=options.config().reporting)
    good = []
    for outcome in outcomes:
        if outcome.error is not None:
            say(outcome.error)
            continue
        good.append(outcome.file)
        if name == "table":
            print("\n".join(table_lines(outcome.file, list(store.rows(outcome.file)))))
    if name in FILE_FORMATS:
        recordings = ((AudioInfo(), store.rows(file)) for file in good)
        for text in table_text(name, recordings, predictor.provenance):
            print(text, end="")
    return len(items) - len(good), len(items)


def print_results(results: FileResults, *, took: float) -> None:
    """Says what a job has written and how fast it was; `took` is seconds."""
    print_written(results.tables)
    new = len(results.files) - results.before
    if results.before:
        print(f"Done before: {results.before} of {len(results.files) + len(results.failed)} recordings.")
    if new and results.seconds:
        print(
            f"Predicted: {duration(results.seconds)} of audio in {duration(took)} "
            f"({brief(new / took)} files/s, {brief(results.seconds / 60 / took)} h of audio per minute)."
        )


def print_written(paths: Iterable[Path]) -> None:
    """Names the tables of all files together, and one of those of single files."""
    paths = list(paths)
    together = [path for path in paths if path.name.startswith("predictions.") or path.name == ERRORS]
    apart = [path for path in paths if path not in set(together)]
    for path in together:
        print(f"Wrote {printable(path)}")
    if apart:
        print(f"Wrote {printable(apart[0])}" + (f" and {len(apart) - 1} more" if len(apart) > 1 else ""))


def duration(seconds: float) -> str:
    """A length in a unit that keeps two digits of it."""
    if seconds < 120:
        return f"{brief(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def brief(number: float) -> str:
    """A number with two digits, or whole."""
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"
