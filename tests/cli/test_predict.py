"""`ossicle predict` on real files: rows where asked, bad files by name, exit codes for scripts."""

import csv
import errno
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import Result

from ossicle.errors import AudioUnreadable, JobStopped
from ossicle.inference import Predictor
from ossicle.loading import load

Run = Callable[..., Result]
Record = Callable[..., Path]


def test_rows_are_printed_while_a_recording_is_decoded_and_those_before_an_error_stay(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a pipe; the table as well."""

    def torn(file: Path, rate: int, **_: Any) -> Iterator[np.ndarray]:
        yield from [np.ones(rate, np.float32)] * 20
        raise AudioUnreadable(f"{file}: decoding stops")

    monkeypatch.setattr("ossicle.jobs.printing.read_blocks", torn)
    rows = run("predict", shared_bundle, "a.wav", "--format", "csv")
    assert rows.exit_code == 3 and len(rows.stdout.splitlines()) == 1 + 16  # a batch is scored at once
    table = run("predict", shared_bundle, "a.wav")
    assert table.exit_code == 3 and len(table.stdout.splitlines()) == 1 + 16 and "decoding stops" in table.stderr


def test_a_label_with_a_comma_is_named_in_quotes(
    run: Run, make_bundle: Callable[..., Path], record: Record, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "speech", labels=("Male speech, man speaking", "Bark", "Bow"))
    wanted = '"Male speech, man speaking", Bow'
    result = run("predict", bundle, record("a.wav"), "--format", "csv", "--labels", wanted, "--min-score", "0")
    assert {row["label"] for row in csv.DictReader(result.stdout.splitlines())} == {"Male speech, man speaking", "Bow"}


def test_files_and_folders_become_a_table(run: Run, shared_bundle: Path, record: Record, tmp_path: Path) -> None:
    record("calls/a.wav", seconds=2)
    record("calls/deep/B.WAV")
    one = record("c.flac")
    result = run("predict", shared_bundle, tmp_path / "calls", one, one)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    names = [Path(line).name for line in lines if not line.startswith(" ")]
    assert names == ["a.wav", "B.WAV", "c.flac"]  # each once
    assert lines[1].startswith("  0.00 - 1.00 s  ") and lines[2].startswith("  1.00 - 2.00 s  ")


def test_csv_goes_to_standard_output_and_the_same_to_a_file(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    path = record("a.wav", seconds=2.5)
    printed = run("predict", shared_bundle, path, "--format", "csv", "--top-k", "2")
    rows = list(csv.DictReader(printed.stdout.splitlines()))
    assert len(rows) == 6
    assert {row["file"] for row in rows} == {str(path)} and {row["model"] for row in rows} == {"passt_tiny_s16"}
    assert len({row["model_version"] for row in rows}) == 1 and len(rows[0]["model_version"]) == 12
    assert rows[-1]["start"] == "1.500" and rows[-1]["end"] == "2.500"  # flush with the end

    written = run("predict", shared_bundle, path, "--format", "csv", "--top-k", "2", "-o", tmp_path / "out")
    assert written.exit_code == 0
    assert (tmp_path / "out" / "predictions.csv").read_text() == printed.stdout


def test_audacity_tracks_lie_as_their_recordings_do(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    record("calls/1/a.wav")
    record("calls/2/a.wav")
    result = run("predict", shared_bundle, tmp_path / "calls", "--format", "audacity,csv", "-o", tmp_path / "out")
    assert result.exit_code == 0
    for name in ("1", "2"):
        start, end, label = (tmp_path / "out" / name / "a.wav.txt").read_text().rstrip("\n").split("\t")
        assert (float(start), float(end)) == (0.0, 1.0) and label in ("bell", "drum", "voice")
    assert (tmp_path / "out" / "predictions.csv").is_file()


def test_window_hop_and_least_score_are_obeyed(run: Run, shared_bundle: Path, record: Record) -> None:
    path = record("a.wav", seconds=2)
    result = run(
        "predict", shared_bundle, path, "--format", "csv", "--window", "0.5", "--hop", "0.25", "--min-score", "0"
    )
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert sorted({row["start"] for row in rows}) == [f"{0.25 * i:.3f}" for i in range(7)]
    assert len(rows) == 7 * 3
    assert run("predict", shared_bundle, path, "--min-score", "1").stdout.endswith("nothing reached the thresholds\n")


def test_bad_files_are_named_with_a_reason_and_the_rest_is_done(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    good = record("calls/good.wav")
    (tmp_path / "calls" / "text.wav").write_text("dear diary")
    (tmp_path / "calls" / "empty.wav").touch()
    result = run("predict", shared_bundle, tmp_path / "calls", tmp_path / "gone.wav")
    assert result.exit_code == 3
    assert str(good) in result.stdout
    said = result.stderr.splitlines()
    assert len(said) == 4
    for name, line in zip(("empty.wav", "text.wav", "gone.wav"), said, strict=False):
        assert name in line
    assert said[-1] == "ossicle: 3 of 4 recordings could not be used."


def test_a_csv_of_bad_files_has_its_header(run: Run, shared_bundle: Path, tmp_path: Path) -> None:
    result = run("predict", shared_bundle, tmp_path / "gone.wav", "--format", "csv")
    assert result.exit_code == 3
    assert result.stdout == "file,start,end,label,score,model,model_version\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["MODEL", "EMPTY"], 1, "no recording"),
        (["EMPTY", "a.wav"], 1, "neither a bundle"),
        (["nowhere", "a.wav"], 1, "no such folder"),
        (["generall", "a.wav"], 1, "did you mean general?"),
        (["passt_tiny_s16", "a.wav"], 1, "random"),
        (["MODEL", "a.wav", "--device", "warp"], 1, "warp"),
        (["MODEL", "a.wav", "--encoder", "x"], 1, "network of its own"),
        (["MODEL", "a.wav", "--format", "elan"], 2, "elan"),
        (["MODEL", "a.wav", "--window", "0.01"], 2, "window"),
        (["MODEL", "a.wav", "--window", "inf"], 2, "window"),
        (["MODEL", "a.wav", "--hop", "2"], 2, "hop"),
        (["MODEL", "a.wav", "--min-score", "2"], 2, "min-score"),
        (["MODEL", "a.wav", "b.wav", "--format", "audacity"], 2, "one recording"),
    ],
)
def test_each_mistake_is_one_sentence(
    arguments: list[str],
    code: int,
    said: str,
    run: Run,
    shared_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    result = run("predict", *(str(shared_bundle) if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == code
    # Wrong usage is shown in a box, which breaks lines.
    assert said in " ".join(result.stderr.replace("│", " ").split()) and "Traceback" not in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1


def test_an_output_that_is_a_file_is_one_sentence(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    path = record("a.wav")
    (tmp_path / "out").write_text("not a folder")
    result = run("predict", shared_bundle, path, "--format", "csv", "-o", tmp_path / "out")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert (tmp_path / "out").read_text() == "not a folder"


def test_the_program_itself_predicts_and_names_what_is_broken(shared_bundle: Path, record: Record) -> None:
    path = record("a.wav")
    command = [
        sys.executable,
        "-m",
        "ossicle",
        "predict",
        str(shared_bundle),
        str(path),
        str(path.with_name("gone.wav")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0] == str(path)
    assert "gone.wav" in done.stderr and "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_a_folder_of_results_is_gone_on_with_and_never_mixed(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    record("calls/a.wav", seconds=2)
    out = tmp_path / "out"
    first = run("predict", shared_bundle, tmp_path / "calls", "-o", out, "--format", "csv,jsonl,raven", "--each")
    assert first.exit_code == 0 and "Predicted: 2 s of audio in " in first.stdout
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *(f"predictions{suffix}" for suffix in (".csv", ".jsonl", ".selections.txt")),
        *(f"a.wav{suffix}" for suffix in (".csv", ".jsonl", ".selections.txt")),
    }
    again = run("predict", shared_bundle, tmp_path / "calls", "-o", out)
    assert again.exit_code == 1 and "--resume" in again.stderr
    other = run("predict", shared_bundle, tmp_path / "calls", "-o", out, "--resume", "--events")
    assert other.exit_code == 1 and "events" in other.stderr
    record("calls/b.wav")
    more = run("predict", shared_bundle, tmp_path / "calls", "-o", out, "--resume")
    assert more.exit_code == 0 and "Done before: 1 of 2" in more.stdout
    assert len((out / "predictions.csv").read_text().splitlines()) == 4
    assert {path.name for path in out.iterdir()} == {".ossicle", "predictions.csv"}  # b.wav is in no other


def test_a_full_disk_names_the_folder_and_how_to_go_on(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ossicle.jobs.folders.write_tables", full)
    result = run("predict", shared_bundle, record("a.wav"), "-o", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr == (
        f"ossicle: {tmp_path / 'out'}: No space left on device; what is done is kept there, and the same command with "
        "--resume continues.\n"
    )


def test_a_model_beside_us_is_sent_to_a_cluster_from_the_root_on(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def pool(start: Any, **_: object) -> Any:
        sent.extend(start.args)
        raise JobStopped("enough")

    monkeypatch.setattr("ossicle.jobs.cluster.ClusterWorkers", pool)
    monkeypatch.chdir(shared_bundle.parent)
    path = record("a.wav")
    assert run("predict", shared_bundle.name, path, "-o", tmp_path / "out", "--cluster", "local").exit_code == 1
    assert sent == [str(shared_bundle)]


def test_an_empty_folder_is_refused_whatever_else_could_not_be_listed(
    run: Run, shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("locked", "empty"):
        (tmp_path / name).mkdir()

    def find(folder: Path, *, unlisted: Callable[[str, str], None]) -> list[Path]:
        if folder.name == "locked":
            unlisted(str(folder), f"{folder}: this folder cannot be listed (Permission denied)")
        return []

    monkeypatch.setattr("ossicle.jobs.folders.find_audio", find)
    result = run("predict", shared_bundle, tmp_path / "locked", tmp_path / "empty")
    assert result.exit_code == 1 and "empty: there is no recording" in result.stderr


def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_done(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("calls/a.wav")
    (tmp_path / "calls" / "locked").mkdir()
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    result = run("predict", shared_bundle, tmp_path / "calls", "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "locked: this folder cannot be listed (Permission denied)" in result.stderr
    assert "locked" in (tmp_path / "out" / "errors.csv").read_text()
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 2


def test_tables_of_images_replace_only_what_ossicle_wrote(
    run: Run, cats: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ossicle.jobs.predict.open_model", lambda *_, **__: cats)
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("precious")
    arguments = ("predict", "model", tmp_path / "a.png", "-o", out)
    for more in ((), ("--overwrite",)):
        refused = run(*arguments, *more)
        assert refused.exit_code == 1 and "ossicle did not write it" in refused.stderr
    assert (out / "predictions.csv").read_text() == "precious"
    assert run(*arguments, "--format", "jsonl").exit_code == 0
    again = run(*arguments, "--format", "jsonl")
    assert again.exit_code == 1 and "give --overwrite" in again.stderr
    assert run(*arguments, "--format", "table", "--overwrite").exit_code == 0
    assert {path.name for path in out.iterdir()} == {".ossicle", "predictions.csv"}


def test_plots_of_recordings_lie_beside_the_tables(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path
) -> None:
    record("calls/1/a.wav", seconds=3)
    record("calls/2/tiny.wav", seconds=0.01)
    result = run("predict", shared_bundle, tmp_path / "calls", "-o", tmp_path / "out", "--timeline")
    assert result.exit_code == 0
    for name in ("1/a.wav.png", "2/tiny.wav.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_tables_are_named_before_a_plot_fails(
    run: Run, shared_bundle: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object, **__: object) -> None:
        raise AudioUnreadable("a.wav: there is no such file")

    monkeypatch.setattr("ossicle.timeline.draw_recordings", changed)
    result = run("predict", shared_bundle, record("a.wav"), "-o", tmp_path / "out", "--timeline")
    assert result.exit_code == 1 and "a.wav: there is no such file" in result.stderr
    assert f"Wrote {tmp_path / 'out' / 'predictions.csv'}" in result.stdout and "Predicted: " in result.stdout


@pytest.mark.parametrize("raw", [False, True])
def test_a_pipe_says_what_the_file_says(raw: bool, shared_bundle: Path, record: Record, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=80_000), 32_000, subtype="PCM_16")
    command = [sys.executable, "-m", "ossicle", "predict", str(shared_bundle), "--hop", "0.5", "--top-k", "2"]
    sound = path.read_bytes()[44:] if raw else path.read_bytes()
    options = ["--pcm", "s16le", "--rate", "32000"] if raw else []
    live = subprocess.run([*command, "-", "--format", "jsonl", *options], input=sound, capture_output=True)
    assert live.returncode == 0, live.stderr
    live_rows = [json.loads(line) for line in live.stdout.splitlines()]
    wanted = load(shared_bundle, device="cpu").predict(path, hop=0.5, top_k=2).rows
    assert [(row["start"], row["end"], row["label"]) for row in live_rows] == [
        (r.start, r.end, r.label) for r in wanted
    ]
    np.testing.assert_allclose(
        [row["score"] for row in live_rows], [row.score for row in wanted], atol=6e-5
    )  # 4 decimals


def test_a_pipe_that_breaks_off_is_predicted_to_there_and_said(shared_bundle: Path) -> None:
    command = [sys.executable, "-m", "ossicle", "predict", str(shared_bundle), "-", "--pcm", "s16le", "--rate", "32000"]
    done = subprocess.run([*command, "--format", "csv"], input=bytes(64_001), capture_output=True, text=False)
    assert done.returncode == 3
    assert done.stdout.splitlines()[0].startswith(b"file,start") and len(done.stdout.splitlines()) == 2
    assert b"middle of a sample; its 1 of 2 bytes" in done.stderr


def test_a_pipe_without_a_sample_is_refused_as_an_empty_file_is(run: Run, shared_bundle: Path) -> None:
    result = run("predict", shared_bundle, "-", "--pcm", "s16le", "--rate", "8000")  # its input is empty
    assert result.exit_code == 1 and "standard input: the recording contains no samples" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.wav", "--resume"], "needs -o"),
        (["a.wav", "--workers", "2"], "needs -o"),
        (["a.wav", "--release", "0.5"], "needs --events"),
        (["a.wav", "--min-duration", "0.5"], "needs --events"),
        (["a.wav", "--events", "--median", "2"], "odd"),
        (["a.wav", "--events", "--top-k", "2"], "top_k"),
        (["a.wav", "--events", "--merge-gap", "inf"], "0 s or more, and finite"),
        (["a.wav", "--labels", "drums"], "no label 'drums'; the nearest is 'drum'."),
        (["a.wav", "--labels", ""], "no label ''"),
        (["a.wav", "--labels", '"drum'], "with a comma in quotes"),
        (["a.wav", "--format", "csv,jsonl"], "give -o for several"),
        (["a.wav", "-o", "out", "--resume", "--overwrite"], "exclude each other"),
        (["a.wav", "--text", "body"], "does not predict texts"),
        (["a.wav", "--keep-by", "merge"], "needs --keep"),
        (["a.wav", "--mic-device", "2"], "needs --mic"),
        (["a.wav", "--latency", "1"], "needs - for standard input or --mic"),
        (["-", "--latency", "0"], "more than 0 and at most 10"),
        (["a.wav", "--pcm", "s16le", "--rate", "8000"], "needs - for standard input"),
        (["--mic", "--pcm", "s16le", "--rate", "8000"], "needs - for standard input"),
        (["-", "a.wav"], "is the only input"),
        (["-", "--pcm", "s16le", "--rate", "0"], "1 or more, not 0"),
        (["a.wav", "--rate", "8000"], "needs --pcm"),
        (["a.wav", "--keep", "0"], "--keep"),
        (["a.wav", "--keep", "0.5"], "merging leaves at least"),
        (["-", "--pcm", "s16le"], "give --rate"),
        (["-", "--pcm", "mp3", "--rate", "8000"], "available: u8"),
        (["-", "-o", "out"], "leave out -o"),
        ([], "Name an audio file"),
    ],
)
def test_options_without_effect_are_wrong_usage(
    arguments: list[str], said: str, run: Run, shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("predict", shared_bundle, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_fewer_tokens_give_other_scores_and_are_part_of_the_settings(
    run: Run, make_bundle: Callable[..., Path], record: Record, tmp_path: Path
) -> None:
    path, out, bundle = record("a.wav"), tmp_path / "out", make_bundle(tmp_path / "deep", depth=3)
    whole = run("predict", bundle, path, "--format", "csv").stdout
    for method in ("merge", "strided"):
        fewer = run("predict", bundle, path, "--format", "csv", "--keep", "0.6", "--keep-by", method).stdout
        assert fewer.splitlines()[0] == whole.splitlines()[0] and fewer != whole
    assert run("predict", bundle, path, "-o", out, "--keep", "0.6").exit_code == 0
    refused = run("predict", bundle, path, "-o", out, "--resume")
    assert refused.exit_code == 1 and "reduction" in refused.stderr


def test_without_sounddevice_the_microphone_says_what_to_install(
    run: Run, shared_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run("predict", shared_bundle, "--mic")
    assert result.exit_code == 1 and "pip install 'ossicle[mic]'" in result.stderr


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with silence as its first audio track, and noise as its second."""
    sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "audio" / "sounds.py")))
    noise = np.random.default_rng(0).normal(scale=0.1, size=96_000).astype(np.float32)
    folder = tmp_path_factory.mktemp("tracks")
    return sounds.write_timed(folder / "obs.mkv", [[(0.0, 0 * noise)], [(0.0, noise)]])


