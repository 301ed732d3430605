import os
import sys
from pathlib import Path

import pytest

from ossicle.audio import AUDIO_SUFFIXES, find_audio
from ossicle.audio.media import DEMUXERS
from ossicle.errors import DataRefused


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_recordings_are_found_in_any_case_at_any_depth_with_any_name_in_order(tmp_path):
    names = ["-x.wav", "B.WAV", "a b/ü ñ 音.Flac", "a b/c/d.e.mp3", "z.Opus", "vid/clip.MP4"]
    touch(tmp_path, *names, "notes.txt", "wav", "x.wav.bak", "table.csv")
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert sorted(found) == sorted(names)
    assert found == sorted(found, key=lambda name: tuple(name.split("/")))


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, ".a.wav", "._b.wav", ".cache/c.wav", "d.wav")
    assert find_audio(tmp_path) == [tmp_path / "d.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_linked_folders_are_followed_once_and_a_circle_ends(tmp_path):
    touch(tmp_path, "data/kick/a.wav", "elsewhere/b.wav")
    (tmp_path / "data" / "circle").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "snare").symlink_to(tmp_path / "elsewhere")
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path / "data")]
    assert found == ["data/kick/a.wav", "data/snare/b.wav"]


def test_an_empty_folder_has_no_recordings(tmp_path):
    assert find_audio(tmp_path) == []


def test_what_is_no_folder_is_refused_by_name(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(DataRefused, match=r"a\.wav: this is a file"):
        find_audio(tmp_path / "a.wav")
    with pytest.raises(DataRefused, match="nowhere: there is no such folder"):
        find_audio(tmp_path / "nowhere")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error_not_an_omission(tmp_path):
    touch(tmp_path, "locked/a.wav")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(DataRefused, match="locked: this folder cannot be listed"):
            find_audio(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_suffixes_are_lower_case_with_a_dot():
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in AUDIO_SUFFIXES)


def test_every_format_that_ffmpeg_may_read_is_found_by_a_suffix():
    av = pytest.importorskip("av")
    # Of formats with several names FFmpeg knows the first; two have suffixes as things that it writes.
    for name in DEMUXERS.replace("matroska,webm", "matroska").replace("mov,mp4,m4a,3gp,3g2,mj2", "mov").split(","):
        formats = [av.format.ContainerFormat(name, mode) for mode in "rw" if (name, mode) not in UNWRITTEN]
        assert {f".{suffix}" for found in formats for suffix in found.extensions} & AUDIO_SUFFIXES, name


UNWRITTEN = {("aac", "w"), ("ape", "w"), ("mpegts", "r")}
