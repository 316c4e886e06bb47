"""Ridge regression whose scores are spread over what is alike in the same video, nothing but closed forms.

How and why, `vtsum.model.ridge_saliency` says, which is the same with these settings for frames a second apart. No
rating of the video is needed, and its frames are there when it is scored.

How much is spread, and in what form the scores are handed out, is chosen on parts of the training videos that the
ridge did not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

import numpy as np
from scipy.stats import rankdata

from vtsum.benchmarks.ridge import PENALTY, REACHES, SMOOTHING, rank_target
from vtsum.data.tvsum import TVSumVideo
from vtsum.evaluation.baselines import Measure, RidgeMoments, ridge_moments, score_video, solve_ridge
from vtsum.model.neighbourhood import place_features, units, window_means
from vtsum.model.ridge_saliency import mixed

WIDTH = 256
"""Principal components of the training frames that the ridge is on: it ranks as well as on all features."""
PARTS = 5
"""Of the training videos; on each the ridge of the others is tried."""
SHARES = (0.0, 0.4, 0.7, 1.0)
"""Of the spread scores in the result, of which one is chosen."""
SPREAD_REACHES = (2, 15)
"""Picks to either side of the windows by which frames are alike: 1 and 7 seconds at 30 frames a second."""


def as_they_are(scores: np.ndarray) -> np.ndarray:
    return scores


def log_ranks(scores: np.ndarray) -> np.ndarray:
    """The same order, but few scores near the lowest: a knapsack of shots, each worth the mean of its scores whatever
    its length, then takes more and shorter shots. So do the users' summaries, whose scores begin at 1 and not at 0."""
    return np.asarray(np.log(rankdata(scores)))


Form = Callable[[np.ndarray], np.ndarray]
FORMS: tuple[Form, ...] = (as_they_are, log_ranks)
"""Of the scores, of which one is chosen by F; neither changes their order."""


class RidgeSpread:
    """After `vtsum.protocols.Method`. Every video counts alike in the ridge, long or short; it learns from the
    validation videos too, since it divides the training videos itself.

    Args:
        spread: False: the ridge's scores alone. reshape: False: in the form they have.
    """

    def __init__(self, spread: bool = True, reshape: bool = True) -> None:
        self._shares = SHARES if spread else SHARES[:1]
        self._forms = FORMS if reshape else FORMS[:1]

    def fit(self, videos: Sequence[TVSumVideo], validation: Sequence[TVSumVideo], seed: int) -> None:
        seen = [*videos, *validation]
        self._mean, self._basis = principal_components([units(_had(video.features)) for video in seen], WIDTH)
        parts = [seen[i::PARTS] for i in range(min(PARTS, len(seen)))]
        length = float(np.mean([len(video.picks) for video in seen]))
        moments = [reduce(_added, (self._moments(video, length) for video in part)) for part in parts]
        self._share, self._form = self._chosen(parts, moments)
        self._weights = solve_ridge(moments, PENALTY)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._form(mixed(self._ranked(features, self._weights), features, self._share, SPREAD_REACHES))

    def _chosen(self, parts: list[list[TVSumVideo]], moments: list[RidgeMoments]) -> tuple[float, Form]:
        """The share of the best rho and, with it, the form of the best F; the first of several."""
        if len(parts) < 2 or len(self._shares) * len(self._forms) == 1:
            return self._shares[0], self._forms[0]
        tried = []
        for i, part in enumerate(parts):
            weights = solve_ridge([other for j, other in enumerate(moments) if j != i], PENALTY)
            tried += [(video, self._ranked(video.features, weights)) for video in part]
        shared = [
            [(video, mixed(scores, _had(video.features), share, SPREAD_REACHES)) for video, scores in tried]
            for share in self._shares
        ]
        best = _best([_mean(rows, "rho") for rows in shared])
        formed = [[(video, form(scores)) for video, scores in shared[best]] for form in self._forms]
        return self._shares[best], self._forms[_best([_mean(rows, "f") for rows in formed])]

    def _moments(self, video: TVSumVideo, length: float) -> RidgeMoments:
        return ridge_moments(self._columns(video.features), rank_target(video)).counted_as(length)

    def _ranked(self, features: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
        return window_means(self._columns(features) @ weights, SMOOTHING)

    def _columns(self, features: np.ndarray | None) -> np.ndarray:
        rows = units(_had(features))
        narrow = (rows - self._mean) @ self._basis
        around = [window_means(narrow, reach) for reach in REACHES]
        # The similarity to the whole video and the position are of the features as they were.
        return np.column_stack([narrow, *around, place_features(rows)]).astype(np.float32)


def principal_components(parts: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [C] and the directions of greatest variance [C, min(width, C)] of all rows of the parts [P, C]. Part by
    part: of large sets the rows together are too many."""
    count = sum(len(part) for part in parts)
    mean = sum(part.sum(axis=0) for part in parts) / count
    second = sum((part - mean).T @ (part - mean) for part in parts)
    return np.asarray(mean), np.linalg.eigh(second)[1][:, ::-1][:, :width]


def _added(a: RidgeMoments, b: RidgeMoments) -> RidgeMoments:
    return RidgeMoments(a.rows + b.rows, a.target + b.target, a.first + b.first, a.cross + b.cross, a.second + b.second)


def _mean(rows: Iterable[tuple[TVSumVideo, np.ndarray]], measure: Measure) -> float:
    """Over videos; of F where the file has the raters' mean alone, which nothing is ranked against."""
    found = [score_video(scores, video) for video, scores in rows]
    return float(np.mean([score.f if np.isnan(score.rho) else getattr(score, measure) for score in found]))


def _best(values: Sequence[float]) -> int:
    return int(np.argmax(values))


def _had(features: np.ndarray | None) -> np.ndarray:
    assert features is not None  # `run` refuses a video without
    return features
