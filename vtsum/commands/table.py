"""`vtsum table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.commands.app import app, printable, write
from vtsum.errors import VTSumError
from vtsum.shown import reason


@app.command(short_help="Put evaluations of several models into one table.")
def table(
    files: Annotated[
        list[Path], typer.Argument(metavar="EVAL.json...", help="Files of vtsum evaluate; the first is compared with.")
    ],
    names: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Of the rows, for each file; files of one name are trainings of one model, in one row. "
            "[default: the checkpoints' names, those of train --seeds in one]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to a .md, .tex or .csv file. [default: Markdown, printed]"
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no_baselines", help="The rows for random and uniform.")
    ] = True,
    mix: Annotated[
        bool, typer.Option("--mix", help="Allow different splits, data or tokenizers in one table; never protocols.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the measures with their intervals, as .png or .svg.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace older files.")] = False,
) -> None:
    """One row a model, one column a measure, the protocol in the caption.

    The best value is bold; + and - mark what is better or worse than the first row beyond chance (paired bootstrap over
    videos, and over trainings where a row has several, 95%). A row of several trainings shows mean and standard
    deviation. A .csv has p-values, too: Wilcoxon's over videos, Welch's t test over trainings. Files of different
    splits, data or tokenizers are refused unless --mix is given, those of different protocols or revisions of one
    always.
    """
    from vtsum.extras import require

    require("video", "table")
    from vtsum.evaluation.videoxum_file import read_evaluation
    from vtsum.evaluation.videoxum_plot import check_plot, draw
    from vtsum.evaluation.videoxum_seeds import grouped
    from vtsum.evaluation.videoxum_table import FORMATS, results_table, row_names
    from vtsum.files import check_inputs, check_new, write_text

    form = "md" if output is None else output.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        raise VTSumError(f"table: output must end in .md, .tex or .csv, got {output}")
    if plot is not None:
        check_plot(plot)
    for path in filter(None, (output, plot)):
        check_inputs("table", path, files)
        check_new("table", path, overwrite)
    evaluations = [read_evaluation(path) for path in files]
    rows = [name.strip() for name in names.split(",")] if names else row_names(evaluations, files)
    text = results_table(evaluations, rows, form=form, baselines=baselines, mix=mix)
    for path in filter(None, (output, plot)):
        check_new("table", path, overwrite)  # somebody may have put it there meanwhile
    if plot is not None:
        draw(*grouped(evaluations, rows), plot)
    if output is None:
        write(text.rstrip("\n"))
    else:
        try:
            write_text(output, text)
        except OSError as error:
            raise VTSumError(f"table: output {printable(output)} must be writable: {reason(error)}") from None
        write(printable(output))
