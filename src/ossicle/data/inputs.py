"""What an encoder is given for an item, and the items that a path names; see `Modality`."""

from pathlib import Path
from typing import Any

from ossicle.data.items import Item
from ossicle.data.modalities import MODALITIES, modality_of

INPUT_ERRORS = tuple(error for modality in MODALITIES.values() for error in modality.errors)  # of one item alone


def read_input(item: Item, *, modality: str, rate: int | None = None) -> Any:
    """Reads an item: sound as mono float32 samples, an image as upright RGB (row, column, 3), a text as it stands.

    Args:
        rate: hertz, of sound; the recording is resampled to it.

    Raises:
        AudioError: a recording that cannot be used.
        ImageRefused: an image that cannot be used.
    """
    return modality_of(modality).read(item, rate=rate)


def find_items(path: Path, *, modality: str, text: str | None = None) -> list[Item]:
    """The items that a path names, without labels: a file, all files of a folder, or the rows of a table of texts.

    Args:
        text: the column of texts, where it has none of the usual names.
    """
    return modality_of(modality).find(path, column=text)
