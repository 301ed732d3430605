"""What people write for a label, a part of the data or nothing at all, and which of these mean the same.

Tables pass through spreadsheets, pandas and R on their way here: a missing cell comes as `NaN` or `NA`, the class 1 as
`1.0`, and macOS takes the accents of a folder's name apart.
"""

import ast
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Any

# What pandas, R, JSON and Excel write where there is nothing. `none`, `na` and `nat` are words, and stay classes.
MISSING = frozenset("NaN nan NAN Nan -nan -NaN NA N/A n/a #N/A #NA <NA> NaT null NULL Null None".split())

# What other people call the three parts; the keys are ours.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_FOLD = re.compile(r"fold[ _-]?0*([0-9]+)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?|[+-]?\.[0-9]+")


def split_of(name: str) -> str | None:
    """Our name of a split ("val" is "validation"), or None for a word that names none."""
    return _SPLIT_OF.get(name.strip().lower())


def fold_of(name: str) -> str | None:
    """The number in the name of a fold's folder (`fold1`, `Fold_02`), or None for another name."""
    match = _FOLD.fullmatch(name.strip())
    return match and match[1]


def is_missing(value: Any) -> bool:
    """Whether a cell says that there is nothing: empty, null, or one of `MISSING`."""
    if isinstance(value, float) and math.isnan(value):
        return True
    return value is None or isinstance(value, str) and (not value.strip() or value.strip() in MISSING)


def squeezed(column: str) -> str:
    """A column's name without case, spaces and signs: `File Name`, `file_name` and `filename` are one."""
    return re.sub(r"[\W_]+", "", column.lower())


def first_column(header: Sequence[str], names: Iterable[str]) -> str | None:
    """The first of some names that a table has, as it spells it; None where it has none."""
    known = {squeezed(name): name for name in reversed(header)}
    return next((known[squeezed(name)] for name in names if squeezed(name) in known), None)


def listed_labels(cell: str) -> list[Any] | None:
    """The entries of a cell that is written as a list (`['dog', 'cat']`), or None for any other cell."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return list(read(re.sub(r"\bnan\b", "None", cell) if read is ast.literal_eval else cell))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def spellings(names: Iterable[str], known: Sequence[str] = ()) -> dict[str, str]:
    """The one spelling for every name: of names equal as numbers the shortest, else composed Unicode.

    Args:
        known: names whose spelling wins, such as the labels of a model
    """
    exact, wins = set(known), {_meaning(name): name for name in reversed(known)}
    alike: dict[Any, list[str]] = {}
    for name in sorted(set(names), key=lambda name: (len(name), name)):
        alike.setdefault(_meaning(name), []).append(name)
    return {
        name: name if name in exact else wins.get(meaning, unicodedata.normalize("NFC", group[0]))
        for meaning, group in alike.items()
        for name in group
    }


def _meaning(name: str) -> str | Decimal:
    return Decimal(name) if _NUMBER.fullmatch(name) else unicodedata.normalize("NFC", name)


def apart(labels: Collection[str], known: Collection[str] = ()) -> tuple[dict[str, list[str]], list[str]]:
    """The labels that are several joined by commas, with their parts; and those with commas that may be but stay one.

    A label is taken apart where each of its parts is a label of its own: "dog,cat" beside "dog" and "cat", and not
    "Wind instrument, woodwind instrument".

    Args:
        known: the labels that there are; by default those without a comma
    """
    own = set(known) or {label for label in labels if "," not in label}
    parts = {label: _parts(label) for label in labels if "," in label and label not in known}
    joined = {label: these for label, these in parts.items() if these and own.issuperset(these)}
    held = Counter([*(part for these in parts.values() for part in set(these)), *own])
    doubtful = [label for label in parts if label not in joined and any(held[part] > 1 for part in parts[label])]
    return joined, sorted(doubtful)


def _parts(label: str) -> list[str]:
    return [part.strip() for part in label.split(",") if part.strip()]
