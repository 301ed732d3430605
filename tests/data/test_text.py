"""Tables of text are read strictly, each row is an item of its own, and other kinds of data are called by name."""

import csv
import inspect
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ossicle.cli.data import app
from ossicle.data import Item, check_dataset, group_ids, modality_of, read_dataset, split_dataset
from ossicle.errors import DataRefused

FOUR = ("good day,kind", "bad day,rude", "lovely,kind", "awful,rude")


def table(*lines: str, header: str = "text,label") -> str:
    return "\n".join([header, *lines]) + "\n"


def refusal(path, **options) -> str:
    with pytest.raises(DataRefused) as caught:
        read_dataset(path, **{"modality": "text", **options})
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("column", ["text", "sentence", "content", "Text"])
def test_each_row_is_a_text_with_its_line(tree, column):
    dataset = read_dataset(tree({"meta.csv": table(*FOUR, header=f"{column},label")}), modality="text")
    assert [item.text for item in dataset.items] == ["good day", "bad day", "lovely", "awful"]
    assert [item.row for item in dataset.items] == [2, 3, 4, 5]
    assert [dataset.relative(item) for item in dataset.items] == [f"meta.csv:{line}" for line in (2, 3, 4, 5)]
    assert dataset.labels == ("kind", "rude") and dataset.modality == "text"
    assert f"table meta.csv (texts from `{column}`, labels from `label`): 4 texts, 2 classes" in dataset.layout
    assert "every row is its own group" in dataset.layout
    assert [modality_of("text").read(item) for item in dataset.items] == [item.text for item in dataset.items]


def test_csv_tsv_and_jsonl_say_the_same(tree):
    rows = [line.split(",") for line in FOUR]
    root = tree(
        {
            "t.csv": table(*FOUR),
            "t.tsv": table(*FOUR).replace(",", "\t"),
            "t.jsonl": "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows),
        }
    )
    first, *others = (read_dataset(root / name, modality="text") for name in ("t.csv", "t.tsv", "t.jsonl"))
    for other in others:
        assert [(item.text, item.labels) for item in other.items] == [(item.text, item.labels) for item in first.items]


def test_any_column_may_hold_the_text(tree):
    root = tree({"t.csv": table("x,good,kind", "x,bad,rude", "x,fine,kind", "x,foul,rude", header="text,said,label")})
    assert [item.text for item in read_dataset(root / "t.csv", modality="text", text="said").items][:2] == [
        "good",
        "bad",
    ]
    assert "no column 'heard' for --text: its columns are text, said, label" in refusal(root / "t.csv", text="heard")
    with pytest.raises(DataRefused, match="modality='text'"):
        read_dataset(root / "t.csv", text="said")


def test_texts_have_groups_folds_and_splits_like_clips(tree):
    header = "text,label,group,fold,split"
    lines = (f"{line},{'ab'[i % 2]},{i % 2},{('train', 'test')[i // 2]}" for i, line in enumerate(FOUR))
    dataset = read_dataset(tree({"meta.csv": table(*lines, header=header)}), modality="text")
    assert [item.group for item in dataset.items] == ["a", "b", "a", "b"]
    assert dataset.folds == ("0", "1")
    assert [item.split for item in dataset.items] == ["train", "train", "test", "test"]
    assert group_ids(dataset).tolist() == [0, 1, 0, 1]


def test_tables_below_train_and_test_give_the_split(tree):
    dataset = read_dataset(tree({"train/meta.csv": table(*FOUR), "test/meta.csv": table(*FOUR)}), modality="text")
    assert [item.split for item in dataset.items] == ["test"] * 4 + ["train"] * 4
    assert len({dataset.relative(item) for item in dataset.items}) == 8


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(texts=st.lists(cells.filter(str.strip), min_size=2, max_size=8))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    written = io.StringIO()
    writer = csv.writer(written, quoting=csv.QUOTE_ALL)
    writer.writerows([["text", "label"], *([text, "ab"[n % 2]] for n, text in enumerate(texts))])
    path.write_bytes(written.getvalue().encode())
    dataset = read_dataset(path, modality="text", labels=["a", "b"])
    assert [item.text for item in dataset.items] == [text.strip() for text in texts]
    assert len({dataset.relative(item) for item in dataset.items}) == len(texts)


