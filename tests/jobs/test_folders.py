"""A folder of recordings to tables: resumable, by any number of workers, bad files and odd moments included."""

import csv
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.errors import JobStopped, RunRefused
from ossicle.inference import FILE_FORMATS, EventRules, Reporting
from ossicle.inference.ahead import read_ahead
from ossicle.jobs.folders import InferenceConfig, Outcome, run_job
from ossicle.jobs.store import ResultStore
from ossicle.jobs.workers import Workers
from ossicle.loading import load, load_among
from ossicle.recognizer import Recognizer

Record = Callable[..., Path]


@pytest.fixture(scope="module")
def recognizer(shared_bundle: Path) -> Recognizer:
    return load(shared_bundle, device="cpu")


@pytest.fixture
def files(record: Record, tmp_path: Path) -> list[Path]:
    """Four recordings of several lengths, the third broken."""
    found = [record(f"in/{n}.wav", seconds=0.4 + n, seed=n) for n in range(4)]
    found[2].write_text("dear diary")
    return found


def read(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def test_a_job_writes_what_each_recording_alone_says(recognizer: Recognizer, files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[str, int, int]] = []
    result = run_job(
        out,
        files,
        recognizer,
        config=InferenceConfig(),
        formats=("csv",),
        progress=lambda outcome, done, total: seen.append((Path(outcome.file).name, done, total)),
    )
    assert seen == [("0.wav", 1, 4), ("1.wav", 2, 4), ("2.wav", 3, 4), ("3.wav", 4, 4)]
    alone = [row for file in files if file.name != "2.wav" for row in recognizer.predict(file).rows]
    assert [(row["file"], row["start"], row["label"], row["score"]) for row in read(out)] == [
        (row.file, f"{row.start:.3f}", row.label, f"{row.score:.4f}") for row in alone
    ]
    assert [Path(outcome.file).name for outcome in result.failed] == ["2.wav"]
    (error,) = csv.DictReader((out / "errors.csv").read_text().splitlines())
    assert error["file"] == str(files[2]) and "this is text, not a recording" in error["error"]
    assert abs(result.seconds - (0.4 + 1.4 + 3.4)) < 1e-3


def test_resuming_hears_what_is_new_or_changed_alone_and_forgets_what_is_mended(
    recognizer: Recognizer, files: list[Path], record: Record, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = functools.partial(run_job, out, config=InferenceConfig(), formats=("csv",), resume=True)
    run(files, recognizer)
    os.utime(files[0], (1, 1))  # touched, the same bytes
    record("in/1.wav", seconds=1.4, seed=9)
    record("in/2.wav", seconds=0.5)
    new = record("in/4.wav", seconds=0.5, seed=4)
    heard: list[str] = []
    result = run([*files, new], recognizer, progress=lambda one, done, total: heard.append(Path(one.file).name))
    assert heard == ["1.wav", "2.wav", "4.wav"] and result.before == 2
    assert {Path(row["file"]).name for row in read(out)} == {f"{n}.wav" for n in range(5)}
    assert not (out / "errors.csv").exists()


def test_tables_of_an_earlier_job_that_say_what_is_no_longer_so_are_removed(
    recognizer: Recognizer, files: list[Path], record: Record, tmp_path: Path
) -> None:
    """Those of other formats, of a recording that has gone bad, and all where a further folder moves every place."""
    out = tmp_path / "out"
    run = functools.partial(run_job, out, predictor=recognizer, config=InferenceConfig(), each=True)
    run(files[:2], formats=("csv", "jsonl"))
    (out / "0.wav.md").write_text("mine")
    files[1].write_text("dear diary")
    other = record("other/0.wav", seconds=0.5)
    run([*files[:2], other], formats=("csv",), resume=True)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.is_file()}
    assert {name for name in left if not name.startswith(".ossicle")} == {
        *("predictions.csv", "errors.csv", "in/0.wav.csv", "other/0.wav.csv", "0.wav.md")
    }


def test_a_folder_is_written_by_one_job_at_a_time(recognizer: Recognizer, files: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    run = functools.partial(run_job, tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",))
    refused: list[str] = []

    def again(*_: object) -> None:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(RunRefused, match="another job is writing there") as error:
                run(**options)
            refused.append(str(error.value))

    run(progress=again)
    assert len(refused) == 2 * len(files)
    run(overwrite=True, progress=again)
    assert run(resume=True).before == 3


def test_other_settings_or_another_model_are_refused_by_name_and_nothing_is_lost(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = functools.partial(run_job, out, files, recognizer, formats=("csv",))
    run(config=InferenceConfig())
    before = (out / "predictions.csv").read_bytes()
    with pytest.raises(RunRefused, match="--resume continues"):
        run(config=InferenceConfig())
    with pytest.raises(RunRefused, match="window 1.0 there and 0.5 here"):
        run(config=InferenceConfig(window=0.5), resume=True)
    with pytest.raises(RunRefused, match="top_k None there and 2 here"):
        run(config=InferenceConfig(reporting=Reporting(top_k=2)), resume=True)
    (out / ".ossicle" / "settings.json").write_text("{")
    with pytest.raises(RunRefused, match="cannot be read"):
        run(config=InferenceConfig(), resume=True)
    assert (out / "predictions.csv").read_bytes() == before
    run(config=InferenceConfig(window=0.5, hop=0.5), overwrite=True)
    assert (out / "predictions.csv").read_bytes() != before


@pytest.mark.parametrize("name", ["predictions.csv", "errors.csv", "1.wav.txt"])
def test_a_file_of_somebody_else_is_in_the_way_and_stays(
    name: str, recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = functools.partial(run_job, out, files, recognizer, config=InferenceConfig(), formats=("csv", "audacity"))
    out.mkdir()
    (out / name).write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RunRefused, match=f"{name}: this exists already and ossicle did not write it"):
            run(overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == [name] and (out / name).read_text() == "precious"


def test_overwriting_removes_what_a_job_wrote_and_nothing_else(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    strangers = {out / ".plan.20240101.txt": "mine", out / "notes" / "0.wav.csv": "mine too", out / "a.wav.txt": "b"}
    for path, text in strangers.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run = functools.partial(run_job, out, config=InferenceConfig(), predictor=recognizer)
    run(files, formats=("csv", "audacity"), each=True)
    torn = out / ".ossicle-0123abcd.csv"
    torn.write_text("of a killed job")
    assert (out / "errors.csv").exists()
    run(files[:1], formats=("jsonl",), overwrite=True)
    assert {path: path.read_text() for path in strangers} == strangers
    left = {path.relative_to(out).as_posix() for path in out.rglob("[!.]*") if path.is_file() and path not in strangers}
    assert {name for name in left if not name.startswith(".ossicle")} == {"predictions.jsonl"} and not torn.exists()


def test_a_list_that_names_files_elsewhere_removes_none_of_them(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "out" / ".ossicle").mkdir(parents=True)
    (tmp_path / "mine.csv").write_text("precious")
    (tmp_path / "out" / ".ossicle" / "written.json").write_text(f'["../mine.csv", "{tmp_path / "mine.csv"}"]')
    run_job(tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",), overwrite=True)
    assert (tmp_path / "mine.csv").read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_among_the_recordings_is_named_and_the_rest_is_done(
    recognizer: Recognizer, record: Record, tmp_path: Path
) -> None:
    fine, pipe, device = record("a.wav"), tmp_path / "b.wav", tmp_path / "c.wav"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    result = run_job(tmp_path / "out", [pipe, device, fine], recognizer, config=InferenceConfig(), formats=("csv",))
    assert [Path(outcome.file) for outcome in result.failed] == [pipe, device] and result.files == (fine,)
    assert all("this is a pipe or a device" in str(outcome.error) for outcome in result.failed)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_names_that_are_no_unicode_are_written_legibly_and_gone_on_with(
    recognizer: Recognizer, record: Record, tmp_path: Path
) -> None:
    odd, torn = (tmp_path / "in" / os.fsdecode(name) for name in (b"caf\xe9.wav", b"th\xe9.wav"))
    record("in/a.wav").rename(odd)
    torn.write_text("dear diary")
    run = functools.partial(
        run_job,
        tmp_path / "out",
        [odd, torn],
        recognizer,
        config=InferenceConfig(),
        formats=tuple(FILE_FORMATS),
        each=True,
    )
    for resume in (False, True):
        assert run(resume=resume).before == resume
    assert read(tmp_path / "out")[0]["file"] == f"{tmp_path}/in/caf\\udce9.wav"
    assert "th\\udce9.wav," in (tmp_path / "out" / "errors.csv").read_text()
    run(overwrite=True)


def test_a_recording_that_cannot_be_read_when_a_job_goes_on_does_not_end_it(
    recognizer: Recognizer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = functools.partial(run_job, tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",))
    run()
    os.utime(files[0], (1, 1))

    def locked(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ossicle.jobs.store.sha256", locked)
    assert run(resume=True).before == 2


def test_a_damaged_part_is_predicted_again(recognizer: Recognizer, files: list[Path], tmp_path: Path) -> None:
    run = functools.partial(run_job, tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",))
    run()
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    for part, content in zip(sorted(tmp_path.rglob("parts/*/*.jsonl")), (b"", b"[1, 2", b"\xff\xfe"), strict=True):
        part.write_bytes(content)
    assert run(resume=True).before == 0
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


def test_a_part_that_a_power_cut_left_without_its_middle_is_predicted_again(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    run = functools.partial(run_job, tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",))
    run()
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    part = next(iter(tmp_path.rglob("parts/*/*.jsonl")))
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(bytes(len(lines[0])) + b"".join(lines[1:]))
    assert run(resume=True).before == len(files) - 2  # one of them is broken
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are counted otherwise")
def test_the_longest_names_have_tables_and_keep_them_apart(
    recognizer: Recognizer, record: Record, tmp_path: Path
) -> None:
    names = ["\u9ce5" * 83 + end for end in ("ab.wav", "ac.wav", ".wav")]
    files = [record("a.wav").rename(tmp_path / name) for name in names]
    assert max(len(os.fsencode(name)) for name in names) == 255
    run = functools.partial(run_job, tmp_path / "out", files, recognizer, config=InferenceConfig())
    result = run(formats=("csv", "audacity", "raven"), each=True)
    assert len(set(result.tables)) == 2 + 3 * 3 and all(path.is_file() for path in result.tables)
    assert run(formats=("csv", "audacity", "raven"), each=True, resume=True).before == 3
    again = [path for path in (tmp_path / "out").glob("[!.]*") if path not in result.tables]
    assert not again and all("\ufffd" not in path.name for path in result.tables)


def test_workers_are_handed_few_recordings_of_many(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed, most = 0, 0

    class Pool(ThreadPoolExecutor):
        def __init__(self, number: int, *_: object, **__: object) -> None:
            super().__init__(number)

        def submit(self, run: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
            nonlocal handed, most
            handed += 1
            most = max(most, handed - len(seen))
            return super().submit(run, *given, **named)

    seen: list[Outcome] = []
    monkeypatch.setattr("ossicle.jobs.workers.ProcessPoolExecutor", Pool)
    monkeypatch.setattr("ossicle.jobs.workers._predict", lambda place: Outcome(file=place))
    places = [f"{number}.wav" for number in range(100)]
    for outcome in Workers(lambda: recognizer, number=2, config=InferenceConfig())(places, object.__new__(ResultStore)):
        seen.append(outcome)
    assert {outcome.file for outcome in seen} == set(places) and len(seen) == 100
    assert most <= 16


def test_workers_write_the_same_bytes(
    recognizer: Recognizer, shared_bundle: Path, files: list[Path], tmp_path: Path
) -> None:
    run = functools.partial(
        run_job, files=files, predictor=recognizer, config=InferenceConfig(), formats=("csv", "audacity")
    )
    one, two = tmp_path / "one", tmp_path / "two"
    run(one)
    start = functools.partial(load_among, shared_bundle, 2, device="cpu")
    result = run(two, pool=Workers(start, number=2, config=InferenceConfig()))
    assert [Path(outcome.file).name for outcome in result.failed] == ["2.wav"]
    for path in one.glob("[!.]*.*"):
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_worker_that_dies_ends_the_job_in_a_sentence_that_says_how_to_go_on(
    recognizer: Recognizer, files: list[Path], tmp_path: Path
) -> None:
    dying = Workers(functools.partial(os._exit, 9), number=1, config=InferenceConfig())
    with pytest.raises(JobStopped, match="with --resume continues"):
        run_job(tmp_path / "out", files, recognizer, config=InferenceConfig(), formats=("csv",), pool=dying)


def test_events_of_a_job_are_those_of_the_recording_sorted(
    recognizer: Recognizer, record: Record, tmp_path: Path
) -> None:
    path = record("long.wav", seconds=6)
    reporting = Reporting(events=EventRules(merge_gap=0.5), min_score=0.2)
    config = InferenceConfig(hop=0.5, reporting=reporting)
    run_job(tmp_path / "out", [path], recognizer, config=config, formats=("csv",))
    rows = read(tmp_path / "out")
    assert [float(row["start"]) for row in rows] == sorted(float(row["start"]) for row in rows)
    assert len(rows) == len(recognizer.predict(path, hop=0.5, reporting=reporting).rows) > 0


def test_a_full_disk_ends_the_job_and_keeps_what_is_done(
    recognizer: Recognizer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands for the disk: the tables of everything are the largest."""
    resource = pytest.importorskip("resource")
    import signal

    out = tmp_path / "out"
    run = functools.partial(run_job, out, files, recognizer, formats=("csv",))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    config = InferenceConfig(hop=0.02)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            run(config=config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (out / "predictions.csv").exists() and not list(out.glob(".predictions*"))
    assert run(config=config, resume=True).before == 3
    whole = (out / "predictions.csv").read_bytes()
    run(config=config, overwrite=True)
    assert (out / "predictions.csv").read_bytes() == whole


# --- decoding ahead ---


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(0, 3))
def test_reading_ahead_gives_what_plain_reading_gives(counts: list[int], ahead: int) -> None:
    openers = [functools.partial(range, count) for count in counts]
    assert [list(one) for one in read_ahead(openers, ahead=ahead)] == [list(range(count)) for count in counts]


def test_an_error_comes_where_it_happened_and_the_next_recording_is_unharmed() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("torn")

    first, second = [], []
    for number, items in enumerate(read_ahead([broken, functools.partial(range, 2)])):
        if number == 0:
            with pytest.raises(ValueError, match="torn"):
                first.extend(items)
        else:
            second.extend(items)
    assert (first, second) == ([1], [0, 1])


def test_threads_end_with_a_reader_that_stops_early() -> None:
    before = threading.active_count()
    endless = functools.partial(iter, lambda: 1, 2)
    reading = read_ahead([endless, endless, endless])
    assert next(iter(next(reading))) == 1
    reading.close()
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(timeout=60)
    assert threading.active_count() <= before


def test_what_failed_before_is_listed_first(recognizer: Recognizer, record: Record, tmp_path: Path) -> None:
    gone = Outcome(file="/locked", error="/locked: this folder cannot be listed (Permission denied)")
    path = record("a.wav")
    run_job(tmp_path / "out", [path], recognizer, config=InferenceConfig(), formats=("csv",), failed=[gone])
    assert (tmp_path / "out" / "errors.csv").read_text().splitlines()[1].startswith("/locked,")


def test_labels_and_stretches_are_chosen(recognizer: Recognizer, record: Record) -> None:
    path = record("a.wav", seconds=3)
    only = recognizer.predict(path, reporting=Reporting(labels=("drum",), min_score=0.0))
    assert {row.label for row in only.rows} == {"drum"} and only.chosen == ("drum",)
    stretches = recognizer.predict(path, hop=0.5, reporting=Reporting(overlap="max", top_k=1)).rows
    assert [row.start for row in stretches] == np.arange(0, 3, 0.5).tolist()
    with pytest.raises(ValueError, match="no label 'drun'; the nearest is 'drum'"):
        recognizer.predict(path, reporting=Reporting(labels=("drun",)))
    for wrong in ({"events": EventRules(), "top_k": 1}, {"top_k": 0}, {"min_score": 1.5}, {"min_score": float("nan")}):
        with pytest.raises(ValueError, match="top_k counts|1 or more|0 to 1"):
            Reporting(**wrong)  # type: ignore[arg-type]
