"""Images are found in the layouts of sound, and read upright, RGB, with one sentence for what is no image."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from ossicle.data import Item, check_dataset, group_ids, modality_of, read_dataset
from ossicle.data.images import IMAGE_SUFFIXES, MAX_PIXELS, ORIENTATION, read_image
from ossicle.errors import DataRefused, ImageRefused

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path, pixels=PIXELS, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


# ---------------------------------------------------------------- layouts


def test_folders_are_classes_in_any_case_of_suffix(tree):
    names = ["cat/1.PNG", "cat/a/2.jpeg", "dog/1.WebP", "dog/2.bmp", "dog/notes.txt", "dog/bark.wav", "loose.gif"]
    dataset = read_dataset(tree(names), modality="image")
    assert dataset.modality == "image" and dataset.labels == ("cat", "dog")
    assert sorted(dataset.relative(item) for item in dataset.items) == sorted(names[:4])
    assert dataset.layout.startswith("folder per class: 4 images, 2 classes, single-label; every file is its own group")
    assert "images directly in" in dataset.layout


def test_train_and_test_above_the_classes_are_the_official_split(tree):
    dataset = read_dataset(
        tree([f"{part}/{name}/{n}.png" for part in ("train", "test") for name in "ab" for n in (1, 2)]),
        modality="image",
    )
    assert {dataset.relative(item).split("/")[0]: item.split for item in dataset.items} == {
        "train": "train",
        "test": "test",
    }


@pytest.mark.parametrize("column", ["file", "filename", "file_name", "path", "image"])
@pytest.mark.parametrize("folder", ["", "images/"])
def test_a_table_names_images_beside_it_or_in_their_folder(tree, column, folder):
    lines = [f"{column},label,start", "a.png,x,oops", "b.png,y,", "a2.png,x,", "b2.png,y,"]
    root = tree(
        {"meta.csv": "\n".join(lines), **dict.fromkeys([f"{folder}{line.split(',')[0]}" for line in lines[1:]], "")}
    )
    dataset = read_dataset(root, modality="image")
    assert all(item.file.is_file() and item.start == 0 and item.end is None for item in dataset.items)
    assert ("in images/" in dataset.layout) == bool(folder)


def test_images_of_one_file_name_are_one_group_and_others_are_not(tree):
    dataset = read_dataset(tree(["a/1.png", "a/2.png", "b/1.png", "b/2.png"]), modality="image")
    assert sorted(group_ids(dataset)) == [0, 1, 2, 3]


def test_a_table_of_the_other_kind_of_file_is_called_by_its_name(tree):
    root = tree({"s/meta.csv": "file,label\na.wav,x\nb.WAV,y\n", "i/meta.csv": "file,label\na.png,x\nb.jpg,y\n"})
    with pytest.raises(DataRefused, match=r"table of recordings \(a.wav\), not of images: modality 'sound' reads it"):
        read_dataset(root / "s", modality="image")
    with pytest.raises(DataRefused, match=r"table of images \(a.png\), not of recordings: modality 'image' reads it"):
        read_dataset(root / "i")


def test_an_empty_folder_of_images_is_refused(tmp_path):
    with pytest.raises(DataRefused, match="holds no images: expected a folder per class"):
        read_dataset(tmp_path, modality="image")
    save(tmp_path / "1.png")
    with pytest.raises(DataRefused, match="holds 1 images but no labels"):
        read_dataset(tmp_path, modality="image")


def test_broken_missing_and_repeated_images_are_named(tmp_path):
    for name in ("a/1.png", "b/1.png", "b/2.bmp"):
        save(tmp_path / name, PIXELS if name != "b/1.png" else PIXELS[::-1].copy())
    (tmp_path / "b" / "3.jpg").write_bytes(b"no image")
    (tmp_path / "meta.csv").write_text("file,label\na/1.png,a\na/0.png,a\nb/1.png,b\nb/2.bmp,b\nb/3.jpg,b\n")
    report = check_dataset(read_dataset(tmp_path, modality="image"))
    assert [(problem.kind, problem.file) for problem in report.problems] == [
        ("missing", "a/0.png"),
        ("broken", "b/3.jpg"),
        ("contradiction", "b/2.bmp"),
    ]
    assert len(report.failed) == 2 and report.seconds == ()
    assert "missing: 1 of 5 images (no such file)" in report.lines()


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".jpe", ".dib"}))
def test_every_format_is_read_as_rgb(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.shape == (5, 7, 3)
    assert pixels.flags.writeable and pixels.flags.c_contiguous
    if suffix in (".png", ".webp", ".bmp"):
        np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(modality_of("image").read(Item(file=path, labels=())), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_kind_of_pixel_is_read_as_pillow_converts_it(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    with Image.open(path) as stored:
        np.testing.assert_array_equal(read_image(path), np.asarray(stored.convert("RGB")))


def test_a_palette_with_transparency_warns_nobody(tmp_path):
    image = Image.fromarray(PIXELS).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes(range(16)))
    assert read_image(tmp_path / "a.png").shape == (5, 7, 3)


def test_grey_values_of_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    gray = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png")
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (pixels == pixels[:, :, :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_image_is_turned_upright_as_pillow_does_it(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / name, exif=exif)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path), upright)
    assert upright.shape == ((7, 5, 3) if orientation > 4 else (5, 7, 3))


def test_another_damaged_tag_does_not_keep_an_image_from_being_turned(tmp_path):
    tags = [(ORIENTATION, 3, 1, b"\0\6\0\0"), (0x0128, 2, 2, b"x\0\0\0")]  # the unit of resolution is no text
    tiff = (
        b"MM\0*" + struct.pack(">IH", 8, len(tags)) + b"".join(struct.pack(">HHI4s", *tag) for tag in tags) + bytes(4)
    )
    path = save(tmp_path / "a.png", exif=b"Exif\0\0" + tiff)
    with Image.open(path) as stored, pytest.raises(struct.error):
        ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, -1))


def test_of_several_frames_the_first_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif") == 10).all()


def test_the_content_and_not_the_suffix_says_what_a_file_is(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), PIXELS)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ImageRefused, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png")


def test_a_strip_is_refused_and_a_panorama_is_not(tmp_path):
    assert read_image(save(tmp_path / "a.png", np.zeros((2, 100, 3), np.uint8))).shape == (2, 100, 3)
    for name, shape in (("wide.png", (2, 101, 3)), ("tall.png", (51, 1, 3))):
        with pytest.raises(ImageRefused, match=rf"{name}: \d+ x \d+ pixels; .* one side up to 50 times the other"):
            read_image(save(tmp_path / name, np.zeros(shape, np.uint8)))


def test_the_most_pixels_are_allowed_and_one_row_more_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("ossicle.data.images.MAX_PIXELS", 35)
    read_image(save(tmp_path / "a.png"))
    with pytest.raises(ImageRefused, match=r"b\.png: 7 x 6 pixels; allowed are 35 in all"):
        read_image(save(tmp_path / "b.png", np.zeros((6, 7, 3), np.uint8)))
    assert MAX_PIXELS == 8192**2
