"""`vtsum extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, number, printable, write
from vtsum.commands.options import Executor, GpusPerWorker, Limit
from vtsum.shown import counted, say
from vtsum.summary.values import seconds_or_all


@app.command(short_help="Encode the frames of videos, for training and evaluation.")
def extract(
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEOS...",
            help="Video files, folders, patterns ('talks/**/*.mp4'), @FILE with one of these a line (of a .parquet "
            "file its column path).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FEATS", help="Folder of the feature files.")],
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="embedded, blip, blip-large, clip, clip-large, timm:NAME, a folder, file, hub name or module:Class.",
        ),
    ] = "embedded",
    fps: Annotated[float, typer.Option(help="Frames a second.", parser=number, metavar="NUMBER")] = 1.0,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
    batch_size: Annotated[int, typer.Option(metavar="N", help="Frames encoded at once.")] = 32,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes at work, each with an encoder of its own.")] = 1,
    limit: Limit = "all",
    executor: Executor = "local",
    gpus_per_worker: GpusPerWorker = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False,
) -> None:
    """Write FEATS/VIDEO.npz, as VideoXum's layout wants it, for each video; those that are there are left alone.

    A video that cannot be read is told at the end, and the exit status is 2; the others are done."""
    from vtsum.extras import require

    require("video", "extract")
    from vtsum.batches.extract import extract as run

    with Bars({"videos": "Videos", "frames": "Frames"}, quiet=quiet) as bars:
        report = run(
            videos,
            output,
            encoder=encoder,
            fps=fps,
            device=device,
            batch_size=batch_size,
            workers=workers,
            limit=seconds_or_all(limit, "extract: --limit"),
            executor=executor,
            gpus_per_worker=gpus_per_worker,
            progress=bars,
        )
    for name, notes in report.notes.items():
        say(f"note: {name}: {'; '.join(notes)}")
    for why in report.failed.values():  # each names its file
        say(why)
    if not quiet:
        skipped = f", {len(report.skipped):,} there already" if report.skipped else ""
        failed = f", {len(report.failed):,} failed" if report.failed else ""
        write(
            f"{counted(len(report.done), 'video')} encoded{skipped}{failed}; "
            f"{counted(report.frames, 'frame')} of {counted(report.dim, 'number')}, in {printable(output)}"
        )
    if report.failed:
        raise typer.Exit(2)
