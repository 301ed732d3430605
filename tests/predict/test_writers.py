import csv
from pathlib import Path

from ossicle.predict import Row, audacity_text, csv_text, table_lines, write_predictions

ROW = Row(file="a.wav", start=0.0, end=1.5, label="dog, barking", score=0.87654)


def test_csv_has_its_header_even_without_rows() -> None:
    assert csv_text([], model="m", model_version="v") == "file,start,end,label,score,model,model_version\n"


def test_csv_reads_back_with_commas_quotes_and_line_ends_in_labels() -> None:
    rows = [ROW, Row(file='b "loud".wav', start=3600.0, end=3601.0, label="two\nlines", score=1.0)]
    read = list(csv.DictReader(csv_text(rows, model="m", model_version="v").splitlines(keepends=True)))
    assert [line["label"] for line in read] == ["dog, barking", "two\nlines"]
    assert read[0] == {
        "file": "a.wav",
        "start": "0.000",
        "end": "1.500",
        "label": "dog, barking",
        "score": "0.8765",
        "model": "m",
        "model_version": "v",
    }
    assert read[1]["file"] == 'b "loud".wav'


def test_an_audacity_track_has_three_columns_whatever_the_label_holds() -> None:
    text = audacity_text([ROW, Row(file="a.wav", start=1.5, end=3.0, label="tab\there\nand line", score=0.5)])
    assert text == "0.000000\t1.500000\tdog, barking\n1.500000\t3.000000\ttab here and line\n"


def test_a_table_names_the_file_and_says_when_nothing_was_heard() -> None:
    assert table_lines("a.wav", [ROW]) == ["a.wav", "  0.00 - 1.50 s  dog, barking  0.8765"]
    assert table_lines("b.wav", []) == ["b.wav", "  nothing reached the thresholds"]


def test_recordings_of_one_name_keep_a_track_each(tmp_path: Path) -> None:
    files = [tmp_path / "in" / name for name in ("day 1/a.wav", "day 2/a.wav", "day 2/a.flac")]
    written = write_predictions(
        tmp_path / "out",
        {file: [ROW] for file in files},
        formats=("csv", "audacity"),
        model="m",
        model_version="v",
    )
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "predictions.csv",
        "day 1/a.wav.txt",
        "day 2/a.wav.txt",
        "day 2/a.flac.txt",
    ]
    assert all(path.is_file() for path in written)
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 4


def test_without_recordings_there_is_still_a_csv(tmp_path: Path) -> None:
    written = write_predictions(tmp_path, {}, formats=("csv", "audacity"), model="m", model_version="v")
    assert [path.name for path in written] == ["predictions.csv"]
