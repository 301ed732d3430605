"""Images made to mislead: whatever the bytes, pixels within the limits or one clear error, and no noise.

OSSICLE_MUTATIONS=100000 makes the nightly run of this file.
"""

import io
import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ossicle.data.images import MAX_PIXELS, read_image
from ossicle.errors import ImageRefused

CASES = int(os.environ.get("OSSICLE_MUTATIONS", "2000"))
MEMORY_ALLOWED = 64 << 20


def encoded(form: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format=form, **({} if form in ("BMP", "GIF") else {"exif": exif}), **options)
    return written.getvalue()


SEEDS = {form: encoded(form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}


def read(path) -> bool:
    """Reads a file and holds what comes to the promise."""
    try:
        pixels = read_image(path)
    except ImageRefused as error:
        assert path.name in str(error) and "\n" not in str(error)
        return False
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert 0 < pixels.size <= 3 * MAX_PIXELS
    return True


def test_damaged_images_give_pixels_or_an_error(tmp_path, capfd):
    outcomes = {True: 0, False: 0}

    @settings(max_examples=CASES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(
        name=st.sampled_from(sorted(SEEDS)),
        seed=st.integers(0, 2**32 - 1),
        kind=st.sampled_from("flip head cut".split()),
    )
    def check(name, seed, kind):
        rng = np.random.default_rng(seed)
        data = bytearray(SEEDS[name])
        if kind == "cut":
            del data[int(rng.integers(len(data))) :]
        else:
            for place in rng.integers(len(data) if kind == "flip" else min(128, len(data)), size=rng.integers(1, 8)):
                data[place] = int(rng.choice([0, 0x7F, 0xFF, rng.integers(256)]))
        path = tmp_path / "image"
        path.write_bytes(data)
        outcomes[read(path)] += 1

    check()
    assert min(outcomes.values()) > CASES // 10, outcomes  # the damage is neither harmless nor always fatal
    assert capfd.readouterr() == ("", "")


@settings(max_examples=300)
@given(
    magic=st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"GIF89a", b"BM", b"II*\0", b"RIFF....WEBP", b""]
    ),
    rest=st.binary(max_size=300),
)
def test_any_bytes_give_pixels_or_an_error(magic, rest, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(magic + rest)
    read(path)


def png(columns: int, rows: int) -> bytes:
    """A PNG that claims a size and holds zeros for a few of its rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "size", [(8193, 8192), (10_000, 9_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1)]
)
def test_a_claim_of_too_many_pixels_costs_no_memory_and_no_warning(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    tracemalloc.start()
    try:
        with warnings.catch_warnings(), pytest.raises(ImageRefused, match=r"bomb\.png: .*(pixels; allowed|damaged)"):
            warnings.simplefilter("error")
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_ALLOWED
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image at all",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\x03\x04" + bytes(60),
        encoded("TIFF"),
    ],
)
def test_what_is_no_image_of_these_formats_is_refused_and_never_run(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageRefused, match=r"a\.png: no image that can be read; allowed are PNG, JPEG"):
        read_image(path)


def test_a_folder_with_an_images_name_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageRefused, match=r"a\.png"):
        read_image(tmp_path / "a.png")
