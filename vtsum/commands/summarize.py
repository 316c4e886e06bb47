"""`vtsum summarize`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vtsum.commands.app import app, number, printable, write
from vtsum.commands.live import check_options, run_live
from vtsum.commands.opening import check_opening, open_page
from vtsum.commands.options import Grouped, Run, with_options
from vtsum.shown import say
from vtsum.summary.options import FILES, RUN, SEEN, Options

if TYPE_CHECKING:
    from vtsum.summary.making import Summary


@app.command(cls=Grouped, short_help="Make a shorter video and a short text out of a video.")
@with_options(Options)
def summarize(
    video: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO",
            help="The video: a file of any usual container and any codec that FFmpeg reads, an http(s) or s3:// "
            "address, a pipe, or - (standard input).",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            rich_help_panel=FILES,
            metavar="DIR",
            help="Folder for the results; {stem}, {budget} and {date} stand for what they are. "
            "[default: <name>_summary in the current folder]",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--open", rich_help_panel=RUN, help="Open report.html in the browser at the end.")
    ] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            rich_help_panel=RUN,
            help="VIDEO has no end yet: a file that grows, a pipe, -, or an address (http, https, rtsp, udp, tcp). The "
            "summary is written anew as it goes on; one that was stopped goes on when it is started again.",
        ),
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            rich_help_panel=RUN,
            metavar="SECONDS",
            parser=number,
            help="With --live: from one summary to the next. [default: 60]",
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            rich_help_panel=RUN,
            metavar="SECONDS",
            parser=number,
            help="With --live: without anything new, after which a file or an address has ended. [default: 10]",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            rich_help_panel=SEEN,
            metavar="RULE",
            help="With --live: how frames are written to the model's memory bank, fifo, ema or merge. [default: not]",
        ),
    ] = None,
    *,
    context: typer.Context,
    run: Run,
    options: Any,
) -> None:
    """Summarise a video: summary.mp4, .vtt, .txt and .json, keyframes/, report.html and analysis.npz in one folder."""
    from vtsum.extras import require

    require("video", "summarize")
    check_options(context, live)
    if live:
        run_live(context, video, output, run, options, {"every": every, "patience": patience, "memory": memory})
        return
    if show:
        check_opening(options.get("formats"), "summarize", run.dry_run)
    from vtsum.summary.pipeline import summarize as work
    from vtsum.summary.progress import PHASES, STAGES

    with run.shown(STAGES, PHASES) as bars:
        summary = work(video, output, overwrite=run.overwrite, dry_run=run.dry_run, progress=bars, **options)
    tell_summary(summary, run, show=show)
    if not run.quiet and not run.as_json and not run.dry_run:
        from vtsum.catalogue import better

        if (advice := better(summary.data)) is not None:
            say(f"note: {advice}")


def tell_summary(summary: Summary, run: Run, *, show: bool) -> None:
    """What a run prints at its end: summary.json or, unless quiet, the closing words; and its warnings. It opens the
    page, if that is to be shown."""
    from vtsum.summary.text import clock_time

    if run.as_json:
        write(json.dumps(summary.data, ensure_ascii=True, allow_nan=False))
    for warning in summary.warnings:
        say(f"note: {warning}")
    page = summary.files.get("html")
    if show:
        open_page(page)
    if run.quiet or run.as_json:
        return

    data = summary.data
    chosen = [shot for shot in data["shots"] if shot["clip"] is not None]
    for shot in chosen if run.dry_run else ():
        clip = shot["clip"]
        assert clip is not None
        write(f"{clock_time(clip['start'])}-{clock_time(clip['end'])}  {shot['reason']}")
    write(
        f"{clock_time(summary.duration)} of {clock_time(data['source']['duration'])}, "
        f"{len(chosen)} of {len(data['shots'])} shots, in {data['timings']['total']:.1f} s"
        + (f"; nothing was written to {printable(summary.output)}" if run.dry_run else "")
    )
    for name, path in summary.files.items():
        if name == "analysis":
            write(f"{printable(path)} ({path.stat().st_size / 1e6:.1f} MB, for vtsum recut)")
        elif path != page:
            write(printable(path))
    if page is not None:
        write(f"Open {printable(page)} to look at it")
