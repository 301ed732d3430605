"""What both command lines share, with a predictor that needs no network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ossicle.jobs.folders import find_recordings

PROGRAM = """
import sys
from pathlib import Path
from victim import Loudness
from ossicle.audio.hush import HUSH
from ossicle.jobs.command import run_command
from ossicle.jobs.options import PredictOptions

class Hushed(Loudness):
    def window_samples(self, **seconds):
        HUSH.__enter__()
        return super().window_samples(**seconds)

say = lambda sentence: print(sentence, file=sys.stderr)
run_command(lambda **_: Hushed(), [Path("gone.wav")], PredictOptions(), say=say)
"""


def test_messages_are_seen_while_a_decoder_is_silenced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "gone.wav",
        "1 of 1 recordings could not be used.",
    ]


def test_a_recording_is_listed_once_however_its_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    monkeypatch.chdir(tmp_path)
    relative, absolute, around = Path("in/a.wav"), tmp_path / "in" / "a.wav", Path("in/../in/a.wav")
    assert find_recordings([relative, absolute, around, Path("in")]) == ([relative], [])
    assert find_recordings([absolute, relative]) == ([absolute], [])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_linked_folder_is_the_folder_and_a_linked_recording_one_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    (tmp_path / "in" / "b.wav").symlink_to("a.wav")
    (tmp_path / "again").symlink_to("in")
    files, _ = find_recordings([tmp_path / "in", tmp_path / "again"])
    assert files == [tmp_path / "in" / "a.wav", tmp_path / "in" / "b.wav"]


def test_a_path_below_a_locked_folder_is_left_to_fail_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", locked)
    files, failed = find_recordings([Path("locked/a.wav")])
    monkeypatch.undo()
    assert (files, failed) == ([Path("locked/a.wav")], [])


def test_a_folder_that_cannot_be_listed_keeps_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site: north"
    folder.mkdir()

    def locked(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", locked)
    _, (outcome,) = find_recordings([folder])
    assert outcome.file == str(folder)
