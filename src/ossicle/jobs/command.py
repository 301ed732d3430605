"""What `ossicle predict` does with sound, for every command line that offers it: to a terminal, to a folder, live."""

import contextlib
import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ossicle.audio import AudioInfo, find_audio, read_blocks
from ossicle.audio.hush import speak_apart
from ossicle.errors import AudioError, AudioUnreadable, DataRefused, JobStopped, ending
from ossicle.files import printable
from ossicle.inference import (
    FORMATS,
    TABLES,
    EventRules,
    Reporting,
    Row,
    decimals,
    label_indices,
    stream_table,
    table_lines,
    table_text,
)
from ossicle.inference.predictor import Predictor, in_time
from ossicle.jobs.folders import ERRORS, InferenceConfig, JobResult, Outcome, Pool, run_job
from ossicle.jobs.store import HIDDEN

STANDARD_INPUT = "-"
LONGEST_LATENCY = 10.0  # seconds of live sound that are waited for at a time
Say = Callable[[str], None]
Bar = Callable[[], AbstractContextManager[Callable[[float, int, int], None]]]
Screen = Callable[[], AbstractContextManager[Callable[[str], None]]]
Draw = Callable[[Path, JobResult], list[Path]]


class WrongUsage(ValueError):
    """Options that contradict each other, or that say nothing without another one."""

    def __init__(self, sentence: str, option: str | None = None) -> None:
        super().__init__(sentence)
        self.option = option


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of a prediction as they were given; what they mean is in the command's help."""

    output: Path | None = None
    formats: str | None = None
    window: float | None = None
    hop: float | None = None
    min_score: float | None = None
    top_k: int | None = None
    labels: str | None = None
    overlap: Any = None  # "mean" or "max"
    events: bool = False
    release: float | None = None
    median: int | None = None
    min_duration: float | None = None
    merge_gap: float | None = None
    track: int | None = None
    each: bool = False
    resume: bool = False
    overwrite: bool = False
    workers: int = 1
    pcm: str | None = None
    rate: int | None = None
    channels: int = 1
    mic: bool = False
    mic_device: str | None = None
    latency: float | None = None

    def live(self, inputs: Sequence[Path]) -> bool:
        """Whether sound that is still arriving is asked for."""
        return self.mic or list(inputs) == [Path(STANDARD_INPUT)]

    def check(self, inputs: Sequence[Path], **more: Any) -> None:
        """Refuses what contradicts itself, before a model is loaded.

        Args:
            more: further options that need an output folder, by name
        """
        if self.live(inputs) or Path(STANDARD_INPUT) in inputs:
            if self.output is not None or self.mic and inputs or len(inputs) > 1:
                raise WrongUsage("Live sound is printed, and is the only input: leave out -o and other inputs.")
        elif not inputs:
            raise WrongUsage("Name a recording, a folder, - for standard input, or give --mic.")
        if self.output is None and len(self.wanted) > 1:
            raise WrongUsage("What is printed has one format: give -o for several.", "--format")
        if self.resume and self.overwrite:
            raise WrongUsage("Either go on with what the folder holds, or throw it away.", "--resume / --overwrite")
        counts = {"--workers": self.workers, "--channels": self.channels, "--rate": self.rate, "--track": self.track}
        if small := [name for name, value in counts.items() if value is not None and value < 1]:
            raise WrongUsage(f"This is 1 or more, not {counts[small[0]]}.", small[0])
        if self.live(inputs) and self.track is not None:
            raise WrongUsage("Live sound has one track: leave it out.", "--track")
        folder = {"--each": self.each, "--resume": self.resume, "--overwrite": self.overwrite}
        folder |= {"--workers": self.workers > 1, **more}
        needs(self.output, folder, "-o")
        needs(self.live(inputs) and not self.mic, {"--pcm": self.pcm}, "- for standard input")
        needs(self.pcm, {"--rate": self.rate, "--channels": self.channels > 1}, "--pcm")
        needs(self.mic, {"--mic-device": self.mic_device}, "--mic")
        needs(self.live(inputs), {"--latency": self.latency is not None}, "- for standard input or --mic")
        if self.latency is not None and not 0 < self.latency <= LONGEST_LATENCY:
            raise WrongUsage(
                f"This is more than 0 and at most {LONGEST_LATENCY:g} s, not {self.latency:g}.", "--latency"
            )
        rules = {"--release": self.release, "--median": self.median}
        rules |= {"--min-duration": self.min_duration, "--merge-gap": self.merge_gap}
        needs(self.events, {name: value is not None for name, value in rules.items()}, "--events")
        if unknown := [name for name in self.wanted if name not in FORMATS]:
            raise WrongUsage(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}.", "--format")
        if self.pcm is not None and self.rate is None:
            raise WrongUsage("Raw samples do not say their rate: give --rate.", "--pcm")
        self.config()

    @property
    def wanted(self) -> tuple[str, ...]:
        """The formats: by default a table to the terminal, CSV to a folder."""
        if self.formats is None:
            return ("table",) if self.output is None else ("csv",)
        return tuple(dict.fromkeys(name.strip() for name in self.formats.split(",")))

    def config(self) -> InferenceConfig:
        """What these options say about how to hear."""
        rules = {
            "release": self.release,
            "median": self.median,
            "min_seconds": self.min_duration,
            "merge_gap": self.merge_gap,
        }
        given: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
        labels = None if self.labels is None else split_labels(self.labels)
        try:
            reporting = Reporting(
                top_k=self.top_k,
                min_score=self.min_score,
                labels=labels,
                overlap=self.overlap,
                events=EventRules(**given) if self.events else None,
            )
        except ValueError as error:
            raise WrongUsage(f"{error}.") from error
        return InferenceConfig(window=self.window, hop=self.hop, reporting=reporting, track=self.track)

    def suit(self, predictor: Predictor) -> None:
        """Refuses labels, and a window, that the model does not have, before anything is heard."""
        check_labels(predictor, self.config())
        try:
            predictor.window_samples(window=self.window, hop=self.hop)
        except ValueError as error:
            raise WrongUsage(f"{error}.", "--window / --hop") from error


