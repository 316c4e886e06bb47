"""`vtsum batch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, listed, number, printable, write
from vtsum.commands.summarize import seconds_or_all
from vtsum.shown import say


@app.command(short_help="Summarise many videos: files, folders, patterns, lists.")
def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS...",
            help="Video files, folders, patterns ('talks/**/*.mp4'), @FILE with one of these a line.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the summaries' folders.")],
    workers: Annotated[int, typer.Option(metavar="N", help="Processes at work, each with a model of its own.")] = 1,
    limit: Annotated[
        str, typer.Option(metavar="LENGTH", help="What one video may take: 10min, 90s, or all (the time it needs).")
    ] = "all",
    budget: Annotated[str, typer.Option(metavar="LENGTH", help="Of each summary: 15%, 30s, 2min, 1:30.")] = "15%",
    model: Annotated[str, typer.Option(metavar="NAME|PATH", help="As for summarize.")] = "embedded",
    fps: Annotated[
        float, typer.Option(help="Frames looked at per second of video.", parser=number, metavar="NUMBER")
    ] = 1.0,
    formats: Annotated[
        list[str] | None, typer.Option("--format", "-f", metavar="NAMES", help="As for summarize.")
    ] = None,
    clock: Annotated[str, typer.Option(metavar="NAME", help="As for summarize.")] = "summary",
    segmenter: Annotated[str, typer.Option(metavar="NAME", help="As for summarize.")] = "joint",
    refine: Annotated[str, typer.Option(metavar="NAME", help="As for summarize.")] = "dpp",
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Listen to what is said.")] = True,
    recogniser: Annotated[str, typer.Option(metavar="NAME", help="As for summarize.")] = "auto",
    speech_limit: Annotated[str, typer.Option(metavar="LENGTH", help="As for summarize.")] = "60min",
    captioner: Annotated[str, typer.Option(metavar="NAME|PATH", help="As for summarize.")] = "auto",
    ocr: Annotated[bool, typer.Option("--ocr/--no-ocr", help="Read what is written on the screen.")] = True,
    offline_default: Annotated[bool, typer.Option("--offline-default", help="As for summarize.")] = False,
    device: Annotated[str, typer.Option(metavar="NAME", help="As for summarize.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what became of each video on standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False,
) -> None:
    """Summarise many videos, each into DIR/<its name>. A run that was stopped goes on when it is started again.

    What failed is told at the end, and the exit status is 2; the others are done."""
    from vtsum.extras import require

    require("video", "batch")
    from vtsum.batches import batch as run
    from vtsum.summary.making import FORMATS, check_formats

    with Bars({"videos": "Videos"}, quiet=quiet) as bars:
        report = run(
            inputs,
            output,
            workers=workers,
            limit=seconds_or_all(limit, "batch: --limit"),
            progress=lambda done, total, running: bars("videos", done, total, ", ".join(running)),
            budget=budget,
            model=model,
            fps=fps,
            formats=check_formats(listed(formats) or FORMATS, "batch"),
            clock=clock,
            segmenter=segmenter,
            refine=refine,
            speech=recogniser if speech else None,
            speech_limit=seconds_or_all(speech_limit, "batch: --speech-limit"),
            captioner=captioner,
            ocr=ocr,
            offline_default=offline_default,
            device=device,
        )
    failed = report.of("failed")
    if as_json:
        keys = ("status", "reason", "seconds", "notes")
        rows = [
            {"source": str(r.source), "output": str(r.output), **{key: getattr(r, key) for key in keys}}
            for r in report.results
        ]
        write(json.dumps(rows))
    for result in failed:
        say(f"{printable(result.source)}: {result.reason}")
    if not quiet and not as_json:
        done, skipped = len(report.of("done")), len(report.of("skipped"))
        before = f", {skipped:,} were there already" if skipped else ""
        lost = f", {len(failed):,} failed" if failed else ""
        write(f"{done:,} videos summarised{before}{lost}, in {printable(output)}")
    if failed:
        raise typer.Exit(2)
