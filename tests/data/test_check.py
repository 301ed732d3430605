"""Every clip is decoded, and whatever would spoil training or the score is counted and named."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from ossicle.cli.data import app
from ossicle.data import check_dataset, read_dataset
from ossicle.data.check import cut_short

RATE = 16_000


def noise(seed: int, seconds: float = 0.25, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Whole numbers, so that every lossless format keeps the same ones."""
    return np.random.default_rng(seed).integers(-3000, 3000, (int(seconds * rate), channels), dtype=np.int16)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """Two classes of three different noises."""
    for seed in range(6):
        write(tmp_path / "ab"[seed % 2] / f"{seed}.wav", noise(seed))
    return tmp_path


def kinds(root: Path) -> Counter[str]:
    return Counter(problem.kind for problem in check_dataset(read_dataset(root)).problems)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_a_healthy_folder_has_no_problem(healthy):
    report = check_dataset(read_dataset(healthy))
    assert report.problems == report.failed == ()
    assert (report.clips, dict(report.labels)) == (6, {"a": 3, "b": 3})
    assert report.seconds == (0.25,) * 6
    assert (dict(report.rates), dict(report.channels)) == ({RATE: 6}, {1: 6})
    text = "\n".join(report.lines())
    for said in (
        "folder per class",
        "are the test part",
        "2: a, b, 3 clips each",
        "0.25 to 0.25 s",
        "16000 Hz 6",
        "none",
    ):
        assert said in text


def test_rates_channels_and_lengths_are_those_of_the_recordings(healthy):
    write(healthy / "a" / "other.flac", noise(7, seconds=1.5, rate=44_100, channels=2), 44_100)
    report = check_dataset(read_dataset(healthy))
    assert dict(report.rates) == {RATE: 6, 44_100: 1}
    assert dict(report.channels) == {1: 6, 2: 1}
    assert max(report.seconds) == pytest.approx(1.5)
    assert report.to_json()["seconds"]["total"] == pytest.approx(3.0)


def test_broken_files_are_named_and_stop_nothing(healthy):
    (healthy / "a" / "broken.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt ")
    (healthy / "a" / "text.mp3").write_text("no sound")
    report = check_dataset(read_dataset(healthy))
    assert {problem.file for problem in report.failed} == {"a/broken.wav", "a/text.mp3"}
    assert {problem.kind for problem in report.failed} == {"broken"}
    assert len(report.seconds) == 6


def test_missing_files_are_counted(healthy):
    lines = ["file,label", *(f"{'ab'[i % 2]}/{i}.wav,{'ab'[i % 2]}" for i in range(8))]
    (healthy / "meta.csv").write_text("\n".join(lines))
    report = check_dataset(read_dataset(healthy))
    assert [(problem.kind, problem.file) for problem in report.failed] == [
        ("missing", "a/6.wav"),
        ("missing", "b/7.wav"),
    ]


def test_silent_and_clipped_clips_are_named(healthy):
    write(healthy / "a" / "silent.wav", np.zeros(RATE, np.int16))
    write(healthy / "b" / "silent.wav", np.zeros(RATE, np.int16))  # two silences are not the same sound
    write(healthy / "b" / "clipped.wav", np.repeat(noise(8).clip(-1, 1) * 32_767, 2).astype(np.int16))
    assert kinds(healthy) == {"silent": 2, "clipped": 1}


def test_the_same_sound_in_two_groups_is_a_leak_also_in_another_format(healthy):
    write(healthy / "a" / "copy.flac", noise(0))
    report = check_dataset(read_dataset(healthy))
    assert [(p.kind, p.file, p.detail) for p in report.problems] == [
        ("leak", "a/copy.flac", "the same sound as a/0.wav, in another group")
    ]
    assert not report.failed


def test_the_same_sound_with_two_labels_is_a_contradiction(healthy):
    write(healthy / "b" / "copy.wav", noise(0))
    (problem,) = check_dataset(read_dataset(healthy)).problems
    assert problem.kind == "contradiction" and "labels b here and a there" in problem.detail


@pytest.mark.parametrize(
    ("columns", "first", "second", "kind"),
    [
        ("group", "g", "g", "repeated"),
        ("group", "g", "h", "leak"),
        ("group,fold", "g,1", "g,2", "leak"),
        ("group,split", "g,train", "g,test", "leak"),
    ],
)
def test_a_copy_matters_where_a_cut_may_run(healthy, columns, first, second, kind):
    write(healthy / "a" / "copy.wav", noise(0))
    lines = [f"file,label,{columns}", f"a/0.wav,a,{first}", f"a/copy.wav,a,{second}"]
    lines += [f"b/1.wav,b,{first}", f"b/3.wav,b,{second}"]
    (healthy / "meta.csv").write_text("\n".join(lines))
    assert kinds(healthy) == {kind: 1}


def test_segments_are_decoded_as_segments(healthy):
    write(healthy / "long.wav", noise(9, seconds=2))
    lines = ["file,label,start,end", "long.wav,a,0,1", "long.wav,b,1,2", "long.wav,a,1.5,3", "long.wav,b,5,6"]
    (healthy / "meta.csv").write_text("\n".join(lines))
    report = check_dataset(read_dataset(healthy))
    assert report.seconds == pytest.approx((1, 1, 0.5))
    assert [(problem.kind, problem.file) for problem in report.problems] == [
        ("broken", "long.wav [5 s to 6 s]"),
        ("cut short", "long.wav [1.5 s to 3 s]"),
    ]


