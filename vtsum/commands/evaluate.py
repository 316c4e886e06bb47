"""`vtsum evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, printable, write
from vtsum.errors import VTSumError
from vtsum.processes import Place
from vtsum.shown import say

STAGES = {"videos": "Summarising the videos", "texts": "Measuring the texts"}


@app.command(short_help="Measure a model on VideoXum's layout by all eight measures.")
def evaluate(
    checkpoint: Annotated[
        Path, typer.Option(metavar="PATH", help="A model folder, a training run's folder, or an original .pth.")
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data in VideoXum's layout (anno/, feat/).")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    protocol: Annotated[
        str,
        typer.Option(
            help="videoxum-strict; videoxum-released: what the published code computes, quirks included; "
            "videoxum-top15: the same with the rule for F1 that was meant."
        ),
    ] = "videoxum-strict",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where the figures go, as JSON. [default: evaluation_<checkpoint>_<split>_<protocol>.json]",
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="module:Class", help="The model's class, where it is one of your own.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="VOCAB", help="Of a .pth: vocab.txt, a folder or a hub name.")
    ] = None,
    kernel_size: Annotated[
        str, typer.Option("--kernel_size", help="Of a .pth: the local attention's window, or none for the TT model.")
    ] = "auto",
    clip: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Text encoder of VT-CLIPScore: a CLIP folder or vt_clip.pth. [default: DIR/clip]"
        ),
    ] = None,
    clip_tokenizer: Annotated[
        Path | None,
        typer.Option("--clip_tokenizer", metavar="DIR", help="CLIP's tokenizer, where it does not lie beside --clip."),
    ] = None,
    caption_tokenizer: Annotated[
        str,
        typer.Option(
            "--caption_tokenizer", help="ptb (needs a Java runtime); plain: figures not comparable with published ones."
        ),
    ] = "ptb",
    num_beams: Annotated[int, typer.Option("--num_beams", help="Of the beam search.")] = 3,
    max_length: Annotated[
        int | None,
        typer.Option("--max_length", help="Of a text, in tokens. [default: as the model was trained; a .pth: 128]"),
    ] = None,
    min_length: Annotated[int, typer.Option("--min_length", help="Of a text, in tokens.")] = 10,
    repetition_penalty: Annotated[float, typer.Option("--repetition_penalty", help="1 is none.")] = 1.0,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Videos at a time.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the intervals' resamples and the random baseline.")] = 0,
    resamples: Annotated[int, typer.Option(help="Of the videos, for the intervals.")] = 1000,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="module:Class", help="A measure of your own beside the eight; can be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take the first so many (the shortest) videos alone.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace older files, and begin anew.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the measures with their intervals, as .png or .svg.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")] = False,
) -> None:
    """Measure a model by F1, Kendall's tau, Spearman's rho, BLEU@4, METEOR, ROUGE-L, CIDEr and VT-CLIPScore.

    Values come with 95% intervals (bootstrap over videos) and beside a random and a uniform baseline. torchrun
    --nproc_per_node N -m vtsum evaluate ... shares the videos out; the figures are the same. An evaluation that was
    interrupted resumes when it is started again.
    """
    from vtsum.extras import require

    require("video", "evaluate")
    from importlib import util

    if util.find_spec("scipy") is None:
        raise VTSumError("evaluate: scipy must be installed: pip install vtsum[eval]")
    from vtsum.evaluation.videoxum_file import part_files
    from vtsum.evaluation.videoxum_plot import check_plot, draw, is_drawn
    from vtsum.evaluation.videoxum_run import checkpoint_name
    from vtsum.evaluation.videoxum_run import evaluate as run
    from vtsum.evaluation.videoxum_settings import EvaluationSettings
    from vtsum.evaluation.videoxum_table import describe
    from vtsum.files import check_apart, check_inputs, check_new

    settings = EvaluationSettings(
        checkpoint=str(checkpoint),
        data=str(data),
        split=split,
        protocol=protocol,
        architecture=architecture,
        tokenizer=tokenizer,
        kernel_size=_kernel_size(kernel_size),
        clip=str(clip) if clip else None,
        clip_tokenizer=str(clip_tokenizer) if clip_tokenizer else None,
        caption_tokenizer=caption_tokenizer,
        num_beams=num_beams,
        max_length=max_length,
        min_length=min_length,
        repetition_penalty=repetition_penalty,
        batch_size=batch_size,
        limit=limit,
        seed=seed,
        resamples=resamples,
        metrics=tuple(metric or ()),
    )
    name = checkpoint_name(checkpoint)
    path = output or Path(f"evaluation_{name}_{split}_{protocol}.json")
    unfinished = bool(part_files(path))  # of a process that was killed: it may have come as far as the picture
    if plot is not None:
        check_plot(plot)
        check_inputs("evaluate", plot, settings.inputs)
        check_new("evaluate", plot, overwrite or unfinished)
        check_apart("evaluate", output=path, plot=plot)

    def finish(content: dict[str, Any]) -> None:
        if plot is not None and not (unfinished and is_drawn([content], [name], plot)):
            check_new("evaluate", plot, overwrite)  # somebody may have put it there meanwhile
            draw([content], [name], plot)

    with Bars(STAGES, quiet=quiet or not Place.here().first) as progress:
        content = run(settings, path, device=device, overwrite=overwrite, progress=progress, finish=finish)
    if content is None:
        return
    for note in content["notes"]:
        say(f"note: {note}")
    if not quiet:
        write(describe(content))
        write(printable(path))


def _kernel_size(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return None if text == "none" else text
    try:
        return int(text)
    except ValueError:
        raise VTSumError(f"evaluate: kernel_size must be an odd number, none or auto, got {text!r}") from None
