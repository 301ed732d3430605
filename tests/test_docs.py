"""What the documents say is so: commands parse, links lead somewhere, settings are complete, figures were measured."""

import contextlib
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from ossicle.cli import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
RESULTS = re.compile(r"<!-- results:(\w+) -->(.*?)<!-- /results:\1 -->", re.S)
FIGURE = re.compile(r"\d+\.\d+|\b\d{3,}\b")

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
QUOTES = [quote for path in DOCUMENTS for quote in RESULTS.findall(path.read_text())]
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
def test_every_relative_link_and_picture_exists(path: Path, target: str) -> None:
    if re.match(r"https?://|mailto:", target):
        return
    name, _, anchor = target.partition("#")
    file = (path.parent / name) if name else path
    assert file.exists(), f"{path.name} points to {target}"
    if anchor:
        titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


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
    from ossicle import bundle

    table = (ROOT / "docs" / "prediction.md").read_text().split("| key | value |")[1].split("\n\n")[0]
    named = {name for cell in re.findall(r"^\| ([^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", cell)}
    assert named == {*bundle._KEYS, *bundle._TRAINED, *bundle._TUNED}


def test_the_layouts_document_names_every_column_and_split_that_is_recognized() -> None:
    from ossicle.data import MODALITIES, columns
    from ossicle.data import names as words

    text = (ROOT / "docs" / "data.md").read_text()
    names = {*columns.LABEL_COLUMNS, *columns.GROUP_COLUMNS, *columns.SPLIT_COLUMNS}
    names |= {name for modality in MODALITIES.values() for name in modality.columns}
    names |= {name for others in words.SPLIT_NAMES.values() for name in others}
    assert {name for name in names if f"`{name}`" not in text} == set()


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, text", QUOTES, ids=[name for name, _ in QUOTES])
def test_every_quoted_figure_was_measured(name: str, text: str) -> None:
    figures = set(FIGURE.findall(re.sub(r"\(http[^)]*\)", "", text)))
    assert figures, f"the place for the results of {name} quotes no figure"
    measured = set(FIGURE.findall((ROOT / "benchmarks" / "results" / f"{name}.md").read_text()))
    assert figures <= measured, f"{sorted(figures - measured)} is not in benchmarks/results/{name}.md"


def shown_output(command: str) -> list[str]:
    """The lines that README.md shows below `$ command`, up to the next prompt; long ones end in `...`."""
    for _, block in BLOCK.findall((ROOT / "README.md").read_text()):
        parts = re.split(r"^\$ ", block, flags=re.M)
        for part in parts[1:]:
            first, *lines = part.strip("\n").split("\n")
            if first.strip() == command:
                return [line for line in lines if line.strip() not in ("", "...")]
    raise AssertionError(f"README.md shows no output of {command}")


@pytest.mark.parametrize("command", ["ossicle data check examples/drums", "ossicle models show passt_base_s10"])
def test_the_output_that_is_shown_is_what_is_printed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    monkeypatch.chdir(ROOT)
    printed = CliRunner().invoke(app, shlex.split(command)[1:]).stdout.splitlines()
    for line in shown_output(command):
        beginning = line.removesuffix("...").rstrip()
        assert any(real.startswith(beginning) for real in printed), f"{command} does not print {line!r}"
