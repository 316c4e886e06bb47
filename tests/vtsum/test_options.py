"""The options of a summary: one declaration for three functions and three commands."""

from __future__ import annotations

import inspect

import pytest
from typer.main import get_command

import vtsum
from vtsum.commands import app
from vtsum.enhance.event_segmentation import METHOD
from vtsum.errors import VTSumError
from vtsum.summary import listening, schema
from vtsum.summary.declaring import declared, taken
from vtsum.summary.options import Choice, Options
from vtsum.summary.watching import FPS, SAMPLERS

OPTIONS = declared(Options)


def _flags(command: str) -> set[str]:
    return {word for parameter in get_command(app).commands[command].params for word in parameter.opts}


def test_functions_and_commands_have_the_same_options():
    """And summary.json says of each what it was."""
    for function, kind in ((vtsum.summarize, Options), (vtsum.recut, Choice), (vtsum.batch, Options)):
        assert inspect.signature(function).parameters.keys() >= declared(kind).keys()
    words = {
        name: option.names[0] if option.names else f"--{name.replace('_', '-')}" for name, option in OPTIONS.items()
    }
    assert _flags("summarize") >= set(words.values())
    assert _flags("recut") >= {words[name] for name in declared(Choice)}
    assert _flags("batch") >= {words[name] for name, option in OPTIONS.items() if not option.alone}
    assert schema.Settings.__annotations__.keys() == {*OPTIONS, "budget_seconds"}


def test_defaults_are_those_of_the_parts():
    asked = taken(Options, {}, "summarize")
    assert asked["segmenter"] == METHOD
    assert (asked["speech"], asked["denoiser"], asked["speech_limit"]) == (
        listening.RECOGNISER,
        listening.DENOISER,
        listening.LIMIT,
    )
    for name, low, high in (("fps", *FPS),):
        assert [OPTIONS[name].take(value, name) for value in (low, high)] == [low, high]
    assert [OPTIONS["sampler"].take(name, "sampler") for name in SAMPLERS] == list(SAMPLERS)
    assert taken(Options, asked, "summarize") == asked  # what was taken is taken again


def test_what_no_option_is_called(tmp_path):
    with pytest.raises(TypeError, match=r"summarize\(\) got an unexpected keyword argument 'buget'; it takes budget, "):
        vtsum.summarize("a.mp4", tmp_path / "o", buget="3s")
    with pytest.raises(TypeError, match=r"recut\(\) got an unexpected keyword argument 'fps'"):
        vtsum.recut("a", tmp_path / "o", fps=1.0)
    with pytest.raises(VTSumError, match="batch: transcript must be left out, it is of one video"):
        vtsum.batch(["a.mp4"], tmp_path / "o", transcript="a.srt")


def test_help_is_grouped_by_purpose(capsys):
    from vtsum import cli

    assert cli.main(["recut", "--help"]) == 0
    shown = capsys.readouterr().out
    heads = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Arguments:", "What is shown:", "What is written:", "The files:", "The run:", "Options:"]
    assert shown.index("What is shown:") < shown.index("--budget") < shown.index("The files:") < shown.index("--clock")
