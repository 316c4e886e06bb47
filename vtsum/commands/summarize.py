"""`vtsum summarize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, listed, number, printable, write
from vtsum.commands.opening import check_opening, open_page
from vtsum.shown import say

if TYPE_CHECKING:
    from vtsum.summary.making import Summary


def seconds_or_all(text: str, what: str) -> float | None:
    """Seconds of a time like 10min; None for "all"; `what` begins the message where it is neither."""
    from vtsum.enhance.summary_refinement import parse_budget
    from vtsum.errors import VTSumError

    if text.strip().lower() == "all":
        return None
    try:
        length = parse_budget(text)
    except VTSumError:
        length = None
    if length is None or length.kind != "seconds":
        raise VTSumError(f"{what} must be a time (10min, 90s, 1:30) or all, got {text!r}")
    return length.value


@app.command(short_help="Make a shorter video and a short text out of a video.")
def summarize(
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="The video file: any usual container, any codec that FFmpeg reads.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the results. [default: <name>_summary in the current folder]",
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="LENGTH", help="Of the summary: 15%, 30s, 2min, 1:30, or 12frames (sampled frames, see --fps)."
        ),
    ] = "15%",
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="TIMES", help="Stretches that the summary shows whole: 0:10-0:20; several by commas."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="TIMES", help="Stretches of which it shows nothing.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="The model: embedded (shipped with vtsum), another's name, a folder, or module:Class.",
        ),
    ] = "embedded",
    fps: Annotated[
        float, typer.Option(help="Frames looked at per second of video.", parser=number, metavar="NUMBER")
    ] = 1.0,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="NAMES",
            help="mp4, txt, json, keyframes, html, analysis (for recut) [default: these]; edl, otio, fcpxml, csv, srt, "
            "vtt, chapters, ffmetadata, youtube; several by commas.",
        ),
    ] = None,
    clock: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Times of subtitles and chapters in these: summary (of summary.mp4) or source (the video).",
        ),
    ] = "summary",
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="Frames that the encoder sees: coverage, uniform or all.")
    ] = "coverage",
    segmenter: Annotated[
        str,
        typer.Option(metavar="NAME", help="What finds the events: joint, kts, learned, cuts, uniform or module:Class."),
    ] = "joint",
    refine: Annotated[
        str, typer.Option(metavar="NAME", help="What chooses among the shots: dpp, knapsack or none.")
    ] = "dpp",
    speech: Annotated[bool, typer.Option("--speech/--no-speech", help="Listen to what is said.")] = True,
    recogniser: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who listens: auto (the best Whisper at hand), carried (tiny.en), whisper:NAME_OR_FOLDER, "
            "faster-whisper:NAME_OR_FOLDER "
            "or module:Class.",
        ),
    ] = "auto",
    transcript: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A transcript of yours, taken instead of listening: subtitles or plain text."
        ),
    ] = None,
    denoiser: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="What cleans the words heard: embedded, none, or a BART checkpoint's name or folder.",
        ),
    ] = "embedded",
    speech_limit: Annotated[
        str,
        typer.Option(
            metavar="LENGTH", help="How much voice is listened to, spread over the video: 60min, 90s, or all."
        ),
    ] = "60min",
    captioner: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="Who describes the pictures: auto (the model if it can, else the best in the hub's cache), blip, an "
            "image-text-to-text checkpoint's name or folder, module:Class, none, or embedded (for research).",
        ),
    ] = "auto",
    writer: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help="Who writes the text: none (extraction), an instruct checkpoint's name or folder, or module:Class.",
        ),
    ] = "none",
    ocr: Annotated[bool, typer.Option("--ocr/--no-ocr", help="Read what is written on the screen.")] = True,
    offline_default: Annotated[
        bool,
        typer.Option("--offline-default", help="Take nothing from caches: the same summary on every machine."),
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where models compute: cpu, cuda, cuda:1, or auto (a GPU, if usable).")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older summary in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of summary.json on standard output.")] = (
        False
    ),
    show: Annotated[bool, typer.Option("--open", help="Open report.html in the browser at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no closing words.")] = False,
) -> None:
    """Summarise a video: summary.mp4, .vtt, .txt and .json, keyframes/, report.html and analysis.npz in one folder."""
    from vtsum.extras import require

    require("video", "summarize")
    from vtsum.summary.pipeline import FORMATS
    from vtsum.summary.pipeline import summarize as run
    from vtsum.summary.planning import Refine
    from vtsum.summary.progress import PHASES, STAGES
    from vtsum.summary.watching import Sampler

    chosen = listed(formats) or FORMATS
    if show:
        check_opening(chosen, "summarize")
    with Bars(STAGES, quiet=quiet, phases=PHASES) as bars:
        summary = run(
            video,
            output,
            budget=budget,
            keep=keep or (),
            drop=drop or (),
            model=model,
            fps=fps,
            formats=chosen,
            clock=clock,
            overwrite=overwrite,
            sampler=cast(Sampler, sampler),
            segmenter=segmenter,
            refine=cast(Refine, refine),
            speech=recogniser if speech else None,
            transcript=transcript,
            denoiser=None if denoiser == "none" else denoiser,
            speech_limit=seconds_or_all(speech_limit, "summarize: --speech-limit"),
            captioner=captioner,
            writer=None if writer == "none" else writer,
            ocr=ocr,
            offline_default=offline_default,
            device=device,
            progress=bars,
        )
    tell_summary(summary, as_json=as_json, quiet=quiet, show=show)
    if not quiet and not as_json:
        from vtsum.catalogue import better

        if (advice := better(summary.data)) is not None:
            say(f"note: {advice}")


def tell_summary(summary: Summary, *, as_json: bool, quiet: bool, show: bool) -> None:
    """What a run prints at its end: summary.json or, unless quiet, the closing words; and its warnings. It opens the
    page, if that is to be shown."""
    from vtsum.summary.text import clock_time

    if as_json:
        write(json.dumps(summary.data, ensure_ascii=True, allow_nan=False))
    for warning in summary.warnings:
        say(f"note: {warning}")
    page = summary.files.get("html")
    if show:
        open_page(page)
    if quiet or as_json:
        return

    data = summary.data
    chosen = sum(shot["chosen"] for shot in data["shots"])
    write(
        f"{clock_time(summary.duration)} of {clock_time(data['source']['duration'])}, "
        f"{chosen} of {len(data['shots'])} shots, in {data['timings']['total']:.1f} s"
    )
    for path in summary.files.values():
        if path != page:
            write(printable(path))
    if page is not None:
        write(f"Open {printable(page)} to look at it")
