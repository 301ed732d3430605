import csv
import io
import json
from pathlib import Path

import pytest

from ossicle.audio import AudioInfo
from ossicle.inference import (
    FILE_FORMATS,
    OUTPUT_FORMATS,
    Provenance,
    Row,
    check_formats,
    seconds_text,
    stream_table,
    table_lines,
    table_text,
    write_tables,
)

MODEL = Provenance(model="m", model_version="v", hertz=(20.0, 15_000.0))
INFO = AudioInfo(rate=44_100, frames=441_000)
ROW = Row(file="a.wav", start=0.0, end=1.5, label="dog, barking", score=0.87654)
ODD = Row(file="b  'loud' \".wav", start=3600.0, end=3601.0, label="two\nlines\tand a tab", score=1.0)


def text(name: str, *rows: Row) -> str:
    return "".join(table_text(name, [(INFO, rows)], MODEL))


def columns(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table, newline=""), delimiter="\t"))


def test_every_output_format_is_a_row_of_the_registry() -> None:
    assert [name for name, table in OUTPUT_FORMATS.items() if not table.suffix] == ["table"]
    assert len({table.suffix for table in FILE_FORMATS.values()}) == len(FILE_FORMATS)
    for name, table in OUTPUT_FORMATS.items():
        assert table.name == name and table.about and (not table.header or table.header.endswith("\n"))
    assert check_formats(["csv", "raven", "csv"]) == ("csv", "raven")
    with pytest.raises(ValueError, match="output format 'elan' is not available; available: table, csv, "):
        check_formats(["elan"])
    with pytest.raises(ValueError, match="'table' is not available; available: csv, "):
        check_formats(["table"], files=True)


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
    assert (first["Low Freq (Hz)"], first["High Freq (Hz)"]) == ("20", "15000")
    assert (first["Label"], first["Score"], first["Begin Path"]) == ("dog, barking", "0.8765", "a.wav")
    assert lines[1][0] == "2"
    assert dict(zip(header, lines[1], strict=True))["Begin Path"] == ODD.file


@pytest.mark.parametrize(
    ("rate", "edges"),
    [(44_100, ("20", "15000")), (8_000, ("20", "4000")), (11_025, ("20", "5512.5")), (0, ("20", "15000"))],
)
def test_a_selection_lies_within_what_the_recording_and_the_model_have(rate: int, edges: tuple[str, str]) -> None:
    (row,) = columns("".join(table_text("raven", [(AudioInfo(rate=rate), [ROW])], MODEL)))
    assert (row["Low Freq (Hz)"], row["High Freq (Hz)"]) == edges


def test_a_selection_has_a_height_where_the_model_is_given_only_what_the_recording_lacks() -> None:
    provenance = Provenance(model="m", model_version="v", hertz=(2_000.0, 15_000.0))
    (row,) = columns("".join(table_text("raven", [(AudioInfo(rate=2_000), [ROW])], provenance)))
    assert (row["Low Freq (Hz)"], row["High Freq (Hz)"]) == ("0", "1000")


def test_the_clock_of_a_raven_table_goes_on_from_file_to_file(tmp_path: Path) -> None:
    rows = [Row(file=name, start=1.0, end=2.5, label="dog", score=0.5) for name in ("a.wav", "b.wav", "c.wav")]
    infos = [AudioInfo(rate=44_100, frames=frames) for frames in (441_001, 88_200, 44_100)]
    recordings = [(infos[0], rows[:1]), (infos[1], []), (infos[2], rows[2:])]
    written = write_tables(
        tmp_path, recordings, files=[Path(row.file) for row in rows], formats=("raven",), provenance=MODEL, each=True
    )
    together, *_, last = (columns(path.read_text()) for path in written)
    begin, offset = 441_001 / 44_100 + 2.0, "1.000000"  # the second file is silent, and takes its time all the same
    assert [row["Begin Path"] for row in together] == ["a.wav", "c.wav"]
    assert (together[0]["Begin Time (s)"], together[0]["File Offset (s)"]) == ("1.000000", offset)
    assert (together[1]["Begin Time (s)"], together[1]["File Offset (s)"]) == (f"{begin + 1:.6f}", offset)
    assert together[1]["End Time (s)"] == f"{begin + 2.5:.6f}"
    assert (last[0]["Begin Time (s)"], last[0]["File Offset (s)"]) == ("1.000000", offset)
    assert "".join(table_text("raven", recordings, MODEL)) == written[0].read_text()


@pytest.mark.parametrize("samples", [1, 5, 20])
def test_a_row_has_a_length_in_every_format_however_short_the_clip(samples: int) -> None:
    row = Row(file="click.wav", start=10.0, end=10.0 + samples / 192_000, label="click", score=0.5)
    assert float(next(csv.DictReader(io.StringIO(text("csv", row))))["end"]) > 10
    assert json.loads(text("jsonl", row))["end"] > 10
    assert len(set(text("audacity", row).split("\t")[:2])) == 2
    (raven,) = columns(text("raven", row))
    assert float(raven["End Time (s)"]) > float(raven["Begin Time (s)"])
    start, _, end = table_lines("click.wav", [row])[1].split()[:3]
    assert float(end) > float(start)


def test_seconds_have_three_decimals_and_more_where_these_say_something() -> None:
    assert [seconds_text(value) for value in (0.0, 1.5, 0.56325, 1 / 3, 3600.00004, 2.9999999)] == [
        "0.000",
        "1.500",
        "0.56325",
        "0.333333",
        "3600.00004",
        "3.000",
    ]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028"])
def test_a_csv_table_keeps_every_kind_of_line_end_in_a_label(end: str) -> None:
    row = Row(file="a.wav", start=0.0, end=1.0, label=f"dog{end}bark", score=0.5)
    (read,) = csv.DictReader(io.StringIO(text("csv", row), newline=""))
    assert read["label"] == row.label and read["model_version"] == "v"


def test_a_label_breaks_no_line_of_a_printed_table() -> None:
    lines = table_lines("a.wav", [ODD, ROW])
    assert len(lines) == 3 and "\t" not in lines[1]
    assert lines[1].index("  1.0000") == lines[2].index("  0.8765")


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
    out = tmp_path / "out"
    written = write_tables(out, [(INFO, [ROW])] * 3, files=files, formats=("csv", "audacity"), provenance=MODEL)
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
    recordings = [(INFO, [ROW, ROW])] * 2
    written = write_tables(tmp_path / "out", recordings, files=files, formats=("raven",), provenance=MODEL, each=True)
    together, first, second = (path.read_text().splitlines()[1:] for path in written)
    assert [line.split("\t")[0] for line in together] == ["1", "2", "3", "4"]
    assert first == second and [line.split("\t")[0] for line in first] == ["1", "2"]


def test_without_recordings_every_table_is_there_with_its_header(tmp_path: Path) -> None:
    written = write_tables(tmp_path, [], files=[], formats=tuple(FILE_FORMATS), provenance=MODEL)
    together = [table for table in FILE_FORMATS.values() if not table.per_recording]
    assert [path.name for path in written] == [f"predictions{table.suffix}" for table in together]
    assert [path.read_text() for path in written] == [table.header for table in together]


def test_tables_that_fail_on_the_way_leave_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("old")

    def broken() -> object:
        yield ROW
        raise OSError("the disk is full")

    try:
        write_tables(tmp_path, [(INFO, broken())], files=[Path("a.wav")], formats=("csv",), provenance=MODEL)  # type: ignore[list-item]
    except OSError:
        pass
    assert (tmp_path / "predictions.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