def split_labels(text: str) -> tuple[str, ...]:
    """Labels between commas; one that has a comma itself stands in double quotes."""
    try:
        (labels,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise WrongUsage(f"Labels stand between commas, those with a comma in quotes ({error}).", "--labels") from error
    return tuple(label.strip() for label in labels or [""])


def needs(needed: Any, given: dict[str, Any], name: str) -> None:
    """Refuses options that say nothing without another one."""
    if not needed and (alone := [option for option, value in given.items() if value]):
        raise WrongUsage(f"This needs {name} as well.", alone[0])


def check_labels(predictor: Predictor, config: InferenceConfig) -> None:
    """Refuses labels to report that the model does not have."""
    try:
        label_indices(predictor.labels, config.reporting.labels)
    except ValueError as error:
        raise WrongUsage(f"{error}.", "--labels") from error


@contextlib.contextmanager
def no_bar() -> Iterator[Callable[[float, int, int], None]]:
    """Shows nothing."""
    yield lambda seconds, done, total: None


@contextlib.contextmanager
def plain_lines() -> Iterator[Callable[[str], None]]:
    """Shows one line after the other."""
    yield lambda line: print(line, flush=True)


def no_pictures(folder: Path, result: JobResult) -> list[Path]:
    """Draws nothing."""
    return []


def predict(
    predictor: Predictor,
    inputs: Sequence[Path],
    options: PredictOptions,
    *,
    say: Say,
    pool: Pool | None = None,
    screen: Screen = plain_lines,
    bar: Bar = no_bar,
    draw: Draw = no_pictures,
) -> int:
    """Hears what was asked for, to where it was asked for; gives how many inputs could not be used.

    Args:
        say: told, in a sentence, what went wrong
        pool: hears the files of a folder of results elsewhere
        screen: shows lines of live sound
        bar: shows how far a folder of results is
        draw: makes pictures of the results, and gives their paths
    """
    speak_apart()  # decoders are hushed while others have something to say
    options.suit(predictor)
    if options.live(inputs):
        return predict_live(predictor, options, say=say, screen=screen)
    files, failed = find_recordings(inputs)
    for outcome in failed:
        say(str(outcome.error))
    if options.output is None:
        bad = len(failed) + print_files(predictor, files, options, say=say)
    else:
        bad = fill_folder(predictor, files, options, say=say, failed=failed, pool=pool, bar=bar, draw=draw)
    if bad:
        say(f"{bad} of {len(files) + len(failed)} recordings could not be used.")
    return bad


def find_recordings(inputs: Iterable[Path]) -> tuple[list[Path], list[Outcome]]:
    """The recordings that are named, each once, in order, and the folders that cannot be listed.

    A file that is missing or out of reach stays in and fails later, by name. Of two spellings of one path the first
    counts; a link is a recording of its own.

    Raises: DataRefused for a folder without a recording.
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


# --- to the terminal --------------------------------------------------------------------------------------------------


def print_files(predictor: Predictor, files: Sequence[Path], options: PredictOptions, *, say: Say) -> int:
    """Prints what each recording says, while it says it; gives how many could not be used."""
    config, (name,) = options.config(), options.wanted
    if len(files) > 1 and name in TABLES and TABLES[name].per_recording:
        raise WrongUsage("An Audacity label track belongs to one recording: give -o for several.", "--format")
    reporting, failed = config.reporting, 0

    def heard(file: Path, info: AudioInfo) -> Iterator[list[Row]]:
        rows = predictor.stream(
            read_blocks(file, predictor.rate, track=config.track, info=info),
            file=str(file),
            reporting=reporting,
            window=config.window,
            hop=config.hop,
            info=info,
        )
        yield from rows if reporting.events is None else [list(in_time(rows, reporting))]

    def to_the_break(found: Iterator[Any]) -> Iterator[Any]:
        nonlocal failed
        try:
            yield from found
        except AudioError as error:
            say(str(error))
            failed += 1

    if name in TABLES:
        infos = ((file, AudioInfo()) for file in files)
        recordings = ((info, chain.from_iterable(to_the_break(heard(file, info)))) for file, info in infos)
        texts = table_text(name, recordings, predictor.source)
    else:
        labels = reporting.labels or predictor.labels
        tables = (stream_table(str(file), heard(file, AudioInfo()), labels=labels) for file in files)
        texts = (line + "\n" for table in tables for line in to_the_break(table))
    for text in texts:
        print(text, end="", flush=True)
    return failed


# --- to a folder ------------------------------------------------------------------------------------------------------


def fill_folder(
    predictor: Predictor,
    files: Sequence[Path],
    options: PredictOptions,
    *,
    say: Say,
    failed: Sequence[Outcome],
    pool: Pool | None,
    bar: Bar,
    draw: Draw,
) -> int:
    """Runs a job and says what came of it; gives how many inputs could not be used.

    Args:
        failed: inputs that could not be used before
    """
    assert options.output is not None
    began, done = time.monotonic(), 0
    try:
        with bar() as show:

            def progress(outcome: Outcome, count: int, total: int) -> None:
                nonlocal done
                done = count
                if outcome.error is not None:
                    say(outcome.error)
                show(outcome.seconds, count, total)

            result = run_job(
                options.output,
                files,
                predictor,
                config=options.config(),
                formats=options.wanted,
                each=options.each,
                resume=options.resume,
                overwrite=options.overwrite,
                failed=failed,
                pool=pool,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted: {done} of {len(files)} recordings are done and kept in {options.output}; "
            "the same command with --resume goes on."
        ) from None
    except OSError as error:
        # A write that fails does not say where. Before there is a job, nothing is kept and opening says where.
        if ending(error) is None or not (options.output / HIDDEN).is_dir():
            raise
        raise JobStopped(
            f"{options.output}: {error.strerror}; what is done is kept there, and the same command with --resume "
            "goes on."
        ) from error
    took = time.monotonic() - began
    if "table" in options.wanted:
        for file, rows in result.rows():
            print("\n".join(table_lines(str(file), list(rows))))
    say_written(result.written)
    fresh = len(result.files) - result.before
    if result.before:
        print(f"Done before: {result.before} of {len(files)} recordings.")
    if fresh:
        print(
            f"Heard: {duration(result.seconds)} in {duration(took)} "
            f"({brief(fresh / took)} files/s, {brief(result.seconds / 60 / took)} h of sound a minute)."
        )
    say_written(draw(options.output, result))  # last: a recording that has changed since is an error
    return len(result.failed)


def duration(seconds: float) -> str:
    """A length in a unit that leaves something of it."""
    if seconds < 120:
        return f"{brief(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def brief(number: float) -> str:
    """A number with two digits that say something, or whole."""
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def say_written(paths: Sequence[Path]) -> None:
    """Names the tables of everything, and one of those of single recordings."""
    together = [path for path in paths if path.name.startswith("predictions.") or path.name == ERRORS]
    apart = [path for path in paths if path not in set(together)]
    for path in together:
        print(f"Wrote {printable(path)}")
    if apart:
        print(f"Wrote {printable(apart[0])}" + (f" and {len(apart) - 1} more" if len(apart) > 1 else ""))


# --- live -------------------------------------------------------------------------------------------------------------


def predict_live(predictor: Predictor, options: PredictOptions, *, say: Say, screen: Screen) -> int:
    """Prints each row as soon as it is known; gives 1 if the sound broke off, else 0."""
    missing: list[str] = []
    info = AudioInfo()
    waiting: dict[str, Any] = {"cut_off": missing.append, "info": info}
    if options.latency is not None:
        waiting["block_seconds"] = options.latency
    if options.mic:
        from ossicle.audio.microphone import microphone_blocks

        number = options.mic_device
        device = int(number) if number is not None and number.isdecimal() else number
        blocks = microphone_blocks(predictor.rate, device=device, behind=say, **waiting)
    else:
        from ossicle.audio.stream import Layout, stream_blocks

        layout = None
        if options.pcm is not None and options.rate is not None:
            try:
                layout = Layout(encoding=options.pcm, rate=options.rate, channels=options.channels)
            except ValueError as error:
                raise WrongUsage(f"{error}.", "--pcm") from error
        if sys.stdin is None:  # closed, as daemons have it
            raise AudioUnreadable("standard input is closed; send sound into it, or name a recording")
        blocks = stream_blocks(sys.stdin.buffer, predictor.rate, layout=layout, remark=say, **waiting)
    rows = predictor.stream(
        blocks,
        file=STANDARD_INPUT,
        reporting=options.config().reporting,
        window=options.window,
        hop=options.hop,
        batch=1,  # a window waits for no other
        info=info,
    )
    (name,) = options.wanted
    with closing(rows):
        if name == "table":
            with screen() as show:
                digits = 2
                for some in rows:
                    digits = decimals(some, least=digits)
                    for row in some:
                        times = f"{row.start:8.{digits}f} - {row.end:8.{digits}f} s"
                        show(f"{times}  {printable(row.label):<24} {row.score:.4f}")
        else:
            for text in table_text(name, [(info, chain.from_iterable(rows))], predictor.source):
                print(text, end="", flush=True)
    for sentence in missing:
        say(sentence)
    return len(missing[:1])
