"""Baselines every result is shown beside: random, human, and ridge regression on frame features.

The ridge is closed-form and has no training choices, so it measures what features are worth: a network that cannot
beat it on the same features and splits has learned nothing more from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from vtsum.data.tvsum import Split, TVSumVideo
from vtsum.evaluation.fscore import f_score, summary_f_score
from vtsum.evaluation.rank import correlate
from vtsum.model.neighbourhood import neighbourhood_features

Measure = Literal["tau", "rho", "f"]
TimedFeatures = tuple[np.ndarray, np.ndarray]
"""Times in seconds [T], rising, and features [T, C] of one video."""


@dataclass(frozen=True)
class VideoScore:
    """One video's result: rank correlations -1 to 1, F 0 to 1."""

    tau: float
    rho: float
    f: float


@dataclass(frozen=True)
class Evaluation:
    """Results by video key, their means, and the standard errors of the means over videos."""

    per_video: dict[str, VideoScore]

    @cached_property
    def tau(self) -> float:
        return self.mean("tau")

    @cached_property
    def rho(self) -> float:
        return self.mean("rho")

    @cached_property
    def f(self) -> float:
        return self.mean("f")

    def mean(self, measure: Measure) -> float:
        return float(np.mean([getattr(score, measure) for score in self.per_video.values()]))

    def standard_error(self, measure: Measure) -> float:
        """Of the mean over videos; NaN for a single video."""
        return _standard_error([getattr(score, measure) for score in self.per_video.values()])


@dataclass(frozen=True)
class Difference:
    """Mean over videos of one result minus another's, and its standard error."""

    mean: float
    standard_error: float
    videos: int


def paired_difference(a: Evaluation, b: Evaluation, measure: Measure = "rho") -> Difference:
    """`a` minus `b` video by video: far less noisy than the difference of two means with their own errors.

    Raises:
        ValueError: the two are not of the same videos.
    """
    if a.per_video.keys() != b.per_video.keys():
        only = sorted(a.per_video.keys() ^ b.per_video.keys())
        raise ValueError(f"paired_difference: a and b must be of the same videos, got {only[:5]} in only one of them")
    differences = [getattr(a.per_video[key], measure) - getattr(b.per_video[key], measure) for key in a.per_video]
    return Difference(float(np.mean(differences)), _standard_error(differences), len(differences))


def score_video(scores: np.ndarray, video: TVSumVideo) -> VideoScore:
    """The scores [P] of one video under both protocols: against what each rater said at the picks
    (`TVSumVideo.ratings`), tau and rho NaN where the file has the raters' mean alone, and against the users' summaries.

    F needs scores above 0, rank correlation does not care: for F they are rescaled to 0..1.

    Raises:
        ValueError: scores of the wrong number or not finite.
    """
    own = np.asarray(scores, dtype=np.float64)
    tau, rho = (np.nan, np.nan) if video.ratings is None else correlate(own, video.ratings)
    scaled = (own - own.min()) / max(float(np.ptp(own)), 1e-12)
    return VideoScore(tau, rho, f_score(scaled, video))


def evaluate_scores(scores: Mapping[str, np.ndarray], videos: Iterable[TVSumVideo]) -> Evaluation:
    """Scores at the picks, by video key, under both protocols (`score_video`); videos without scores are left out.

    Raises:
        ValueError: no video has scores, or scores are of the wrong number or not finite.
    """
    per_video = {}
    for video in videos:
        if video.key in scores:
            _ratings(video)
            per_video[video.key] = score_video(scores[video.key], video)
    if not per_video:
        raise ValueError(f"evaluate_scores: scores must be of the videos given, got {sorted(scores)[:5]}")
    return Evaluation(per_video)


def scores_at_picks(times: np.ndarray, scores: np.ndarray, video: TVSumVideo) -> np.ndarray:
    """Scores [T] at rising times (seconds, [T]) carried over to the video's picks, each from the nearest time: [P].

    Raises:
        ValueError: times and scores do not match, or times do not rise.
    """
    times, scores = np.asarray(times, dtype=np.float64), np.asarray(scores)
    if times.ndim != 1 or times.shape != scores.shape or len(times) == 0 or np.any(np.diff(times) <= 0):
        raise ValueError(
            "scores_at_picks: times must rise and be as many as scores, "
            f"got {list(times.shape)} and {list(scores.shape)}"
        )
    middles = (times[1:] + times[:-1]) / 2.0
    return np.asarray(scores[np.searchsorted(middles, video.picks / video.fps)])


