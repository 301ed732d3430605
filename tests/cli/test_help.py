"""`--help` is the manual: complete, and there at once."""

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

import ossicle
from ossicle.cli import app

Run = Callable[..., Result]

COMMANDS = (
    "demo",
    "train",
    "distil",
    "tune",
    "evaluate",
    "predict",
    "embed",
    "export",
    "bench",
    "doctor",
    "data",
    "models",
)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below, with its path."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield path, command


LEAVES = dict(leaves(typer.main.get_command(app)))


def loaded(*arguments: str) -> list[str]:
    """The modules that a fresh Python imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("|")[2].strip() for line in done.stderr.splitlines() if line.count("|") == 2]


def test_help_loads_nothing_heavy_and_little_beside_typer() -> None:
    modules = loaded("-m", "ossicle", "--help")
    packages = {name.split(".")[0] for name in modules}
    assert "typer" in packages
    assert not packages & {"torch", "numpy", "lightning", "matplotlib", "huggingface_hub", "soundfile", "yaml"}
    assert len(modules) < 1.25 * len(loaded("-m", "typer", "--help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_listed_and_has_help(command: str, run: Run) -> None:
    assert command in run("--help").stdout
    result = run(command, "--help")
    assert result.exit_code == 0 and "Usage: " in result.stdout


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_parameter_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name}"


def used_of_the_table() -> set[str]:
    """The options of the table that are read as attributes, and those that `embed_files` takes."""
    package = Path(ossicle.__file__).parent
    files = [*(package / "jobs").glob("*.py"), package / "cli" / "predict.py"]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    (embed,) = (
        node
        for node in ast.walk(ast.parse((package / "embedding.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "embed_files"
    )
    return read | {argument.arg for argument in embed.args.kwonlyargs}


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_used(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    (function,) = ast.parse(inspect.getsource(inspect.unwrap(command.callback))).body
    assert isinstance(function, ast.FunctionDef)
    read = {node.id for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
    if path[0] in ("predict", "embed"):
        read |= used_of_the_table()
    assert {parameter.name for parameter in command.params} - {"help"} <= read


def test_shells_complete_commands_and_options() -> None:
    """In bash; without torch, as every press of the key asks."""
    for words, completion in (("ossicle pred", "predict"), ("ossicle predict --min-s", "--min-score")):
        asked = {
            "_OSSICLE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        command = [sys.executable, "-X", "importtime", "-m", "ossicle"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked)
        assert done.stdout.split() == [completion]
        assert "torch" not in {line.split("|")[-1].strip() for line in done.stderr.splitlines()}


def test_the_version_is_the_packages(run: Run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"ossicle {ossicle.__version__}\n")


@pytest.mark.parametrize("arguments", [["listen"], ["predict"], ["predict", "m", "a.wav", "--top-k", "0"], ["--loud"]])
def test_wrong_usage_ends_with_2(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr and "Traceback" not in result.stderr
