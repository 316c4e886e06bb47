"""`vtsum benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtsum.bars import Bars
from vtsum.benchmarks.methods import ALWAYS, NETWORKS, ON_TEST, RIDGES
from vtsum.commands.app import app, listed, write
from vtsum.errors import VTSumError
from vtsum.shown import say

STAGES = {"rows": "Training and testing"}


@app.command(short_help="Compare models of saliency on TVSum, SumMe and the like by the field's protocols.")
def benchmark(
    name: Annotated[str, typer.Argument(metavar="tvsum|summe|mrhisum|s-videoxum", help="The data set.")],
    h5: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Features and annotations in the field's h5 layout, such as tvsum.h5; of "
            "the other two sets in theirs.",
        ),
    ],
    splits: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Folds, as .json or .yml. [default: five disjoint ones, drawn by a seed]"),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of the file's. [default: disjoint_folds, or the only ones]"),
    ] = None,
    split_seed: Annotated[int, typer.Option("--split_seed", min=0, help="Of the folds where no file has them.")] = 0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join((*RIDGES, *NETWORKS))}; or one of your own, module:Class (docs/plugins.md). With "
            f"{ON_TEST} after it, it is selected on the test videos, as much published code does: a leak, to be "
            "measured. Can be repeated. "
            f"{', '.join(ALWAYS)} are always there.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many, from 0: of weights, order and selection.")] = 5,
    records: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where rows are kept, as JSON lines. [default: benchmark_<name>.jsonl]"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the table, as .png or .svg.")] = None,
    device: Annotated[str, typer.Option(help="Of the built-in networks: cpu, cuda, cuda:1, or auto.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older plot; records are only added to.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")] = False,
) -> None:
    """Train and test each method on each fold with each seed; show tau, rho and F of all that the records hold.

    Rows that are in the records are not run again, so what was interrupted goes on where it stood, and further methods
    join the table. Differences to the ridge are paired by video.
    """
    from vtsum.extras import require

    require("eval", "benchmark")
    from vtsum.benchmarks.data import load_data
    from vtsum.benchmarks.figures import figures
    from vtsum.benchmarks.records import Head, Records
    from vtsum.benchmarks.run import entries_of, run
    from vtsum.benchmarks.table import table
    from vtsum.devices import device_of
    from vtsum.evaluation.videoxum_plot import check_plot
    from vtsum.files import check_apart, check_inputs, check_new

    kept = records or Path(f"benchmark_{name}.jsonl")
    if plot is not None:
        check_plot(plot)
        check_inputs("benchmark", plot, [h5, splits, kept])
        check_new("benchmark", plot, overwrite)
        check_apart("benchmark", records=kept, plot=plot)
    check_inputs("benchmark", kept, [h5, splits])
    if folds is not None and splits is None:
        raise VTSumError(f"benchmark: folds must come with --splits, whose they are, got {folds!r:.40} alone")
    data = load_data(name, h5, splits, folds, split_seed)
    place = device_of(device, "benchmark")
    entries = entries_of(listed(method) or [], data, place)
    head = Head.of(data)
    with Records(kept, head) as rows, Bars(STAGES, quiet=quiet) as progress:
        run(data, entries, seeds, rows, place, progress)
        found = figures(head, rows.rows)
    if plot is not None:
        from vtsum.benchmarks.plot import draw

        check_new("benchmark", plot, overwrite)  # somebody may have put it there meanwhile
        draw(head, found, plot)
    one_split = any(fold.validation for fold in data.folds)
    untested = len(data.videos) - len({key for fold in data.folds for key in fold.test})
    if untested and not one_split:
        say(f"note: {untested} of the h5 file's {len(data.videos)} videos are tested in no fold; are these its splits?")
    if data.without_features:
        say(f"note: no ridge: the h5 file has no features of {', '.join(data.without_features[:3])}")
    if not quiet:
        write(table(head, found))
