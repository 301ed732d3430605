"""Tables as other programs write them mean what they mean there, and what is not used of them is said."""

import csv
import json
import unicodedata
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ossicle.audio import AudioInfo
from ossicle.data import check_dataset, read_dataset, split_dataset
from ossicle.data.names import MISSING, apart, is_missing, spellings
from ossicle.data.times import LENGTHS, PAIRS, base_and_unit
from ossicle.errors import DataRefused
from ossicle.inference.formats import Provenance
from ossicle.inference.rows import Row
from ossicle.inference.writers import write_tables

SOUNDS = dict.fromkeys((f"{name}.wav" for name in "abcd"), "")


@pytest.fixture
def read(tree):
    """Reads a table of four empty recordings."""

    def go(*lines: str, name: str = "t.csv", sounds=SOUNDS, **options):
        return read_dataset(tree({name: "\n".join(lines) + "\n", **sounds}) / name, **options)

    return go


@pytest.fixture
def refused(read):
    def go(*lines: str, **options) -> str:
        with pytest.raises(DataRefused) as caught:
            read(*lines, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return go


def timed(start: str, end: str, *, values=("1", "3")) -> list[str]:
    """Four clips with the same times."""
    return [
        f"file,{start},{end},label",
        *(f"{name}.wav,{values[0]},{values[1]},{'xy'[n % 2]}" for n, name in enumerate("abcd")),
    ]


def segments(dataset) -> set:
    return {(item.start, item.end) for item in dataset.items}


# ---------------------------------------------------------------- times


@pytest.mark.parametrize(
    "spell", [str, str.upper, "{} (s)".format, "{}_seconds".format, "{}_sec".format, "{} [s]".format]
)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_times_are_read_under_every_name_that_is_known(read, pair, spell):
    dataset = read(*timed(*map(spell, pair)))
    assert segments(dataset) == {(1.0, 3.0)}
    assert (
        f"times from `{spell(pair[0])}` and `{spell(pair[1])}`)" in dataset.layout and "not used" not in dataset.layout
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("start_time", "end_time"),  # OpenSoundscape
        ("onset", "offset"),  # DCASE
        ("Begin Time (s)", "End Time (s)"),  # Raven
        ("Start (s)", "End (s)"),  # BirdNET
        ("start_seconds", "end_seconds"),  # AudioSet
        ("start_time_seconds", "end_time_seconds"),  # AudioSet, strong labels
        ("start", "stop"),
        ("StartTime", "EndTime"),
    ],
)
def test_the_tables_of_other_programs_label_segments_and_not_recordings(read, start, end):
    assert segments(read(*timed(start, end))) == {(1.0, 3.0)}


@pytest.mark.parametrize(("start", "length"), [*product(("start", "onset", "offset", "OFFSET"), LENGTHS[:3])])
def test_a_start_with_a_length_is_a_segment(read, start, length):
    assert segments(read(*timed(start, length))) == {(1.0, 4.0)}


@pytest.mark.parametrize("unit", ["_ms", " (ms)", "_milliseconds"])
def test_milliseconds_are_a_thousandth(read, unit):
    dataset = read(*timed(f"start{unit}", f"end{unit}", values=("500", "1500.5")))
    assert segments(dataset) == {(0.5, 1.5005)}
    assert f"times from `start{unit}` in milliseconds and `end{unit}` in milliseconds" in dataset.layout


@pytest.mark.parametrize(("text", "seconds"), [("0:01.5", 1.5), ("02:05", 125), ("1:00:00.25", 3600.25), ("1e1", 10)])
def test_a_time_may_be_in_minutes(read, text, seconds):
    assert segments(read(*timed("start", "end", values=("1", text)))) == {(1.0, seconds)}


