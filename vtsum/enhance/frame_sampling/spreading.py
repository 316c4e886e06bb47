"""From the frames that were encoded to all: values for those between."""

from __future__ import annotations

import numpy as np


def spread(values: np.ndarray, picks: np.ndarray, frames: int, like: np.ndarray | None = None) -> np.ndarray:
    """Values of all frames from those of the chosen ones.

    A chosen frame keeps its value, frames before the first and after the last choice take that one's. A frame t between
    the choices a and b takes

        (1 - w) values[a] + w values[b],     w = (t - a) / (b - a)                          without `like`
                                             w = |x_t - x_a|^2 / (|x_t - x_a|^2 + |x_t - x_b|^2)     with it

    so that with cheap features x = `like` a cut between two choices stays where it is: the frames on either side of it
    take the value of the choice on their side. Frames as far from one as from the other, or equal to both, go by time.

    Args:
        values (array): [P, ...], real; finite.
        picks (array): [P], rising frame indices, P >= 1 unless there are no frames.
        frames (int): T.
        like (array | None): [T, C], cheap features of all frames.
    Returns:
        array: [T, ...], the dtype of `values` where that is a float one, else float64.
    Raises:
        ValueError: for shapes that do not match, or picks that do not rise or lie outside.
    """
    given = np.asarray(values)
    at = np.asarray(picks, dtype=np.int64)
    if given.ndim < 1 or at.shape != given.shape[:1]:
        raise ValueError(f"spread: values must be [P, ...] and picks [P], got shapes {given.shape} and {at.shape}")
    if frames < 0 or (len(at) == 0) != (frames == 0):
        raise ValueError(f"spread: picks must be at least one of {frames} frames, got {len(at)}")
    if len(at) and (at[0] < 0 or at[-1] >= frames or np.any(np.diff(at) <= 0)):
        raise ValueError(f"spread: picks must rise within 0 to {frames - 1}, got {at[:3]} ... {at[-3:]}")
    if like is not None and (np.ndim(like) != 2 or len(like) != frames):
        raise ValueError(f"spread: like must be [{frames}, C], got shape {np.shape(like)}")
    kind = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
    if frames == 0:
        return given.astype(kind)
    left, weight = _weights(at, frames, None if like is None else np.asarray(like))
    right = np.minimum(left + 1, len(at) - 1)
    w = weight.astype(kind).reshape(-1, *[1] * (given.ndim - 1))
    return np.asarray((1 - w) * given[left] + w * given[right], dtype=kind)


def _weights(at: np.ndarray, frames: int, like: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """For each frame the choice at or before it (the first for those before that), and the weight of the next one."""
    times = np.arange(frames)
    left = np.maximum(np.searchsorted(at, times, side="right") - 1, 0)
    right = np.minimum(left + 1, len(at) - 1)
    a, b = at[left], at[right]
    weight = np.clip((times - a) / np.maximum(b - a, 1), 0.0, 1.0)
    if like is not None:
        before = ((like - like[a]).astype(np.float64) ** 2).sum(axis=1)
        after = ((like - like[b]).astype(np.float64) ** 2).sum(axis=1)
        both = before + after
        inside = (times > a) & (times < b) & (both > 0)
        weight = np.where(inside, before / np.where(both > 0, both, 1.0), weight)
    return left, weight
