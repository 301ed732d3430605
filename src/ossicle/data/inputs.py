"""What an encoder is given for an item: samples, a text or pixels, each read in one place."""

import numpy as np
from jaxtyping import Float32

from ossicle.data.cache import decode
from ossicle.data.images import Pixels, read_image
from ossicle.data.items import Item, Modality
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
