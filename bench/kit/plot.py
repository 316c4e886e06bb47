"""Pictures by matplotlib: lines on logarithmic axes as SVG, and a way to save the pages' PNGs whole or not at all."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Style(NamedTuple):
    label: str
    color: str
    width: float = 1.6
    line: Any = "-"
    """As matplotlib names it, or (0, (on, off, ...))."""


class Panel(NamedTuple):
    title: str
    x_label: str
    lines: dict[str, list[tuple[float, float]]]
    """For each name of a style, points (x, seconds), both positive."""


class Picture(NamedTuple):
    """Several panels with one vertical axis and one legend, of the styles that are used."""

    title: str
    panels: Sequence[Panel]
    styles: dict[str, Style]

    @property
    def digest(self) -> str:
        """Of what the picture shows; it stands in the file, whichever version of matplotlib drew it."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()

    def svg(self, columns: int = 2) -> str:
        rows = math.ceil(len(self.panels) / columns)
        figure, axes = pyplot().subplots(
            rows, columns, figsize=(6 * columns, 3.9 * rows + 1), sharey=True, squeeze=False, layout="constrained"
        )
        figure.suptitle(self.title, fontweight="bold")
        for axis in axes.flat[len(self.panels) :]:
            axis.remove()
        used = [name for name in self.styles if any(panel.lines.get(name) for panel in self.panels)]
        handles: dict[str, Any] = {}
        for axis, panel in zip(axes.flat, self.panels, strict=False):
            axis.set(title=panel.title, xlabel=panel.x_label, xscale="log", yscale="log")
            for name in reversed(used):  # the first style is drawn last, above all others
                if points := sorted(panel.lines.get(name, [])):
                    style = self.styles[name]
                    handles[name] = axis.plot(
                        *zip(*points, strict=True), color=style.color, lw=style.width, ls=style.line, marker="o", ms=3.5
                    )[0]
            marks = sorted({x for points in panel.lines.values() for x, _ in points})
            axis.set_xticks(marks, [count(mark) for mark in marks])
            axis.minorticks_off()
            axis.yaxis.set_major_formatter(lambda value, _: seconds(value))
            axis.tick_params(labelleft=True)
            axis.grid(axis="y", color="#ddd")
        labels = [self.styles[name].label for name in used]
        figure.legend([handles[name] for name in used], labels, loc="outside lower center", ncols=4, frameon=False)
        into = io.StringIO()
        figure.savefig(into, format="svg", metadata={"Date": None, "Creator": None, "Description": self.digest})
        pyplot().close(figure)
        return (
            re.sub(r"<!--.*?-->|(?<=>) (?=<)", "", " ".join(into.getvalue().split())) + "\n"
        )  # one line: nobody reads it


def pyplot() -> Any:
    """matplotlib, without a display; text stays text in an SVG, and the same picture is the same file."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif"}
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """A figure as PNG."""
    part = path.with_name(f".{path.name}")
    figure.savefig(part, dpi=dpi, format="png")
    pyplot().close(figure)
    os.replace(part, path)


def seconds(value: float) -> str:
    """A time in the unit that suits it: 250 µs, 1.4 ms, 12 s."""
    units = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s"))
    factor, unit = next((factor, unit) for limit, factor, unit in units if value < limit * 0.9995)
    return f"{float(f'{value * factor:.3g}'):g} {unit}"


def count(value: float) -> str:
    """1024 and its multiples as 1k."""
    return f"{value / 1024:g}k" if value >= 1024 and value % 1024 == 0 else f"{value:g}"
