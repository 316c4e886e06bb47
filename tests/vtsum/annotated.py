"""Annotated videos made up for the tests of the protocols, and rank correlations by their definitions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from vtsum.data.tvsum import TVSumVideo


def make_video(
    shots: list[int], *, raters: int = 3, seed: int = 0, dataset: str = "TVSum", key: str = "video_1"
) -> TVSumVideo:
    """A video with shots of the given lengths, random ratings and random user summaries, 30 frames a second."""
    rng = np.random.default_rng(seed)
    n_frames = sum(shots)
    ends = np.cumsum(shots)
    picks = np.arange(0, n_frames, 15)
    return TVSumVideo(
        dataset=dataset,
        key=key,
        **{"name": "name", "title": "title", "category": "VT", "fps": 30.0, "n_frames": n_frames, "picks": picks},
        features=rng.random((len(picks), 6), dtype=np.float32),
        user_scores=rng.integers(1, 6, (raters, n_frames), dtype=np.uint8) if dataset == "TVSum" else None,
        user_summary=rng.random((raters, n_frames)) < 0.2,
        change_points=np.stack([ends - shots, ends - 1], axis=1),
        n_frame_per_seg=np.array(shots),
        gtscore=np.zeros(len(picks), np.float32),
    )


def plain_tau_b(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Kendall's, over all pairs; 0 where one of the two has no order."""
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(len(x)), 2)]
    untied = sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)
    return float(sum(a * b for a, b in signs) / np.sqrt(untied)) if untied else 0.0


def plain_rho(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's, from ranks by counting; 0 where one of the two has no order."""

    def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
        counted = np.asarray(values)
        return np.array([(counted < v).sum() + ((counted == v).sum() + 1) / 2 for v in counted])

    a, b = ranks(x), ranks(y)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0
