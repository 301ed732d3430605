"""How commands end: the exit codes are a contract with scripts, the sentences one with people."""

import errno
import signal

import pytest
import typer
from typer.testing import CliRunner, Result

from ossicle import cli
from ossicle.cli.outcome import Sentences
from ossicle.errors import BundleRefused
from ossicle.runtime import __main__ as runtime


def ended(error: BaseException) -> Result:
    """The result of a command that raises."""
    app = typer.Typer(cls=Sentences)

    @app.callback()
    def group() -> None:
        pass

    @app.command()
    def fail() -> None:
        raise error

    return CliRunner().invoke(app, ["fail"])


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (BundleRefused("x: no bundle."), 1, "ossicle: x: no bundle.\n"),
        (KeyboardInterrupt(), 130, "ossicle: Interrupted.\n"),
        (KeyboardInterrupt("Stopped; --resume goes on."), 130, "ossicle: Stopped; --resume goes on.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "ossicle: No space left on device.\n"),
        (OSError(errno.EFBIG, "File too large"), 1, "ossicle: File too large.\n"),
        (OSError(errno.EIO, "Input/output error", "/x"), 1, "ossicle: Input/output error: /x.\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), 1, "ossicle: No such file: /x.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "ossicle: Permission denied: /x.\n"),
    ],
)
def test_what_the_outside_world_does_is_one_sentence(error: BaseException, code: int, sentence: str) -> None:
    result = ended(error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", sentence)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "ossicle-runtime: Disk quota exceeded.\n"),
        (KeyboardInterrupt(), 130, "ossicle-runtime: Interrupted.\n"),
        (BundleRefused("x: no bundle."), 1, "ossicle-runtime: x: no bundle.\n"),
    ],
)
def test_the_program_without_torch_has_the_same_rule(
    error: BaseException,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ossicle.runtime.__main__.load", fail)
    assert runtime.main(["model.onnx", "a.wav"]) == code
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), OSError(errno.EBADF, "ours")])
def test_a_mistake_of_ours_keeps_its_traceback(error: Exception) -> None:
    result = ended(error)
    assert result.exception is error and result.stderr == ""


def test_an_interruption_before_a_command_begins_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ossicle: Interrupted.\n"


def test_a_command_told_to_end_ends_as_after_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(cls=Sentences)
    app.callback()(lambda: None)
    app.command("wait")(lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(cli, "app", lambda **_: app(["wait"]))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ossicle: Stopped by SIGTERM.\n"
