"""A modality is one object: a kind of item that nobody has seen is found, read, split and checked with it alone."""

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from ossicle.cli.data import app
from ossicle.data import MODALITIES, Item, Modality, check_dataset, modality_of, read_dataset, split_dataset
from ossicle.data.modalities import IMAGE, SOUND, TEXT
from ossicle.errors import DataRefused


class Motion(Modality):
    """Movements of a body: arrays on disk."""

    name, noun, plural = "motion", "movement", "movements"
    columns, suffixes, usual_suffixes, folder = ("file", "movement"), frozenset({".npy"}), (".npy",), "movements"
    errors = (ValueError,)
    hub_task = "other"

    def read(self, item, *, rate=None):
        return np.load(item.file)


@pytest.fixture
def motion(monkeypatch, tmp_path):
    """The modality, and a folder of six movements in two classes with a broken one and one that is there twice."""
    monkeypatch.setitem(MODALITIES, "motion", Motion())
    for number in range(6):
        path = tmp_path / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((4, 3), max(number, 1)))
    (tmp_path / "a" / "broken.npy").write_bytes(b"no array")
    return tmp_path


def test_another_modality_is_one_object(motion):
    dataset = read_dataset(motion, modality="motion")
    assert dataset.layout.startswith("folder per class: 7 movements, 2 classes")
    assert repr(dataset).endswith("7 movements, 2 classes, single-label)")
    assert "test movements" in split_dataset(dataset).protocol
    report = check_dataset(dataset)
    assert {(problem.kind, problem.file) for problem in report.problems} == {
        ("broken", "a/broken.npy"),
        ("contradiction", "b/1.npy"),
    }
    assert "broken: 1 of 7 movements (cannot be decoded, or lies outside the limits)" in str(report)
    assert len(modality_of("motion").find(motion)) == 7
    assert modality_of("motion").read(Item(file=motion / "a" / "2.npy", labels=())).shape == (4, 3)


def test_a_table_names_its_files_and_the_others_know_it(motion):
    table = motion / "t.csv"
    table.write_text("movement,label\na/0,x\nb/1,y\na/2,x\nb/3,y\n")
    assert all(item.file.is_file() for item in read_dataset(table, modality="motion"))
    with pytest.raises(
        DataRefused, match="holds a table of movements .* not of recordings: modality 'motion' reads it"
    ):
        read_dataset(table)
    table.unlink()
    with pytest.raises(DataRefused, match=r"holds no recordings but movements \(7\): modality 'motion' reads them"):
        read_dataset(motion)


@pytest.mark.parametrize("modality", MODALITIES.values(), ids=list(MODALITIES))
def test_every_modality_says_all_that_messages_ask(modality):
    for said in (modality.name, modality.noun, modality.plural, modality.article, modality.option, modality.cells):
        assert said and isinstance(said, str)
    assert modality.columns and modality.hub_task and modality.example and modality.example_file
    assert (
        modality.in_rows or modality.suffixes and set(modality.usual_suffixes) <= modality.suffixes and modality.folder
    )


def test_what_a_model_predicts_on_at_once_is_as_long_as_nine_clips_of_ten(tmp_path):
    items = []
    for number, seconds in enumerate([*[0.5] * 8, 2.0, 9.0]):
        soundfile.write(tmp_path / f"{number}.wav", np.full(int(seconds * 8000), 0.1), 8000)
        items.append(Item(file=tmp_path / f"{number}.wav", labels=()))
    assert SOUND.typical_seconds(items[:8], longest=30.0) == 0.5
    assert 2.0 < SOUND.typical_seconds(items, longest=30.0) < 9.0 and SOUND.typical_seconds(items, longest=1.0) == 1.0
    assert TEXT.typical_seconds(items, longest=30.0) == 30.0


@pytest.mark.parametrize(
    ("modality", "given", "sentence"),
    [
        (TEXT, 3, "expected a text or a list of these, got int"),
        (IMAGE, None, r"expected an image file, uint8 \(row, column, 3\) or a list of these, got NoneType"),
    ],
)
def test_what_is_no_input_is_refused_by_its_type(modality, given, sentence):
    with pytest.raises(TypeError, match=sentence):
        modality.open(given)


def test_pixels_and_texts_are_taken_as_they_are():
    pixels = np.zeros((2, 2, 3), np.uint8)
    content, file = IMAGE.open(pixels)
    assert content is pixels and file == "" and TEXT.open("hello") == ("hello", "")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--modality", "video"], "'video' is not one of sound, text, image"),
        (["--text", "said"], "this column goes with --modality text"),
        (["--modality", "text", "--file", "clip"], "this column goes with --modality sound or image"),
    ],
)
def test_the_command_names_what_it_takes(options, sentence, tmp_path):
    result = CliRunner().invoke(app, ["check", str(tmp_path), *options])
    assert result.exit_code == 2 and sentence in " ".join(result.stderr.replace("│", " ").split())
