"""A standard output that takes nothing: a full disk is an error in one sentence, a reader who has left is none."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, typer
from ossicle.cli.outcome import Sentences
app = typer.Typer(cls=Sentences, pretty_exceptions_enable=False)
@app.callback()
def group(): pass
@app.command()
def show():
    print("x" * int(sys.argv[2]))
    raise typer.Exit(int(sys.argv[3]))
app(sys.argv[1:2])
"""


def ended(output: int, *arguments: str) -> tuple[int, str]:
    """The exit code and standard error of a program that prints so many letters and ends with a code."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=buffered)
    return done.returncode, done.stderr


def test_what_goes_to_a_pipe_is_utf_8_whatever_the_code_page() -> None:
    program = "from ossicle.errors import begin; begin(); print('\u9e1f \u2013')"
    page = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=page)
    assert done.stdout.decode("utf-8").strip() == "\u9e1f \u2013"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [("show", "1", "0"), ("show", "1", "3"), ("show", "1000000", "0"), ("--help",)],
    ids=["at the end", "after files that failed", "while it is printed", "in the help"],
)
def test_a_full_disk_under_standard_output_is_a_sentence(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        ending, said = ended(full.fileno(), *arguments)
    assert ending == 1
    assert said.startswith("ossicle: ") and said.endswith("No space left on device.\n") and said.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error there")
@pytest.mark.parametrize("length", ["1", "1000000"])
def test_a_reader_who_has_left_is_told_nothing(length: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert ended(writer, "show", length, "0") == (1, "")
    finally:
        os.close(writer)
