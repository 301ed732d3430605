"""`ossicle models` and the other commands, on published weights: what a person sees."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.catalog.server import Server
from tests.cli.test_progress import a_terminal, seen
from typer.testing import CliRunner

from ossicle.catalog import Checkpoint, download
from ossicle.cli import app
from ossicle.cli.doctor import weights_line
from ossicle.cli.progress import downloads_shown

Publish = Callable[..., Checkpoint]
NAME = "passt_base_s10.audioset_ap476"
run = CliRunner()


def test_what_is_fetched_is_said_beside_the_rows(publish: Publish, record: Callable[..., Path]) -> None:
    row = publish(NAME, hashed=True)
    done = run.invoke(app, ["predict", NAME, str(record("tone.wav")), "--format", "csv"])
    assert done.exit_code == 0
    assert done.stdout.startswith("file,start,end,label,score\n") or done.stdout.startswith("file,")
    fetching, kept = done.stderr.splitlines()
    assert fetching.startswith(f"ossicle: Fetching {NAME}: {row.size} from http://127.0.0.1:")
    assert kept.startswith("ossicle: Kept in ")
    again = run.invoke(app, ["predict", NAME, str(record("tone.wav")), "--format", "csv"])
    assert again.stdout == done.stdout and again.stderr == ""


def test_weights_are_fetched_verified_and_removed(publish: Publish, store: Path) -> None:
    row = publish(NAME)
    assert run.invoke(app, ["models", "verify"]).stdout == f"{store}: no weights are kept here\n"
    assert run.invoke(app, ["models", "fetch", NAME]).stdout == f"{NAME}: in {store / NAME}\n"
    assert run.invoke(app, ["models", "fetch", row.aliases[0]]).stdout == f"{NAME}: already in {store / NAME}\n"
    assert run.invoke(app, ["models", "add", "any.pt", "--as", NAME]).stdout == f"{NAME}: already in {store / NAME}\n"
    assert run.invoke(app, ["models", "verify"]).stdout == f"{NAME}: as it was fetched\n"
    assert "0.1 MB" in run.invoke(app, ["models", "list", NAME, "--weights"]).stdout
    assert str(store / NAME) in run.invoke(app, ["models", "show", NAME]).stdout
    assert weights_line().startswith("1 kept, 0.1 MB, in ")
    (store / NAME / "config.json").write_text("{}")
    damaged = run.invoke(app, ["models", "verify", NAME])
    assert damaged.exit_code == 1 and damaged.stdout == ""
    assert damaged.stderr.startswith(
        f"ossicle: {NAME}: config.json is not as it was kept; `ossicle models remove {NAME}`"
    )
    assert run.invoke(app, ["models", "remove", NAME]).stdout == f"{NAME}: removed, 0.1 MB are free again\n"
    forgotten = run.invoke(app, ["models", "remove", NAME, "--forget-hash"])
    assert forgotten.exit_code == 0 and forgotten.stdout == f"{NAME}: its pinned hash is forgotten\n"
    nothing = run.invoke(app, ["models", "remove", NAME])
    assert nothing.exit_code == 1 and nothing.stderr.startswith(f"ossicle: {NAME} is not in {store}")


def test_a_file_for_another_machine_says_how_to_add_it(publish: Publish, tmp_path: Path) -> None:
    row = publish(NAME, hashed=True)
    done = run.invoke(app, ["models", "fetch", NAME, "--to", str(tmp_path / "stick")])
    path = tmp_path / "stick" / row.file
    assert done.stdout == (
        f"Wrote {path} ({row.size}, SHA-256 {row.sha256})\n"
        f"Where it is to be used: ossicle models add {row.file} --as {NAME}\n"
    )
    assert run.invoke(app, ["models", "add", str(path), "--as", NAME]).exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        ["predict", NAME, "tone.wav"],
        ["embed", NAME, "tone.wav", "-o", "x.npz"],
        ["evaluate", NAME, "."],
        ["export", NAME],
        ["tune", NAME, "sounds"],
        ["train", "sounds", "--init", NAME, "-o", "run"],
        ["bench", NAME],
        ["models", "fetch", NAME],
    ],
)
def test_offline_every_command_says_which_file_to_put_where(
    command: list[str], server: Server, record: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in ("a", "b"):
        for number in range(4):
            record(f"sounds/{label}/{number}.wav", seed=number)
    record("tone.wav")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    done = run.invoke(app, command)
    assert done.exit_code == 1, done.output
    assert f"`ossicle models add passt-s-f128-p16-s10-ap.476-swa.pt --as {NAME}`." in done.stderr.splitlines()[-1]
    assert server.requests == [] and not (tmp_path / "run").exists()


def test_a_terminal_sees_how_far_a_download_is(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = publish(NAME, hashed=True)
    terminal = a_terminal(monkeypatch)
    with downloads_shown():
        download.download(row.url, tmp_path / row.file, size=row.bytes)
    assert row.file in seen(terminal)[-1] and "kB" in seen(terminal)[-1]
    assert download.bar is download._no_bar


def test_a_pipe_sees_no_bar(publish: Publish, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = publish(NAME, hashed=True)
    with downloads_shown():
        download.download(row.url, tmp_path / row.file)
    assert capsys.readouterr() == ("", "") and not sys.stderr.isatty()
