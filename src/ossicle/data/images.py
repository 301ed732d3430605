"""Pixels of one image, upright and RGB, or one sentence that says why not.

A header is a claim by a stranger: the size is judged before a pixel is decoded, and only a few formats are tried. Of
the others some run programs (EPS), and the decoder of TIFF writes to standard error whatever it does not like.
"""

import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ossicle.errors import ImageRefused

# Lower case; a suffix only selects files from a folder. What a file is, its content decides.
IMAGE_SUFFIXES = frozenset(".png .jpg .jpeg .jpe .webp .bmp .dib .gif".split())
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF")  # Pillow's names
MAX_PIXELS = 8192 * 8192
# The longer side to the shorter. A processor that enlarges the shorter side before it cuts out the middle (DINOv2's)
# makes 20 GB of a strip of 2 x 65535 pixels.
MAX_RATIO = 50

Pixels = UInt8[np.ndarray, "row column 3"]

# EXIF, tag 0x0112: how the camera was held, and what turns the picture upright again.
# ImageOps.exif_transpose also writes the other tags anew, and fails where one of them is damaged.
ORIENTATION = 0x0112
UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}

# Pillow warns about much that does not matter here, and Python can only silence a whole process.
_QUIET = threading.Lock()


def read_image(path: Path) -> Pixels:
    """Reads an image as RGB, turned upright by its EXIF orientation; of several frames the first.

    Transparency is dropped and the colors below it show, as the processors of published vision models do it.

    Raises:
        ImageRefused: no such file, another format, damaged bytes, more pixels than `MAX_PIXELS`, sides further apart
            than `MAX_RATIO`.
    """
    from PIL import Image

    if not path.is_file():
        raise ImageRefused(f"{path}: there is no such file")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                columns, rows = image.size
                if columns * rows <= MAX_PIXELS and max(columns, rows) <= MAX_RATIO * min(columns, rows):
                    image.load()
                    pixels = _rgb(image)
                    turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
                    return np.array(turn(pixels) if turn else pixels, order="C")
                claim = f"{columns} x {rows}"
        except Image.UnidentifiedImageError as error:
            raise ImageRefused(f"{path}: no image that can be read; allowed are {', '.join(IMAGE_FORMATS)}") from error
        except Image.DecompressionBombError:
            claim = "far too many"
        except Exception as error:  # Pillow's readers let out whatever a damaged file makes them stumble over
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageRefused(f"{path}: this image is damaged ({reason})") from error
    raise ImageRefused(
        f"{path}: {claim} pixels; allowed are {MAX_PIXELS:,} in all, and one side up to {MAX_RATIO} times the other"
    )


def _rgb(image: Any) -> Pixels:
    """Eight bits a color; the sixteen of a deep gray PNG are scaled to it, where Pillow would clip them."""
    if image.mode.startswith("I"):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
