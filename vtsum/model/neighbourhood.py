"""Frames in their neighbourhood: what ridge regression looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
    unit = features.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    steps = len(unit)
    around = [window_means(unit, reach) for reach in reaches]
    whole = unit.mean(axis=0)
    similarity = unit @ (whole / max(float(np.linalg.norm(whole)), 1e-12))
    position = np.arange(steps) / max(steps - 1, 1)
    return np.column_stack([unit, *around, similarity, position, position**2]).astype(np.float32)


def window_means(rows: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the rows within `reach` steps of each, fewer at the ends: [T, C], or [T], -> the same shape."""
    steps = len(rows)
    sums = np.concatenate([np.zeros_like(rows[:1], dtype=np.float64), np.cumsum(rows, axis=0, dtype=np.float64)])
    first = np.maximum(np.arange(steps) - reach, 0)
    last = np.minimum(np.arange(steps) + reach + 1, steps)
    counts = (last - first).reshape(-1, *[1] * (rows.ndim - 1))
    return np.asarray((sums[last] - sums[first]) / counts)
