"""What is printed is there as soon as it is known, with a predictor that needs no network."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ossicle.audio import AudioInfo
from ossicle.errors import AudioUnreadable
from ossicle.inference import ModelInfo, Predictor
from ossicle.jobs.folders import run_job
from ossicle.jobs.options import PredictOptions
from ossicle.jobs.printing import print_files

TEN = np.ones(16 * 400, np.float32)  # as many windows as are scored at once


class Loudness(Predictor):
    """Says how loud it is."""

    rate, min_samples = 8000, 1  # type: ignore[assignment]
    bundle = ModelInfo(
        model_name="loudness",
        task="multi-label",
        labels=("loud", "quiet"),
        window_seconds=0.05,
        hop_seconds=0.05,
        library_version="0",
        version="0" * 12,
    )

    def scores(self, windows: np.ndarray) -> np.ndarray:
        level = 10 * np.abs(windows).mean(1) - 5
        return np.stack([level, -level], 1)

    def features(self, windows: np.ndarray) -> np.ndarray:
        return self.scores(windows)


@pytest.mark.parametrize("name", ["table", "csv", "jsonl"])
def test_rows_are_printed_while_a_recording_is_heard_and_stay_if_it_breaks_off(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []

    def torn(file: Path, rate: int, *, info: AudioInfo, **_: Any) -> Iterator[np.ndarray]:
        if file == Path("gone.wav"):
            raise AudioUnreadable("gone.wav: there is no such file")
        yield TEN
        yield TEN
        printed.append(capsys.readouterr().out)
        raise AudioUnreadable(f"{file}: decoding stops")

    monkeypatch.setattr("ossicle.jobs.printing.read_blocks", torn)
    said: list[str] = []
    options = PredictOptions(formats=name)
    assert print_files(Loudness(), [Path("gone.wav"), Path("a.wav")], options, say=said.append) == 2
    assert [sentence.partition(":")[0] for sentence in said] == ["gone.wav", "a.wav"]
    (early,) = printed
    lines = early.splitlines()
    assert len(lines) == {"table": 1 + 32, "csv": 1 + 32, "jsonl": 32}[name] and capsys.readouterr().out == ""
    if name == "table":
        assert lines[:2] == ["a.wav", "  0.00 - 0.05 s  loud   0.9933"]


def test_events_are_printed_in_time_and_a_recording_without_any_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loud, quiet = np.ones(4000, np.float32), np.zeros(4000, np.float32)
    monkeypatch.setattr("ossicle.jobs.printing.read_blocks", lambda *_, **__: iter([loud, quiet, loud]))
    print_files(Loudness(), [Path("a.wav")], PredictOptions(events=True), say=print)
    print_files(Loudness(), [Path("b.wav")], PredictOptions(labels="loud", min_score=1.0), say=print)
    assert capsys.readouterr().out.splitlines() == [
        "a.wav",
        "  0.00 - 0.50 s  loud   0.9933",
        "  0.50 - 1.00 s  quiet  0.9933",
        "  1.00 - 1.50 s  loud   0.9933",
        "b.wav",
        "  nothing reached the thresholds",
    ]


@pytest.mark.parametrize("frames", [1, 11_026, 20_003])
def test_printed_selections_follow_the_recordings_own_rate_and_length(
    frames: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file in files:
        soundfile.write(file, np.full(frames, 0.9), 6_000)  # the model hears 8000 Hz: a part of a sample is left over
    options = PredictOptions(formats="raven", min_score=0.0)
    assert print_files(Loudness(), files, options, say=print) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines(), delimiter="\t"))
    times = [[float(row[f"{edge} Time (s)"]) for edge in ("Begin", "End")] for row in rows]
    assert {row["High Freq (Hz)"] for row in rows} == {"3000"}
    assert all(begin < end for begin, end in times)
    second = [row["Begin Path"] for row in rows].index(str(files[1]))
    assert times[second][0] == pytest.approx(frames / 6_000, abs=1e-6) and rows[second]["File Offset (s)"] == "0.000000"
    assert max(end for _, end in times[:second]) <= times[second][0] and len(rows) == 2 * second
    job = run_job(tmp_path / "out", files, Loudness(), config=options.config(), formats=("raven",))
    (table,) = job.tables
    assert list(csv.DictReader(table.read_text().splitlines(), delimiter="\t")) == rows