def test_a_text_of_several_lines_has_the_line_it_begins_on(tree):
    lines = ('"one\ntwo\nthree",a', "four,b", "", '"five\r\nsix",a', "seven,b")
    dataset = read_dataset(tree({"meta.csv": table(*lines)}), modality="text")
    assert [item.row for item in dataset.items] == [2, 5, 7, 9]
    assert dataset.items[0].text == "one\ntwo\nthree"


# ---------------------------------------------------------------- items and what is made of them


def test_rows_of_one_table_are_not_one_group(tree):
    lines = [f"text {n},{'ab'[n % 2]}" for n in range(100)]
    dataset = read_dataset(tree({"meta.csv": table(*lines)}), modality="text")
    assert sorted(group_ids(dataset)) == list(range(100))
    split = split_dataset(dataset)
    assert (len(split.test), len(split.train) + len(split.validation)) == (20, 80)
    assert 10 <= len(split.validation) <= 14
    assert "20% of the texts, drawn by row" in split.protocol and "of the rest by row" in split.protocol
    assert "note" not in split.protocol


def test_rows_of_one_group_stay_together(tree):
    lines = [f"text {n},{'ab'[n % 2]},g{n // 5}" for n in range(100)]
    dataset = read_dataset(tree({"meta.csv": table(*lines, header="text,label,speaker")}), modality="text")
    assert len(set(group_ids(dataset))) == 20
    split = split_dataset(dataset)
    tested = {dataset.items[row].group for row in split.test}
    assert not tested & {dataset.items[row].group for row in np.concatenate([split.train, split.validation])}


def test_few_groups_of_rows_leave_a_validation_part_cut_by_row(tree):
    lines = [f"text {n},{'ab'[n % 2]},s{n % 4 // 2}" for n in range(40)]
    dataset = read_dataset(tree({"meta.csv": table(*lines, header="text,label,group")}), modality="text")
    assert "of the rest by row, as too few groups of `group` are left" in split_dataset(dataset).protocol


def test_the_fingerprint_follows_the_texts_and_not_the_bytes_of_the_table(tree):
    root = tree({"a/t.csv": table(*FOUR), "b/t.csv": table(*FOUR).replace("\n", "\r\n")})
    (root / "c").mkdir()
    (root / "c" / "t.csv").write_text(table(*FOUR).replace("lovely", "lively"))
    prints = [read_dataset(root / name / "t.csv", modality="text").fingerprint() for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_the_fingerprint_of_sound_is_what_it_was(tree):
    """A stored split is of the same data only while this stays."""
    root = tree({"dog/1.wav": "a", "dog/2.wav": "bb", "cat/1.wav": "ccc", "cat/2.wav": "dddd"})
    known = "c4a2213b48c5fa0bfebdb7b4300873979a36d66605ce80781e78474914f41e9c"
    assert read_dataset(root).fingerprint() == known


def test_a_run_finds_its_split_again_and_names_rows_in_its_predictions(tree, tmp_path):
    from ossicle.data.parts import read_split, write_split
    from ossicle.evaluation import Evaluation
    from ossicle.evaluation.result import predictions_csv

    lines = [f"text {n},{'ab'[n % 2]}" for n in range(20)]
    path = tree({"data/test.csv": table(*lines)}) / "data" / "test.csv"
    dataset = read_dataset(path, modality="text")
    split = split_dataset(dataset)
    write_split(tmp_path / "split.json", dataset, split)
    again = read_split(tmp_path / "split.json", read_dataset(path, modality="text"))
    assert again is not None and again.test.tolist() == split.test.tolist()
    path.write_text(table(*lines).replace("text 3,", "other,"))
    assert read_split(tmp_path / "split.json", read_dataset(path, modality="text")) is None
    tested = [dataset.items[row] for row in split.test]
    scores = np.tile([0.25, 0.75], (len(tested), 1))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(Evaluation.of(dataset, split.test, scores=scores)))))
    assert [row["file"] for row in rows] == [f"test.csv:{item.row}" for item in tested]
    assert len({row["file"] for row in rows}) == len(rows)


def test_an_item_without_text_is_a_slip(tmp_path):
    with pytest.raises(ValueError, match="modality='text'"):
        modality_of("text").read(Item(file=tmp_path / "a.wav", labels=()))


