"""Ridge regression on frames and their surroundings: in closed form, nothing to select; what a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.baselines import ridge_moments, solve_ridge
from vtsum.evaluation.rank import mean_ranks
from vtsum.model.neighbourhood import neighbourhood_features, window_means

REACHES = (4, 15, 40)
"""Picks to either side that the three windows reach: 2, 8 and 20 seconds at 30 frames a second."""
PENALTY = 300.0
SMOOTHING = 3
"""Picks to either side over which the result is averaged."""


class Ridge:
    """After `vtsum.protocols.Method`. It learns from the validation videos too, since it selects nothing."""

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        seen = [*videos, *validation]
        parts = (ridge_moments(self._columns(video.features), rank_target(video)) for video in seen)
        self._weights = solve_ridge(parts, PENALTY)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return window_means(self._columns(features) @ self._weights, SMOOTHING)

    @staticmethod
    def _columns(features: np.ndarray | None) -> np.ndarray:
        assert features is not None  # `run` refuses a video without
        return neighbourhood_features(features, REACHES)


def rank_target(video: TVSumVideo) -> np.ndarray:
    """`mean_ranks` of what is known of the raters: float32 [P]."""
    return mean_ranks(video.gtscore[None] if video.ratings is None else video.ratings)
