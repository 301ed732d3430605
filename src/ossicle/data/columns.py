"""Which column of a table holds what, under the names that other programs and data sets give them.

What was understood but not said in so many words becomes a remark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ossicle.data.dialects import dialect_of
from ossicle.data.modalities import SOUND, Modality, refuse_no_column
from ossicle.data.names import first_column, split_of, squeezed
from ossicle.data.paths import recording_of
from ossicle.data.records import TableRow, TableRows, listed, read_rows
from ossicle.data.times import TimeColumns, choose_times
from ossicle.errors import DataRefused

# In any case, and with or without spaces and signs; the columns of files and of texts are those of the modality.
MANY_LABELS = ("labels", "positive_labels")  # a cell may be empty
LABEL_COLUMNS = ("label", "labels", "category", "class", "event_label", "annotation", "positive_labels", "Common name")
GROUP_COLUMNS = ("group", "speaker", "actor", "src_file", "fsID")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")  # the last three where every row names a split
SCORE_COLUMNS = ("score", "confidence")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What data are read as, and the columns that the caller names instead of the usual ones."""

    modality: Modality = SOUND
    file: str | None = None
    text: str | None = None
    label: str | None = None
    group: str | None = None
    fold: str | None = None
    commas: bool = False
    """Commas join labels, always."""

    @property
    def named(self) -> dict[str, str]:
        """The options that name a column, with the column."""
        options = ("file", "text", "label", "group", "fold")
        return {option: name for option in options if (name := getattr(self, option)) is not None}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of a table holds what; None for what the table does not say."""

    source: str | None
    """Of file names, or of texts; None where the table is named after its one recording."""
    label: str
    group: str | None = None
    fold: str | None = None
    split: str | None = None
    times: TimeColumns = field(default_factory=TimeColumns)
    commas: bool = False
    """Commas join labels, always."""

    @property
    def several(self) -> bool:
        """Whether the column of labels says by its name that an item may have several, or none."""
        return squeezed(self.label) in map(squeezed, MANY_LABELS)


def choose_columns(
    path: Path, header: Sequence[str], rows: TableRows, options: ReadOptions
) -> tuple[Columns, list[str]]:
    """What each column holds, and what a reader must know about that.

    Raises: DataRefused where a column that is needed or named is not there.
    """
    usual = partial(first_column, header)
    cells = [row for _, row in rows]
    modality = options.modality
    for option, name in options.named.items():
        refuse_no_column(path, header, name, option=option)
    source = options.named.get(modality.option) or modality.usual_column(header)
    if source is None and not (modality.timed and has_times(header, rows) and recording_of(path, modality)):
        raise DataRefused(modality.why_no_column(path, header))
    label = options.label or usual(LABEL_COLUMNS)
    if label is None:
        raise DataRefused(
            f"{path} has no column of labels: allowed are {listed(LABEL_COLUMNS)}, or name one of its columns "
            f"({listed(header)}) with --label."
        )
    # A column that is the label cannot also be what keeps clips together: every class would be one group.
    groups = [name for name in GROUP_COLUMNS if usual([name]) != label]
    fold = options.fold or usual(["fold"])
    split = usual([name for name in SPLIT_COLUMNS if name == "split" or _names_splits(cells, usual([name]))])
    columns = Columns(
        source=source,
        label=label,
        group=options.group or usual(groups),
        fold=fold if fold != label else None,
        # Folds that the user names are the protocol the user wants.
        split=split if options.fold is None and split != label else None,
        commas=options.commas or squeezed(label) == "positivelabels",  # AudioSet's
    )
    if not modality.timed:
        return columns, []
    taken = (columns.source, columns.label, columns.group, columns.fold, columns.split)
    times, remarks = choose_times(header, cells, taken=taken)
    dialect = dialect_of(source, header)
    if times.used and dialect.times_of:
        names = " and ".join(f"`{name}`" for name in times.used)
        return columns, [f"{names} say where each clip was cut from {dialect.times_of}, and are not used"]
    # A model has given scores to the rows of a table that `ossicle predict` wrote.
    score = usual(SCORE_COLUMNS)
    scored = [f"each row counts as true, whatever its `{score}` says"] if score else []
    return replace(columns, times=times), [*scored, *remarks]


def has_times(header: Sequence[str], rows: TableRows) -> bool:
    """Whether a table says where something begins."""
    return bool(choose_times(header, [row for _, row in rows], taken=())[0].start)


def holds_labels(path: Path) -> bool:
    """Whether a text file holds labels of a recording: a label track, or a table with times and rows."""
    try:
        return has_times(*read_rows(path))
    except DataRefused:
        return False


def _names_splits(rows: Sequence[TableRow], column: str | None) -> bool:
    return column is not None and all(split_of(str(row.get(column))) for row in rows)
