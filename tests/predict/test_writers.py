import csv
import io
import json
from pathlib import Path

from ossicle.predict import TABLES, Row, Source, stream_table, table_lines, table_text, write_tables

SOURCE = Source(model="m", model_version="v", highest=16_000.0)
ROW = Row(file="a.wav", start=0.0, end=1.5, label="dog, barking", score=0.87654)
ODD = Row(file="b  'loud' \".wav", start=3600.0, end=3601.0, label="two\nlines\tand a tab", score=1.0)


def text(name: str, *rows: Row) -> str:
    return "".join(table_text(name, rows, SOURCE))


def test_tables_with_a_header_have_it_even_without_rows() -> None:
    assert text("csv") == "file,start,end,label,score,model,model_version\n"
    assert text("raven").startswith("Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\t")
    assert text("jsonl") == text("audacity") == ""


def test_csv_reads_back_with_commas_quotes_and_line_ends_in_labels() -> None:
    read = list(csv.DictReader(io.StringIO(text("csv", ROW, ODD), newline="")))
    assert [line["label"] for line in read] == [ROW.label, ODD.label]
    assert read[0] == {
        "file": "a.wav",
        "start": "0.000",
        "end": "1.500",
        "label": "dog, barking",
        "score": "0.8765",
        "model": "m",
        "model_version": "v",
    }
    assert read[1]["file"] == ODD.file


def test_jsonl_says_the_same_as_csv_a_row_a_line() -> None:
    read = [json.loads(line) for line in text("jsonl", ROW, ODD).splitlines()]
    tables = csv.DictReader(io.StringIO(text("csv", ROW, ODD), newline=""))
    for line, row in zip(read, tables, strict=True):
        assert list(line) == list(row)
        assert {**line, **{name: float(row[name]) for name in ("start", "end", "score")}} == line
        assert (line["file"], line["label"]) == (row["file"], row["label"])


def test_an_audacity_track_has_three_columns_whatever_the_label_holds() -> None:
    assert text("audacity", ROW, ODD) == (
        "0.000000\t1.500000\tdog, barking\n3600.000000\t3601.000000\ttwo lines and a tab\n"
    )


def test_a_raven_table_has_a_numbered_selection_for_each_row() -> None:
    header, *lines = [line.split("\t") for line in text("raven", ROW, ODD).splitlines()]
    assert all(len(line) == len(header) for line in lines)
    first = dict(zip(header, lines[0], strict=True))
    assert (first["Selection"], first["View"], first["Channel"]) == ("1", "Spectrogram 1", "1")
    assert (first["Begin Time (s)"], first["End Time (s)"]) == ("0.000000", "1.500000")
    assert (first["Low Freq (Hz)"], first["High Freq (Hz)"]) == ("0", "16000")
    assert (first["Label"], first["Score"], first["Begin Path"]) == ("dog, barking", "0.8765", "a.wav")
    assert lines[1][0] == "2"
    assert dict(zip(header, lines[1], strict=True))["Begin Path"] == ODD.file


def test_a_table_names_the_file_and_says_when_nothing_was_heard() -> None:
    assert table_lines("a.wav", [ROW]) == ["a.wav", "  0.00 - 1.50 s  dog, barking  0.8765"]
    assert table_lines("b.wav", []) == ["b.wav", "  nothing reached the thresholds"]


def test_a_table_streams_as_wide_as_its_labels_may_be_and_its_times_are() -> None:
    rows = [Row(file="a.wav", start=at, end=at + 1, label="cymbal", score=0.83241) for at in (0.0, 99.0, 100.0)]
    lines = stream_table("a.wav", [rows[:1], [], rows[1:]], labels=("cymbal", "hand-drum"))
    assert list(lines) == [
        "a.wav",
        "  0.00 - 1.00 s  cymbal     0.8324",
        "   99.00 - 100.00 s  cymbal     0.8324",
        "  100.00 - 101.00 s  cymbal     0.8324",
    ]
    assert list(stream_table("b.wav", [[], []], labels=("dog",))) == ["b.wav", "  nothing reached the thresholds"]


def test_recordings_of_one_name_keep_a_table_each(tmp_path: Path) -> None:
    files = [tmp_path / "in" / name for name in ("day 1/a.wav", "day 2/a.wav", "day 2/a.flac")]
    rows = {file: [ROW] for file in files}
    out = tmp_path / "out"
    written = write_tables(out, rows.items(), files=files, formats=("csv", "audacity"), source=SOURCE)
    assert [path.relative_to(out).as_posix() for path in written] == [
        "predictions.csv",
        "day 1/a.wav.txt",
        "day 2/a.wav.txt",
        "day 2/a.flac.txt",
    ]
    assert all(path.is_file() for path in written)
    assert len((out / "predictions.csv").read_text().splitlines()) == 4


def test_each_recording_may_have_every_table_and_numbers_begin_anew_in_its_own(tmp_path: Path) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    rows = {file: [ROW, ROW] for file in files}
    written = write_tables(tmp_path / "out", rows.items(), files=files, formats=("raven",), source=SOURCE, each=True)
    together, first, second = (path.read_text().splitlines()[1:] for path in written)
    assert [line.split("\t")[0] for line in together] == ["1", "2", "3", "4"]
    assert first == second and [line.split("\t")[0] for line in first] == ["1", "2"]


def test_without_recordings_every_table_is_there_with_its_header(tmp_path: Path) -> None:
    written = write_tables(tmp_path, [], files=[], formats=tuple(TABLES), source=SOURCE)
    assert [path.name for path in written] == ["predictions.csv", "predictions.jsonl", "predictions.selections.txt"]
    assert [path.read_text() for path in written] == [text("csv"), "", text("raven")]


def test_tables_that_fail_on_the_way_leave_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("old")

    def broken() -> object:
        yield ROW
        raise OSError("the disk is full")

    try:
        write_tables(tmp_path, [(Path("a.wav"), broken())], files=[Path("a.wav")], formats=("csv",), source=SOURCE)  # type: ignore[list-item]
    except OSError:
        pass
    assert (tmp_path / "predictions.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
