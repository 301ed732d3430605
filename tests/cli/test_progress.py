"""What moves while something long runs: the rates of a folder, the latest lines of live audio."""

import io
import re
import sys
import time

import pytest
import rich.progress  # noqa: F401  # which takes its clock as it is imported, before a test stops ours

from ossicle.cli.progress import latest_lines
from ossicle.jobs.folders import Outcome
from ossicle.jobs.progress import files_bar, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Puts a terminal in the place of both outputs; no fixture, for pytest sets them anew before the test."""
    screen = Terminal()
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def seen(terminal: Terminal) -> list[str]:
    """The lines that were shown, one frame after the other."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("before", [0, 10])
def test_the_bar_counts_what_was_predicted_now(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = a_terminal(monkeypatch), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with files_bar() as show:
        now[0] += 2
        for number in (1, 2):
            show(Outcome(file="a.wav", seconds=1800.0), before + number, 20)
    assert f"{before + 2}/20 1.0 files/s, 30.0 h of audio per minute" in seen(terminal)[-1]


def test_a_terminal_shows_the_latest_twelve_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    with latest_lines() as show:
        for number in range(15):
            show(f"row {number}")
    assert seen(terminal)[-12:] == [f"row {number}" for number in range(3, 15)]


def test_a_pipe_gets_every_line_and_a_log_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with latest_lines() as show:
        for number in range(15):
            show(f"row {number}")
            assert capsys.readouterr().out == f"row {number}\n"  # at once
    for progress in (True, None):
        with shown(progress) as show_file:
            show_file(Outcome(file="a.wav", seconds=1.0), 1, 2)
    assert capsys.readouterr() == ("", "")
