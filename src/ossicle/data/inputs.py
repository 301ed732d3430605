"""What an encoder is given for an item: samples, a text or pixels, each read in one place."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ossicle.audio import find_audio
from ossicle.audio.find import find_files
from ossicle.data.cache import decode
from ossicle.data.images import IMAGE_SUFFIXES, Pixels, read_image
from ossicle.data.items import Item, Modality
from ossicle.data.tables import TABLE_SUFFIXES, read_texts
from ossicle.errors import AudioError, ImageRefused

INPUT_ERRORS = (AudioError, ImageRefused)  # of one item that cannot be used; the others may be fine


def read_input(
    item: Item, *, modality: Modality, rate: int | None = None
) -> Float32[np.ndarray, "time"] | Pixels | str:
    """Reads an item: sound as mono float32 samples, an image as upright RGB (row, column, 3), a text as it stands.

    Args:
        rate: hertz, of sound; the recording is resampled to it.

    Raises:
        AudioError: a recording that cannot be used.
        ImageRefused: an image that cannot be used.
    """
    if modality == "image":
        return read_image(item.file)
    if modality == "sound":
        if rate is None:
            raise ValueError("sound is read at a rate: give it in hertz")
        return decode(item, rate)
    if item.text is None:
        raise ValueError(f"{item.place} holds no text: read the data set with modality='text'")
    return item.text


def find_items(path: Path, *, modality: Modality, text: str | None = None) -> list[Item]:
    """What a path names for a model to answer: a file, all files of a folder, or the rows of a table of texts.

    Args:
        text: the column of texts, where it has none of the usual names.
    """
    if modality == "text" and not path.is_dir():
        return list(read_texts(path, text=text))
    if not path.is_dir():
        return [Item(file=path, labels=())]
    if modality == "text":
        tables = find_files(path, {*TABLE_SUFFIXES, ".txt"})
        return [item for table in tables for item in read_texts(table, text=text)]
    files = find_audio(path) if modality == "sound" else find_files(path, IMAGE_SUFFIXES)
    return [Item(file=file, labels=()) for file in files]
