"""`vtsum recut`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, listed
from vtsum.commands.opening import check_opening
from vtsum.commands.summarize import tell_summary


@app.command(short_help="Make another summary of a video without watching it again.")
def recut(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `vtsum summarize` wrote, with analysis.npz in it.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the results. [default: FOLDER_recut]"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Of the summary: 15%, 30s, 2min, 1:30. [default: as before]")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="TIMES", help="Stretches that the summary shows whole: 0:10-0:20; several by commas."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="TIMES", help="Stretches of which it shows nothing.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The video. [default: that of its name, in, beside or above FOLDER]"),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", metavar="NAMES", help="As for summarize. [default: as before]"),
    ] = None,
    clock: Annotated[
        str | None, typer.Option(metavar="NAME", help="Times of exports: summary or source. [default: as before]")
    ] = None,
    segmenter: Annotated[
        str | None, typer.Option(metavar="NAME", help="What finds the events. [default: as before]")
    ] = None,
    refine: Annotated[
        str | None, typer.Option(metavar="NAME", help="What chooses among the shots. [default: as before]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older summary in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of summary.json on standard output.")] = (
        False
    ),
    show: Annotated[bool, typer.Option("--open", help="Open report.html in the browser at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False,
) -> None:
    """Make another summary of a video that was summarised before, from what was found then: only cutting takes time."""
    from vtsum.extras import require

    require("video", "recut")
    from vtsum.summary.planning import Refine
    from vtsum.summary.progress import PHASES, STAGES
    from vtsum.summary.recut import recut as run

    chosen = listed(formats)
    if show and chosen is not None:
        check_opening(chosen, "recut")
    with Bars({name: STAGES[name] for name in ("shots", "text", "cut", "page")}, quiet=quiet, phases=PHASES) as bars:
        summary = run(
            folder,
            output,
            budget=budget,
            keep=keep,
            drop=drop,
            video=video,
            formats=chosen,
            clock=clock,
            segmenter=segmenter,
            refine=cast(Refine | None, refine),
            overwrite=overwrite,
            progress=bars,
        )
    tell_summary(summary, as_json=as_json, quiet=quiet, show=show)
