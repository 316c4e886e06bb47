"""Rank correlation of importance scores with human raters.

Source: Otani et al., "Rethinking the evaluation of video summaries", CVPR 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vtsum.data.tvsum import TVSumVideo


class RankCorrelation(NamedTuple):
    """Kendall's tau-b and Spearman's rho, each -1 to 1, averaged over raters."""

    tau: float
    rho: float


def rank_correlation(scores: np.ndarray, video: TVSumVideo) -> RankCorrelation:
    """Agreement of raw scores with each rater at every 15th frame, averaged over the raters.

    A mean over videos of this is what TVSum tables report. Scores are neither rescaled nor passed through a summary.

    Args:
        scores: [P], one for each of `video.picks`.
        video: a video with importance ratings (TVSum). SumMe has none: its published correlations compare summaries,
            follow another protocol, and must not share a column with these.
    Raises:
        ValueError: wrong number of scores, a score that is not finite, or a video without ratings.
    """
    if video.user_scores is None:
        raise ValueError(
            f"rank_correlation: video must have importance ratings, got {video.dataset} {video.key} without"
        )
    return correlate(scores, video.user_scores[:, video.picks])


def correlate(scores: np.ndarray, ratings: np.ndarray) -> RankCorrelation:
    """Mean rank correlation of `scores` [T] with each row of `ratings` [U, T].

    Where either side is constant nothing is ranked, the correlation is undefined, and 0 is counted for it.

    Raises:
        ValueError: shapes that do not match, fewer than 2 scores, or a score that is not finite.
    """
    from scipy.stats import kendalltau, rankdata

    scores, ratings = np.asarray(scores, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    if ratings.ndim != 2 or scores.shape != ratings.shape[1:] or len(scores) < 2 or len(ratings) == 0:
        raise ValueError(
            f"correlate: scores must be [T] and ratings [U, T] with T >= 2 and U >= 1, "
            f"got {list(scores.shape)} and {list(ratings.shape)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"correlate: scores must be finite, got {scores[~np.isfinite(scores)][0]}")
    if np.ptp(scores) == 0:
        return RankCorrelation(0.0, 0.0)
    # Spearman's rho is Pearson's r of ranks: ranking the scores once serves every rater.
    own = _standardised(rankdata(scores))
    taus, rhos = [], []
    for rating in ratings:
        constant = np.ptp(rating) == 0
        taus.append(0.0 if constant else float(kendalltau(scores, rating).statistic))
        rhos.append(0.0 if constant else float(own @ _standardised(rankdata(rating))))
    return RankCorrelation(float(np.mean(taus)), float(np.mean(rhos)))


def mean_ranks(ratings: np.ndarray) -> np.ndarray:
    """Where each frame stands among the others, 0..1, the mean over raters: [U, T] -> float32 [T]. Raters use the scale
    unlike one another; of their order alone tau and rho know."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(ratings, axis=1))
    return np.asarray(((ranks - 0.5) / ranks.shape[1]).mean(axis=0), dtype=np.float32)


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return np.asarray(centred / np.linalg.norm(centred))
