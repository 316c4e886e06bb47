"""`vtsum recut`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vtsum.commands.app import app
from vtsum.commands.opening import check_opening
from vtsum.commands.options import Grouped, Run, with_options
from vtsum.commands.summarize import tell_summary
from vtsum.summary.options import FILES, RUN, Choice


@app.command(cls=Grouped, short_help="Make another summary of a video without watching it again.")
@with_options(Choice, defaults=False)
def recut(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `vtsum summarize` wrote, with analysis.npz in it.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            rich_help_panel=FILES,
            metavar="DIR",
            help="Folder for the results, as for summarize. [default: FOLDER_recut]",
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The video. [default: that of its name, in, beside or above FOLDER]"),
    ] = None,
    show: Annotated[
        bool, typer.Option("--open", rich_help_panel=RUN, help="Open report.html in the browser at the end.")
    ] = False,
    *,
    run: Run,
    options: Any,
) -> None:
    """Make another summary of a video that was summarised before, from what was found then: only cutting takes time."""
    from vtsum.extras import require

    require("video", "recut")
    if show:
        check_opening(options.get("formats"), "recut", run.dry_run)
    from vtsum.summary.progress import PHASES, STAGES
    from vtsum.summary.recut import recut as work

    with run.shown({name: STAGES[name] for name in ("shots", "text", "cut", "page")}, PHASES) as bars:
        summary = work(
            folder, output, video=video, overwrite=run.overwrite, dry_run=run.dry_run, progress=bars, **options
        )
    tell_summary(summary, run, show=show)
