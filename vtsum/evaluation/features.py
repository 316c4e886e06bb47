"""What the linear baseline looks at: frames in their neighbourhood, and histograms that need no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_COLOR_LEVELS = 4  # per channel; 64 joint colours
_ORIENTATIONS = 8
_CELLS = 4  # the picture is divided into 4 x 4 cells for gradients and layout


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


def color_histogram(images: np.ndarray) -> np.ndarray:
    """Colour, gradient and layout of each picture: float32 [N, 240]. No learning: what any encoder has to beat.

    64 joint RGB colours of the whole picture; 8 gradient orientations, weighted by strength, in each of 4 x 4 cells;
    the mean RGB of each cell. The histograms are square roots of shares, the layout is centred, and each of the three
    parts has length 1 or less, so that none outweighs the others.

    Args:
        images: uint8 [N, H, W, 3], H and W at least 8.
    Raises:
        TypeError: images that are not uint8.
        ValueError: wrong shape.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"color_histogram: images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < 8:
        raise ValueError(f"color_histogram: images must be [N, H, W, 3] of at least 8 x 8, got {list(images.shape)}")
    rows = [_describe(image) for image in images]
    return np.stack(rows) if rows else np.zeros((0, _COLOR_LEVELS**3 + _CELLS**2 * (_ORIENTATIONS + 3)), np.float32)


def _describe(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    level = (image >> 6).astype(np.intp)  # 256 values to 4 levels
    colors = np.bincount((level @ np.array([16, 4, 1])).ravel(), minlength=_COLOR_LEVELS**3)
    # Halving before taking gradients quiets compression noise.
    half = image[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
    down, right = np.gradient(half @ np.array([0.299, 0.587, 0.114]))
    strength = np.hypot(down, right)
    turn = (np.arctan2(down, right) / np.pi) % 1.0  # a line and its reverse are one orientation
    orientation = np.minimum((turn * _ORIENTATIONS).astype(np.intp), _ORIENTATIONS - 1)
    row = np.arange(half.shape[0]) * _CELLS // half.shape[0]
    column = np.arange(half.shape[1]) * _CELLS // half.shape[1]
    cell = row[:, None] * _CELLS + column[None, :]
    gradients = np.bincount(
        (cell * _ORIENTATIONS + orientation).ravel(), weights=strength.ravel(), minlength=_CELLS**2 * _ORIENTATIONS
    )
    area = np.bincount(cell.ravel(), minlength=_CELLS**2)
    layout = np.stack([np.bincount(cell.ravel(), weights=half[..., c].ravel()) / area for c in range(3)], axis=1)
    parts = (
        np.sqrt(colors / colors.sum()),
        np.sqrt(gradients / max(float(gradients.sum()), 1e-12)),
        (layout.ravel() / 255.0 - 0.5) / np.sqrt(layout.size / 4.0),
    )
    return np.concatenate(parts).astype(np.float32)
