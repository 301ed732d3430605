"""What reaches disk, on file systems that cannot do everything."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossicle.files import (
    beside,
    check_writable,
    printable,
    remove_abandoned,
    replacing,
    without_slashes,
    write_atomically,
)


def test_a_file_system_that_cannot_flush_folders_takes_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def of_files(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    write_atomically(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_write_that_fails_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError) as failed:
        write_atomically(tmp_path / "taken", "text")
    assert failed.value.filename == str(tmp_path / "taken") and [*tmp_path.iterdir()] == [tmp_path / "taken"]


def test_what_a_killed_writer_leaves_is_found_again(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.csv") as temporary:
        torn = temporary.with_name(temporary.name.replace(temporary.name[9:17], "0123abcd"))
        torn.write_text("half")
        temporary.write_text("whole")
    (tmp_path / "a.csv").unlink()
    (tmp_path / ".ossicle-notes.txt").write_text("mine")
    remove_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".ossicle-notes.txt"]


def test_a_place_is_tried_before_the_work_and_nothing_is_left(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "a.csv")
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NotADirectoryError) as refused:
        check_writable(tmp_path / "file" / "a.csv")
    assert refused.value.filename == str(tmp_path / "file" / "a.csv")


@given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1), st.sampled_from([".csv", ".txt"]))
def test_a_name_beside_another_fits_and_is_its_own(name: str, suffix: str) -> None:
    found = beside(Path("folder") / f"x{name}", suffix).name
    assert len(os.fsencode(found)) <= 255 and found.endswith(suffix) and found.encode()
    if len(os.fsencode(name)) > 300:
        assert found != beside(Path("folder") / f"x{name}y", suffix).name
    else:
        assert found == f"x{name}{suffix}" or len(os.fsencode(found)) > 240


@given(st.text("a-/\\", max_size=4), st.text("a-/\\", max_size=4))
def test_names_without_slashes_are_as_different_as_before(one: str, other: str) -> None:
    names = without_slashes(one), without_slashes(other)
    assert (names[0] == names[1]) == (one == other) and not {"/", "\\"} & set(names[0])


@pytest.mark.parametrize(
    ("name", "shown"), [("a b.wav", "a b.wav"), ("a\nb.wav", r"'a\nb.wav'"), ("\x1b[1m", r"'\x1b[1m'")]
)
def test_a_name_that_would_write_to_the_terminal_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
