"""One unit of the build, end to end, from a package that the test makes: licenses, refusals, kill and resume."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pretraining.manifest import read_rows
from pretraining.sources import Source
from tests.pretraining.conftest import melody

from pretraining import corpus, texts

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb, which makes packages, is not here")

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2010 Ann Example
License: CC0-1.0

Files: sounds/evil/*
Copyright: 2011 Bob Example
License: CC-BY-NC-3.0

Files: sounds/viral/*
Copyright: 2012 Cem Example
License: GPL-2+
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> corpus.Settings:
    root = tmp_path / "root"
    for name, seed in (("dogBark1", 1), ("dogBark2", 2), ("evil/bell", 3), ("viral/horn", 4)):
        path = root / "usr/share/toy/sounds" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, melody(seed), 32_000)
    (root / "usr/share/toy/sounds/broken.wav").write_bytes(b"no sound")
    for path, text in (
        ("usr/share/doc/toy/copyright", COPYRIGHT),
        ("DEBIAN/control", "Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: a\nDescription: a\n"),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    packages = tmp_path / "packages"
    packages.mkdir()
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, packages / "toy_1.0_all.deb"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr(corpus, "SOURCES", (Source(package="toy", kind="effects"),))
    return corpus.Settings(folder=tmp_path / "corpus", packages=packages, licenses=[])


def build(settings: corpus.Settings) -> list[str]:
    corpus.build_unit(("toy", settings))
    return [row.path.rsplit("/", 1)[-1] for row in read_rows(settings.rows_of("toy"))]


def test_a_package_becomes_clips_with_source_license_and_author(settings: corpus.Settings) -> None:
    assert build(settings) == ["dogBark1.wav", "dogBark2.wav", "horn.wav"]
    row = read_rows(settings.rows_of("toy"))[0]
    assert (row.package, row.version, row.license, row.authors) == ("toy", "1.0", "CC0-1.0", "2010 Ann Example")
    assert (row.label, row.topic, row.kind) == ("dog bark", "animal", "effects")
    samples, rate = soundfile.read(settings.folder / row.file)
    assert rate == 32_000
    assert len(samples) / rate == pytest.approx(row.seconds, abs=1e-3)


def test_what_is_refused_is_listed_with_its_reason(settings: corpus.Settings) -> None:
    build(settings)
    refused = [json.loads(line) for line in settings.refused_by("toy").read_text().splitlines()]
    assert [Path(one["path"]).name for one in refused] == ["broken.wav", "bell.wav"]
    assert "CC-BY-NC-3.0" in refused[1]["reason"]


def test_a_license_that_is_not_wanted_is_left_out(settings: corpus.Settings) -> None:
    without = corpus.Settings(folder=settings.folder, packages=settings.packages, licenses=["!GPL-*"])
    assert build(without) == ["dogBark1.wav", "dogBark2.wav"]


def test_a_corpus_of_another_choice_is_not_continued(settings: corpus.Settings) -> None:
    corpus.check_choice(settings)
    corpus.check_choice(settings)
    with pytest.raises(SystemExit, match="choose another folder"):
        corpus.check_choice(corpus.Settings(folder=settings.folder, packages=settings.packages, licenses=["MIT"]))


def test_fingerprints_of_another_version_are_not_compared_with_these(
    settings: corpus.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.check_choice(settings)
    monkeypatch.setattr(corpus, "VERSION", corpus.VERSION + 1)
    with pytest.raises(SystemExit, match="choose another folder"):
        corpus.check_choice(settings)


def test_a_unit_that_is_built_again_has_the_same_bytes(settings: corpus.Settings) -> None:
    build(settings)
    first = {path.name: path.read_bytes() for path in (settings.folder / "clips/toy").iterdir()}
    rows = settings.rows_of("toy").read_bytes()
    (settings.folder / "clips/toy/left-by-a-kill.flac").write_bytes(b"half")
    build(settings)
    assert {path.name: path.read_bytes() for path in (settings.folder / "clips/toy").iterdir()} == first
    assert settings.rows_of("toy").read_bytes() == rows


def test_a_repetition_of_a_judged_recording_is_thrown_out(
    settings: corpus.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(settings)
    judged = corpus.fingerprint((0.3 * melody(2)).astype(np.float32))
    monkeypatch.setattr(corpus, "judged_prints", lambda data, cache: ([judged], ["esc50/audio/a.ogg"]))
    rows = corpus.finish(["toy"], settings, Path("unused"))
    assert [Path(row.path).name for row in rows] == ["dogBark1.wav", "horn.wav"]
    assert all((settings.folder / row.file).exists() for row in rows)
    assert len(list((settings.folder / "clips/toy").iterdir())) == 2
    (repeat,) = [json.loads(line) for line in (settings.folder / "left_out.jsonl").read_text().splitlines()]
    assert repeat["repeats"] == "esc50/audio/a.ogg"
    assert "| CC0-1.0 | 1 |" in (settings.folder / "tables.md").read_text()
    assert corpus.finish(["toy"], settings, Path("unused")) == rows


def test_of_two_rows_of_one_file_the_second_is_left_out_and_the_file_stays(
    settings: corpus.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(settings)
    rows = read_rows(settings.rows_of("toy"))
    stored = np.load(settings.prints_of("toy"))
    prints = np.split(stored["prints"], np.cumsum(stored["frames"])[:-1])
    corpus.write_rows(settings.rows_of("toy"), [*rows, rows[0]])  # the same bytes below the same name, in two folders
    corpus.keep_prints(settings.prints_of("toy"), [*prints, prints[0]])
    monkeypatch.setattr(corpus, "judged_prints", lambda data, cache: ([], []))
    assert corpus.finish(["toy"], settings, Path("unused")) == rows
    assert all((settings.folder / row.file).exists() for row in rows)


def test_words_are_drawn_from_a_list_without_names_and_genitives(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("Anna\nAnna's\na\napple\ncafé\nzebra\n", encoding="utf-8")
    known = texts.read_words(tmp_path / "list")
    assert known == ["apple", "zebra"]
    draw = np.random.default_rng(0)
    said = [texts.words(known, draw).split() for _ in range(200)]
    assert {len(one) for one in said} == {1, 2, 3, 4} and {word for one in said for word in one} == set(known)
    assert 0.35 < sum(len(one) == 1 for one in said) / 200 < 0.65
