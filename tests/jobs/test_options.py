"""One table of options: what it refuses, in the words of Python and in those of a command line."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import typer

from ossicle.cli import app
from ossicle.inference import OUTPUT_FORMATS
from ossicle.jobs.options import EMBED, PREDICT, RUNTIME, EmbedOptions, PredictOptions, WrongUsage, table
from ossicle.runtime.__main__ import parser

LIVE = [Path("-")]


@pytest.mark.parametrize(
    ("given", "inputs", "python", "flags"),
    [
        ({"resume": True}, ["a.wav"], "resume needs output.", "--resume needs -o."),
        ({"min_duration": 0.5}, ["a.wav"], "min_duration needs events.", "--min-duration needs --events."),
        ({"top_k": 0}, ["a.wav"], "top_k is 1 or more, not 0.", "--top-k is 1 or more, not 0."),
        ({"top_k": 1.5}, ["a.wav"], "top_k is ", "--top-k is "),
        ({"min_score": float("nan")}, ["a.wav"], "min_score is 0 to 1, not nan.", "--min-score is 0 to 1, not nan."),
        ({"latency": 0.0}, LIVE, "latency is more than 0 and at most 10, not 0.", "--latency is more than 0 and"),
        ({"formats": "elan"}, ["a.wav"], "formats: output format 'elan' is not available", "--format: output"),
        ({"rate": 8000}, LIVE, "rate needs pcm.", "--rate needs --pcm."),
        ({"pcm": "s16le", "rate": 8000}, ["a.wav"], "pcm needs - for standard input.", "--pcm needs - for"),
        ({"mic_device": "2"}, ["a.wav"], "mic_device needs mic.", "--mic-device needs --mic."),
    ],
)
def test_a_refusal_names_options_as_whoever_gave_them(
    given: dict[str, Any], inputs: list[Any], python: str, flags: str
) -> None:
    with pytest.raises(WrongUsage) as refused:
        PredictOptions(**given).check([Path(one) for one in inputs])
    assert str(refused.value).startswith(python) and refused.value.in_flags().startswith(flags)


def test_a_value_of_another_type_is_refused_by_name() -> None:
    for given in ({"workers": "2"}, {"workers": 1.5}, {"top_k": True}, {"overlap": "median"}):
        rows = {row.name: row for row in table(PredictOptions)}
        ((name, value),) = given.items()
        with pytest.raises(WrongUsage, match=f"^{name} is "):
            rows[name].check(value)


def test_every_row_is_a_parameter_of_its_commands_with_its_help_and_default() -> None:
    group: Any = typer.main.get_command(app)
    for command, holders in ((PREDICT, (PredictOptions,)), (EMBED, (EmbedOptions, PredictOptions))):
        parameters = {one.name: one for one in group.commands[command.removeprefix("ossicle ")].params}
        for row in table(*holders, command=command):
            parameter = parameters[row.name]
            assert tuple(parameter.opts) == row.flags and parameter.help == row.text
    actions: dict[str, argparse.Action] = {action.dest: action for action in parser()._actions}
    for row in table(PredictOptions, command=RUNTIME):
        action = actions[row.name]
        assert tuple(action.option_strings) == row.flags and str(action.help).startswith(row.text[:-1])
        assert action.default == row.default


def test_what_an_option_needs_is_an_option_or_live_audio() -> None:
    names = {row.name for row in table(PredictOptions)} | {"live", "stdin"}
    assert {row.needs for row in table(PredictOptions)} - {None} <= names


def test_help_names_every_output_format() -> None:
    (row,) = (row for row in table(PredictOptions) if row.name == "formats")
    assert row.metavar == ",".join(OUTPUT_FORMATS)
