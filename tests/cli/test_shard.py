"""`ossicle data shard`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Record = Callable[..., Path]


def test_the_command_says_what_it_packed(record: Record, run: Callable[..., Result], tmp_path: Path) -> None:
    for number in range(6):
        record(f"data/{'dog' if number % 2 else 'cat'}/{number}.wav", seconds=0.2, seed=number)
    (tmp_path / "data" / "cat" / "0.wav").write_bytes(b"")
    command = ["data", "shard", tmp_path / "data", "-o", tmp_path / "tars"]
    refused = run(*command)
    assert refused.exit_code == 1 and "the file is empty (0 bytes); --skip-bad leaves out" in refused.stderr
    packed = run(*command, "--skip-bad")
    assert packed.exit_code == 3
    assert "left out:" in packed.stdout and "5 recordings in 1 tars" in packed.stdout
    checked = run("data", "check", tmp_path / "tars")
    assert checked.exit_code == 0 and "1 tars with their indexes: 5 clips, 2 classes" in checked.stdout


@pytest.mark.parametrize("size", ["inf", "1e308"])
def test_a_size_that_is_no_number_of_bytes_is_wrong_usage(
    size: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run("data", "shard", tmp_path, "-o", tmp_path / "tars", "--shard-megabytes", size)
    assert result.exit_code == 2 and "it must be a finite number of MiB" in result.stderr
