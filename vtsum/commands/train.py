"""`vtsum train` and `vtsum plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, printable, write


@app.command(
    short_help="Train the summarizer on a corpus in VideoXum's layout.",
    add_help_option=False,  # --help is one of the words passed on: the settings describe themselves
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def train(context: typer.Context) -> None:
    """Train the summarizer; every word is passed on to vtsum.training.train."""
    from vtsum.extras import require

    require("video", "train")  # of the extra "train", one process needs no DeepSpeed; the rest is asked for where used
    from vtsum.training.train import main

    raise typer.Exit(main(context.args))


@app.command(short_help="Draw the curves of training runs.")
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of training runs.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Picture: .png, .svg or .pdf. [default: RUN/curves.png]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older picture.")] = False,
) -> None:
    """Draw losses, learning rate, gradient norm and step time of one or more runs over each other."""
    from vtsum.files import check_inputs, check_new
    from vtsum.training.curves import plot as draw
    from vtsum.training.records import METRICS

    target = output or runs[0] / "curves.png"
    check_inputs("plot", target, [run / METRICS for run in runs])
    check_new("plot", target, overwrite)
    draw(runs, target)
    write(printable(target))