def test_segments_cut_short_are_found_by_the_last_one_of_each_file(healthy):
    """As by decoding all of them, which `check_dataset` does."""
    write(healthy / "long.wav", noise(9, seconds=2))
    write(healthy / "other.wav", noise(10, seconds=3))
    lines = [f"{name},{'ab'[n % 2]},{n / 2},{n / 2 + 1}" for n in range(8) for name in ("long.wav", "other.wav")]
    lines += ["gone.wav,a,0,1", "a/0.wav,b,,"]
    (healthy / "meta.csv").write_text("\n".join(["file,label,start,end", *lines]))
    dataset = read_dataset(healthy)
    problems = [p for p in check_dataset(dataset).problems if p.kind == "cut short"]
    (sentence,) = cut_short(dataset, dataset.items)
    assert len(problems) == 2
    assert sentence == (
        "cut short: 2 of 18 clips (the segment ends after the recording), such as "
        f"{problems[0].file}: {problems[0].detail}"
    )
    assert cut_short(dataset, dataset.items[:4]) == ()
    lengths = {position: 0.25 for position in range(18)}
    assert "17 of 18" in cut_short(dataset, dataset.items, seconds=lengths)[0]


def test_many_problems_of_a_kind_are_counted_and_the_first_are_named(healthy):
    for number in range(25):
        (healthy / "a" / f"z{number:02}.wav").write_bytes(b"")
    lines = check_dataset(read_dataset(healthy)).lines()
    assert any(line.startswith("broken: 25 of 31 clips") for line in lines)
    assert lines[-1].strip() == "and 15 more"
    assert sum("z0" in line or "z1" in line or "z2" in line for line in lines) == 10


def test_a_data_set_of_broken_files_is_still_reported(tree):
    report = check_dataset(read_dataset(tree(["a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"])))
    assert len(report.failed) == 4
    assert report.to_json()["seconds"] == {"min": None, "median": None, "max": None, "total": 0}
    assert any("broken: 4 of 4" in line for line in report.lines())


def test_progress_counts_up_to_all(healthy):
    seen: list[tuple[int, int]] = []
    check_dataset(read_dataset(healthy), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 6) for number in range(1, 7)]


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_report_and_ends_with_0(healthy):
    code, printed = run(healthy)
    assert code == 0
    assert printed.splitlines() == check_dataset(read_dataset(healthy)).lines()


def test_the_command_ends_with_3_when_files_failed(healthy):
    (healthy / "a" / "broken.wav").write_bytes(b"")
    code, printed = run(healthy)
    assert code == 3 and "a/broken.wav" in printed


def test_the_command_ends_with_1_and_a_sentence_for_data_that_cannot_be_used(tmp_path):
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("ossicle: ") and result.stderr.count("\n") == 1


def test_the_command_prints_json_and_passes_its_columns_on(healthy):
    lines = ["file,label,kind,site,part", *(f"{'ab'[i % 2]}/{i}.wav,x,{'ab'[i % 2]},s{i},p{i // 3}" for i in range(6))]
    (healthy / "meta.csv").write_text("\n".join(lines))
    code, printed = run(healthy, "--label", "kind", "--group", "site", "--fold", "part", "--json")
    report = json.loads(printed)
    assert code == 0
    assert report["labels"] == {"a": 3, "b": 3}
    assert len(report["groups"]) == 6
    assert report["folds"] == {"p0": 3, "p1": 3}
    assert "official `part` column" in report["protocol"]


def test_data_without_a_test_part_are_said_to_train_nothing(healthy):
    (healthy / "one.csv").write_text(
        "file,label,group\n" + "".join(f"{'ab'[n % 2]}/{n}.wav,{'ab'[n % 2]},x\n" for n in range(6))
    )
    report = check_dataset(read_dataset(healthy / "one.csv"))
    assert not report.trainable and not report.problems
    assert report.lines()[-1] == "problems  nothing can be trained: see the split"


def test_recordings_that_are_used_with_a_remark_are_named(healthy):
    sound = noise(9)
    write(healthy / "a" / "upside.wav", np.concatenate([sound, -sound], axis=1))
    both = (healthy / "a" / "0.wav").read_bytes() + (healthy / "a" / "2.wav").read_bytes()
    (healthy / "a" / "both.wav").write_bytes(both)
    report = check_dataset(read_dataset(healthy))
    odd = {problem.file: problem.detail for problem in report.problems if problem.kind == "odd"}
    assert set(odd) == {"a/upside.wav", "a/both.wav"}
    assert "channels cancel" in odd["a/upside.wav"] and "2 consecutive recordings" in odd["a/both.wav"]
    assert "odd: 2 of 8 clips (used, but somebody should know)" in report.lines()


def test_a_track_that_is_not_there_is_named(healthy):
    code, text = run(healthy, "--track", 2)
    assert code == 3 and "track 2 is not available; expected 1 to 1" in text
    assert run(healthy, "--track", 1)[0] == 0
    assert {item.track for item in read_dataset(healthy, track=2).items} == {2}
    assert read_dataset(healthy, track=2).fingerprint() != read_dataset(healthy).fingerprint()
