"""What a summary shows: shots, their scores, and the clips that fit the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vtsum.enhance.event_segmentation import find_shots
from vtsum.enhance.summary_refinement import Budget, Clip, discount_repeats, plan_clips
from vtsum.errors import VTSumError
from vtsum.watching import Watched

if TYPE_CHECKING:
    from vtsum.video import VideoInfo


LIVELY = 0.3  # weight of a shot's liveliness beside its saliency: motion tells a viewer's interest, too


@dataclass(frozen=True)
class Plan:
    """Shots, their scores, and the clips that the summary shows. Lengths in ticks of `rate` a second."""

    shots: list[tuple[int, int]]  # ticks
    frames: list[tuple[int, int]]  # indices of sampled frames
    saliency: np.ndarray  # [M] means
    lively: np.ndarray  # [M] 0..1
    scores: np.ndarray  # [M] after repeats were lowered
    ranks: list[int]
    like: np.ndarray
    twin: np.ndarray
    clips: dict[int, Clip]
    peaks: dict[int, float]  # seconds, one per clip: its key frame
    rate: float
    budget_seconds: float
    warnings: list[str]

    def span(self, shot: int) -> tuple[float, float]:
        """Start and end of a shot in seconds."""
        start, end = self.shots[shot]
        return start / self.rate, end / self.rate


def make_plan(watched: Watched, budget: Budget, info: VideoInfo, fps: float) -> Plan:
    warnings: list[str] = []
    duration = watched.duration
    try:
        budget_seconds = budget.seconds(duration, fps)
    except VTSumError:
        if watched.broken_at is None:
            raise
        budget_seconds = duration
        warnings.append(f"the budget of {budget.text} is longer than the {duration:.1f} s that could be read")
    segments, means, scatter = find_shots(watched.event_features, fps)
    # The grid is the video's own, so that a clip holds whole frames; never coarser than the sampled frames.
    rate = max(info.fps if math.isfinite(info.fps) and info.fps > 0 else 25.0, fps)
    count = len(watched.saliency)
    last = max(round(duration * rate), 1)
    edges = np.minimum(np.round(np.arange(count + 1) / fps * rate).astype(np.int64), last)
    edges[-1] = last
    for segment in segments[1:]:
        k = segment.start
        # Pictures are looked at only at the grid points; the cut itself lies somewhere between two of them.
        exact = watched.changes.boundary((k - 1) / fps, k / fps)
        if exact is not None:
            edges[k] = min(max(round(exact * rate), int(edges[k - 1]) + 1), int(edges[k]))
    shots = [(int(edges[s.start]), int(edges[s.end])) for s in segments]
    keep = [i for i, (start, end) in enumerate(shots) if end > start]
    shots, segments, means = [shots[i] for i in keep], [segments[i] for i in keep], means[keep]
    saliency = np.array([float(watched.saliency[s.start : s.end].mean()) for s in segments])
    lively = _liveliness([watched.changes.liveliness(start / rate, end / rate) for start, end in shots])
    worth = (1 - LIVELY) * _contrast(saliency) + LIVELY * lively
    scores, like, twin = discount_repeats(worth, means, scatter)
    order = np.argsort(-scores, kind="stable")
    ranks = [0] * len(shots)
    for rank, i in enumerate(order, 1):
        ranks[int(i)] = rank
    ticks = max(1, math.floor(budget_seconds * rate + 1e-6))
    clips = {clip.shot: clip for clip in plan_clips(shots, scores, watched.saliency, edges, ticks, rate)}
    peaks = {i: _key_frame_time(clip, watched, edges, means[i], rate) for i, clip in clips.items()}
    frames = [(s.start, s.end) for s in segments]
    return Plan(
        shots, frames, saliency, lively, scores, ranks, like, twin, clips, peaks, rate, budget_seconds, warnings
    )


def _contrast(saliency: np.ndarray) -> np.ndarray:
    """Stretch a video's saliency to 0.2..1: models differ in their range, and within a video only the order counts."""
    low, high = float(saliency.min()), float(saliency.max())
    return 0.2 + 0.8 * (saliency - low) / (high - low) if high - low > 1e-6 else np.ones_like(saliency)


def _liveliness(changes: list[float]) -> np.ndarray:
    """Changes of the picture as 0..1 within a video, on a scale of ratios; all 0 where they hardly differ."""
    levels = np.log1p(np.array(changes))
    low, high = levels.min(), levels.max()
    return (levels - low) / (high - low) if high - low > 0.1 else np.zeros_like(levels)


def _key_frame_time(clip: Clip, watched: Watched, edges: np.ndarray, mean: np.ndarray, rate: float) -> float:
    """The time of the clip's most telling frame: salient, and like the rest of its shot."""
    inside = np.flatnonzero((edges[:-1] >= clip.start) & (edges[:-1] < clip.end))
    if not len(inside):
        return (clip.start + clip.end) / 2 / rate
    x = watched.event_features[inside].astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    distance = ((x - mean) ** 2).sum(axis=1)
    worth = watched.saliency[inside] - distance / max(float(distance.max()), 1e-9) * 0.1
    return float(edges[inside[np.argmax(worth)]] / rate)
