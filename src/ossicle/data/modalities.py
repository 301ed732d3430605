"""What an item may be: sound, text or an image, each one object that says all that is particular to it.

How it is read, found on disk, checked and named in messages stands here; every other file asks the object. Another
modality is another subclass with an instance in `MODALITIES`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ossicle.audio import AUDIO_SUFFIXES, DECODER
from ossicle.audio.find import find_files
from ossicle.data.cache import clip_of, decode
from ossicle.data.images import IMAGE_SUFFIXES, read_image
from ossicle.data.items import Item, opened
from ossicle.data.names import first_column
from ossicle.data.records import TABLE_SUFFIXES, TRACK_SUFFIX, TableRow, cell_text, listed, read_rows, read_text
from ossicle.errors import AudioError, DataRefused, ImageRefused

SILENCE = 1e-5  # peak below this: -100 dB of full scale
FULL_SCALE = 0.999
CLIPPED_FRACTION = 1e-3  # of a clip's samples at full scale
SLACK_SECONDS = 0.05  # by which a segment may outlast its recording: tables round
FIRST_RATE = 32_000  # hertz; at the recording's own rate where that is another one
LENGTH_RATE = 16_000  # hertz; any would do to measure a length
LONGEST_TEXT = 131_072  # characters; also the most that Python's CSV reader takes in one cell

Kind = Literal["missing", "broken", "odd", "silent", "clipped", "cut short", "contradiction", "leak", "repeated"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found out about one item; `content` is a hash of it, empty for one that cannot be used."""

    problems: tuple[tuple[Kind, str], ...] = ()
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    content: str = ""
    silent: bool = False


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """An item that was found and cannot be used."""

    place: str  # as an item's
    reason: str  # in a sentence


class Modality:
    """Names, columns, suffixes and reading of one kind of item; the defaults are those of files without times."""

    name: ClassVar[str]  # what options and settings call it
    noun: ClassVar[str]  # one item of a data set; several have an s behind it
    article: ClassVar[str] = "a"
    plural: ClassVar[str]  # what a folder or a table holds, and what a model predicts on
    timed: ClassVar[bool] = False  # items have length and rate, and may be segments
    in_rows: ClassVar[bool] = False  # items are rows of a table, not files that it names
    option: ClassVar[str] = "file"  # what names their column
    cells: ClassVar[str] = "file names"  # what that column holds
    columns: ClassVar[tuple[str, ...]]  # its usual names
    suffixes: ClassVar[frozenset[str]] = frozenset()
    usual_suffixes: ClassVar[tuple[str, ...]] = ()  # of files that a table names without one
    folder: ClassVar[str] = ""  # beside a table, where its files may lie
    errors: ClassVar[tuple[type[Exception], ...]] = ()  # of `read`, for an item that cannot be used; others may be fine
    versions: ClassVar[Mapping[str, Any]] = {}  # what else than the item and the rate its content depends on
    hub_task: ClassVar[str]  # its classification, as the Hub calls it
    hub_tags: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[str]  # of what `predict` is given in Python, for a model card
    example_file: ClassVar[str]  # and on a command line

    @property
    def alone(self) -> str:
        """What an item is one of, where nothing else ties it to others."""
        return "row" if self.in_rows else "file"

    def read(self, item: Item, *, rate: int | None = None) -> Any:
        """The content of an item, as an encoder takes it.

        Args:
            rate: hertz, of sound; the recording is resampled to it.
        """
        raise NotImplementedError

    def open(self, given: Any) -> tuple[Any, str]:
        """The content of what `predict` is given in Python, and the name of its file if it is one.

        Raises: TypeError for what is no such input.
        """
        raise NotImplementedError

    def find(self, path: Path, *, column: str | None = None) -> list[Item | Unusable]:
        """The items that a path names, without labels: a file, or all files of a folder."""
        files = find_files(path, self.suffixes) if path.is_dir() else [path]
        return [Item(file=file, labels=()) for file in files]

    def facts(self, item: Item, *, rate: int | None = None) -> Facts:
        """What `data check` asks of an item; one that cannot be used is a problem and no error."""
        if not os.path.isfile(item.file):
            return Facts(problems=(("missing", "no such file"),))
        try:
            return self._facts(item, rate)
        except self.errors as error:
            return Facts(problems=(("broken", str(error)),))

    def _facts(self, item: Item, rate: int | None) -> Facts:
        content = self.read(item)
        size, data = ("", content.encode()) if isinstance(content, str) else (str(content.shape), content.tobytes())
        return Facts(content=size + hashlib.blake2b(data, digest_size=16).hexdigest())

    def typical_seconds(self, items: Sequence[Item], *, longest: float) -> float:
        """What a model of these items predicts on at once, 0.1 s to `longest`."""
        return longest

    def usual_column(self, header: Sequence[str]) -> str | None:
        """The first of the usual columns that a table has."""
        return first_column(header, self.columns)

    def why_no_column(self, path: Path, header: Sequence[str]) -> str:
        """Says what else a table without such a column is, or what was looked for."""
        others = {other: column for other in MODALITIES.values() if (column := other.usual_column(header))}
        if others:
            plural, column = " or ".join(other.plural for other in others), next(iter(others.values()))
            names = " or ".join(repr(other.name) for other in others)
            return (
                f"{path} holds a table of {plural} (column {column!r}), not of {self.plural}: modality {names} "
                "reads it."
            )
        more = "; nor is there a recording beside it that it is named after" if path.suffix == TRACK_SUFFIX else ""
        return (
            f"{path} has no column of {self.cells}: allowed are {listed(self.columns)}, or name one of its columns "
            f"with --{self.option}, found are {listed(header)}{more}."
        )


