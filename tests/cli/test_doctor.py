"""`ossicle doctor` tells an extra that is absent from one that is broken from one that works."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import ossicle
from ossicle.cli import doctor
from ossicle.cli.doctor import CORE, EXTRAS, extra_state

Run = Callable[..., Result]


def install(folder: Path, body: str) -> None:
    """A package whose module runs `body` when it is imported."""
    (folder / "toy_extra.py").write_text(body)
    (folder / "toy_extra-1.2.dist-info").mkdir()
    (folder / "toy_extra-1.2.dist-info" / "METADATA").write_text("Name: toy-extra\nVersion: 1.2\n")


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ("x = 1", "works: toy_extra 1.2"),
        ("raise OSError('PortAudio library not found\\nat all')", "broken: toy_extra 1.2: PortAudio library not found"),
        ("raise RuntimeError", "broken: toy_extra 1.2: RuntimeError"),
        ("import a_module_that_is_not_there", "broken: toy_extra 1.2: No module named 'a_module_that_is_not_there'"),
    ],
)
def test_a_package_works_only_if_it_really_imports(
    body: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_extra", raising=False)
    assert extra_state(["toy_extra"]) == state


def test_an_extra_may_be_absent_or_incomplete() -> None:
    assert extra_state(["no_such_package_anywhere"]) == "not installed"
    assert extra_state(["numpy", "no_such_package_anywhere"]).startswith("incomplete: numpy ")


def test_the_report_names_versions_device_and_every_extra(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert f"ossicle {ossicle.__version__}" in result.stdout
    assert importlib.metadata.version("torch") in result.stdout
    assert "threads" in result.stdout and "bfloat16 on" in result.stdout
    for name in EXTRAS:
        assert f"\n  {name} " in result.stdout


def test_the_table_holds_what_the_package_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(map(name_of, project["dependencies"])) == set(CORE)
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in ("dev", "docs")}
    assert {name: set(map(name_of, lines)) for name, lines in extras.items()} == {
        name: {module.partition(".")[0] for module in modules} for name, (_, modules) in EXTRAS.items()
    }


@pytest.mark.parametrize("module", [module for _, modules in EXTRAS.values() for module in modules])
def test_no_extra_is_promised_that_no_code_imports(module: str) -> None:
    imported = re.compile(rf"^\s+import {module}\b|import_module\(\"{module}\"\)", re.M)
    sources = [path for path in Path(ossicle.__file__).parent.rglob("*.py") if path != Path(doctor.__file__)]
    assert any(imported.search(path.read_text()) for path in sources)


def name_of(requirement: str) -> str:
    """The distribution in a requirement line, as written in pyproject."""
    for mark in "<>=!~;[( ":
        requirement = requirement.split(mark)[0]
    return requirement