def test_seconds_go_before_milliseconds(read):
    lines = [
        "file,start_ms,end_ms,start_s,end_s,label",
        *(f"{n}.wav,1,2,3,4,{label}" for n, label in zip("abcd", "xyxy", strict=True)),
    ]
    assert segments(read(*lines)) == {(3.0, 4.0)}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("start_sample,end_sample", "`start_sample` and `end_sample` look like times and are not used"),
        ("offset,note", "`offset` looks like a time and is not used"),
        ("note,duration", "`duration` looks like a time and is not used"),
        ("time,note", "`time` looks like a time and is not used"),
        ("Peak (s),note", "`Peak (s)` looks like a time and is not used"),
        ("start,note", "each runs from its `start` to the end of its file"),
        ("note,end", "each runs from the start of its file to its `end`"),
        ("start,offset", "`offset` looks like a time and is not used"),
    ],
)
def test_a_time_that_is_not_used_is_said(read, columns, said):
    assert said in read(*timed(*columns.split(","))).layout


def test_another_pair_of_times_is_said_and_measures_of_the_segment_are_not(read):
    lines = [
        "file,start,end,onset,offset,duration,label",
        *(f"{n}.wav,1,2,3,4,1,{label}" for n, label in zip("abcd", "xyxy", strict=True)),
    ]
    dataset = read(*lines)
    assert segments(dataset) == {(1.0, 2.0)}
    assert (
        "`onset` and `offset` look like times and are not used" in dataset.layout and "duration" not in dataset.layout
    )


def test_a_time_of_day_is_no_segment(read):
    dataset = read(*timed("start_time", "end_time", values=("2024-05-01 04:30", "2024-05-01 05:30")))
    assert segments(dataset) == {(0.0, None)}
    assert "`start_time` holds no seconds (such as '2024-05-01 04:30') and is not used" in dataset.layout


@pytest.mark.parametrize("header", ["file,label,weekend,take", "file,label,Low Freq (Hz),station"])
def test_a_column_that_is_no_time_is_passed_over(read, header):
    assert "not used" not in read(header, "a.wav,x,1,2", "b.wav,y,1,2", "c.wav,x,1,2", "d.wav,y,1,2").layout


@pytest.mark.parametrize("value", ["-1", "0", "soon", "nan", "1_0", "2,5", "1:99:00:00"])
def test_an_end_that_is_none_is_refused_with_what_is_allowed(refused, value):
    sentence = refused("file;start;end;label", f"a.wav;0;{value};x", "b.wav;0;1;y")
    assert "line 2" in sentence and "an empty cell is the" in sentence


def test_the_times_of_a_raven_table_are_those_within_the_file(read):
    """Begin and end run over all files, as Raven lays them one after another; a selection has a row for each view."""
    header = [
        "Selection",
        "View",
        "Channel",
        "Begin Time (s)",
        "End Time (s)",
        "Begin Path",
        "File Offset (s)",
        "Label",
    ]
    rows = [
        [str(n), view, "1", f"{100 * n}", f"{100 * n + 2}", f"C:\\field\\{name}.wav", f"{n}.5", "xy"[n % 2]]
        for n, name in enumerate("abcd")
        for view in ("Waveform 1", "Spectrogram 1")
    ]
    dataset = read(*("\t".join(row) for row in [header, *rows]), name="all.selections.txt")
    assert [(item.file.name, item.start, item.end) for item in dataset.items] == [
        ("a.wav", 0.5, 2.5),
        ("b.wav", 1.5, 3.5),
        ("c.wav", 2.5, 4.5),
        ("d.wav", 3.5, 5.5),
    ]


def test_events_of_one_segment_are_joined_and_others_that_overlap_are_counted(read):
    dataset = read(
        "filename,onset,offset,event_label",
        *("a.wav,0,1,x", "a.wav,0,1,y", "a.wav,2,4,x", "a.wav,3,5,y", "b.wav,0,1,x", "b.wav,0.5,1,x"),
    )
    assert [item.labels for item in dataset.items] == [("x", "y"), ("x",), ("y",), ("x",), ("x",)]
    assert "a segment with several rows has the labels of all of them (1)" in dataset.layout
    assert "clips that overlap one with other labels have those of their own row alone (1)" in dataset.layout


def test_rows_without_times_among_others_are_whole_recordings_and_counted(read):
    dataset = read("file,onset,offset,label", "a.wav,0,1,x", "b.wav,,,y", "c.wav,1,,x", "d.wav,0,2,y")
    assert segments(dataset) == {(0, 1), (0, None), (1, None), (0, 2)}
    assert "clips without times are whole recordings (1)" in dataset.layout