class Sound(Modality):
    """Recordings and segments of them: mono float32 samples at the rate that is asked for."""

    name, noun, plural, timed = "sound", "clip", "recordings", True
    columns = (
        *("file", "filename", "file_name", "path", "audio"),
        *("file_path", "audio_file", "audio_path", "audio_filepath"),
        *("slice_file_name", "Begin Path", "Begin File", "YTID"),
    )
    suffixes, usual_suffixes, folder = AUDIO_SUFFIXES, (".wav", ".flac", ".ogg", ".mp3"), "audio"
    errors = (AudioError,)
    versions: ClassVar[Mapping[str, Any]] = {"decoder": DECODER}
    hub_task, hub_tags = "audio-classification", ("audio",)
    example = example_file = "recording.wav"

    def read(self, item: Item, *, rate: int | None = None) -> np.ndarray:
        if rate is None:
            raise ValueError("sound is read at a rate: give it in hertz")
        return decode(item, rate)

    def _facts(self, item: Item, rate: int | None) -> Facts:
        rate = rate or FIRST_RATE
        clip = clip_of(item, rate)
        if clip.source_rate != rate:  # resampling moves peaks, so they are judged at the recording's own rate
            clip = clip_of(item, clip.source_rate)
        loudness = np.abs(clip.samples)
        silent = bool(loudness.max() < SILENCE)
        problems: list[tuple[Kind, str]] = [("odd", remark) for remark in clip.remarks]
        if silent:
            problems.append(("silent", f"{clip.seconds:.2f} s without sound"))
        fraction = float((loudness >= FULL_SCALE).mean())
        if fraction > CLIPPED_FRACTION:
            problems.append(("clipped", f"{fraction:.1%} of the samples at full scale"))
        if short := too_short(item, clip.seconds):
            problems.append(("cut short", short))
        return Facts(
            problems=tuple(problems),
            seconds=clip.seconds,
            rate=clip.source_rate,
            channels=clip.source_channels,
            content=hashlib.blake2b(clip.samples.tobytes(), digest_size=16).hexdigest(),
            silent=silent,
        )

    def typical_seconds(self, items: Sequence[Item], *, longest: float) -> float:
        """The length that 90 % of the items do not exceed, by a sample of them."""
        lengths = [len(decode(item, LENGTH_RATE)) / LENGTH_RATE for item in items[:: max(1, len(items) // 100)]]
        return round(min(max(float(np.quantile(lengths, 0.9)), 0.1), longest), 2)


class Text(Modality):
    """Rows of tables: text as it stands there."""

    name, noun, plural, in_rows = "text", "text", "texts", True
    option, cells, columns = "text", "texts", ("text", "sentence", "content")
    hub_task, example, example_file = "text-classification", "a sentence to read", "texts.csv"

    def read(self, item: Item, *, rate: int | None = None) -> str:
        if item.text is None:
            raise ValueError(f"{item.place} holds no text: read the data set with modality='text'")
        return item.text

    def open(self, given: Any) -> tuple[str, str]:
        if not isinstance(given, str):
            raise TypeError(f"expected a text or a list of these, got {type(given).__name__}")
        return given, ""

    def find(self, path: Path, *, column: str | None = None) -> list[Item | Unusable]:
        """The texts of a table, or of all tables and text files of a folder; any other file is one text.

        Raises: DataRefused for a table that is empty, damaged or has no such column.
        """
        if path.is_dir():
            files = find_files(path, {*TABLE_SUFFIXES, ".txt"})
            return [item for file in files for item in self.find(file, column=column)]
        if path.suffix.lower() not in TABLE_SUFFIXES:
            return [_read(Item(file=path, labels=()), lambda: text_of(path, 1, {"text": read_text(path)}, "text"))]
        header, rows = read_rows(path)
        if column is not None:
            refuse_no_column(path, header, column, option=self.option)
        name = column or self.usual_column(header)
        if name is None:
            raise DataRefused(self.why_no_column(path, header))
        return [
            _read(Item(file=path, labels=(), row=line), partial(text_of, path, line, row, name)) for line, row in rows
        ]


def _read(item: Item, text: Callable[[], str]) -> Item | Unusable:
    try:
        return replace(item, text=text())
    except DataRefused as error:
        return Unusable(place=item.place, reason=str(error))


class Image(Modality):
    """Files of images: upright RGB, uint8 (row, column, 3)."""

    name, noun, article, plural = "image", "image", "an", "images"
    columns = ("file", "filename", "file_name", "path", "file_path", "image")
    suffixes, usual_suffixes, folder = IMAGE_SUFFIXES, (".png", ".jpg"), "images"
    errors = (ImageRefused,)
    hub_task = "image-classification"
    example = example_file = "picture.png"

    def read(self, item: Item, *, rate: int | None = None) -> np.ndarray:
        with opened(item) as file:
            return read_image(file)

    def open(self, given: Any) -> tuple[np.ndarray, str]:
        if isinstance(given, str | os.PathLike):
            return read_image(Path(given)), os.fspath(given)
        if not isinstance(given, np.ndarray):
            kind = type(given).__name__
            raise TypeError(f"expected an image file, uint8 (row, column, 3) or a list of these, got {kind}")
        return given, ""


SOUND, TEXT, IMAGE = Sound(), Text(), Image()
MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (SOUND, TEXT, IMAGE)}


def modality_of(name: str) -> Modality:
    """The modality of this name.

    Raises: ValueError, which names those that there are.
    """
    if name not in MODALITIES:
        raise ValueError(f"modality must be one of {', '.join(MODALITIES)}, not {name!r}")
    return MODALITIES[name]


def too_short(item: Item, seconds: float) -> str:
    """What is wrong with a segment of this length, if anything."""
    if item.end is None or seconds >= item.end - item.start - SLACK_SECONDS:
        return ""
    return f"asked for {item.end - item.start:g} s, found {seconds:.2f} s"


def refuse_no_column(path: Path, header: Sequence[str], name: str, *, option: str) -> None:
    """Raises DataRefused where a table has no column of the name that an option gives."""
    if name not in header:
        raise DataRefused(f"{path} has no column {name!r} for --{option}: its columns are {listed(header)}.")


def text_of(path: Path, line: int, row: TableRow, column: str) -> str:
    """The text in a row of a table.

    Raises: DataRefused where there is none, or one that is too long or no valid Unicode.
    """
    where = f"line {line} of {path}"
    text = cell_text(where, row, column)
    if text is None:
        raise DataRefused(f"{where} holds no text in the column {column!r}.")
    if len(text) > LONGEST_TEXT:
        raise DataRefused(f"{where} holds a text of {len(text):,} characters: allowed are {LONGEST_TEXT:,}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell what UTF-8 cannot
        raise DataRefused(f"{where} holds half of a surrogate pair, which is no valid Unicode.") from error
    return text
