"""What a linear baseline can look at without any network: histograms of a picture's colours and edges."""

from __future__ import annotations

import numpy as np

_COLOR_LEVELS = 4  # per channel; 64 joint colours
_ORIENTATIONS = 8
_CELLS = 4  # the picture is divided into 4 x 4 cells for gradients and layout


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
