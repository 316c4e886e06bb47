"""`vtsum export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, listed, printable, write


@app.command(short_help="Write a summary for other programs: EDL, FCPXML, subtitles, chapters.")
def export(
    summary: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `vtsum summarize` wrote, or its summary.json.")
    ],
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            "-f",
            metavar="NAMES",
            help="edl, otio, fcpxml, csv, srt, vtt, chapters, ffmetadata or youtube; several by commas.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the files go. [default: FOLDER]")
    ] = None,
    clock: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Times of subtitles and chapters: summary (of summary.mp4) or source (the video).",
        ),
    ] = "summary",
    video: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The source video: cuts then name its place and its own timecode."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of the same names.")] = False,
) -> None:
    """Write a finished summary in the formats of other programs. The video is not watched again."""
    from vtsum.extras import require

    require("video", "export")
    from vtsum.summary.exports import export as run
    from vtsum.summary.schema import read

    path = summary / "summary.json" if summary.is_dir() else summary
    files = run(
        read(path),
        listed(formats) or [],
        output or path.parent,
        clock=clock,
        video=video,
        overwrite=overwrite,
        inputs=[path],
    )
    for file in files.values():
        write(printable(file))
