"""`vtsum score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.commands.app import app, printable, write
from vtsum.commands.evaluate import STAGES
from vtsum.extras import require


@app.command(short_help="Put another program's predictions through the same measures.")
def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS.json", help='{"VIDEO_ID": {"saliency": [a number a frame], "text": "..."}, ...}'
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data in VideoXum's layout (anno/; feat/ for CLIP).")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    protocol: Annotated[str, typer.Option(help="As of vtsum evaluate.")] = "videoxum-strict",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="For the figures. [default: evaluation_NAME_SPLIT_PROTOCOL.json]"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What made the predictions. [default: the file's name]")] = None,
    clip: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Text encoder of VT-CLIPScore. [default: DIR/clip]")
    ] = None,
    caption_tokenizer: Annotated[
        str,
        typer.Option(
            "--caption_tokenizer", help="ptb (needs a Java runtime); plain: figures not comparable with published ones."
        ),
    ] = "ptb",
    seed: Annotated[int, typer.Option(help="Of the intervals' resamples and the random baseline.")] = 0,
    resamples: Annotated[int, typer.Option(help="Of the videos, for the intervals.")] = 1000,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="module:Class", help="A measure of your own beside the eight; can be repeated."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")] = False,
) -> None:
    """Measure scores of frames and texts that any program made by F1, Kendall's tau, Spearman's rho, BLEU@4, METEOR,
    ROUGE-L, CIDEr and VT-CLIPScore, as vtsum evaluate measures a model; vtsum table takes both.
    """
    require("video", "score")
    from vtsum.evaluation.videoxum_score import score as run
    from vtsum.evaluation.videoxum_settings import EvaluationSettings
    from vtsum.evaluation.videoxum_table import describe

    settings = EvaluationSettings(
        checkpoint=str(predictions),
        data=str(data),
        split=split,
        protocol=protocol,
        clip=str(clip) if clip else None,
        caption_tokenizer=caption_tokenizer,
        seed=seed,
        resamples=resamples,
        metrics=tuple(metric or ()),
    )
    name = name or predictions.stem
    path = output or Path(f"evaluation_{name}_{split}_{protocol}.json")
    with Bars(STAGES, quiet=quiet) as progress:
        content = run(settings, path, name=name, overwrite=overwrite, progress=progress)
    if not quiet:
        write(describe(content))
        write(printable(path))
