"""Texts and images, which a model predicts whole, in rows without times."""

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from ossicle.audio import AudioInfo
from ossicle.data import Item, Modality, modality_of
from ossicle.data.modalities import Unusable
from ossicle.errors import DataRefused
from ossicle.inference.formats import FILE_FORMATS
from ossicle.inference.reporting import Reporting
from ossicle.inference.writers import table_paths, write_tables
from ossicle.jobs.folders import ERRORS, FileResults, Outcome, Progress, collect, no_progress, write_errors
from ossicle.jobs.options import STANDARD_INPUT, PredictOptions, WrongUsage
from ossicle.jobs.store import MemoryStore, Written

OF_SOUND = ("window", "hop", "overlap", "events", "workers", "track", "resume", "each", "timeline", "cluster", "mic")


def predict_items(
    recognizer: Any, inputs: Sequence[Path], options: PredictOptions, *, progress: Progress = no_progress
) -> FileResults:
    """Predicts texts or images, with tables in a folder if there is an `output`.

    Raises:
        WrongUsage: an option of sound
        DataRefused: a folder without an input
        RunRefused: see `Written`
    """
    items = items_in(recognizer, inputs, options)
    tables = [name for name in options.format_names if name in FILE_FORMATS]
    files, folder, store = [Path(item.place) for item in items], options.output, MemoryStore()
    if folder is not None:
        written = Written(folder)
        written.begin([*table_paths(folder, [], formats=tables), folder / ERRORS], overwrite=options.overwrite)
    outcomes = predict_each_item(recognizer, items, store, reporting=options.config().reporting)
    results = collect(outcomes, files, store, failed=(), progress=progress)
    if folder is None:
        return results
    paths = [*table_paths(folder, results.files, formats=tables), *([folder / ERRORS] if results.failed else [])]
    written.claim(paths)
    recordings = [(AudioInfo(), store.rows(str(file))) for file in results.files]
    write_tables(folder, recordings, files=results.files, formats=tables, provenance=recognizer.provenance)
    write_errors(folder, results.failed)
    return FileResults(files=results.files, failed=results.failed, folder=folder, tables=tuple(paths), store=store)


def predict_each_item(
    recognizer: Any, items: Iterable[Item | Unusable], store: MemoryStore, *, reporting: Reporting
) -> Generator[Outcome]:
    """Predicts items one after the other and stores their rows."""
    errors = modality_of(recognizer.modality).errors
    for item in items:
        if isinstance(item, Unusable):
            yield Outcome(file=item.place, error=item.reason)
            continue
        try:
            rows = recognizer.predict_item(item, reporting=reporting).rows
            store.write(item.place, rows, about={})
            outcome = Outcome(file=item.place)
        except errors as error:
            outcome = Outcome(file=item.place, error=str(error))
        yield outcome


def items_in(recognizer: Any, inputs: Sequence[Path], options: PredictOptions) -> list[Item | Unusable]:
    """What the inputs name, each once: files, all files of folders, the rows of tables of texts.

    Raises:
        WrongUsage: an option of sound
        DataRefused: a folder without an input
    """
    modality = modality_of(recognizer.modality)
    refuse_times(modality, inputs, options)
    items: dict[str, Item | Unusable] = {}
    for path in inputs:
        found = modality.find(path, column=options.text)
        if not found:
            raise DataRefused(f"{path}: there is no {modality.noun} in this folder or below it.")
        items |= {item.place: item for item in found}
    return list(items.values())


def refuse_times(modality: Modality, inputs: Sequence[Path], options: PredictOptions) -> None:
    """Raises WrongUsage for an option of sound."""
    given = [f"`{name}`" for name in OF_SOUND if getattr(options, name) != getattr(PredictOptions(), name)]
    given += [f"`formats` {name}" for name in options.format_names if getattr(FILE_FORMATS.get(name), "timed", False)]
    given += [STANDARD_INPUT] if options.live(inputs) else []
    if given:
        raise WrongUsage(f"This model predicts {modality.plural}, which have no times: leave out {given[0]}.")
