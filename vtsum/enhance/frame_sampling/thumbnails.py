"""Cheap features of pictures: colours and edges of a thumbnail, some hundred microseconds a picture."""

from __future__ import annotations

import numpy as np

SIDE = 32  # of the thumbnail that everything is read off
LAYOUT = 8  # cells along each side for colours
CELLS = 4  # cells along each side for edges
COLOURS = 4  # levels of each channel in the histogram
BATCH = 64


def thumbnail_features(images: np.ndarray) -> np.ndarray:
    """What a picture looks like, without a network: three parts whose changes from frame to frame weigh about the same.

    The mean colour of 8 x 8 cells (192 values); square roots of the shares of 64 colours (64); the mean horizontal and
    vertical change of luma in 4 x 4 cells (32). All from the picture's mean over 32 x 32 cells.

    Args:
        images: uint8 [N, H, W, 3], H and W at least 1.
    Returns:
        float32 [N, 288], finite.
    Raises:
        TypeError: images that are not uint8. ValueError: a wrong shape.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"thumbnail_features: images must be uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < 1:
        raise ValueError(f"thumbnail_features: images must be [N, H, W, 3], got shape {images.shape}")
    out = np.zeros((len(images), LAYOUT**2 * 3 + COLOURS**3 + CELLS**2 * 2), np.float32)
    for first in range(0, len(images), BATCH):
        out[first : first + BATCH] = _describe(_shrink(images[first : first + BATCH]))
    return out


def _shrink(images: np.ndarray) -> np.ndarray:
    """Means over SIDE x SIDE cells: [n, H, W, 3] -> float32 [n, SIDE, SIDE, 3] in 0..1.

    Pixels that are left over at the right and the lower edge are passed over; a picture smaller than that repeats some.
    """
    for axis in (1, 2):
        size = images.shape[axis]
        if size < SIDE:
            images = images.take(np.arange(SIDE) * size // SIDE, axis=axis)
    high, wide = images.shape[1] // SIDE, images.shape[2] // SIDE
    total = np.zeros((len(images), SIDE, SIDE, 3), np.uint32)
    for i in range(high):
        for j in range(wide):
            total += images[:, i : SIDE * high : high, j : SIDE * wide : wide]
    return (total / np.float32(255 * high * wide)).astype(np.float32)


def _describe(x: np.ndarray) -> np.ndarray:
    n = len(x)
    layout = x.reshape(n, LAYOUT, SIDE // LAYOUT, LAYOUT, SIDE // LAYOUT, 3).mean(axis=(2, 4)).reshape(n, -1)
    level = np.minimum((x * COLOURS).astype(np.int64), COLOURS - 1) @ np.array([COLOURS**2, COLOURS, 1])
    level += np.arange(n)[:, None, None] * COLOURS**3
    colours = np.bincount(level.ravel(), minlength=n * COLOURS**3).reshape(n, -1) / SIDE**2
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    edges = np.zeros((n, SIDE, SIDE, 2), np.float32)
    edges[:, :, 1:, 0] = np.abs(np.diff(luma, axis=2))
    edges[:, 1:, :, 1] = np.abs(np.diff(luma, axis=1))
    size = SIDE // CELLS
    edges = edges.reshape(n, CELLS, size, CELLS, size, 2).mean(axis=(2, 4)).reshape(n, -1)
    return np.concatenate([layout / 7, np.sqrt(colours), 3 * edges], axis=1)