def test_the_same_text_in_two_rows_is_named(tree):
    lines = ("yes,a,train", "no,b,train", "yes,a,test", "no,a,test", "so,b,train", "so,b,train")
    report = check_dataset(read_dataset(tree({"meta.csv": table(*lines, header="text,label,split")}), modality="text"))
    assert [(problem.kind, problem.file, problem.detail) for problem in report.problems] == [
        ("contradiction", "meta.csv:5", "the same text as meta.csv:3, with the labels a here and b there"),
        ("leak", "meta.csv:4", "the same text as meta.csv:2, in another split"),
        ("leak", "meta.csv:7", "the same text as meta.csv:6, in another group"),
    ]
    assert report.seconds == () and not report.failed
    lines = report.lines()
    assert "contradiction: 1 of 6 texts (the same text with other labels)" in lines
    assert not any(line.startswith(("length", "rates", "channels")) or "clip" in line for line in lines)


def test_the_command_checks_text_by_its_column(tree):
    root = tree({"t.csv": table("x,good,kind", "x,bad,rude", "x,fine,kind", "x,foul,rude", header="text,said,label")})
    arguments = ["check", str(root / "t.csv"), "--modality", "text"]
    result = CliRunner().invoke(app, [*arguments, "--text", "said"])
    assert result.exit_code == 0 and "problems  none" in result.stdout
    assert "leak: 3 of 4 texts" not in result.stdout and "leak" in CliRunner().invoke(app, arguments).stdout
    wrong = CliRunner().invoke(app, ["check", str(root / "t.csv"), "--text", "said"])
    assert wrong.exit_code == 2 and "--modality text" in wrong.stderr


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (FOUR, "words,label", ["text, sentence, content", "--text", "found are words, label"]),
        (FOUR, "text,mood", ["label, labels, category, class", "--label"]),
        ((), "text,label", ["holds no rows"]),
        (("hello,a", " ,b"), "text,label", ["line 3", "no text", "'text'"]),
        (("hello,a", "there,"), "text,label", ["line 3", "no label"]),
        (("hello,a", "you, there,b"), "text,label", ["line 3", "3 cells"]),
        (('"hello,a',), "text,label", ["no valid CSV"]),
        (("x" * 200_000 + ",a",), "text,label", ["field larger than field limit (131072)"]),
        (("hello,a", "you,b"), "text,label", ["the class 'a'", "has one text"]),
        (("hello,a", "you,a"), "text,label", ["one class only (a)"]),
    ],
)
def test_a_bad_table_of_text_is_refused(tree, lines, header, said):
    sentence = refusal(tree({"meta.csv": table(*lines, header=header)}))
    for part in said:
        assert part in sentence


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": ["hello"], "label": "a"}, "expected a text"),
        ({"text": None, "label": "a"}, "no text"),
        ({"text": "x" * 131_073, "label": "a"}, "131,073 characters: allowed are 131,072"),
        ({"text": "\ud800", "label": "a"}, "surrogate"),
    ],
)
def test_bad_jsonl_of_text_is_refused(tree, record, said):
    sentence = refusal(tree({"meta.jsonl": json.dumps(record)}))
    assert said in sentence and "line 1" in sentence


def test_the_same_words_may_be_said_twice(tree):
    dataset = read_dataset(tree({"meta.csv": table("yes,a", "no,b", "yes,a", "no,b")}), modality="text")
    assert len({dataset.relative(item) for item in dataset.items}) == 4


# ---------------------------------------------------------------- the wrong modality


def test_a_table_of_another_kind_is_called_by_its_name(tree):
    root = tree(
        {
            "text/meta.csv": table(*FOUR),
            "sound/meta.csv": "file,label\na.wav,x\nb.wav,y\n",
            "sound/a.wav": "",
            "sound/b.wav": "",
            "image/meta.csv": "image,label\na.png,x\nb.png,y\n",
        }
    )
    holds_text = "holds a table of texts (column 'text'), not of "
    assert f"{holds_text}recordings: modality 'text' reads it" in refusal(root / "text", modality="sound")
    assert f"{holds_text}images: modality 'text' reads it" in refusal(root / "text", modality="image")
    sentence = refusal(root / "sound")
    assert "holds a table of recordings or images (column 'file'), not of texts" in sentence
    assert "modality 'sound' or 'image' reads it" in sentence
    assert "holds a table of images (column 'image'), not of recordings" in refusal(root / "image", modality="sound")


def test_a_folder_of_another_kind_is_called_by_its_name(tree):
    root = tree(["sound/dog/1.wav", "sound/dog/2.wav", "image/dog/1.png", "image/cat/1.JPG", "empty/notes.txt"])
    assert "holds no texts but recordings (2): modality 'sound' reads them" in refusal(root / "sound")
    assert "holds no recordings but images (2): modality 'image'" in refusal(root / "image", modality="sound")
    assert "holds no texts: expected one of the tables meta.csv" in refusal(root / "empty")


