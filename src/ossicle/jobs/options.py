"""The one table of options of `ossicle predict`, `ossicle embed` and `ossicle-runtime`.

A field of `PredictOptions` or `EmbedOptions` is a row: name, type and default stand in the field, help, range, group
and the commands that have it in its `Option`. The parameters of typer (`ossicle.cli.options`) and of argparse
(`ossicle.runtime`) are made from the table, and the checks below are those of the command lines and of Python.
"""

import csv
import functools
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from ossicle.inference.formats import OUTPUT_FORMATS, check_formats

if TYPE_CHECKING:
    from ossicle.jobs.folders import InferenceConfig

PREDICT, EMBED, RUNTIME = "ossicle predict", "ossicle embed", "ossicle-runtime"  # commands
EVENTS, FOLDER, LIVE = "Events", "A folder of results", "Live audio"  # groups in --help
STANDARD_INPUT = "-"

INPUTS = "Audio files, folders with audio files, or - for standard input"


@dataclass(frozen=True, kw_only=True)
class Option:
    """A row of the table."""

    help: str
    flags: tuple[str, ...] = ()  # by default --name
    metavar: str | None = None
    group: str | None = None
    commands: tuple[str, ...] = (PREDICT, RUNTIME)
    least: float | int | None = None
    most: float | int | None = None
    above: float | int | None = None  # the range begins just above this
    needs: str | None = None  # another option, "live" or "stdin"; without it this one has no effect
    # Filled in by `table`:
    name: str = ""
    kind: type = str
    choices: tuple[str, ...] = ()
    default: Any = None

    @property
    def range(self) -> str:
        """The range in words; empty for an option without one."""
        low = f"more than {self.above:g}" if self.above is not None else f"{self.least or 0:g}"
        if self.most is not None:
            return f"{low}{' and at most' if self.above is not None else ' to'} {self.most:g}"
        return f"{low} or more" if self.least is not None else ""

    @property
    def text(self) -> str:
        """Help with the range."""
        return f"{self.help} ({self.range})." if self.range else f"{self.help}."

    def check(self, value: Any) -> None:
        """Raises WrongUsage for a value that lies outside the range or has another type."""
        if value == self.default:
            return
        if self.kind in (int, float):
            if isinstance(value, bool) or not isinstance(value, Integral if self.kind is int else Real):
                kind = "a whole number" if self.kind is int else "a number"
                raise WrongUsage(f"`{self.name}` is {kind}, not {value!r}.")
            low = self.above is None or value > self.above
            if not (low and (self.least is None or value >= self.least) and (self.most is None or value <= self.most)):
                raise WrongUsage(f"`{self.name}` is {self.range}, not {value:g}.")
        if self.choices and value not in self.choices:
            raise WrongUsage(f"`{self.name}` is {' or '.join(self.choices)}, not {value!r}.")


