"""`vtsum batch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vtsum.commands.app import app, printable, write
from vtsum.commands.options import Executor, GpusPerWorker, Grouped, Limit, Run, with_options
from vtsum.shown import counted, say, without_secrets
from vtsum.summary.options import FILES, Options


@app.command(cls=Grouped, short_help="Summarise many videos: files, folders, patterns, lists.")
@with_options(Options, batch=True)
def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS...",
            help="Video files, http(s) and s3:// addresses, folders ('talks', s3://talks/2026/), patterns "
            "('talks/**/*.mp4'), @FILE (one of these a line; of a .parquet file its column path).",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            rich_help_panel=FILES,
            metavar="DIR",
            help="Folder of the summaries' folders; 'DIR/{stem}_{budget}' names these, {date} stands for today.",
        ),
    ],
    workers: Annotated[int, typer.Option(metavar="N", help="Processes at work, each with a model of its own.")] = 1,
    limit: Limit = "all",
    executor: Executor = "local",
    gpus_per_worker: GpusPerWorker = 0.0,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .parquet file for what became of each video.", rich_help_panel=FILES),
    ] = None,
    *,
    run: Run,
    options: Any,
) -> None:
    """Summarise many videos, each into DIR/<its name>. A run that was stopped goes on when it is started again.

    What failed is told at the end, and the exit status is 2; the others are done."""
    from vtsum.extras import require

    require("video", "batch")
    from vtsum.batches import batch as work
    from vtsum.summary.values import seconds_or_all

    with run.shown({"videos": "Videos"}) as bars:
        report = work(
            inputs,
            output,
            workers=workers,
            limit=seconds_or_all(limit, "batch: --limit"),
            executor=executor,
            gpus_per_worker=gpus_per_worker,
            table=table,
            progress=lambda done, total, running: bars("videos", done, total, ", ".join(running)),
            overwrite=run.overwrite,
            dry_run=run.dry_run,
            **options,
        )
    failed = report.of("failed")
    if run.as_json:
        keys = ("status", "reason", "seconds", "notes")
        rows = [
            {"source": str(r.source), "output": str(r.output), **{key: getattr(r, key) for key in keys}}
            for r in report.results
        ]
        write(json.dumps(rows))
    for result in report.results:
        if result.notes:
            say(f"note: {without_secrets(printable(result.source))}: {'; '.join(result.notes)}")
    for result in failed:
        say(f"{without_secrets(printable(result.source))}: {result.reason}")
    if not run.quiet and not run.as_json:
        for result in report.of("planned"):
            write(f"{without_secrets(printable(result.source))}: to {printable(result.output)}")
        done, skipped = len(report.of("planned" if run.dry_run else "done")), len(report.of("skipped"))
        before = f", {skipped:,} there already" if skipped else ""
        lost = f", {len(failed):,} failed" if failed else ""
        verb = "to be summarised" if run.dry_run else "summarised"
        write(f"{counted(done, 'video')} {verb}{before}{lost}, in {printable(Path(output))}")
    if failed:
        raise typer.Exit(2)