def test_the_track_that_is_given_is_predicted(two_tracks: Path, run: Run, shared_bundle: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(two_tracks)) as container:
        noise = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=1)])
    soundfile.write(tmp_path / "second.wav", noise, 48_000, subtype="FLOAT")
    asked = ["--format", "csv"]
    expected = run("predict", shared_bundle, tmp_path / "second.wav", *asked).stdout
    one = run("predict", shared_bundle, two_tracks, *asked).stdout
    two = run("predict", shared_bundle, two_tracks, "--track", "2", *asked).stdout
    scores = [[row["score"] for row in csv.DictReader(text.splitlines())] for text in (expected, one, two)]
    assert scores[0] == scores[2] != scores[1]
    three = run("predict", shared_bundle, two_tracks, "--track", "3", *asked)
    assert three.exit_code == 3 and "track 3 is not available; expected 1 to 2" in three.stderr
    assert run("predict", shared_bundle, "-", "--track", "2").exit_code == 2


def test_a_job_of_another_track_or_of_an_older_decoder_is_not_gone_on_with(
    two_tracks: Path, run: Run, shared_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ["predict", shared_bundle, two_tracks, "-o", tmp_path / "out", "--resume"]
    assert run(*job).exit_code == 0
    other = run(*job, "--track", "2")
    assert other.exit_code == 1 and "track" in other.stderr
    assert run(*job).exit_code == 0
    monkeypatch.setattr("ossicle.jobs.folders.DECODER", 10_000)
    newer = run(*job)
    assert newer.exit_code == 1 and "decoder" in newer.stderr


def test_what_is_odd_about_a_recording_is_said_on_standard_error(two_tracks: Path, shared_bundle: Path) -> None:
    command = [sys.executable, "-m", "ossicle", "predict", str(shared_bundle), str(two_tracks), "--format", "csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = f"ossicle: {two_tracks}: it has 2 audio tracks; track 1, the first, is read (--track selects another)\n"
    assert done.stderr == said and done.stdout.startswith("file,start,end")
