"""Which frames of a video are worth the encoder's time, all frames known."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from vtsum.enhance.frame_sampling.coverage import cover
from vtsum.enhance.frame_sampling.streaming import GAP, FrameChooser

Method = Literal["uniform", "top-k", "coverage"]
METHODS: tuple[str, ...] = get_args(Method)
EXACT = 4096  # frames; a longer video is covered in overlapping windows of a quarter of it
REACH = 128  # frames; where the longest stretch without a choice is longer, only every s-th frame is looked at


def choose_frames(
    features: np.ndarray, *, share: float | None = None, count: int | None = None, method: Method = "coverage"
) -> np.ndarray:
    """Choose the frames of a video that stand for the others.

    - "uniform": evenly spaced, each in the middle of its part.
    - "top-k": those that differ most from the frame before, ||x_t - x_{t-1}||, as published with CLIP embeddings. Still
      stretches may get none at all; the first frame, which has none before it, comes last.
    - "coverage": the frames by which the others are best represented, where each is compared with its two chosen
      neighbours in time (`coverage.cover`), and no stretch of 4 T / count frames goes without one. Exact up to 4,096
      frames; beyond, a window of 1,024 frames moves on by halves. Where less than one frame in 32 is chosen, only every
      s-th is a candidate and counts, so that there are 32 candidates a choice.

    Args:
        features (array): [T, C], any real dtype, finite. Cheap ones will do: see `thumbnail_features`.
        share (float): of the frames, above 0 and at most 1; ceil(share * T) are chosen. 0.25 where nothing is given.
        count (int): how many are chosen, at least 1; in place of `share`. All frames where there are fewer.
        method (str): "uniform", "top-k" or "coverage".
    Returns:
        int64 [n], rising indices; empty for T = 0.
    Raises:
        ValueError: for a wrong shape or setting, or features that are not finite.
    Source: the model that VTSum extends samples by top-k; coverage is a k-median along time.
    """
    x = np.asarray(features)
    if x.ndim != 2:
        raise ValueError(f"choose_frames: features must be [T, C], got shape {tuple(x.shape)}")
    if method not in METHODS:
        raise ValueError(f"choose_frames: method must be one of {', '.join(METHODS)}, got {method!r}")
    if share is not None and count is not None:
        raise ValueError(f"choose_frames: share and count must not both be given, got {share} and {count}")
    if count is not None and count < 1:
        raise ValueError(f"choose_frames: count must be at least 1, got {count}")
    share = 0.25 if share is None and count is None else share
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"choose_frames: share must be above 0 and at most 1, got {share}")
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"choose_frames: features must be finite, got NaN or infinity in frame {bad}")
    frames = len(x)
    wanted = count if count is not None else math.ceil((share or 0.0) * frames - 1e-9)
    wanted = min(wanted, frames)
    if wanted == frames:
        return np.arange(frames, dtype=np.int64)
    if method == "uniform":
        return (np.arange(wanted, dtype=np.int64) * 2 + 1) * frames // (2 * wanted)
    if method == "top-k":
        return _top_k(x, wanted)
    step = math.ceil(GAP * frames / wanted / REACH)
    candidates = np.arange(step // 2, frames, step, dtype=np.int64)
    return candidates[_cover_any_length(x[candidates], wanted)]


def _cover_any_length(x: np.ndarray, count: int) -> np.ndarray:
    frames = len(x)
    longest = math.ceil(GAP * frames / count)
    if frames <= EXACT:
        return cover(x, count, longest)
    chooser = FrameChooser(count / frames, window=EXACT // 4)
    return np.array(chooser.see(x) + chooser.finish(), dtype=np.int64)


def _top_k(x: np.ndarray, count: int) -> np.ndarray:
    x = x.astype(np.float64)
    change = np.full(len(x), -1.0)
    change[1:] = np.linalg.norm(x[1:] - x[:-1], axis=1)
    return np.sort(np.argsort(-change, kind="stable")[:count]).astype(np.int64)
