"""A picture of evaluations: every measure with its interval, the baselines beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from vtsum.errors import VTSumError
from vtsum.evaluation.videoxum_scores import MEASURES, SHOWN_TIMES, TITLES
from vtsum.evaluation.videoxum_table import caption
from vtsum.figures import load_matplotlib, save
from vtsum.files import written
from vtsum.shown import one_line, reason

NAME, CAPTION = 40, 230  # characters that are drawn: as many as there is room for


def check_plot(path: Path) -> None:
    """Raise VTSumError where `draw` could not make this file; before hours of work rather than after."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise VTSumError(f"plot: file must end in .png or .svg, got {path}")
    if util.find_spec("matplotlib") is None:
        raise VTSumError("plot: matplotlib must be installed: pip install vtsum[train]")


def draw(evaluations: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    """Write `picture` of evaluations to a file.

    Raises:
        VTSumError: another ending than .png or .svg, no matplotlib, or a place that cannot be written to.
    """
    check_plot(path)
    drawn = picture(evaluations, names, path.suffix[1:].lower())
    try:
        with written(path) as part:
            part.write_bytes(drawn)
    except OSError as error:
        raise VTSumError(f"plot: {path} must be writable: {reason(error)}") from None


def is_drawn(evaluations: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> bool:
    """Whether a file is what `draw` would make of it."""
    return path.is_file() and path.read_bytes() == picture(evaluations, names, path.suffix[1:].lower())


def picture(evaluations: Sequence[Mapping[str, Any]], names: Sequence[str], form: str) -> bytes:
    """One panel a measure, one point an evaluation with its 95% interval, dashed lines for the baselines: a PNG or SVG
    file, the same each time."""
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4)
    for panel, measure in zip(panels.flat, MEASURES, strict=True):
        panel.set_title(TITLES[measure], fontsize=11)
        times = SHOWN_TIMES[measure]
        shown = False
        for i, evaluation in enumerate(evaluations):
            cell = evaluation["measures"][measure]
            if cell["value"] is None:
                continue
            value, low, high = (times * cell[part] for part in ("value", "low", "high"))
            panel.errorbar(
                [i],
                [value],
                [[max(0.0, value - low)], [max(0.0, high - value)]],
                fmt="o",
                capsize=5,
                color=f"C{i % 10}",
            )
            shown = True
        for kind, style in (("random", ":"), ("uniform", "--")):
            cell = evaluations[0]["baselines"][kind][measure]
            if cell["value"] is not None:
                panel.axhline(times * cell["value"], linestyle=style, color="grey", label=kind)
        if not shown:
            panel.text(0.5, 0.5, "not computed", ha="center", va="center", transform=panel.transAxes, color="grey")
        panel.set_xticks(
            range(len(names)), [label(name, NAME) for name in names], rotation=15 if len(names) > 1 else 0, fontsize=9
        )
        low, high = panel.get_ylim()
        short = (0.02 if times == 1 else 1.0) - (high - low)  # differences below that are no finding
        if short > 0:
            panel.set_ylim(low - short / 2, high + short / 2)
        panel.set_xlim(-0.6, len(names) - 0.4)
    panels.flat[0].legend(fontsize=8)
    figure.suptitle(label(caption(evaluations), CAPTION), fontsize=8)
    file = io.BytesIO()
    save(figure, file, format=form, dpi=150, metadata={"Creator": None, "Date": None} if form == "svg" else None)
    return file.getvalue()


def label(text: str, most: int) -> str:
    """Text that matplotlib takes for no formula, and of which no more is drawn than anybody reads."""
    line = one_line(text)
    return (line if len(line) <= most else f"{line[: most - 1]}\u2026").replace("$", r"\$")