@pytest.mark.parametrize("second", ["a.wav,0,1,x,1", "a.wav,0,1,y,2"])
def test_a_segment_that_is_there_twice_or_in_two_groups_is_refused(refused, second):
    assert "line 3" in refused("file,start,end,label,group", "a.wav,0,1,x,1", second)


@given(st.text(st.characters(codec="ascii"), max_size=12))
def test_any_name_of_a_column_has_a_base_and_a_unit(name):
    base, unit = base_and_unit(name)
    assert not unit or base


# ---------------------------------------------------------------- files


def test_any_column_may_hold_the_files(read, refused):
    lines = ("clip,label", "a.wav,x", "b.wav,y", "c.wav,x", "d.wav,y")
    assert len(read(*lines, file="clip")) == 4
    assert "name one of its columns with --file" in refused(*lines)
    assert "no column 'sound' for --file: its columns are clip, label" in refused(*lines, file="sound")


def test_a_column_of_files_is_no_column_of_texts(tree):
    with pytest.raises(DataRefused, match="file=clip names a column of file names"):
        read_dataset(tree({"t.csv": "clip,label\na,b\n"}), modality="text", file="clip")


@pytest.mark.parametrize(("table", "disk"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_a_file_is_found_however_its_accents_are_written(read, table, disk):
    spelled = [unicodedata.normalize(form, "größe/café.wav") for form in (table, disk)]
    dataset = read("file,label", f"{spelled[0]},x", "b.wav,y", "c.wav,x", "d.wav,y", sounds={**SOUNDS, spelled[1]: ""})
    assert all(item.file.is_file() for item in dataset.items) and "have no file" not in dataset.layout


def test_one_file_under_two_spellings_is_one_clip(refused):
    names = [unicodedata.normalize(form, "café.wav") for form in ("NFC", "NFD")]
    assert "repeats the clip" in refused("file,label", *(f"{name},x" for name in names), sounds={names[0]: ""})


def test_files_may_be_named_without_a_suffix(read):
    assert all(item.file.is_file() for item in read("file,label", "a,x", "b,y", "c,x", "d,y").items)


def test_the_segments_of_audioset_are_whole_files_under_any_of_their_names(read):
    names = {"-0RWZT-miFs": "-0RWZT-miFs", "abcdefghijk": "Yabcdefghijk", "Y1234567890": "Y1234567890_30.000"}
    lines = [
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        "# num_ytids=4, num_segs=4",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    lines += [f'{name}, 30.000, 40.000, "/m/1,/m/2"' for name in (*names, "zzzzzzzzzzz")]
    dataset = read(*lines, sounds={f"audio/{name}.wav": "" for name in names.values()})
    assert [item.file.stem for item in dataset.items[:3]] == list(names.values())
    assert dataset.labels == ("/m/1", "/m/2") and segments(dataset) == {(0.0, None)}
    assert "say where each clip was cut from a video (AudioSet), and are not used" in dataset.layout
    assert "1 of 4 clips have no file" in dataset.layout


def test_the_sign_between_cells_is_the_one_that_is_there_most_often(read):
    assert len(read("file;start, s;label", "a.wav;1;x", "b.wav;1;y", "c.wav;1;x", "d.wav;1;y")) == 4
    assert len(read("file;label", "a.wav;x", "b.wav;y", "c.wav;x", "d.wav;y", name="t.tsv")) == 4


# ---------------------------------------------------------------- label tracks

TRACK = "0.0\t1,5\tx\n\\\t100\t2000\n2.0\t3.0\ty\n"


def test_label_tracks_of_audacity_lie_beside_their_recordings(tree):
    root = tree({**SOUNDS, "a.txt": TRACK, "b.wav.txt": TRACK, "notes.txt": "no labels", "c.txt": ""})
    dataset = read_dataset(root)
    assert [(dataset.relative(item), item.start, item.end, *item.labels) for item in dataset.items] == [
        ("a.wav", 0, 1.5, "x"),
        ("a.wav", 2, 3, "y"),
        ("b.wav", 0, 1.5, "x"),
        ("b.wav", 2, 3, "y"),
    ]
    assert "label tracks beside their recordings" in dataset.layout
    assert "recordings without a label track are left out (2)" in dataset.layout
    assert [item.end for item in read_dataset(root / "a.txt", labels=["x", "y"]).items] == [1.5, 3]


def test_selection_tables_of_raven_lie_beside_their_recordings(tree):
    table = "Selection\tBegin Time (s)\tEnd Time (s)\tAnnotation\n1\t0\t1\tx\n2\t1\t2\ty\n"
    dataset = read_dataset(tree({**SOUNDS, **{f"{name}.Table.1.selections.txt": table for name in "ab"}}))
    assert [(item.file.name, item.start) for item in dataset.items] == [
        ("a.wav", 0),
        ("a.wav", 1),
        ("b.wav", 0),
        ("b.wav", 1),
    ]


def test_the_detections_of_birdnet_are_labels_of_their_segments(read):
    header = "Start (s),End (s),Scientific name,Common name,Confidence,File"
    rows = (
        f"{at},{at + 3},Turdus merula,{name},0.9,{file}.wav"
        for file in "ab"
        for at, name in ((0, "Blackbird"), (3, "Robin"))
    )
    dataset = read(header, *rows)
    assert dataset.labels == ("Blackbird", "Robin") and segments(dataset) == {(0, 3), (3, 6)}
    assert "each row counts as true, whatever its `Confidence` says" in dataset.layout


def test_a_label_track_without_its_recording_says_so(tree):
    with pytest.raises(DataRefused, match="nor is there a recording beside it that it is named after"):
        read_dataset(tree({"z.txt": TRACK, **SOUNDS}) / "z.txt")


def test_a_label_track_of_two_recordings_is_refused(tree):
    with pytest.raises(DataRefused, match=r"may be of a\.flac and a\.wav"):
        read_dataset(tree({"a.wav": "", "a.flac": "", "a.txt": TRACK}) / "a.txt")


# ---------------------------------------------------------------- no label


@pytest.mark.parametrize("nothing", [*sorted(MISSING), "", " nan "])
def test_a_missing_label_is_no_class(read, refused, nothing):
    sentence = refused("file,label", "a.wav,x", "b.wav,y", f"c.wav,{nothing}", "d.wav,x")
    assert "line 4" in sentence and "has no label in the column 'label' (1 such rows" in sentence
    assert (repr(nothing.strip()) in sentence) == bool(nothing.strip())
    dataset = read("file,labels", "a.wav,x", "b.wav,x;y", f"c.wav,{nothing}", "d.wav,y")
    assert dataset.labels == ("x", "y") and dataset.items[2].labels == ()
    assert (f"{nothing.strip()!r} says that there is no label (1 times)" in dataset.layout) == bool(nothing.strip())


@pytest.mark.parametrize("value", ["NaN", '"nan"', "null", '""', "[NaN]", '["nan"]', "[null]", "[]"])
def test_a_missing_label_in_jsonl_is_none(tree, value):
    lines = [
        '{"file": "a.wav", "labels": ["x"]}',
        '{"file": "b.wav", "labels": ["x"]}',
        f'{{"file": "c.wav", "labels": {value}}}',
    ]
    dataset = read_dataset(tree({"t.jsonl": "\n".join(lines), **SOUNDS}) / "t.jsonl")
    assert dataset.labels == ("x",) and dataset.items[2].labels == ()


@pytest.mark.parametrize("word", ["none", "na", "nat", "Nat", "N", "nil", "nothing", "0", "-"])
def test_a_word_that_may_be_a_class_is_one(read, word):
    assert word in read("file,label", "a.wav,x", f"b.wav,{word}", "c.wav,x", f"d.wav,{word}").labels


def test_a_missing_group_ties_no_clips_together_and_a_missing_fold_is_refused(read, refused):
    dataset = read("file,label,speaker", "a.wav,x,nan", "b.wav,y,nan", "c.wav,x,NA", "d.wav,y,s")
    assert [item.group for item in dataset.items] == [None, None, None, "s"]
    assert "names no fold" in refused("file,label,fold", "a.wav,x,1", "b.wav,y,NaN")
    assert "names no file" in refused("file,label", "a.wav,x", "nan,y")


def test_a_text_may_say_none(tree):
    dataset = read_dataset(tree({"meta.csv": "text,label\nNone,a\nnull,b\nNA,a\nnan,b\n"}), modality="text")
    assert [item.text for item in dataset.items] == ["None", "null", "NA", "nan"]


@given(st.text())
def test_only_what_is_written_for_nothing_is_missing(text):
    assert is_missing(text) == (not text.strip() or text.strip() in MISSING)


# ---------------------------------------------------------------- names that mean the same


def test_labels_groups_and_folds_equal_as_numbers_are_one(read):
    dataset = read("file,label,group,fold", "a.wav,1.0,7,1", "b.wav,2,7.0,1.0", "c.wav,1,8,02", "d.wav,02,8,2")
    assert dataset.labels == ("1", "2") and dataset.folds == ("1", "2")
    assert [item.group for item in dataset.items] == ["7", "7", "8", "8"]
    assert "labels equal as numbers or as text are one: '02' and '2'" in dataset.layout


def test_numbers_in_jsonl_are_the_labels_that_they_equal(tree):
    lines = (
        json.dumps({"file": f"{name}.wav", "label": label})
        for name, label in zip("abcd", (1, 1.0, 2.0, "2"), strict=True)
    )
    assert read_dataset(tree({"t.jsonl": "\n".join(lines), **SOUNDS}) / "t.jsonl").labels == ("1", "2")


def test_numbers_keep_their_spelling_where_there_is_one(read):
    assert read("file,label", "a.wav,01", "b.wav,2.0", "c.wav,01", "d.wav,2.0").labels == ("01", "2.0")


def test_composed_and_decomposed_labels_are_one(tree):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    dataset = read_dataset(tree([f"{label}/{number}.wav" for label in (*names, "cat") for number in "12"]))
    assert dataset.labels == (names[0], "cat") and [item.labels for item in dataset.items].count((names[0],)) == 4


def test_the_spelling_of_a_model_wins(read):
    composed, apart_ = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    dataset = read("file,label", "a.wav,1", "b.wav,1.00", f"c.wav,{composed}", "d.wav,x", labels=["1.0", apart_, "x"])
    assert [item.labels for item in dataset.items] == [("1.0",), ("1.0",), (apart_,), ("x",)]


@given(st.lists(st.text(max_size=4) | st.from_regex(r"[0-9]{1,2}(\.0)?", fullmatch=True), max_size=8))
def test_one_spelling_is_its_own(names):
    chosen = spellings(names)
    assert set(chosen) == set(names)
    assert all(spellings([one]) == {one: one} for one in chosen.values())


def test_labels_joined_by_commas_are_several_where_their_parts_are_labels(read):
    dataset = read("file,label", "a.wav,dog", "b.wav,cat", 'c.wav,"dog,cat"', 'd.wav,"cat, dog"')
    assert dataset.task == "multi-label" and dataset.labels == ("cat", "dog")
    assert [len(item.labels) for item in dataset.items] == [1, 1, 2, 2]
    assert "labels joined by commas are several, such as 'cat, dog' (of 2 clips)" in dataset.layout


def test_a_label_with_a_comma_stays_one_and_is_said_where_it_may_be_several(read):
    wind = '"Wind instrument, woodwind instrument"'
    assert read("file,label", f"a.wav,{wind}", f"b.wav,{wind}", "c.wav,Dog", "d.wav,Dog").labels == ("Dog", wind[1:-1])
    said = "labels with commas are one each, such as 'dog,owl': several are joined by ; or |"
    assert said in read("file,label", 'a.wav,"dog,owl"', 'b.wav,"dog,owl"', "c.wav,dog", "d.wav,dog").layout


def test_the_labels_of_a_model_say_what_commas_mean(read):
    lines = ("file,labels", 'a.wav,"dog,cat"', 'b.wav,"bird, small"')
    dataset = read(*lines, labels=["dog", "cat", "bird, small", "bird", "small"])
    assert [item.labels for item in dataset.items] == [("dog", "cat"), ("bird, small",)]


def test_entries_of_a_list_are_whole_labels(read):
    cells = ("\"['dog', 'cat']\"", '"[""dog"", ""dog,cat""]"', "\"['cat', nan]\"", "[]")
    lines = (f"{name}.wav,{cell}" for name, cell in zip("abcd", cells, strict=True))
    dataset = read("file,labels", *lines, labels=["dog", "cat", "dog,cat"])
    assert [item.labels for item in dataset.items] == [("dog", "cat"), ("dog", "dog,cat"), ("cat",), ()]
    assert read("file,label", "a.wav,[x]", "b.wav,y", "c.wav,[x]", "d.wav,y").labels == ("[x]", "y")


def test_no_part_of_a_label_is_lost():
    assert apart(["a", "b", "a,b", "a,,c", ","]) == ({"a,b": ["a", "b"]}, ["a,,c"])


def test_a_split_may_have_another_name_where_all_its_values_are_names_of_splits(read):
    rows = [f"{name}.wav,{label}" for name, label in zip("abcd", "xxyy", strict=True)]
    splits = ("Training", "VALIDATION", "train", " dev ")
    dataset = read("file,label,subset", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True)))
    assert [item.split for item in dataset.items] == ["train", "validation"] * 2
    other = read(
        "file,label,subset", *(f"{row},{part}" for row, part in zip(rows, ("train", "A", "A", "B"), strict=True))
    )
    assert {item.split for item in other.items} == {None}


# ---------------------------------------------------------------- our own predictions


@pytest.mark.parametrize(
    ("kind", "name"),
    [("csv", "predictions.csv"), ("jsonl", "predictions.jsonl"), ("raven", "predictions.selections.txt")],
)
def test_predictions_that_a_person_corrected_are_a_data_set(tmp_path: Path, monkeypatch, kind, name):
    """As `ossicle predict recordings -o out` writes them: files as they were given, from the folder it ran in."""
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    files = [Path("recordings", f"{letter}.wav") for letter in "abcdef"]
    rng = np.random.default_rng(0)
    for file in files:
        soundfile.write(file, rng.integers(-3000, 3000, 20_000, dtype=np.int16), 10_000, subtype="PCM_16")
    rows = [[Row(file=str(f), start=float(t), end=t + 1.0, label="dog", score=0.4) for t in (0, 1)] for f in files]
    provenance = Provenance(model="m", model_version="1")
    recorded = [(AudioInfo(rate=10_000, frames=20_000), some) for some in rows]
    write_tables(tmp_path / "out", recorded, files=files, formats=[kind], provenance=provenance)
    table = tmp_path / "out" / name
    lines = table.read_text().splitlines()
    changed = [line.replace("dog", "cat") if n % 2 else line for n, line in enumerate(lines)]
    table.write_text("\n".join(changed[:-1]) + "\n")
    dataset = read_dataset(table)
    assert dataset.labels == ("cat", "dog") and dataset.task == "single-label" and len(dataset) == 11
    assert {(item.start, item.end) for item in dataset.items} == {(0.0, 1.0), (1.0, 2.0)}
    assert not check_dataset(dataset).problems and len(split_dataset(dataset).test)
    assert f"each row counts as true, whatever its `{'Score' if kind == 'raven' else 'score'}` says" in dataset.layout


def test_several_predictions_of_one_window_are_one_clip_with_several_labels(read):
    header = "file,start,end,label,score,model,model_version"
    rows = [f"{name}.wav,0.000,2.000,{label},0.5,m,1" for name in "ab" for label in ("x", "y")]
    dataset = read(header, *rows, "c.wav,0.000,2.000,x,0.9,m,1")
    assert dataset.task == "multi-label" and [item.labels for item in dataset.items] == [("x", "y"), ("x", "y"), ("x",)]
    assert "a segment with several rows has the labels of all of them (2)" in dataset.layout


def test_a_table_of_predictions_is_csv_with_quotes(tmp_path, tree):
    """A label with a comma survives the round trip."""
    root = tree(SOUNDS)
    with open(root / "t.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [
                ["file", "start", "end", "label", "score"],
                *([f"{n}.wav", 0, 1, "Male speech, man speaking", 1] for n in "ab"),
                *([f"{n}.wav", 0, 1, "Dog", 1] for n in "cd"),
            ]
        )
    assert read_dataset(root / "t.csv").labels == ("Dog", "Male speech, man speaking")
