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
ALL = (PREDICT, EMBED, RUNTIME)
EVENTS, FOLDER, LIVE = "Events", "A folder of results", "Live audio"  # groups in --help
OF_EVENTS: Any = {"group": EVENTS, "needs": "events"}
OF_FOLDER: Any = {"group": FOLDER, "needs": "output"}
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
            number = float(value)
            low, high = self.least is None or number >= self.least, self.most is None or number <= self.most
            if not (low and high and (self.above is None or number > self.above)):
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
        flags = {row.name: row.flags[0] for row in table(PredictOptions, EmbedOptions)}
        return re.sub(r"`(\w+)`", lambda found: flags.get(found[1], found[0]), self.sentence)


def option(default: Any, help: str, **columns: Any) -> Any:
    """A field that is a row of the table; with the default MISSING it is required."""
    return field(default=default, metadata={"option": Option(help=help, **columns)})


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of a prediction.

    Raises: WrongUsage for a value outside its range.
    """

    output: Path | None = option(None, "Folder to write the tables to", flags=("-o", "--output"))
    formats: str | Sequence[str] | None = option(
        None,
        "By default a table on the screen, with -o a CSV file; with -o also several",
        flags=("--format",),
        metavar=",".join(OUTPUT_FORMATS),
    )
    window: float | None = option(None, "Seconds of a window; by default the model's", commands=ALL)
    hop: float | None = option(
        None, "Seconds from one window to the next; by default the model's, or all of --window", commands=ALL
    )
    min_score: float | None = option(
        None, "Report labels from this score on, in place of the thresholds", least=0, most=1
    )
    top_k: int | None = option(None, "Report at most this many labels per window", least=1)
    labels: str | Sequence[str] | None = option(
        None, "Report only these labels; one with a comma in quotes", metavar="A,B,..."
    )
    overlap: Literal["mean", "max"] | None = option(
        None, "Report segments in place of overlapping windows, by the mean or the highest score of these"
    )
    text: str | None = option(None, "Column with the text, of tables for a model of texts", commands=(PREDICT,))
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps", commands=(PREDICT, EMBED))
    encoder: str | None = option(
        None, "Where the frozen encoder of a tuned head is, if it has moved", commands=(PREDICT, EMBED)
    )
    keep: float | None = option(
        None, "Of a PaSST, compute only this fraction of the tokens: faster, less exact", commands=(PREDICT,)
    )
    keep_by: Literal["merge", "strided"] | None = option(
        None,
        "With --keep: merge similar tokens, the default, or leave evenly spaced ones out",
        commands=(PREDICT,),
        needs="keep",
    )
    track: int | None = option(
        None, "Of several audio tracks; by default the one that the file marks, or the first", commands=ALL, least=1
    )
    threads: int | None = option(
        None, "Threads of each process; by default the cores are shared", commands=(RUNTIME,), least=1
    )

    events: bool = option(False, "Report events with onset and offset in place of windows", group=EVENTS)
    release: float | None = option(
        None,
        "An event lasts while its score is this fraction of its threshold; by default 1",
        above=0,
        most=1,
        **OF_EVENTS,
    )
    median: int | None = option(None, "Windows of the median filter, odd; by default 1", least=1, **OF_EVENTS)
    min_duration: float | None = option(
        None, "Drop events shorter than this many seconds; by default 0", least=0, **OF_EVENTS
    )
    merge_gap: float | None = option(
        None, "Join events at most this many seconds apart; by default 0", least=0, **OF_EVENTS
    )

    each: bool = option(False, "Also write tables for each file", **OF_FOLDER)
    timeline: bool = option(False, "Also plot each file with its predictions", commands=(PREDICT,), **OF_FOLDER)
    resume: bool = option(False, "Continue with the results in the folder", **OF_FOLDER)
    overwrite: bool = option(False, "Delete the results in the folder first", **OF_FOLDER)
    workers: int = option(1, "Processes that share the files", least=1, **OF_FOLDER)
    cluster: str | None = option(
        None,
        "Share the files on a Ray cluster; local starts one here",
        metavar="ADDRESS",
        commands=(PREDICT,),
        **OF_FOLDER,
    )

    pcm: str | None = option(
        None,
        "Standard input is raw samples of this encoding, not WAV",
        group=LIVE,
        needs="stdin",
        metavar="s16le|f32le|...",
    )
    rate: int | None = option(None, "Sample rate of raw samples, hertz", group=LIVE, needs="pcm", least=1)
    channels: int = option(1, "Channels of raw samples", group=LIVE, needs="pcm", least=1)
    mic: bool = option(False, "Use the microphone, until Ctrl-C", group=LIVE)
    mic_device: str | None = option(None, "Name or number of the microphone", group=LIVE, needs="mic")
    latency: float | None = option(
        None,
        "Seconds of live audio to wait for at a time; by default 0.1",
        group=LIVE,
        needs="live",
        metavar="SECONDS",
        above=0,
        most=10,
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

    output: Path = option(MISSING, "File to write: .npz or .safetensors", flags=("-o", "--output"), commands=(EMBED,))
    timestamps: bool = option(False, "A vector for each window, not only for each file", commands=(EMBED,))
    layer: int | None = option(
        None, "Layer of the network; by default the input of its head", commands=(EMBED,), least=1
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


def check_values(options: Any) -> None:
    """Raises WrongUsage for a value outside its range."""
    holder: Any = type(options)
    for row in table(holder):
        row.check(getattr(options, row.name))


def split_labels(text: str) -> tuple[str, ...]:
    """Labels between commas; one that has a comma itself stands in double quotes."""
    try:
        (labels,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise WrongUsage(f"`labels` stand between commas, those with a comma in quotes ({error}).") from error
    return tuple(label.strip() for label in labels or [""])
