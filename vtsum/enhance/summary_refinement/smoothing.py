"""Smoothing of scores over time: total variation keeps the steps between events, a Gaussian rounds them.

    total variation:   argmin_x  1/2 sum_t (x_t - y_t)^2  +  strength * sum_t |x_{t+1} - x_t|
    Gaussian:          x_t = sum_s g(t - s) y_s / sum_s g(t - s),     g(d) = exp(-d^2 / (2 strength^2))

The first is solved exactly in O(T), by dynamic programming from the first frame to the last: as a function of the next
frame's value b, the derivative of the least cost so far is continuous, rises, and is linear between knots. The penalty
cuts it off at -strength and strength, and a new frame adds b - y_t.

Source: Rudin, Osher, Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 1992; Johnson, "A
dynamic programming algorithm for the fused lasso and L0-segmentation", JCGS 2013, section 3.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np


def smooth_scores(
    scores: np.ndarray, method: Literal["tv", "gaussian"] = "tv", strength: float | None = None
) -> np.ndarray:
    """Smooth scores over time.

    Args:
        scores (array): [T], finite.
        method ("tv" | "gaussian"): total variation gives constant stretches with steps between them; a step of height h
            between two long stretches stays, and a peak of n frames loses up to 2 * strength / n of its height.
            Gaussian: a weighted mean, whose weights at the ends are of the frames that there are.
        strength (float | None): at least 0; 0 returns the scores. tv: in units of the scores times frames; None: a
            tenth of the range of the scores. gaussian: standard deviation in frames; None: 1.
    Returns:
        array: [T] float64, within the range of the scores.
    Raises:
        ValueError: a wrong shape, scores that are not finite, an unknown method, or a strength that is negative.
    Source: see the module.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"smooth_scores: scores must be [T], got shape {values.shape}")
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"smooth_scores: scores must be finite, got {values[bad]} at frame {bad}")
    if method not in ("tv", "gaussian"):
        raise ValueError(f"smooth_scores: method must be tv or gaussian, got {method!r}")
    if strength is None:
        strength = 1.0 if method == "gaussian" else 0.1 * float(np.ptp(values)) if len(values) else 0.0
    if not (math.isfinite(strength) and strength >= 0):
        raise ValueError(f"smooth_scores: strength must be a finite number of at least 0, got {strength}")
    if strength == 0 or len(values) < 2:
        return values.copy()
    smooth = _total_variation(values, strength) if method == "tv" else _gaussian(values, strength)
    return np.clip(smooth, values.min(), values.max())


def _gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = min(math.ceil(5 * sigma), len(values) - 1)
    steps = np.minimum(np.arange(reach + 1) / sigma, 40.0)  # beyond, the weight is 0
    weights = np.exp(-0.5 * np.concatenate([steps[:0:-1], steps]) ** 2)
    inside = slice(reach, reach + len(values))
    whole = np.convolve(np.ones(len(values)), weights)[inside]
    return np.asarray(np.convolve(values, weights)[inside] / whole)


def _total_variation(values: np.ndarray, strength: float) -> np.ndarray:
    """The exact minimum. Pieces of the derivative are lines slope * b + offset, between knots from left to right."""
    y = values.tolist()
    knots: deque[tuple[float, float, float]] = deque()  # (b, change of slope, change of offset), ascending
    left = right = (1.0, -y[0])
    lowest, highest = [], []
    for following in y[1:]:
        slope, offset = left
        while knots and slope * knots[0][0] + offset <= -strength:
            _, bend, shift = knots.popleft()
            slope, offset = slope + bend, offset + shift
        low = (-strength - offset) / slope
        first = (low, slope, offset + strength)
        slope, offset = right
        while knots and slope * knots[-1][0] + offset >= strength:
            _, bend, shift = knots.pop()
            slope, offset = slope - bend, offset - shift
        high = (strength - offset) / slope
        knots.appendleft(first)
        knots.append((high, -slope, strength - offset))
        # Whatever the next frame's value, this one's best value lies in low..high.
        lowest.append(low)
        highest.append(high)
        left, right = (1.0, -strength - following), (1.0, strength - following)
    slope, offset = left
    while knots and slope * knots[0][0] + offset <= 0.0:
        _, bend, shift = knots.popleft()
        slope, offset = slope + bend, offset + shift
    value = -offset / slope
    out = [value]
    for low, high in zip(reversed(lowest), reversed(highest), strict=True):
        value = min(max(value, low), high)
        out.append(value)
    return np.array(out[::-1])
