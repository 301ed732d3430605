"""The documents are right: examples run, commands parse, links lead somewhere, tables are complete and measured."""

import ast
import contextlib
import dataclasses
import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scripts import make_benchmarks_page
from typer.testing import CliRunner

import ossicle
from ossicle.cli import app
from ossicle.runtime import SCHEMA_VERSION

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
RUNNABLE = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
RESULTS = re.compile(r"<!-- results:(\w+) -->(.*?)<!-- /results:\1 -->", re.S)
NUMBER = re.compile(r"\d+\.\d+|\b\d{3,}\b")

pytestmark = pytest.mark.skipif(len(DOCUMENTS) < 2, reason="the documents are not beside an installed package's tests")


def command_lines(text: str) -> list[str]:
    """The calls of ossicle in code blocks: lines after a prompt or, in a block without prompts, all that begin so."""
    found = []
    for _, block in BLOCK.findall(text):
        lines = [line.strip() for line in block.splitlines()]
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [line for line in prompted or lines if re.match(r"ossicle( |$)", line)]
    return found


def described_lines(text: str) -> list[str]:
    """The calls of ossicle in running text, `so`; these may be without arguments."""
    return re.findall(r"`(ossicle [^`\n]+)`", BLOCK.sub("", text))


COMMANDS = [(path.name, line) for path in DOCUMENTS for line in command_lines(path.read_text())]
DESCRIBED = [(path.name, line) for path in DOCUMENTS for line in described_lines(path.read_text())]
LINKS = [(path, a or b) for path in DOCUMENTS for a, b in LINK.findall(BLOCK.sub("", path.read_text()))]
QUOTES = [quote for path in DOCUMENTS if path.parent != ROOT for quote in RESULTS.findall(path.read_text())]
EXAMPLES = [path for path in DOCUMENTS if RUNNABLE.search(path.read_text())]
PYTHON = [
    (path.name, block) for path in DOCUMENTS for kind, block in BLOCK.findall(path.read_text()) if kind == "python"
]
HERE = re.compile(
    r"https://(?:github\.com/ossicle/ossicle/(?:blob|tree)|raw\.githubusercontent\.com/ossicle/ossicle)/main/(.+)"
)
COMMAND: Any = typer.main.get_command(app)


def walk(line: str) -> tuple[list[str], Any, list[str]]:
    """Follows a command line through the real commands: the names on the way, the last command, the words left over."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = COMMAND
    path = ["ossicle"]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {' '.join([*path, words[0]])}"
        command = command.commands[words[0]]
        path.append(words.pop(0))
    return path, command, words


def parse(line: str) -> None:
    """Parses a command line as the program would, without running it."""
    path, command, words = walk(line)
    with contextlib.suppress(typer.Exit):  # --help and --version have answered
        command.make_context(path[-1], words)


@pytest.mark.parametrize("document, line", COMMANDS)
def test_every_command_in_a_block_parses(document: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize("document, line", DESCRIBED)
def test_every_command_in_running_text_exists(document: str, line: str) -> None:
    _, command, words = walk(line)
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= {*options, "--help", "-h"}, line


def test_a_wrong_command_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no command ossicle listen"):
        parse("ossicle listen a.wav")
    with pytest.raises(Exception, match="No such option: --loud"):
        parse("ossicle predict run a.wav --loud")
    with pytest.raises(Exception, match="'half' is not one of"):
        parse("ossicle evaluate run data --part half")


def test_no_command_is_left_out() -> None:
    shown = {" ".join(walk(line)[0]) for _, line in [*COMMANDS, *DESCRIBED]}
    leaves = {f"ossicle {name}" for name, command in COMMAND.commands.items() if not hasattr(command, "commands")}
    leaves |= {
        f"ossicle {group} {name}"
        for group, command in COMMAND.commands.items()
        for name in getattr(command, "commands", {})
    }
    assert leaves <= shown


@pytest.mark.parametrize("path, target", LINKS, ids=[f"{path.name}-{target}" for path, target in LINKS])
def test_every_link_within_the_repository_leads_somewhere(path: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    if here := HERE.fullmatch(name):
        file = ROOT / here[1]
    elif re.match(r"https?://|mailto:", target):
        return
    else:
        file = (path.parent / name) if name else path
    assert file.exists(), f"{path.name} points to {target}"
    if anchor:
        titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_guide_to_exports_has_the_schema_of_the_metadata() -> None:
    assert f"of this text ({SCHEMA_VERSION})" in (ROOT / "docs" / "export.md").read_text()


def test_the_tests_that_documents_name_exist() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"`(tests/[\w/]+\.py)`", path.read_text())}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_readme_links_as_a_package_index_needs_it() -> None:
    assert [target for path, target in LINKS if path.name == "README.md" and not target.startswith("https://")] == []


def test_the_navigation_of_the_site_names_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    assert sorted(re.findall(r": (\S+\.md)$", text, re.M)) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {ossicle.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_readme_names_every_declared_python_version() -> None:
    declared = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    sentence = re.search(r"Tested with Python [^.]*(?:\.\d[^.]*)*\.", (ROOT / "README.md").read_text())
    assert sentence and [version for version in declared if version not in sentence[0]] == []


def test_pictures_are_small_enough_for_a_repository() -> None:
    assert all(picture.stat().st_size < 300_000 for picture in (ROOT / "docs" / "images").iterdir())


# --- settings --------------------------------------------------------------------------------------------------------


PAGES = ("training", "tuning")


def settings_table(page: str) -> dict[str, list[str]]:
    """The rows of a page's table of settings: name, then default, range, meaning."""
    section = (ROOT / "docs" / f"{page}.md").read_text().split("## Settings")[1]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", section, re.M)
    return {name: [cell.strip().strip("`") for cell in rest.split("|")] for name, rest in rows}


