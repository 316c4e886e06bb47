"""`vtsum summarize --live`: what it takes of the command's options, and what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import typer

from vtsum.commands.app import printable, write
from vtsum.commands.options import Run
from vtsum.errors import VTSumError
from vtsum.shown import say

_OWN = ("every", "patience", "memory")
_TAKEN = ("budget", "model", "fps", "segmenter", "device")
_RUN = {"overwrite", "as_json", "config", "progress", "log", "quiet", "video", "output", "live", *_OWN, *_TAKEN}


def check_options(context: typer.Context, live: bool) -> None:
    """Refuse what a stream has no use for, and what only a stream has.

    Raises:
        VTSumError: naming the option.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name == "DEFAULT":
            continue
        if live and name not in _RUN:
            raise VTSumError(f"summarize: {parameter.opts[0]} must be left out with --live, which has no use for it")
        if not live and name in _OWN:
            raise VTSumError(f"summarize: {parameter.opts[0]} must be given with --live alone")


def run_live(
    context: typer.Context, source: str, output: str | None, run: Run, given: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    """Summarise a stream until it ends, or somebody stops it.

    Args:
        given: the options that are shared with whole videos. own: those of a stream, None where they are not given.
    """
    from vtsum.summary.live import stream
    from vtsum.summary.text import clock_time

    if output is None:
        raise VTSumError("summarize: --output must be given with --live: it is written to as long as the stream lasts")
    options = {name: value for name, value in own.items() if value is not None}
    for name in _TAKEN:
        source_of = context.get_parameter_source(name)
        if name in given and source_of is not None and source_of.name != "DEFAULT":
            options[name] = float(given[name]) if name == "fps" else given[name]
    last = None
    with closing(stream(source, output=output, overwrite=run.overwrite, **options)) as summaries:
        for last in summaries:
            data = last.data
            if not (run.quiet or run.as_json):
                write(
                    f"{clock_time(data['duration'])} seen: {data['summary_duration']:.1f} s in "
                    f"{len(data['moments'])} moments" + ("" if last.final else ", so far")
                )
    assert last is not None
    for warning in last.data["warnings"]:
        say(f"note: {warning}")
    if run.as_json:
        write(json.dumps(last.data, ensure_ascii=True, allow_nan=False))
    elif not run.quiet:
        write(printable(f"{output}/{last.data['file'] or 'summary.json'}"))
