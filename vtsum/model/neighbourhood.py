"""Frames in their neighbourhood: what ridge regression looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: What is worked on at once: of a day of video all of it would be hundreds of megabytes, several times.
ROWS, COLUMNS = 4096, 32


def neighbourhood_features(features: np.ndarray, reach: int | Sequence[int] = 15) -> np.ndarray:
    """Each frame beside its surroundings: float32 [T, (1 + R) C + 3].

    The columns are the frame's feature scaled to length 1; for each of the R reaches the mean of those within so many
    steps (fewer at the ends); the cosine to the mean of the whole video; and the position t and t^2, where t runs from
    0 to 1.

    Args:
        features: [T, C], T >= 1.
        reach: steps to either side, at least 0; one number or several.
    Raises:
        ValueError: wrong shape or reach.
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"neighbourhood_features: features must be [T, C] with T >= 1, got {list(features.shape)}")
    reaches = [reach] if isinstance(reach, int) else list(reach)
    if min(reaches, default=0) < 0:
        raise ValueError(f"neighbourhood_features: reach must be at least 0, got {reach}")
    unit = units(features)
    around = [window_means(unit, reach) for reach in reaches]
    return np.column_stack([unit, *around, place_features(features)]).astype(np.float32)


def place_features(features: np.ndarray) -> np.ndarray:
    """Each frame's place in the video: the last three columns of `neighbourhood_features`, [T, C] -> [T, 3]."""
    unit = units(features)
    whole = unit.mean(axis=0)
    similarity = unit @ (whole / max(float(np.linalg.norm(whole)), 1e-12))
    position = np.arange(len(unit)) / max(len(unit) - 1, 1)
    return np.column_stack([similarity, position, position**2])


def units(features: np.ndarray) -> np.ndarray:
    """Each row of length 1, float64; rows of zeros stay: [T, C] -> the same shape."""
    rows = features.astype(np.float64)
    for at in range(0, len(rows), ROWS):
        own = rows[at : at + ROWS]
        own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    return rows


def window_means(rows: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the rows within `reach` steps of each, fewer at the ends: [T, C], or [T], -> the same shape."""
    steps = len(rows)
    first = np.maximum(np.arange(steps) - reach, 0)
    last = np.minimum(np.arange(steps) + reach + 1, steps)
    columns = rows.reshape(steps, -1)
    means = np.empty(columns.shape)
    for at in range(0, columns.shape[1], COLUMNS):
        own = columns[:, at : at + COLUMNS]
        sums = np.zeros((steps + 1, own.shape[1]))
        np.cumsum(own, axis=0, out=sums[1:])
        means[:, at : at + COLUMNS] = (sums[last] - sums[first]) / (last - first)[:, None]
    return means.reshape(rows.shape)