def test_no_such_modality_is_a_slip(tree):
    unchecked = inspect.unwrap(read_dataset)  # the tests' check of types would speak first
    with pytest.raises(ValueError, match="sound, text, image, not 'video'"):
        unchecked(tree({"meta.csv": table(*FOUR)}), modality="video")


# ---------------------------------------------------------------- AG News and its kin

NEWS = '"1","Title","A ""quoted"" body"\n"2","Other","Words, and\\more"\n"1","","only a body"\n"2","x","y"\n'


def test_the_layout_of_ag_news_is_detected(tree):
    root = tree({"test.csv": NEWS, "classes.txt": "World\nSports\n"})
    for path in (root, root / "test.csv"):
        dataset = read_dataset(path, modality="text")
        assert [item.text for item in dataset.items] == [
            'Title A "quoted" body',
            "Other Words, and\\more",
            "only a body",
            "x y",
        ]
        assert [item.labels for item in dataset.items] == [("World",), ("Sports",), ("World",), ("Sports",)]
        assert [dataset.relative(item) for item in dataset.items] == [f"test.csv:{line}" for line in (1, 2, 3, 4)]
        assert "the layout of AG News (test.csv without column names, classes.txt): 4 texts" in dataset.layout
        assert {item.split for item in dataset.items} == {None}


def test_train_and_test_beside_each_other_are_the_official_split(tree):
    dataset = read_dataset(tree({"test.csv": NEWS, "train.csv": NEWS * 2, "classes.txt": "a\nb\n"}), modality="text")
    assert [item.split for item in dataset.items] == ["train"] * 8 + ["test"] * 4
    assert "the official `test` split" in split_dataset(dataset).protocol


@pytest.mark.parametrize(
    ("news", "classes", "said"),
    [
        (NEWS + '"3","x","y"\n', "a\nb\n", ["line 5", "'3'", "1 to 2"]),
        (NEWS + '"0","x","y"\n', "a\nb\n", ["line 5", "'0'"]),
        (NEWS + '"a","x","y"\n', "a\nb\n", ["line 5", "'a'"]),
        (NEWS + '"1"\n', "a\nb\n", ["line 5", "no text"]),
        (NEWS + '"1"," ",""\n', "a\nb\n", ["line 5", "no text"]),
        (NEWS + '"1","x', "a\nb\n", ["no valid CSV"]),
        (NEWS, "a\na\n", ["classes.txt", "'a' twice"]),
        (NEWS, "\n", ["classes.txt", "no name"]),
    ],
)
def test_a_damaged_set_of_this_layout_is_refused(tree, news, classes, said):
    sentence = refusal(tree({"test.csv": news, "classes.txt": classes}))
    for part in said:
        assert part in sentence


def test_this_layout_has_no_columns_to_name_and_is_no_sound(tree):
    root = tree({"test.csv": NEWS, "classes.txt": "a\nb\n"})
    assert "--group site names a column, but" in refusal(root, group="site")
    assert "modality 'text' reads them" in refusal(root, modality="sound")
    assert "modality 'text' reads it" in refusal(root / "test.csv", modality="image")


def test_a_table_of_recordings_beside_a_list_of_classes_stays_one(tree):
    root = tree({"test.csv": "file,label\n1.wav,a\n2.wav,b\n", "classes.txt": "a\nb\n", "1.wav": "", "2.wav": ""})
    assert len(read_dataset(root / "test.csv", labels=["a", "b"])) == 2


def test_ag_news_itself_is_read(shared):
    root = shared / "ag_news"
    if not root.is_dir():
        pytest.skip(f"AG News is not at {root}")
    dataset = read_dataset(root, modality="text")
    assert dataset.labels == ("Business", "Sci/Tech", "Sports", "World")
    assert dataset.targets().sum(axis=0).tolist() == [1900] * 4
    assert dataset.items[0].labels == ("Business",) and dataset.items[0].text is not None
    assert dataset.items[0].text.startswith("Fears for T N pension after talks Unions representing")
    assert len({dataset.relative(item) for item in dataset.items}) == 7600
    assert dataset.layout.startswith("the layout of AG News (test.csv")
    split = split_dataset(dataset)
    assert dataset.targets()[split.test].sum(axis=0).tolist() == [380] * 4