class WrongUsage(ValueError):
    """Options that contradict each other or have no effect, or a value outside its range.

    Args:
        sentence: with the names of options in backquotes, which `in_flags` replaces
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence.replace("`", ""))
        self.sentence = sentence

    def in_flags(self) -> str:
        """The sentence as a command line says it."""
        return re.sub(r"`(\w+)`", lambda found: flag_of(found[1]), self.sentence)


def option(default: Any = MISSING, /, **columns: Any) -> Any:
    """A field that is a row of the table; without a default it is required."""
    return field(default=default, metadata={"option": Option(**columns)})


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of a prediction.

    Raises: WrongUsage for a value outside its range.
    """

    output: Path | None = option(None, flags=("-o", "--output"), help="Folder to write the tables to")
    formats: str | Sequence[str] | None = option(
        None,
        flags=("--format",),
        metavar=",".join(OUTPUT_FORMATS),
        help="By default a table on the screen, with -o a CSV file; with -o also several",
    )
    window: float | None = option(
        None, commands=(PREDICT, EMBED, RUNTIME), help="Seconds of a window; by default the model's"
    )
    hop: float | None = option(
        None,
        commands=(PREDICT, EMBED, RUNTIME),
        help="Seconds from one window to the next; by default the model's, or all of --window",
    )
    min_score: float | None = option(
        None, least=0, most=1, help="Report labels from this score on, in place of the thresholds"
    )
    top_k: int | None = option(None, least=1, help="Report at most this many labels per window")
    labels: str | Sequence[str] | None = option(
        None, metavar="A,B,...", help="Report only these labels; one with a comma in quotes"
    )
    overlap: Literal["mean", "max"] | None = option(
        None, help="Report segments in place of overlapping windows, by the mean or the highest score of these"
    )
    text: str | None = option(None, commands=(PREDICT,), help="Column with the text, of tables for a model of texts")
    device: str = option("auto", commands=(PREDICT, EMBED), help="auto, cpu, cuda, cuda:1, mps")
    encoder: str | None = option(
        None, commands=(PREDICT, EMBED), help="Where the frozen encoder of a tuned head is, if it has moved"
    )
    keep: float | None = option(
        None, commands=(PREDICT,), help="Of a PaSST, compute only this fraction of the tokens: faster, less exact"
    )
    keep_by: Literal["merge", "strided"] | None = option(
        None,
        commands=(PREDICT,),
        needs="keep",
        help="With --keep: merge similar tokens, the default, or leave evenly spaced ones out",
    )
    track: int | None = option(
        None,
        commands=(PREDICT, EMBED, RUNTIME),
        least=1,
        help="Of several audio tracks; by default the one that the file marks, or the first",
    )
    threads: int | None = option(
        None, commands=(RUNTIME,), least=1, help="Threads of each process; by default the cores are shared"
    )

    events: bool = option(False, group=EVENTS, help="Report events with onset and offset in place of windows")
    release: float | None = option(
        None,
        group=EVENTS,
        needs="events",
        above=0,
        most=1,
        help="An event lasts while its score is this fraction of its threshold; by default 1",
    )
    median: int | None = option(
        None, group=EVENTS, needs="events", least=1, help="Windows of the median filter, odd; by default 1"
    )
    min_duration: float | None = option(
        None, group=EVENTS, needs="events", least=0, help="Drop events shorter than this many seconds; by default 0"
    )
    merge_gap: float | None = option(
        None, group=EVENTS, needs="events", least=0, help="Join events at most this many seconds apart; by default 0"
    )

    each: bool = option(False, group=FOLDER, needs="output", help="Also write tables for each file")
    timeline: bool = option(
        False, group=FOLDER, needs="output", commands=(PREDICT,), help="Also plot each file with its predictions"
    )
    resume: bool = option(False, group=FOLDER, needs="output", help="Continue with the results in the folder")
    overwrite: bool = option(False, group=FOLDER, needs="output", help="Delete the results in the folder first")
    workers: int = option(1, group=FOLDER, needs="output", least=1, help="Processes that share the files")
    cluster: str | None = option(
        None,
        group=FOLDER,
        needs="output",
        commands=(PREDICT,),
        metavar="ADDRESS",
        help="Share the files on a Ray cluster; local starts one here",
    )

    pcm: str | None = option(
        None,
        group=LIVE,
        needs="stdin",
        metavar="s16le|f32le|...",
        help="Standard input is raw samples of this encoding, not WAV",
    )
    rate: int | None = option(None, group=LIVE, needs="pcm", least=1, help="Sample rate of raw samples, hertz")
    channels: int = option(1, group=LIVE, needs="pcm", least=1, help="Channels of raw samples")
    mic: bool = option(False, group=LIVE, help="Use the microphone, until Ctrl-C")
    mic_device: str | None = option(None, group=LIVE, needs="mic", help="Name or number of the microphone")
    latency: float | None = option(
        None,
        group=LIVE,
        needs="live",
        metavar="SECONDS",
        above=0,
        most=10,
        help="Seconds of live audio to wait for at a time; by default 0.1",
    )

    def __post_init__(self) -> None:
        check_values(self)

    def live(self, inputs: Sequence[Path]) -> bool:
        """Whether the sound is still arriving."""
        return self.mic or list(inputs) == [Path(STANDARD_INPUT)]

    def check(self, inputs: Sequence[Path]) -> None:
        """Refuses options that contradict each other or have no effect, before a model is loaded.

        Raises: WrongUsage
        """
        live = self.live(inputs)
        if live or Path(STANDARD_INPUT) in inputs:
            if self.output is not None or self.mic and inputs or len(inputs) > 1:
                raise WrongUsage("Live audio is printed, and is the only input: leave out `output` and other inputs.")
        elif not inputs:
            raise WrongUsage("Name an audio file, a folder, - for standard input, or give `mic`.")
        if self.output is None and len(self.format_names) > 1:
            raise WrongUsage("What is printed has one format: give `output` for several.")
        if self.resume and self.overwrite:
            raise WrongUsage("`resume` and `overwrite` exclude each other.")
        if live and self.track is not None:
            raise WrongUsage("Live audio has one track: leave out `track`.")
        conditions = {
            "live": (live, "- for standard input or `mic`"),
            "stdin": (live and not self.mic, "- for standard input"),
        }
        for row in table(PredictOptions):
            if row.needs is not None and getattr(self, row.name) != row.default:
                needed = getattr(self, row.needs, None)
                met, what = conditions.get(row.needs, (needed not in (None, False), f"`{row.needs}`"))
                if not met:
                    raise WrongUsage(f"`{row.name}` needs {what}.")
        if self.pcm is not None and self.rate is None:
            raise WrongUsage("Raw samples do not say their rate: give `rate` with `pcm`.")
        self.config()

    @property
    def format_names(self) -> tuple[str, ...]:
        """The output formats: by default a table on the screen, CSV in a folder.

        Raises: WrongUsage for one that is not available.
        """
        if self.formats is None:
            return ("table",) if self.output is None else ("csv",)
        names = self.formats.split(",") if isinstance(self.formats, str) else self.formats
        try:
            return check_formats(name.strip() for name in names)
        except ValueError as error:
            raise WrongUsage(f"`formats`: {error}.") from error

    def config(self) -> "InferenceConfig":
        """How every file is scored and reported.

        Raises: WrongUsage
        """
        from ossicle.inference.events import EventRules
        from ossicle.inference.reporting import Reporting
        from ossicle.jobs.folders import InferenceConfig

        rules = {
            "release": self.release,
            "median": self.median,
            "min_seconds": self.min_duration,
            "merge_gap": self.merge_gap,
        }
        given: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
        labels = split_labels(self.labels) if isinstance(self.labels, str) else self.labels
        try:
            reporting = Reporting(
                top_k=self.top_k,
                min_score=self.min_score,
                labels=None if labels is None else tuple(labels),
                overlap=self.overlap,
                events=EventRules(**given) if self.events else None,
            )
        except ValueError as error:
            raise WrongUsage(f"{error}.") from error
        return InferenceConfig(window=self.window, hop=self.hop, reporting=reporting, track=self.track)


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """The options of `ossicle embed` that a prediction does not have.

    Raises: WrongUsage for a value outside its range.
    """

    output: Path = option(flags=("-o", "--output"), commands=(EMBED,), help="File to write: .npz or .safetensors")
    timestamps: bool = option(False, commands=(EMBED,), help="A vector for each window, not only for each file")
    layer: int | None = option(
        None, commands=(EMBED,), least=1, help="Layer of the network; by default the input of its head"
    )

    def __post_init__(self) -> None:
        check_values(self)


