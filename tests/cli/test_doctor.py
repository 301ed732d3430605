"""`ossicle doctor` tells an extra that is absent from one that is broken from one that works."""

import importlib.metadata
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import ossicle
from ossicle.cli.doctor import CORE, EXTRAS, Extra, extra_state
from ossicle.devices import bfloat16_speedup

Run = Callable[..., Result]


def package(folder: Path, body: str) -> Extra:
    """An extra made of one package whose module runs `body` when it is imported."""
    (folder / "toy_extra.py").write_text(body)
    (folder / "toy_extra-1.2.dist-info").mkdir()
    (folder / "toy_extra-1.2.dist-info" / "METADATA").write_text("Name: toy-extra\nVersion: 1.2\n")
    return Extra(name="toy", gives="toys", modules=("toy_extra",), packages=("toy-extra",))


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ("x = 1", "works: toy-extra 1.2"),
        ("raise OSError('PortAudio library not found\\nat all')", "broken: toy-extra 1.2: PortAudio library not found"),
        ("raise RuntimeError", "broken: toy-extra 1.2: RuntimeError"),
        ("import a_module_that_is_not_there", "broken: toy-extra 1.2: No module named 'a_module_that_is_not_there'"),
    ],
)
def test_a_package_works_only_if_it_really_imports(
    body: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = package(tmp_path, body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_extra", raising=False)
    assert extra_state(extra) == state


def test_an_extra_may_be_absent_or_incomplete() -> None:
    absent = Extra(name="no", gives="", modules=("nothing",), packages=("no-such-package-anywhere",))
    assert extra_state(absent) == "not installed"
    half = Extra(name="half", gives="", modules=("numpy",), packages=("numpy", "no-such-package-anywhere"))
    assert extra_state(half).startswith("incomplete: numpy ")


def test_the_report_names_versions_device_and_every_extra(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert f"ossicle {ossicle.__version__}" in result.stdout
    assert importlib.metadata.version("torch") in result.stdout
    assert "threads" in result.stdout and "bfloat16 on" in result.stdout
    for extra in EXTRAS:
        assert f"\n  {extra.name} " in result.stdout


def test_the_table_holds_what_the_package_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(map(name_of, project["dependencies"])) == set(CORE)
    declared = {
        name: {name_of(line) for line in lines}
        for name, lines in project["optional-dependencies"].items()
        if name != "dev"
    }
    assert declared == {extra.name: set(extra.packages) for extra in EXTRAS}


def name_of(requirement: str) -> str:
    """The distribution in a requirement line, as written in pyproject."""
    for mark in "<>=!~;[( ":
        requirement = requirement.split(mark)[0]
    return requirement


def test_bfloat16_is_measured() -> None:
    assert 0 <= bfloat16_speedup("cpu") < 100