def settings_of(page: str) -> Any:
    from ossicle.training import TrainConfig, TuneConfig

    return {"training": TrainConfig, "tuning": TuneConfig}[page]


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_settings_names_every_setting_and_no_other(page: str) -> None:
    assert list(settings_table(page)) == [field.name for field in dataclasses.fields(settings_of(page))]


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_settings_gives_the_defaults(page: str) -> None:
    from ossicle.training.config import with_settings

    kind = settings_of(page)
    other = {"seed": 7, "model": "passt_base_s10"}
    for name, (default, *_) in settings_table(page).items():
        if default == "data":
            assert getattr(kind(), name) is None, name
        else:
            read = with_settings(kind(**({name: other[name]} if name in other else {})), {name: default})
            assert getattr(read, name) == getattr(kind(), name), name


@pytest.mark.parametrize("page", PAGES)
def test_the_table_of_settings_gives_the_ranges(page: str) -> None:
    from ossicle.errors import SettingRefused
    from ossicle.training.config import with_settings

    kind = settings_of(page)
    for name, (_, allowed, *_) in settings_table(page).items():
        ends = re.fullmatch(r"([\d.]+) (?:to ([\d.]+)|or more)", allowed)
        if ends is None:
            continue
        inside = [float(end) for end in ends.groups() if end is not None]
        beyond = [inside[0] - 1, *(end + 1 for end in inside[1:])]
        for value in inside:
            with_settings(kind(), {name: f"{value:g}"})
        for value in beyond:
            with pytest.raises(SettingRefused, match="outside its range"):
                with_settings(kind(), {name: f"{value:g}"})