@functools.cache
def table(*holders: type, command: str | None = None) -> tuple[Option, ...]:
    """The rows of the given classes, of all commands or of one."""
    rows = []
    for holder in holders:
        hints = get_type_hints(holder)
        for one in fields(holder):
            row: Option = one.metadata["option"]
            hint = hints[one.name]
            kind = next((part for part in get_args(hint) if part is not NoneType), hint)
            choices = get_args(kind) if get_origin(kind) is Literal else ()
            flags = row.flags or ("--" + one.name.replace("_", "-"),)
            kind = str if choices else kind
            rows.append(replace(row, name=one.name, kind=kind, choices=choices, flags=flags, default=one.default))
    return tuple(row for row in rows if command is None or command in row.commands)


def flag_of(name: str) -> str:
    """What an option is called on a command line."""
    return next(row.flags[0] for row in table(PredictOptions, EmbedOptions) if row.name == name)


def check_values(options: Any) -> None:
    """Raises WrongUsage for a value outside its range."""
    for row in table(type(options)):
        row.check(getattr(options, row.name))


def split_labels(text: str) -> tuple[str, ...]:
    """Labels between commas; one that has a comma itself stands in double quotes."""
    try:
        (labels,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise WrongUsage(f"`labels` stand between commas, those with a comma in quotes ({error}).") from error
    return tuple(label.strip() for label in labels or [""])
