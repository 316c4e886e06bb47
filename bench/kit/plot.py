"""Lines on logarithmic axes, as SVG: several panels with one legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 430, 290
LEFT, TOP, RIGHT, BOTTOM = 62, 34, 14, 42
LEGEND_LINE, LEGEND_COLUMN = 20, 215
FONT = "font-family='Helvetica, Arial, sans-serif'"


class Style(NamedTuple):
    label: str
    color: str
    width: float = 1.6
    dashes: str = ""


class Panel(NamedTuple):
    title: str
    x_label: str
    lines: dict[str, list[tuple[float, float]]]
    """For each name of a style, points (x, seconds), both positive."""


def draw(title: str, panels: Sequence[Panel], styles: dict[str, Style], columns: int = 2) -> str:
    """The picture. Every panel has the same vertical axis; the legend names the styles that are used."""
    used = [name for name in styles if any(panel.lines.get(name) for panel in panels)]
    times = [y for panel in panels for points in panel.lines.values() for _, y in points]
    low, high = 10.0 ** math.floor(math.log10(min(times))), 10.0 ** math.ceil(math.log10(max(times)))
    high = max(high, 10 * low)
    rows = math.ceil(len(panels) / columns)
    by_line = max(columns * WIDTH // LEGEND_COLUMN, 1)
    legend = math.ceil(len(used) / by_line) * LEGEND_LINE + 12
    width, height = columns * WIDTH, 34 + rows * HEIGHT + legend
    out = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' {FONT}",
        f" viewBox='0 0 {width} {height}'>",
        f"<title>{escape(title)}</title>",
        "<rect width='100%' height='100%' fill='#fff'/>",
        _text(width / 2, 23, title, size=15, anchor="middle", weight="bold"),
    ]
    for i, panel in enumerate(panels):
        out += _panel(panel, styles, i % columns * WIDTH, 34 + i // columns * HEIGHT, low, high)
    for i, name in enumerate(used):
        x, y = 20 + i % by_line * LEGEND_COLUMN, 34 + rows * HEIGHT + 14 + i // by_line * LEGEND_LINE
        out += [_path([(x, y), (x + 26, y)], styles[name]), _text(x + 33, y + 4, styles[name].label)]
    return "\n".join([*out, "</svg>", ""])


def _panel(panel: Panel, styles: dict[str, Style], x0: float, y0: float, low: float, high: float) -> list[str]:
    marks = sorted({x for points in panel.lines.values() for x, _ in points})
    first, last = math.log(marks[0]), math.log(max(marks[-1], marks[0] * 1.01))
    left, right, top, bottom = x0 + LEFT, x0 + WIDTH - RIGHT, y0 + TOP, y0 + HEIGHT - BOTTOM

    def across(x: float) -> float:
        return left + 8 + (math.log(x) - first) / (last - first) * (right - left - 16)

    def down(y: float) -> float:
        return bottom - math.log(y / low) / math.log(high / low) * (bottom - top)

    out = [_text((left + right) / 2, top - 10, panel.title, size=12, anchor="middle", weight="bold")]
    decade = low
    while decade <= high * 1.001:
        y = down(decade)
        out.append(f"<line x1='{left:.1f}' x2='{right:.1f}' y1='{y:.1f}' y2='{y:.1f}' stroke='#ddd'/>")
        out.append(_text(left - 6, y + 4, seconds(decade), anchor="end"))
        decade *= 10
    for mark in marks:
        x = across(mark)
        out.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{bottom:.1f}' y2='{bottom + 4:.1f}' stroke='#666'/>")
        out.append(_text(x, bottom + 16, count(mark), anchor="middle"))
    out.append(f"<path d='M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}' fill='none' stroke='#666'/>")
    out.append(_text((left + right) / 2, bottom + 33, panel.x_label, anchor="middle"))
    for name, style in reversed(styles.items()):  # the first style is drawn last, above all others
        points = [(across(x), down(y)) for x, y in sorted(panel.lines.get(name, []))]
        if points:
            out.append(_path(points, style))
            out += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.4' fill='{style.color}'/>" for x, y in points]
    return out


def _path(points: Sequence[tuple[float, float]], style: Style) -> str:
    route = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = f" stroke-dasharray='{style.dashes}'" if style.dashes else ""
    return f"<path d='M{route}' fill='none' stroke='{style.color}' stroke-width='{style.width}'{dashes}/>"


def _text(x: float, y: float, text: str, size: int = 11, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' font-weight='{weight}' fill='#222'>"
        f"{escape(text)}</text>"
    )


def seconds(value: float) -> str:
    """A time in the unit that suits it: 250 µs, 1.4 ms, 12 s."""
    units = ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (math.inf, 1.0, "s"))
    factor, unit = next((factor, unit) for limit, factor, unit in units if value < limit * 0.9995)
    return f"{float(f'{value * factor:.3g}'):g} {unit}"


def count(value: float) -> str:
    """1024 and its multiples as 1k."""
    return f"{value / 1024:g}k" if value >= 1024 and value % 1024 == 0 else f"{value:g}"