def test_the_recipes_are_those_that_exist() -> None:
    from ossicle.training.recipes import RECIPES

    text = (ROOT / "docs" / "training.md").read_text()
    table = text.split("| `--recipe` |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(RECIPES)


def test_the_bundle_keys_are_those_of_the_schema() -> None:
    from ossicle.bundle import schema

    table = (ROOT / "docs" / "prediction.md").read_text().split("| key | value |")[1].split("\n\n")[0]
    named = {name for cell in re.findall(r"^\| ([^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", cell)}
    assert named == {*schema._KEYS, *schema._TRAINED, *schema._TUNED, "members"}


def test_the_layouts_document_names_every_column_and_split_that_is_recognized() -> None:
    from ossicle.data import MODALITIES, columns
    from ossicle.data import names as words

    text = (ROOT / "docs" / "data.md").read_text()
    names = {*columns.LABEL_COLUMNS, *columns.GROUP_COLUMNS, *columns.SPLIT_COLUMNS}
    names |= {name for modality in MODALITIES.values() for name in modality.columns}
    names |= {name for others in words.SPLIT_NAMES.values() for name in others}
    assert {name for name in names if f"`{name}`" not in text} == set()


# --- measured numbers ------------------------------------------------------------------------------------------------


def test_the_benchmarks_page_is_made_from_the_results() -> None:
    assert (ROOT / "docs" / "benchmarks.md").read_text() == make_benchmarks_page.page(), "run make docs"
    readme = (ROOT / "README.md").read_text()
    assert readme == make_benchmarks_page.readme(readme), "run make docs"


def test_numbers_are_shortened_to_three_digits() -> None:
    assert make_benchmarks_page.shorten("0.5781 [0.523, 0.614]") == "0.578 [0.523, 0.614]"
    assert make_benchmarks_page.shorten("29.64, 446.3, +0.0033, -0.1175") == "29.6, 446, +0.0033, -0.117"
    assert (
        make_benchmarks_page.shorten("1,480,837 by 8.3e-07, hear21passt 0.0.26")
        == "1,480,837 by 8.3e-07, hear21passt 0.0.26"
    )


@pytest.mark.parametrize("name, text", QUOTES, ids=[name for name, _ in QUOTES])
def test_every_quoted_number_was_measured(name: str, text: str) -> None:
    numbers = set(NUMBER.findall(re.sub(r"\(http[^)]*\)", "", text)))
    assert numbers, f"the place for the results of {name} quotes no number"
    measured = set(NUMBER.findall((ROOT / "benchmarks" / "results" / f"{name}.md").read_text()))
    assert numbers <= measured, f"{sorted(numbers - measured)} is not in benchmarks/results/{name}.md"


# --- examples --------------------------------------------------------------------------------------------------------


def names_of_ossicle(block: str) -> set[str]:
    """The attributes of the package that a block of Python uses."""
    return {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ossicle"
    }


@pytest.mark.parametrize("document, block", PYTHON)
def test_every_name_in_a_block_of_python_exists(document: str, block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ossicle":
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], document
    modules = {path.stem for path in Path(ossicle.__file__).parent.iterdir()}
    assert names_of_ossicle(block) <= {*ossicle.__all__, *modules}, document


def small_sounds(folder: Path) -> None:
    """A folder for each of three classes, and one of recordings, from the built-in ones."""
    drums = ROOT / "examples" / "drums"
    for label in ("kick", "snare", "hi-hat"):
        (folder / "sounds" / label).mkdir(parents=True)
        for path in sorted((drums / label).iterdir())[:8]:
            (folder / "sounds" / label / path.name).symlink_to(path)
    (folder / "recordings").symlink_to(drums / "loops")
    (folder / "recording.wav").symlink_to(min((drums / "loops").iterdir()))
    (folder / "examples").symlink_to(drums.parent)


def run_command(line: str, shown: list[str]) -> None:
    """Runs a command of a document and compares what it prints with what the document shows; `...` ends a long line."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] in ("train", "tune") and not any("epochs=" in word for word in words):
        words += ["--set", "epochs=1"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, f"{line}: {done.output}"
    for text in shown:
        beginning = text.removesuffix("...").rstrip()
        assert any(real.startswith(beginning) for real in done.stdout.splitlines()), f"{line} does not print {text!r}"


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_the_examples_run(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undrawn: None,
    untyped: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    """Runs what is marked `<!-- run -->`, in order and in one folder; trainings take one epoch."""
    small_sounds(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"samples": np.zeros(44_100, dtype=np.float32)}
    for kind, block in RUNNABLE.findall(path.read_text()):
        block = re.sub(r"\bepochs=\d+", "epochs=1", block)
        if kind == "console":
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                line, *shown = part.strip("\n").split("\n")
                with untyped():  # a graph is made in some
                    run_command(line, shown)
        else:
            exec(compile(block, path.name, "exec"), names)
