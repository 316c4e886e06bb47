"""A picture of a benchmark: a panel a measure, a point a method, with the standard error over videos."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from vtsum.benchmarks.figures import MEASURES, Figures
from vtsum.benchmarks.methods import REFERENCE
from vtsum.benchmarks.records import Head
from vtsum.benchmarks.table import TITLES, caption
from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_plot import NAME, label
from vtsum.figures import load_matplotlib
from vtsum.files import written
from vtsum.shown import reason


def draw(head: Head, rows: Sequence[Figures], path: Path) -> None:
    """Methods from the worst, at the bottom, to the best by rho; a dashed line marks the ridge.

    Raises:
        VTSumError: no matplotlib, or a place that cannot be written to.
    """
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(rows, key=lambda row: (0.0 if math.isnan(row.mean.rho) else row.mean.rho, row.mean.f))
    figure = Figure(figsize=(13, 1.8 + 0.32 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for panel, measure in zip(panels, MEASURES, strict=True):
        times = 100 if measure == "f" else 1
        panel.set_title(TITLES[measure])
        for i, row in enumerate(rows):
            value = times * row.mean.mean(measure)
            if math.isfinite(value):
                panel.errorbar(value, i, xerr=times * row.mean.standard_error(measure), fmt="o", capsize=4, color="C0")
                if row.method == REFERENCE:
                    panel.axvline(value, linestyle="--", color="grey", linewidth=1)
        panel.set_yticks(range(len(rows)), [label(row.method, NAME) for row in rows])
        panel.grid(axis="x", alpha=0.3)
    said = f"Mean and standard error over videos. {caption(head, label(head.folds_name, NAME)).partition(' Epochs')[0]}"
    figure.suptitle("\n".join(textwrap.wrap(said, 160)), fontsize=8)
    kind = path.suffix[1:].lower()
    try:
        with written(path) as part:
            metadata = {"Creator": None, "Date": None} if kind == "svg" else None
            figure.savefig(part, format=kind, dpi=150, metadata=metadata)
    except OSError as error:
        raise VTSumError(f"plot: {path} must be writable: {reason(error)}") from None
