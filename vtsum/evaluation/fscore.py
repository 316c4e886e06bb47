"""Keyshot F-score: from scores to a 15 % summary of whole shots, and its overlap with each user's summary.

Source: Song et al., CVPR 2015; Zhang et al., ECCV 2016; the arithmetic follows the released code of the field to the
bit, with an exact knapsack over float values. Read it beside its baselines: on TVSum random scores reach 54.
"""

from __future__ import annotations

import numpy as np

from vtsum.data.tvsum import TVSumVideo
from vtsum.enhance.summary_refinement import select_shots

_MEAN = ("TVSum", "MrHiSum", "S-VideoXum")
"""Where F is the mean over users; SumMe takes the best."""
SUMMARY_SHARE = 0.15
"""Length of a summary as a share of the video's frames."""


def machine_summary(scores: np.ndarray, video: TVSumVideo, share: float = SUMMARY_SHARE) -> np.ndarray:
    """The frames a summary by `scores` keeps: bool [N].

    Each score holds from its pick to the next, a shot is worth the mean of its frames, and the shots of the greatest
    total worth that fit into int(share * N) frames are taken whole. A shot worth 0 or less is never taken, so scores
    should be 0 to 1.

    Args:
        scores: [P], one for each of `video.picks`.
        video: shots and number of frames come from here.
        share: 0 to 1.
    Raises:
        ValueError: wrong number of scores, a score that is not finite, or a share outside 0 to 1.
    """
    # float32 as in the released code: the mean of a shot, rounded, decides ties between shots.
    scores = np.asarray(scores, dtype=np.float32)
    if scores.shape != video.picks.shape:
        raise ValueError(f"machine_summary: scores must be [{len(video.picks)}], got {list(scores.shape)}")
    if not np.isfinite(scores).all():
        raise ValueError(f"machine_summary: scores must be finite, got {scores[~np.isfinite(scores)][0]}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"machine_summary: share must be 0 to 1, got {share}")
    per_frame = np.zeros(video.n_frames, dtype=np.float32)
    per_frame[video.picks[0] :] = np.repeat(scores, np.diff(np.append(video.picks, video.n_frames)))
    worth = [float(per_frame[first : last + 1].mean()) for first, last in video.change_points]
    kept = np.zeros(video.n_frames, dtype=bool)
    for shot in select_shots(worth, video.n_frame_per_seg, int(video.n_frames * share)):
        first, last = video.change_points[shot]
        kept[first : last + 1] = True
    return kept


def f_score(scores: np.ndarray, video: TVSumVideo) -> float:
    """F of the summary by `scores` [P] against the users' summaries: the best on SumMe, else their mean; 0 to 1.

    Raises:
        ValueError: as machine_summary.
    """
    return summary_f_score(machine_summary(scores, video), video.user_summary, video.dataset)


def summary_f_score(summary: np.ndarray, users: np.ndarray, dataset: str) -> float:
    """F of `summary` (bool [N]) against each row of `users` (bool [U, N]), joined as `dataset` is customarily.

    Raises:
        ValueError: shapes that do not match, or an unknown data set.
    """
    if summary.ndim != 1 or users.ndim != 2 or users.shape[1:] != summary.shape:
        raise ValueError(f"summary_f_score: users must be [U, {len(summary)}], got {list(users.shape)}")
    if dataset not in (*_MEAN, "SumMe"):
        raise ValueError(f"summary_f_score: dataset must be {', '.join(_MEAN)} or SumMe, got {dataset!r}")
    overlap = (users & summary).sum(axis=1)
    # The released code's guards against empty summaries, which also move F by 1e-12: kept to reproduce its records.
    precision = overlap / (summary.sum() + 1e-8)
    recall = overlap / (users.sum(axis=1) + 1e-8)
    total = precision + recall
    f = np.divide(2.0 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(f.mean() if dataset in _MEAN else f.max())
