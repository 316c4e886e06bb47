"""The page's timeline: its curve, the bands of what the summary shows, its axis, in a box of 1000 x 100."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 1000.0, 100.0  # user units
_POINTS = 900  # of the curve; more than the widest page has pixels for
_SEEN = 1.5  # units that a band should have to be seen
_SPARE = 0.02  # of the width, by which bands that are widened to be seen may overstate the summary's share
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)  # seconds between ticks of the axis


def value_range(saliency: Sequence[float]) -> tuple[float, float]:
    """The values at the foot and the top of the curve: the video's own range, at least a twentieth wide."""
    low, high = min(saliency), max(saliency)
    spare = max(0.05 - (high - low), 0.0) / 2
    return max(low - spare, 0.0), min(high + spare, 1.0)


def curve_path(times: Sequence[float], saliency: Sequence[float], duration: float, low: float, high: float) -> str:
    """SVG path data of the curve, thinned to its extremes where it has too many points."""
    t, s = np.asarray(times), np.asarray(saliency)
    if len(t) > _POINTS:
        parts = np.array_split(np.arange(len(t)), _POINTS // 2)
        kept = np.unique([i for part in parts for i in (part[s[part].argmin()], part[s[part].argmax()])])
        t, s = t[kept], s[kept]
    x = np.clip(t / duration, 0, 1) * WIDTH
    y = (1 - (s - low) / max(high - low, 1e-9)) * (HEIGHT - 6) + 3
    # The last frame stays on the screen until the next one would have come, or the end.
    step = times[-1] - times[-2] if len(times) > 1 else duration
    end = WIDTH if times[-1] + 2 * step >= duration else (times[-1] + step) / duration * WIDTH
    points = [*zip(x, y, strict=True), (end, y[-1])]
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in points)


def area_path(line: str) -> str:
    """What lies under a curve."""
    first, last = (point.split(",")[0] for point in (line[1:].split("L")[0], line.split("L")[-1]))
    return f"{line}L{last},{HEIGHT:g}L{first},{HEIGHT:g}Z"


def bands(spans: Sequence[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    """(x, width) of stretches of the video. A short one is widened to be seen, but all of them together no more than
    leaves the shaded share true."""
    least = min(_SEEN, _SPARE * WIDTH / max(len(spans), 1))
    return [
        (round(start / duration * WIDTH, 3), round(max((end - start) / duration * WIDTH, least), 3))
        for start, end in spans
    ]


def axis_ticks(duration: float) -> list[float]:
    """Round times, at most nine of them, from 0."""
    step = next((step for step in _STEPS if duration / step <= 8), _STEPS[-1] * max(1, int(duration / _STEPS[-1] / 8)))
    return [float(t) for t in np.arange(0, duration * 0.999, step)]