def random_scores(videos: Sequence[TVSumVideo], draws: int = 5, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """What "random" means wherever it stands beside a result: a score for each frame, uniform from 0 to 1 and drawn
    anew `draws` times, over which the result is averaged. By video key, at the picks."""
    rng = np.random.default_rng(seed)
    return [{video.key: rng.random(len(video.picks)) for video in videos} for _ in range(draws)]


def evaluate_random(videos: Sequence[TVSumVideo], draws: int = 5, seed: int = 0) -> Evaluation:
    """The result of `random_scores`."""
    runs = [evaluate_scores(scores, videos).per_video for scores in random_scores(videos, draws, seed)]
    return Evaluation({video.key: average_scores([run[video.key] for run in runs]) for video in videos})


def evaluate_human(videos: Sequence[TVSumVideo]) -> Evaluation:
    """Each rater in turn against each of the others: what one more human would score."""
    for video in videos:
        _ratings(video)
    return Evaluation({video.key: score_human(video) for video in videos})


def score_human(video: TVSumVideo) -> VideoScore:
    """The mean over raters of each one's score against the others; tau and rho NaN as in `score_video`."""
    ratings, scores = video.ratings, []
    for rater, summary in enumerate(video.user_summary):
        tau, rho = (np.nan, np.nan)
        if ratings is not None:
            tau, rho = correlate(ratings[rater], np.delete(ratings, rater, axis=0))
        others = np.delete(video.user_summary, rater, axis=0)
        scores.append(VideoScore(tau, rho, summary_f_score(summary, others, video.dataset)))
    return average_scores(scores)


def evaluate_mean_rating(videos: Sequence[TVSumVideo]) -> Evaluation:
    """The mean rating itself against each rater: the ceiling for scores of any origin."""
    return evaluate_scores({video.key: _ratings(video)[:, video.picks].mean(axis=0) for video in videos}, videos)


def evaluate_features(
    features_by_video: Mapping[str, TimedFeatures],
    videos: Sequence[TVSumVideo],
    train_keys: Iterable[str],
    test_keys: Iterable[str],
    *,
    reach: int = 15,
    penalty: float = 100.0,
) -> Evaluation:
    """Ridge regression of the mean rating on the features' neighbourhoods; see evaluate_folds, of which this is one."""
    split = Split(tuple(train_keys), tuple(test_keys))
    return evaluate_folds(features_by_video, videos, [split], reach=reach, penalty=penalty)


def evaluate_folds(
    features_by_video: Mapping[str, TimedFeatures],
    videos: Sequence[TVSumVideo],
    splits: Sequence[Split],
    *,
    reach: int = 15,
    penalty: float = 100.0,
) -> Evaluation:
    """Ridge regression trained and tested on each split; a video tested in several splits counts with its average.

    Trained at the features' own times on the mean of the raters there, tested at the picks: each pick takes the score
    nearest in time, so features of any frame rate are compared under one protocol.

    Args:
        features_by_video: times (seconds) and features of every video that a split names.
        videos: the annotations.
        splits: which keys to train and to test on.
        reach: neighbourhood to either side, in steps of the features; see neighbourhood_features.
        penalty: of the squared weights; the intercept is free.
    Raises:
        ValueError: a split names a video that is not among `videos` and `features_by_video`, a key is in both lists,
            or times and features do not match.
    """
    known = {video.key: video for video in videos}
    needed = dict.fromkeys(key for split in splits for key in (*split.train, *split.test))
    missing = [key for key in needed if key not in known or key not in features_by_video]
    if missing:
        raise ValueError(
            f"evaluate_folds: splits must name videos with features and ratings, got {missing[:5]} without"
        )
    for split in splits:
        if not split.train or not split.test or set(split.train) & set(split.test):
            raise ValueError(f"evaluate_folds: splits must have separate train and test videos, got {split!r:.120}")
    inputs = {key: _checked(key, *features_by_video[key]) for key in needed}
    columns = {key: neighbourhood_features(features, reach) for key, (_, features) in inputs.items()}
    # A ridge needs only sums over rows; keeping them by video makes every further split nearly free.
    moments = {
        key: ridge_moments(columns[key], known[key].ratings_at(inputs[key][0]).mean(axis=0))
        for key in dict.fromkeys(key for split in splits for key in split.train)
    }
    tested: dict[str, list[VideoScore]] = {}
    for split in splits:
        weights = solve_ridge([moments[key] for key in split.train], penalty)
        for key in split.test:
            picked = scores_at_picks(inputs[key][0], columns[key] @ weights, known[key])
            tested.setdefault(key, []).append(evaluate_scores({key: picked}, [known[key]]).per_video[key])
    return Evaluation({video.key: average_scores(tested[video.key]) for video in videos if video.key in tested})


def every_fifth(videos: Sequence[TVSumVideo]) -> Split:
    """One fixed split for quick looks: keys whose number is a multiple of 5 are held out (TVSum: 40 and 10 videos)."""
    test = tuple(video.key for video in videos if int(video.key.removeprefix("video_")) % 5 == 0)
    return Split(tuple(video.key for video in videos if video.key not in test), test)


@dataclass(frozen=True)
class RidgeMoments:
    rows: float  # a fraction where videos are weighted
    target: float  # sum of the targets
    first: np.ndarray  # [F] sum of the rows
    cross: np.ndarray  # [F] sum of row * target
    second: np.ndarray  # [F, F] sum of outer products of the rows

    def counted_as(self, rows: float) -> RidgeMoments:
        """The same part with the weight of so many rows, so that videos count alike, long or short."""
        share = rows / self.rows
        return RidgeMoments(rows, share * self.target, share * self.first, share * self.cross, share * self.second)


def ridge_moments(rows: np.ndarray, target: np.ndarray) -> RidgeMoments:
    # float32 products of unit rows, float64 sums over videos: exact enough by far beside the penalty.
    return RidgeMoments(
        len(rows),
        float(target.sum(dtype=np.float64)),
        rows.sum(axis=0, dtype=np.float64),
        (rows.T @ target.astype(np.float32)).astype(np.float64),
        rows.T @ rows,
    )


def solve_ridge(parts: Iterable[RidgeMoments], penalty: float) -> np.ndarray:
    """Weights [F] of the parts' rows together; one part at a time is kept, of large sets there are thousands."""
    left = iter(parts)
    part = next(left)
    rows, target, first, cross = part.rows, part.target, part.first, part.cross
    second = part.second.astype(np.float64)
    for part in left:
        rows, target, first, cross = rows + part.rows, target + part.target, first + part.first, cross + part.cross
        second += part.second
    mean = first / rows
    second -= rows * np.outer(mean, mean)
    second[np.diag_indices_from(second)] += penalty
    return np.asarray(np.linalg.solve(second, cross - mean * target), dtype=np.float32)


def _checked(key: str, times: np.ndarray, features: np.ndarray) -> TimedFeatures:
    times, features = np.asarray(times, dtype=np.float64), np.asarray(features)
    if features.ndim != 2 or times.shape != features.shape[:1] or len(times) == 0 or np.any(np.diff(times) <= 0):
        raise ValueError(
            f"evaluate_folds: features_by_video[{key!r}] must be rising times [T] and features [T, C], "
            f"got {list(times.shape)} and {list(features.shape)}"
        )
    return times, features


def _ratings(video: TVSumVideo) -> np.ndarray:
    if video.user_scores is None:
        raise ValueError(f"baselines: video must have importance ratings, got {video.dataset} {video.key} without")
    return video.user_scores


def average_scores(scores: Sequence[VideoScore]) -> VideoScore:
    """Measure by measure."""
    return VideoScore(*(float(np.mean([getattr(score, name) for score in scores])) for name in ("tau", "rho", "f")))


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
