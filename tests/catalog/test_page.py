"""docs/weights.md as a newcomer follows it: every command, in order, in one folder, with networks of few numbers."""

import contextlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.catalog.server import Server
from tests.test_docs import BLOCK, ROOT, small_sounds
from typer.testing import CliRunner

from ossicle.catalog import Checkpoint, checkpoint
from ossicle.cli import app

PAGE = ROOT / "docs" / "weights.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documents are not beside an installed package's tests")

PUBLISHED = (
    "passt_base_s10.audioset_ap476",
    "passt_base_s10.esc50_fold1_acc967",
    "passt_base_s10.openmic_ap85",
    "passt_tiny_s16.deit_imagenet",
)


def test_every_command_of_the_page_runs(
    publish: Callable[..., Checkpoint],
    server: Server,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undrawn: None,
    untyped: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    for name in PUBLISHED:
        publish(name, hashed=True)
    small_sounds(tmp_path)
    (tmp_path / "dog.wav").symlink_to((tmp_path / "recording.wav").resolve())
    for label, sounds in (("dog", "kick"), ("rooster", "snare")):
        (tmp_path / "pets").mkdir(exist_ok=True)
        (tmp_path / "pets" / label).symlink_to(tmp_path / "sounds" / sounds)
    row = checkpoint("passt_base_s10.openmic_ap85")
    (tmp_path / "checkpoint.pt").symlink_to(tmp_path / "published" / row.file)
    (tmp_path / "labels.txt").write_text("\n".join(row.labels))
    monkeypatch.chdir(tmp_path)
    ran = 0
    for kind, block in BLOCK.findall(PAGE.read_text()):
        if kind == "python":
            exec(compile(block, PAGE.name, "exec"), {})
        for line in re.findall(r"^\$ (ossicle .*)$", block, re.M) if kind == "console" else ():
            words = shlex.split(line)[1:]
            words += ["--set", "epochs=1"] if words[0] in ("train", "tune") else []
            with untyped():  # a graph is made in some
                done = CliRunner().invoke(app, words, catch_exceptions=False)
            assert done.exit_code == 0, f"{line}: {done.output}"
            ran += 1
    assert ran == len(re.findall(r"^\$ ossicle", PAGE.read_text(), re.M)) > 15
    assert len(server.requests) == len({path for path, _ in server.requests}) == len(PUBLISHED)  # each fetched once
    assert not (store / PUBLISHED[0]).exists() and (store / PUBLISHED[2]).exists()
